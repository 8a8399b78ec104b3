//! System calls in words that mean the same on both sides.

use rustix::fs::{AtFlags, FallocateFlags, FileType, OFlags, RenameFlags, XattrFlags};

/// A call and who makes it.
#[derive(Clone, Debug)]
pub struct Step {
    /// The caller.
    pub user: User,
    /// The call.
    pub action: Action,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// With every capability.
    Root,
    /// With none: user and group of this number, no further groups.
    Plain(u32),
}

/// A time that utimensat(2) sets.
#[derive(Clone, Copy, Debug)]
pub enum Stamp {
    /// `UTIME_NOW`
    Now,
    /// `UTIME_OMIT`
    Omit,
    /// Seconds and nanoseconds, far from now.
    At(i64, i64),
}

/// A system call. Paths are below the side's directory; open files are known by the number of a slot.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the arguments of the calls, by their names
pub enum Action {
    Mkdir { at: String, mode: u32 },
    Mknod { at: String, kind: FileType, mode: u32 },
    Symlink { at: String, target: String },
    Link { from: String, to: String, flags: AtFlags },
    Unlink { at: String },
    Rmdir { at: String },
    Rename { from: String, to: String, flags: RenameFlags },
    Stat { at: String, flags: AtFlags },
    ReadLink { at: String },
    List { at: String },
    Access { at: String, mode: u32 },
    Chmod { at: String, mode: u32 },
    Chown { at: String, uid: Option<u32>, gid: Option<u32>, flags: AtFlags },
    Times { at: String, atime: Stamp, mtime: Stamp, flags: AtFlags },
    SetXattr { at: String, name: &'static str, len: usize, flags: XattrFlags },
    GetXattr { at: String, name: &'static str, room: usize },
    ListXattrs { at: String },
    RemoveXattr { at: String, name: &'static str },
    Open { slot: usize, at: String, flags: OFlags, mode: u32 },
    Close { slot: usize },
    Write { slot: usize, offset: u64, len: usize, fill: u8 },
    Read { slot: usize, offset: u64, len: usize },
    Truncate { slot: usize, len: u64 },
    Allocate { slot: usize, flags: FallocateFlags, offset: u64, len: u64 },
    CopyRange { from: (usize, u64), to: (usize, u64), len: usize },
    Fstat { slot: usize },
    Fsync { slot: usize },
    Fchmod { slot: usize, mode: u32 },
    Ftimes { slot: usize, atime: Stamp, mtime: Stamp },
    Seek { slot: usize, offset: u64 },
}

impl Action {
    /// The paths that it names: shown by stat(2) afterwards, with the directories that they are in.
    pub fn paths(&self) -> Vec<&str> {
        match self {
            Self::Link { from, to, .. } | Self::Rename { from, to, .. } => vec![from, to],
            Self::Mkdir { at, .. }
            | Self::Mknod { at, .. }
            | Self::Symlink { at, .. }
            | Self::Unlink { at }
            | Self::Rmdir { at }
            | Self::Chmod { at, .. }
            | Self::Chown { at, .. }
            | Self::Times { at, .. }
            | Self::SetXattr { at, .. }
            | Self::RemoveXattr { at, .. }
            | Self::Open { at, .. } => vec![at],
            _ => Vec::new(),
        }
    }

    /// The open file that it changes.
    pub fn slot(&self) -> Option<usize> {
        match self {
            Self::Write { slot, .. }
            | Self::Truncate { slot, .. }
            | Self::Allocate { slot, .. }
            | Self::Fchmod { slot, .. }
            | Self::Ftimes { slot, .. } => Some(*slot),
            Self::CopyRange { to, .. } => Some(to.0),
            _ => None,
        }
    }
}
