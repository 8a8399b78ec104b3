//! Files and names: as everybody sees them, as they are durable, and what lies between.

use super::fault::Faults;
use super::loss::Loss;
use libc::{EEXIST, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY};
use std::collections::{BTreeMap, HashMap};

/// An errno.
pub(super) type Errno = i32;
/// A node number of the kernel; never used again.
pub(super) type Node = u64;

pub(super) const ROOT: Node = 1;

/// The name of a life's directory in the root.
pub(super) fn life_name(life: u64) -> String {
    format!("life-{life}")
}

/// A change of a file that no sync has covered.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileState {
    /// As a reader sees it.
    pub cache: Vec<u8>,
    /// As it is on the disk for sure.
    pub durable: Vec<u8>,
    /// What makes the one of the other, in order.
    pub changes: Vec<Change>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct DirState {
    pub names: BTreeMap<Vec<u8>, Node>,
    /// As at the beginning of this life.
    pub first: BTreeMap<Vec<u8>, Node>,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    File(FileState),
    Dir(DirState),
}

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub body: Body,
    pub mode: u16,
    pub life: u64,
    pub parent: Node,
}

/// A change of names since the life began, in order over all directories.
#[derive(Clone, Debug)]
pub(super) struct NameOp {
    pub dirs: [Node; 2],
    pub kind: NameKind,
    /// A sync of its directory has covered it.
    pub synced: bool,
}

#[derive(Clone, Debug)]
pub(super) enum NameKind {
    Link(Vec<u8>, Node),
    Unlink(Vec<u8>),
    Rename(Vec<u8>, Vec<u8>),
}

/// Everything there is.
pub(super) struct Disk {
    pub inodes: HashMap<Node, Inode>,
    pub name_ops: Vec<NameOp>,
    pub faults: Faults,
    next: Node,
    life: u64,
    requests: u64,
    cut_at: Option<(u64, Loss)>,
}

impl Disk {
    pub(super) fn new() -> Self {
        let mut disk = Self {
            inodes: HashMap::new(),
            name_ops: Vec::new(),
            faults: Faults::default(),
            next: ROOT + 1,
            life: 0,
            requests: 0,
            cut_at: None,
        };
        let root = Inode { body: Body::Dir(DirState::default()), mode: 0o755, life: 0, parent: ROOT };
        disk.inodes.insert(ROOT, root);
        let first = disk.insert(Body::Dir(DirState::default()), 0o755, ROOT);
        disk.show_life(first);
        disk
    }

    pub(super) fn life(&self) -> u64 {
        self.life
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    pub(super) fn cut_at(&mut self, nth: u64, loss: Loss) {
        self.cut_at = Some((self.requests + nth, loss));
    }

    pub(super) fn power_on(&mut self) {
        let life = self.life;
        self.inodes.retain(|node, inode| *node == ROOT || inode.life == life);
        let shown = life_name(life).into_bytes();
        if let Some(Inode { body: Body::Dir(root), .. }) = self.inodes.get_mut(&ROOT) {
            root.names.retain(|name, _| *name == shown);
        }
        self.cut_at = None;
        self.requests = 0;
    }

    /// Counts a request of the life in use that changes or syncs something; the loss of power that is due before it.
    pub(super) fn count(&mut self) -> Option<Loss> {
        self.requests += 1;
        match &self.cut_at {
            Some((at, _)) if *at <= self.requests => self.cut_at.take().map(|(_, loss)| loss),
            _ => None,
        }
    }

    /// The next life begins with what remains of this one.
    pub(super) fn lose_power(&mut self, loss: &Loss) {
        let old = match self.inodes.get(&ROOT) {
            Some(Inode { body: Body::Dir(root), .. }) => root.names.get(life_name(self.life).as_bytes()).copied(),
            _ => None,
        };
        let remains = super::loss::remains(self, loss);
        self.life += 1;
        let top = match old {
            Some(old) => self.bring_over(old, ROOT, &remains),
            None => self.insert(Body::Dir(DirState::default()), 0o755, ROOT),
        };
        self.show_life(top);
        self.name_ops.clear();
    }

    /// Copies what remains of `old` and everything below it under new numbers.
    fn bring_over(&mut self, old: Node, parent: Node, remains: &HashMap<Node, Body>) -> Node {
        let mode = self.inodes.get(&old).map_or(0o755, |inode| inode.mode);
        match remains.get(&old) {
            Some(Body::Dir(dir)) => {
                let node = self.insert(Body::Dir(DirState::default()), mode, parent);
                let names: BTreeMap<_, _> = dir
                    .names
                    .iter()
                    .map(|(name, child)| (name.clone(), self.bring_over(*child, node, remains)))
                    .collect();
                if let Some(Inode { body: Body::Dir(dir), .. }) = self.inodes.get_mut(&node) {
                    dir.first.clone_from(&names);
                    dir.names = names;
                }
                node
            }
            Some(body) => self.insert(body.clone(), mode, parent),
            None => self.insert(Body::File(FileState::default()), mode, parent),
        }
    }

    fn show_life(&mut self, top: Node) {
        let name = life_name(self.life).into_bytes();
        if let Some(Inode { body: Body::Dir(root), .. }) = self.inodes.get_mut(&ROOT) {
            root.names.insert(name, top);
        }
    }

    fn insert(&mut self, body: Body, mode: u16, parent: Node) -> Node {
        let node = self.next;
        self.next += 1;
        self.inodes.insert(node, Inode { body, mode, life: self.life, parent });
        node
    }

    /// Whether it is part of the life in use.
    pub(super) fn is_current(&self, node: Node) -> bool {
        self.inodes.get(&node).is_some_and(|inode| inode.life == self.life && node != ROOT)
    }

    /// Its path below the life's directory, for plans and lies; without a name, that of its directory.
    pub(super) fn path(&self, node: Node) -> String {
        let mut parts = Vec::new();
        let mut at = node;
        while let Some(inode) = self.inodes.get(&at).filter(|_| at != ROOT) {
            let name = match self.inodes.get(&inode.parent) {
                Some(Inode { body: Body::Dir(dir), .. }) => {
                    dir.names.iter().find(|(_, child)| **child == at).map(|(name, _)| name.clone())
                }
                _ => None,
            };
            parts.push(String::from_utf8_lossy(&name.unwrap_or_default()).into_owned());
            at = inode.parent;
        }
        // The last one is the life's own name.
        parts.pop();
        parts.reverse();
        parts.join("/")
    }

    pub(super) fn dir(&self, node: Node) -> Result<&DirState, Errno> {
        match self.inodes.get(&node) {
            Some(Inode { body: Body::Dir(dir), .. }) => Ok(dir),
            Some(_) => Err(ENOTDIR),
            None => Err(ENOENT),
        }
    }

    fn dir_mut(&mut self, node: Node) -> Result<&mut DirState, Errno> {
        match self.inodes.get_mut(&node) {
            Some(Inode { body: Body::Dir(dir), .. }) => Ok(dir),
            Some(_) => Err(ENOTDIR),
            None => Err(ENOENT),
        }
    }

    pub(super) fn file_mut(&mut self, node: Node) -> Result<&mut FileState, Errno> {
        match self.inodes.get_mut(&node) {
            Some(Inode { body: Body::File(file), .. }) => Ok(file),
            Some(_) => Err(EISDIR),
            None => Err(ENOENT),
        }
    }

    pub(super) fn lookup(&self, parent: Node, name: &[u8]) -> Result<Node, Errno> {
        self.dir(parent)?.names.get(name).copied().ok_or(ENOENT)
    }

    fn log(&mut self, dirs: [Node; 2], kind: NameKind) {
        if dirs.iter().all(|dir| self.is_current(*dir)) {
            self.name_ops.push(NameOp { dirs, kind, synced: false });
        }
    }

    pub(super) fn make(&mut self, parent: Node, name: &[u8], body: Body, mode: u16) -> Result<Node, Errno> {
        if self.dir(parent)?.names.contains_key(name) {
            return Err(EEXIST);
        }
        let life = self.inodes.get(&parent).map_or(self.life, |inode| inode.life);
        let node = self.insert(body, mode, parent);
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.life = life;
        }
        self.dir_mut(parent)?.names.insert(name.to_vec(), node);
        self.log([parent; 2], NameKind::Link(name.to_vec(), node));
        Ok(node)
    }

    pub(super) fn unlink(&mut self, parent: Node, name: &[u8], want_dir: bool) -> Result<(), Errno> {
        let node = self.lookup(parent, name)?;
        match (self.dir(node), want_dir) {
            (Ok(dir), true) if !dir.names.is_empty() => return Err(ENOTEMPTY),
            (Ok(_), false) => return Err(EISDIR),
            (Err(_), true) => return Err(ENOTDIR),
            _ => {}
        }
        self.dir_mut(parent)?.names.remove(name);
        self.log([parent; 2], NameKind::Unlink(name.to_vec()));
        Ok(())
    }

    pub(super) fn rename(&mut self, from: (Node, &[u8]), to: (Node, &[u8])) -> Result<(), Errno> {
        let node = self.lookup(from.0, from.1)?;
        if let Ok(target) = self.lookup(to.0, to.1)
            && self.dir(target).is_ok_and(|dir| !dir.names.is_empty())
        {
            return Err(ENOTEMPTY);
        }
        self.dir_mut(from.0)?.names.remove(from.1);
        self.dir_mut(to.0)?.names.insert(to.1.to_vec(), node);
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.parent = to.0;
        }
        self.log([from.0, to.0], NameKind::Rename(from.1.to_vec(), to.1.to_vec()));
        Ok(())
    }

    /// Makes the names of `node` durable.
    pub(super) fn sync_dir(&mut self, node: Node) {
        self.name_ops.iter_mut().filter(|op| op.dirs.contains(&node)).for_each(|op| op.synced = true);
    }
}

impl FileState {
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.cache, offset, bytes);
        self.changes.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.cache.resize(len, 0);
        self.changes.push(Change::Resize(len));
    }

    pub(super) fn sync(&mut self) {
        for change in self.changes.drain(..) {
            match change {
                Change::Write { offset, bytes } => put(&mut self.durable, offset, &bytes),
                Change::Resize(len) => self.durable.resize(len, 0),
            }
        }
    }

    /// The disk did not take what was written: it will never be there, although the page cache still shows it. Its
    /// length stays, as on filesystems that had written it down before.
    pub(super) fn fail_sync(&mut self) {
        let len = self.cache.len();
        self.changes = vec![Change::Resize(len)];
        self.cache.clone_from(&self.durable);
        self.cache.resize(len, 0);
    }
}

/// Writes into a vector as into a file.
pub(super) fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(target) = bytes.get_mut(offset..end) {
        target.copy_from_slice(written);
    }
}
