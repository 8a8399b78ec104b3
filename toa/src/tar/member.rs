//! One member, as tar sees it.

use bytes::Bytes;
use kvfs::Ino;
use kvfs::schema::Time;

/// A member that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MemberError(pub(crate) &'static str);

/// Bytes `[offset, offset + len)` of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl Range {
    /// First byte behind it.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }
}

/// Everything that stands in a member's headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Path below the root, without a leading `/`; any bytes but NUL. The root itself is `.`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// Permission bits (0o7777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content; may lie before 1970.
    pub mtime: Time,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Bytes)>,
    /// The inode, kept as a comment for recovery.
    pub ino: Ino,
}

/// What a member is. A socket cannot be in a tar: it is in the index alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A file. Its data follow the header: the bytes of `ranges` in order; what is between them is a hole.
    File {
        /// Length of the file, bytes.
        size: u64,
        /// The parts that are not holes: ordered, not touching, none empty, within `size`; the length of all but the
        /// last is a multiple of 512, because GNU tar begins each on a block of its own and others do not.
        ranges: Vec<Range>,
    },
    /// Some bytes of a file that lives in several packs; `path` is `.cbfs/part/<ino>/<offset>`.
    Part {
        /// Number of bytes.
        len: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// A further name of an earlier member.
    HardLink {
        /// Path of that member.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// The kernel's 32-bit device number.
        rdev: u32,
    },
    /// A block device.
    BlockDevice {
        /// The kernel's 32-bit device number.
        rdev: u32,
    },
}

impl MemberKind {
    /// Bytes of data that follow the headers.
    pub fn data_bytes(&self) -> u64 {
        match self {
            Self::File { ranges, .. } => ranges.iter().map(|range| range.len).sum(),
            Self::Part { len } => *len,
            _ => 0,
        }
    }
}
