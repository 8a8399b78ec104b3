//! The operations of a filesystem as its front ends call them (FUSE; tests without a kernel).
//!
//! Names are raw bytes; a front end passes them as they come. An implementation never waits for the network: it answers
//! [`FsError::NotResident`](crate::FsError::NotResident), and the front end fetches on a thread that may wait, then
//! calls again. Permission checks (mode bits, sticky, ACLs) are the kernel's (`default_permissions`).

use crate::acl::{AclKind, AclSupport};
use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::op::{AllocateMode, AttributeChange, CopyRange, Privileges, RenameMode, XattrMode};
use crate::request::{DoneRequest, RequestId};
use crate::schema::{FileKind, Time};
use bytes::Bytes;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// What stat(2) shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Inode number.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with suid, sgid, sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Links.
    pub nlink: u32,
    /// Device number, or 0.
    pub rdev: u32,
    /// Length, bytes.
    pub size: u64,
    /// Space in extents, 512-byte units.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
}

/// One line of a directory listing; `.` and `..` included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// What it stands for.
    pub ino: Ino,
    /// Its kind.
    pub kind: FileKind,
    /// Its name.
    pub name: Vec<u8>,
}

/// What statfs(2) shows, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsStats {
    /// Size of the whole: what is used and what may still be written.
    pub total_bytes: u64,
    /// What may still be written.
    pub free_bytes: u64,
    /// Inodes in use.
    pub inodes: u64,
}

/// Something to make by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode<'a> {
    /// What.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Permission bits to take away, unless the directory has a default ACL.
    pub umask: u32,
    /// Device number of device nodes.
    pub rdev: u32,
    /// Target of a symlink, else empty.
    pub target: &'a [u8],
}

/// Whether sgid survives that a file gets an ACL: not if whoever gives it is neither root nor in the file's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sgid {
    /// It stays, if it was there.
    Keep,
    /// It goes.
    Drop,
}

/// Whether writing is possible now. Changes under a mount: promotion, deposition, poisoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A master.
    ReadWrite,
    /// A slave, a deposed master, or a filesystem that would lie if it went on.
    ReadOnly,
}

/// A mounted filesystem without its kernel. All methods may be called from several threads at once.
#[allow(missing_docs)] // the operations of FUSE, one to one; what differs is said
pub trait FileSystem: Send + Sync {
    fn access(&self) -> Access;
    fn lookup(&self, parent: Ino, name: &[u8]) -> FsResult<Attributes>;
    /// The kernel has forgotten the inode; the front end counts look-ups and calls at zero. An unlinked inode goes soon.
    fn forgotten(&self, ino: Ino);
    fn attributes(&self, ino: Ino) -> FsResult<Attributes>;
    fn set_attributes(&self, ino: Ino, change: &AttributeChange, privileges: Privileges) -> FsResult<Attributes>;
    fn make(&self, caller: Caller, parent: Ino, name: &[u8], node: &NewNode<'_>) -> FsResult<Attributes>;
    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> FsResult<Attributes>;
    fn unlink(&self, parent: Ino, name: &[u8]) -> FsResult<()>;
    fn rmdir(&self, parent: Ino, name: &[u8]) -> FsResult<()>;
    fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> FsResult<()>;
    fn read_link(&self, ino: Ino) -> FsResult<Bytes>;
    /// At most `len` bytes; shorter only at the end of the file.
    fn read(&self, ino: Ino, offset: u64, len: u32) -> FsResult<Bytes>;
    /// All of `data` or an error; returns the bytes written.
    fn write(&self, ino: Ino, offset: u64, data: &[u8], privileges: Privileges) -> FsResult<u32>;
    fn allocate(&self, ino: Ino, offset: u64, len: u64, mode: AllocateMode, privileges: Privileges) -> FsResult<()>;
    /// Shows bytes of one file in another, or in another part of it, without copying them; returns how many. Fewer than
    /// asked at the end of the source, and where one record would become too large.
    fn copy_range(&self, range: &CopyRange, privileges: Privileges) -> FsResult<u64>;
    /// `SEEK_DATA` and `SEEK_HOLE`.
    fn seek(&self, ino: Ino, offset: u64, target: SeekTarget) -> FsResult<u64>;
    /// Everything acknowledged so far survives power loss on return; the inode only names what the caller cares for.
    fn sync(&self, ino: Ino) -> FsResult<()>;
    /// The names of a directory after `after` (`None`: from the start, `.` and `..` first), in name order, at most `max`.
    fn read_dir(&self, ino: Ino, after: Option<&[u8]>, max: usize) -> FsResult<Vec<DirEntry>>;
    fn get_xattr(&self, ino: Ino, name: &[u8]) -> FsResult<Bytes>;
    fn list_xattrs(&self, ino: Ino) -> FsResult<Vec<Vec<u8>>>;
    fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> FsResult<()>;
    fn remove_xattr(&self, ino: Ino, name: &[u8]) -> FsResult<()>;
    /// Whether the kernel is to decide by ACLs. Never changes.
    fn acls(&self) -> AclSupport {
        AclSupport::Absent
    }
    /// setxattr of an ACL, mode and all.
    fn set_acl(&self, _ino: Ino, _kind: AclKind, _value: &[u8], _sgid: Sgid) -> FsResult<()> {
        Err(FsError::Unsupported)
    }
    fn stats(&self) -> FsResult<FsStats>;
    /// Whether an inode has lost its last name. Asked of whatever the kernel drops references of.
    fn is_nameless(&self, ino: Ino) -> bool {
        self.attributes(ino).is_ok_and(|attributes| attributes.nlink == 0)
    }
    /// Inodes without names that are kept because somebody may hold them.
    fn orphans(&self) -> Vec<Ino> {
        Vec::new()
    }
    /// What was done for a request already, by this process or one before it. Asked for requests that are sent again.
    fn done_request(&self, _id: RequestId) -> Option<DoneRequest> {
        None
    }
    /// Every request of process lives before `life` is answered: nobody will ask for them again.
    fn forget_requests_before(&self, _life: u32) {}
}

/// What lseek(2) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTarget {
    /// `SEEK_DATA`
    Data,
    /// `SEEK_HOLE`
    Hole,
}
