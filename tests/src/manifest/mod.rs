//! A tree written down, so that two trees can be compared to the last bit.

mod diff;
mod scan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use diff::{Compare, Difference};

/// Everything about the tree below a directory (the directory itself included, as the empty path), by path bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Path below the root → what is there.
    pub entries: BTreeMap<Vec<u8>, Entry>,
}

/// One name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is, with what only that has.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds (before 1970: negative) and nanoseconds.
    pub mtime: (i64, i64),
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same inode, if it has several names in the tree.
    pub link_group: Option<Vec<u8>>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// BLAKE3 over all 4 KiB blocks that are not zero, each with its offset.
        hash: [u8; 32],
        /// Ranges that SEEK_DATA finds, bytes.
        data: Vec<(u64, u64)>,
    },
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device and its number.
    CharDevice(u64),
    /// A block device and its number.
    BlockDevice(u64),
}

impl Manifest {
    /// Number of regular files.
    pub fn files(&self) -> usize {
        self.entries.values().filter(|entry| matches!(entry.kind, Kind::File { .. })).count()
    }

    /// The part below `prefix`, with paths relative to it; the directory itself becomes the root.
    pub fn below(&self, prefix: &str) -> Manifest {
        let strip = |path: &[u8]| -> Option<Vec<u8>> {
            let rest = path.strip_prefix(prefix.as_bytes())?;
            if rest.is_empty() { Some(Vec::new()) } else { rest.strip_prefix(b"/").map(<[u8]>::to_vec) }
        };
        let entries = self.entries.iter().filter_map(|(path, entry)| {
            let mut entry = entry.clone();
            entry.link_group = entry.link_group.and_then(|group| strip(&group));
            Some((strip(path)?, entry))
        });
        Manifest { entries: entries.collect() }
    }

    /// Without the names that `drop` says, for what an archive cannot keep.
    pub fn without(mut self, drop: impl Fn(&[u8], &Entry) -> bool) -> Manifest {
        self.entries.retain(|path, entry| !drop(path, entry));
        self
    }
}
