//! What differs between two trees, in words.

use super::{Entry, Kind, Manifest};
use anyhow::{Result, bail};
use std::fmt;

/// What counts as a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Everything, holes too.
    Exact,
    /// Everything but where the holes are: filesystems with other block sizes.
    AnyHoles,
    /// As [`Self::AnyHoles`], without extended attributes and times of directories and links: what plain tar restores.
    Archive,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The path, as bytes.
    pub path: Vec<u8>,
    /// In words.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.escape_ascii(), self.what)
    }
}

/// Differences that a message shows.
const SHOWN: usize = 20;

impl Manifest {
    /// All differences from `self` (expected) to `other` (found).
    pub fn differences(&self, other: &Manifest, compare: Compare) -> Vec<Difference> {
        let mut all = Vec::new();
        let mut add = |path: &[u8], what: String| all.push(Difference { path: path.to_vec(), what });
        for (path, expected) in &self.entries {
            match other.entries.get(path) {
                None => add(path, "missing".into()),
                Some(found) => entry_differences(expected, found, compare).into_iter().for_each(|what| add(path, what)),
            }
        }
        for path in other.entries.keys().filter(|path| !self.entries.contains_key(*path)) {
            add(path, "not expected".into());
        }
        all
    }

    /// An error that shows the first differences, if there are any.
    pub fn must_equal(&self, other: &Manifest, compare: Compare) -> Result<()> {
        let all = self.differences(other, compare);
        if all.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = all.iter().take(SHOWN).map(ToString::to_string).collect();
        bail!("{} differences:\n{}", all.len(), lines.join("\n"))
    }
}

fn entry_differences(expected: &Entry, found: &Entry, compare: Compare) -> Vec<String> {
    let mut all = kind_differences(&expected.kind, &found.kind, compare);
    let mut differ = |what: &str, expected: &dyn fmt::Display, found: &dyn fmt::Display| {
        all.push(format!("{what} {found} instead of {expected}"));
    };
    // Linux gives symbolic links no mode of their own.
    if expected.mode != found.mode && !matches!(expected.kind, Kind::Symlink(_)) {
        differ("mode", &format!("{:o}", expected.mode), &format!("{:o}", found.mode));
    }
    if expected.uid != found.uid {
        differ("uid", &expected.uid, &found.uid);
    }
    if expected.gid != found.gid {
        differ("gid", &expected.gid, &found.gid);
    }
    let timeless = compare == Compare::Archive && !matches!(expected.kind, Kind::File { .. });
    if expected.mtime != found.mtime && !timeless {
        differ("mtime", &show_time(expected.mtime), &show_time(found.mtime));
    }
    if expected.link_group != found.link_group {
        differ("linked with", &show_group(expected), &show_group(found));
    }
    if expected.xattrs != found.xattrs && compare != Compare::Archive {
        differ("xattrs", &show_xattrs(expected), &show_xattrs(found));
    }
    all
}

fn kind_differences(expected: &Kind, found: &Kind, compare: Compare) -> Vec<String> {
    let (Kind::File { size, hash, data }, Kind::File { size: size2, hash: hash2, data: data2 }) = (expected, found)
    else {
        return if expected == found {
            Vec::new()
        } else {
            vec![format!("{} instead of {}", show(found), show(expected))]
        };
    };
    let mut all = Vec::new();
    if size != size2 {
        all.push(format!("size {size2} instead of {size}"));
    }
    if hash != hash2 {
        all.push("other content".into());
    }
    if data != data2 && compare == Compare::Exact {
        all.push(format!("data at {data2:?} instead of {data:?}"));
    }
    all
}

fn show(kind: &Kind) -> String {
    match kind {
        Kind::File { .. } => "a file".into(),
        Kind::Directory => "a directory".into(),
        Kind::Symlink(target) => format!("a link to {:?}", target.escape_ascii().to_string()),
        Kind::Fifo => "a fifo".into(),
        Kind::Socket => "a socket".into(),
        Kind::CharDevice(number) => format!("character device {number:#x}"),
        Kind::BlockDevice(number) => format!("block device {number:#x}"),
    }
}

fn show_time((seconds, nanoseconds): (i64, i64)) -> String {
    format!("{seconds}+{nanoseconds}ns")
}

fn show_group(entry: &Entry) -> String {
    entry.link_group.as_ref().map_or("nothing".into(), |group| group.escape_ascii().to_string())
}

fn show_xattrs(entry: &Entry) -> String {
    let one = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        let head = &value[..value.len().min(16)];
        format!("{}={}({} bytes)", name.escape_ascii(), head.escape_ascii(), value.len())
    };
    format!("[{}]", entry.xattrs.iter().map(one).collect::<Vec<_>>().join(", "))
}
