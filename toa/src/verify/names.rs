//! Names and the inodes that they stand for, joined by two ordered passes over temporary files.

use super::error::VerifyError;
use super::scratch::Scratch;
use super::sort::{Row, Sorter, number_at, read_row, short_at};
use kvfs::Ino;
use kvfs::schema::{DirentValue, FileKind, InodeValue};
use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, Write};

/// `inode u64 | directory u64 | hash of the name | kind u8`
const NAME_ROW: usize = 25;
/// `inode u64 | parent u64 | hash of the name | kind u8 | links u32`
const NODE_ROW: usize = 29;
/// Where the kind stands in both.
const KIND_AT: usize = 24;

/// An inode as the join needs it.
pub(super) struct NodeRow([u8; NODE_ROW]);

impl NodeRow {
    pub fn new(ino: Ino, inode: &InodeValue) -> Self {
        let row = Row::new()
            .with(&ino.0.to_be_bytes())
            .with(&inode.parent.0.to_be_bytes())
            .with(&hash_of(&inode.name))
            .with(&[code(inode.kind)])
            .with(&inode.nlink.to_be_bytes());
        Self(row.finish())
    }
}

/// What a directory's entry says, of one inode.
#[derive(Clone, Copy, Default)]
struct Named {
    count: u32,
    parent: u64,
    name: [u8; 8],
    other_kind: bool,
}

/// See the file's first line.
pub(super) struct Names<'s> {
    scratch: &'s Scratch,
    nodes: BufWriter<File>,
    names: Sorter<'s, NAME_ROW>,
}

impl<'s> Names<'s> {
    pub fn new(scratch: &'s Scratch) -> Result<Self, VerifyError> {
        Ok(Self { scratch, nodes: BufWriter::new(scratch.file()?), names: Sorter::new(scratch) })
    }

    /// An inode; they come in ascending order.
    pub fn node(&mut self, node: &NodeRow) -> Result<(), VerifyError> {
        self.nodes.write_all(&node.0).map_err(self.scratch.failed("write"))
    }

    /// An entry of a directory; in any order.
    pub fn name(&mut self, entry: DirentValue, directory: Ino, name: &[u8]) -> Result<(), VerifyError> {
        let row = Row::new()
            .with(&entry.ino.0.to_be_bytes())
            .with(&directory.0.to_be_bytes())
            .with(&hash_of(name))
            .with(&[code(entry.kind)]);
        self.names.push(row.finish())
    }

    /// Compares them; `add` hears what is wrong with which inode.
    pub fn check(self, add: &mut dyn FnMut(Ino, String)) -> Result<(), VerifyError> {
        let failed = |error| self.scratch.failed("read")(error);
        let mut nodes = self.nodes.into_inner().map_err(|error| failed(error.into_error()))?;
        nodes.rewind().map_err(failed)?;
        let mut nodes = BufReader::new(nodes);
        let mut names = self.names.finish()?;
        let mut name = names.next()?;
        let mut has_root = false;
        while let Some(node) = read_row::<NODE_ROW>(&mut nodes).map_err(failed)? {
            let ino = number_at(&node, 0);
            has_root |= ino == Ino::ROOT.0;
            while let Some(row) = name.filter(|row| number_at(row, 0) < ino) {
                dangles(&row, add);
                name = names.next()?;
            }
            let mut named = Named::default();
            while let Some(row) = name.filter(|row| number_at(row, 0) == ino) {
                named.count = named.count.saturating_add(1);
                named.parent = number_at(&row, 8);
                named.name = number_at(&row, 16).to_be_bytes();
                named.other_kind |= row.get(KIND_AT) != node.get(KIND_AT);
                name = names.next()?;
            }
            if let Some(what) = fault(&node, named) {
                add(Ino(ino), what);
            }
        }
        while let Some(row) = name {
            dangles(&row, add);
            name = names.next()?;
        }
        if !has_root {
            add(Ino::ROOT, "there is no root directory".to_owned());
        }
        Ok(())
    }
}

fn dangles(row: &[u8; NAME_ROW], add: &mut dyn FnMut(Ino, String)) {
    let directory = number_at(row, 8);
    add(Ino(number_at(row, 0)), format!("an entry of directory {directory} names it, and there is no such inode"));
}

/// What is wrong between an inode and its names.
fn fault(node: &[u8; NODE_ROW], named: Named) -> Option<String> {
    let (ino, links) = (number_at(node, 0), short_at(node, KIND_AT + 1));
    let is_directory = node.get(KIND_AT) == Some(&code(FileKind::Directory));
    if ino == Ino::ROOT.0 {
        let what = match (is_directory, named.count) {
            (false, _) => "the root is no directory",
            (true, 0) => return None,
            (true, _) => "the root is an entry of a directory",
        };
        return Some(what.to_owned());
    }
    if named.other_kind {
        return Some("an entry that names it says another kind of file".to_owned());
    }
    if !is_directory {
        return (named.count != links).then(|| format!("it has {} names and {links} links", named.count));
    }
    match named.count {
        1 if (named.parent, named.name) == (number_at(node, 8), number_at(node, 16).to_be_bytes()) => None,
        1 => Some(format!("it is an entry of directory {} and knows another parent or name", named.parent)),
        count => Some(format!("a directory with {count} names")),
    }
}

/// The first 8 bytes of BLAKE3: enough to tell accidents.
fn hash_of(name: &[u8]) -> [u8; 8] {
    blake3::hash(name).as_bytes().first_chunk().copied().unwrap_or_default()
}

fn code(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular => 1,
        FileKind::Directory => 2,
        FileKind::Symlink => 3,
        FileKind::Fifo => 4,
        FileKind::Socket => 5,
        FileKind::CharDevice => 6,
        FileKind::BlockDevice => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kvfs::schema::Time;

    fn inode(kind: FileKind, nlink: u32, parent: u64, name: &'static str) -> InodeValue {
        let time = Time::default();
        let (parent, name) = (Ino(parent), Bytes::from_static(name.as_bytes()));
        let (mode, uid, gid, rdev, size, stored, target) = (0o700, 0, 0, 0, 0, 0, Bytes::new());
        InodeValue {
            kind,
            mode,
            uid,
            gid,
            nlink,
            rdev,
            size,
            stored,
            atime: time,
            mtime: time,
            ctime: time,
            parent,
            name,
            target,
        }
    }

    fn faults(nodes: &[(u64, InodeValue)], entries: &[(u64, &str, u64, FileKind)]) -> Vec<(u64, String)> {
        let scratch = Scratch::temporary();
        let mut names = Names::new(&scratch).unwrap();
        for (ino, node) in nodes {
            names.node(&NodeRow::new(Ino(*ino), node)).unwrap();
        }
        for (directory, name, ino, kind) in entries {
            names.name(DirentValue { ino: Ino(*ino), kind: *kind }, Ino(*directory), name.as_bytes()).unwrap();
        }
        let mut found = Vec::new();
        names.check(&mut |ino, what| found.push((ino.0, what))).unwrap();
        found
    }

    use FileKind::{Directory, Fifo, Regular};

    #[test]
    fn every_disagreement_of_names_and_inodes_is_named() {
        let root = (1, inode(Directory, 3, 1, ""));
        let sub = (2, inode(Directory, 2, 1, "sub"));
        let file = (3, inode(Regular, 2, 2, "gone"));
        let nodes = [root.clone(), sub.clone(), file.clone()];
        let entries = [(1, "sub", 2, Directory), (2, "a", 3, Regular), (1, "b", 3, Regular)];
        assert_eq!(faults(&nodes, &entries), []);
        let one = |nodes: &[_], entries: &[_], ino: u64, part: &str| {
            let found = faults(nodes, entries);
            assert!(found.len() == 1 && found[0].0 == ino && found[0].1.contains(part), "{part}: {found:?}");
        };
        one(&nodes, &entries[..2], 3, "1 names and 2 links");
        one(&nodes, &entries[1..], 2, "0 names");
        one(&nodes, &[entries[0], entries[1], entries[2], (2, "loop", 2, Directory)], 2, "2 names");
        one(&nodes, &[(1, "other", 2, Directory), entries[1], entries[2]], 2, "another parent");
        one(&nodes, &[entries[0], entries[1], (1, "b", 3, Fifo)], 3, "another kind");
        one(&nodes, &[entries[0], entries[1], entries[2], (1, "x", 9, Fifo)], 9, "no such inode");
        one(&nodes, &[entries[0], entries[1], entries[2], (1, "x", 1, Directory)], 1, "the root is an entry");
        one(&[(1, inode(Regular, 1, 1, "")), sub.clone(), file.clone()], &entries, 1, "no directory");
        one(&[sub, file], &entries, 1, "no root");
    }
}
