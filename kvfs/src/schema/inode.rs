//! The inode record.

use crate::ids::Ino;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A point in time with nanoseconds; before 1970 `secs` is negative and `nanos` still counts forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Seconds since 1970, rounded down.
    pub secs: i64,
    /// 0..1_000_000_000
    pub nanos: u32,
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names of POSIX
pub enum FileKind {
    Regular,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl FileKind {
    /// The `S_IFMT` bits.
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::Regular => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
            Self::CharDevice => libc::S_IFCHR,
            Self::BlockDevice => libc::S_IFBLK,
        }
    }

    /// The kind in the `S_IFMT` bits of `mode`.
    pub fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => Self::Regular,
            libc::S_IFDIR => Self::Directory,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            libc::S_IFCHR => Self::CharDevice,
            libc::S_IFBLK => Self::BlockDevice,
            _ => return None,
        })
    }
}

/// Everything of a file but its names and its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InodeValue {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with suid, sgid, sticky (0o7777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Links; a directory counts its `.` and its subdirectories. 0 = unlinked, perhaps still open.
    pub nlink: u32,
    /// Device number of device nodes (the kernel's 32-bit encoding), else 0.
    pub rdev: u32,
    /// Bytes; of a symlink, the length of its target.
    pub size: u64,
    /// Bytes in extents, holes not counted.
    pub stored: u64,
    /// Last access as set by utimens or creation (mounts are noatime).
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// A directory that held this inode under `name` when last linked or renamed: for a directory the truth, for
    /// files with several links one of them, and possibly gone.
    pub parent: Ino,
    /// See `parent`.
    pub name: Bytes,
    /// Target of a symlink, else empty.
    pub target: Bytes,
}

impl InodeValue {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}
