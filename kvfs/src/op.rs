//! The logical operations of the journal.
//!
//! A record says what was asked, with every choice already made (inode numbers, times), so that applying it is one
//! deterministic function: live, in replay, and later on a standby. Where the bytes of a write are is kept apart from
//! what was written ([`Payload`]), so that a reader without our disk can use the stream.

use crate::ids::{Epoch, Ino};
use crate::request::{DoneRequest, Requested};
use crate::schema::{BlobRef, FileKind, FrameRef, Time};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One journal record, as serialised with postcard into the body of a journal frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it was asked: the time that it leaves on what it touches.
    pub time: Time,
    /// What was asked.
    pub op: Op,
    /// The bytes of a write.
    pub payload: Payload,
    /// Who asked, where doing it again would be wrong.
    pub requested: Option<Requested>,
}

impl Record {
    /// What whoever recovers must remember of it.
    pub fn done_request(&self) -> Option<DoneRequest> {
        let ino = match &self.op {
            Op::Make { inode, .. } | Op::MakeWithAcls { inode, .. } => Some(inode.ino),
            Op::Link { ino, .. } => Some(*ino),
            _ => None,
        };
        self.requested.map(|requested| DoneRequest { requested, ino })
    }
}

/// The bytes of a write, by value or by place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// The operation carries no bytes.
    #[default]
    None,
    /// In the record itself; at most [`INLINE_BYTES_MAX`].
    Inline(Bytes),
    /// In local data segments, in file order.
    Stored(Vec<BlobRef>),
}

/// Writes up to this length travel in their journal record.
pub const INLINE_BYTES_MAX: usize = 16 << 10;

/// What a rename does with an existing target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    /// Takes its place.
    Replace,
    /// `RENAME_NOREPLACE`: refuses.
    NoReplace,
    /// `RENAME_EXCHANGE`: swaps.
    Exchange,
}

/// What `fallocate` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllocateMode {
    /// Makes the file at least that long; reserves nothing.
    Extend,
    /// `FALLOC_FL_KEEP_SIZE`: reserves nothing, changes nothing but the times.
    KeepSize,
    /// `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`.
    PunchHole,
    /// `FALLOC_FL_ZERO_RANGE`: a hole, and the file at least that long.
    ZeroRange,
    /// `FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE`.
    ZeroRangeKeepSize,
}

/// Whether suid, sgid and file capabilities survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Privileges {
    /// They stay.
    Keep,
    /// They are dropped as write(2), truncate(2) and chown(2) do for the unprivileged.
    Drop,
}

/// What `setattr` changes; `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeChange {
    /// Permission bits with suid, sgid, sticky.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// New length, bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<Time>,
    /// Last change of the content.
    pub mtime: Option<Time>,
}

/// A new inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewInode {
    /// Its number, handed out before the record is written.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, as they are from now on.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group (inherited from a setgid directory where POSIX says so).
    pub gid: u32,
    /// Device number of device nodes.
    pub rdev: u32,
    /// Target of a symlink.
    pub target: Bytes,
}

/// A run of bytes of a file that another file, or another part of it, shows too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRange {
    /// The source.
    pub from: Ino,
    /// First byte in the source.
    pub from_offset: u64,
    /// The target.
    pub to: Ino,
    /// First byte in the target.
    pub to_offset: u64,
    /// How many bytes; all of them are within the source.
    pub len: u64,
}

/// Bytes of a file that lie in a pack and come back to this machine. What the file shows stays the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evacuation {
    /// The file.
    pub ino: Ino,
    /// First byte in the file.
    pub offset: u64,
    /// How many bytes; all of them in one window.
    pub len: u32,
    /// The frame that they are in.
    pub frame: FrameRef,
    /// First byte in the decompressed frame.
    pub within: u32,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The directory.
    pub parent: Ino,
    /// The name: 1..=255 bytes, no `/`, no NUL, not `.` or `..`.
    pub name: Bytes,
}

/// `setxattr` flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrMode {
    /// Either.
    Set,
    /// `XATTR_CREATE`.
    Create,
    /// `XATTR_REPLACE`.
    Replace,
}

/// A request for a snapshot: the whole of it, so that a restart forgets nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRequest {
    /// The snapshot's id, for ever.
    pub id: Uuid,
    /// A name that the user gave.
    pub name: Option<String>,
    /// Who asked.
    pub kind: SnapshotKind,
    /// The caller's idempotency key: the same key gives the same snapshot.
    pub key: Option<Uuid>,
    /// When it was asked; the instant that the snapshot shows.
    pub requested: Time,
}

/// Who asked for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// A person or a program, by name or not.
    User,
    /// The timer.
    Periodic,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// The first record of a new filesystem: its root directory.
    Root(NewInode),
    /// create, mknod, mkdir, symlink.
    Make {
        /// Where.
        at: Entry,
        /// What.
        inode: NewInode,
    },
    /// A further name for a file.
    Link {
        /// The file.
        ino: Ino,
        /// The name.
        at: Entry,
    },
    /// Removes a name of something that is not a directory.
    Unlink {
        /// The name.
        at: Entry,
    },
    /// Removes an empty directory.
    Rmdir {
        /// Its name.
        at: Entry,
    },
    /// Renames, replaces or swaps.
    Rename {
        /// The old name.
        from: Entry,
        /// The new name.
        to: Entry,
        /// What to do with an existing target.
        mode: RenameMode,
    },
    /// chmod, chown, truncate, utimens.
    SetAttributes {
        /// Of what.
        ino: Ino,
        /// The new values.
        change: AttributeChange,
        /// What becomes of suid and sgid.
        privileges: Privileges,
    },
    /// Writes the record's payload.
    Write {
        /// To what.
        ino: Ino,
        /// At which byte.
        offset: u64,
        /// How many bytes.
        len: u32,
        /// What becomes of suid and sgid.
        privileges: Privileges,
    },
    /// fallocate.
    Allocate {
        /// Of what.
        ino: Ino,
        /// From which byte.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// How.
        mode: AllocateMode,
        /// What becomes of suid and sgid.
        privileges: Privileges,
    },
    /// setxattr.
    SetXattr {
        /// Of what.
        ino: Ino,
        /// The whole name, namespace included.
        name: Bytes,
        /// The value.
        value: Bytes,
        /// The flags.
        mode: XattrMode,
    },
    /// removexattr.
    RemoveXattr {
        /// Of what.
        ino: Ino,
        /// The whole name.
        name: Bytes,
    },
    /// An unlinked inode that nobody holds any more, as earlier versions wrote it: [`Op::PurgeAll`] of one.
    Purge {
        /// Which.
        ino: Ino,
    },
    /// Seals the layer: everything before this record is in the snapshot, nothing behind it.
    Snapshot(SnapshotRequest),
    /// A reign begins: inode numbers come from this epoch from here on.
    Epoch {
        /// Its number.
        epoch: Epoch,
    },
    /// copy_file_range: the target shows the source's bytes and holes of this instant, from the same places.
    CopyRange {
        /// What is copied.
        range: CopyRange,
        /// What becomes of the target's suid and sgid.
        privileges: Privileges,
    },
    /// Unlinked inodes that nobody holds any more.
    PurgeAll {
        /// Which, each once.
        inos: Vec<Ino>,
    },
    /// The record's payload takes the place of the same bytes in a pack, where the file still shows them from there.
    Evacuate(Evacuation),
    /// [`Op::Make`] below a default ACL: what is new begins with ACLs, and its mode says the same.
    MakeWithAcls {
        /// Where.
        at: Entry,
        /// What.
        inode: NewInode,
        /// Attribute and value of each.
        acls: Vec<(Bytes, Bytes)>,
    },
    /// [`Op::SetAttributes`], and an ACL with it: mode and ACL never disagree.
    SetAcl {
        /// Of what.
        ino: Ino,
        /// The new values.
        change: AttributeChange,
        /// What becomes of suid and sgid.
        privileges: Privileges,
        /// The ACL's attribute.
        name: Bytes,
        /// Its value; without one there is no such ACL any more, if there was.
        value: Option<Bytes>,
    },
}
