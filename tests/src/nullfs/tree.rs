//! Inodes and names in memory.

use super::XATTR_CAPABILITY;
use super::content::Content;
use bytes::Bytes;
use kvfs::fs::api::{Attributes, Caller, DirEntry, NewNode};
use kvfs::op::{Privileges, RenameMode};
use kvfs::schema::{FileKind, Time};
use kvfs::{FsError, FsResult, Ino};
use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) struct Tree {
    pub inodes: HashMap<Ino, Node>,
    last: Ino,
}

pub(super) struct Node {
    pub kind: FileKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub rdev: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub xattrs: BTreeMap<Vec<u8>, Bytes>,
    pub body: Body,
}

pub(super) enum Body {
    Regular(Content),
    Directory { names: BTreeMap<Vec<u8>, Ino>, parent: Ino },
    Symlink(Bytes),
    Special,
}

pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { secs: since.as_secs() as i64, nanos: since.subsec_nanos() }
}

pub(super) fn drop_privileges(node: &mut Node, privileges: Privileges) {
    if privileges == Privileges::Keep || node.kind == FileKind::Directory {
        return;
    }
    node.mode &= !libc::S_ISUID;
    if node.mode & libc::S_IXGRP != 0 {
        node.mode &= !libc::S_ISGID;
    }
    node.xattrs.remove(XATTR_CAPABILITY);
}

impl Node {
    fn new(caller: Caller, parent: Ino, node: &NewNode<'_>) -> Self {
        let (body, nlink) = match node.kind {
            FileKind::Regular => (Body::Regular(Content::default()), 1),
            FileKind::Directory => (Body::Directory { names: BTreeMap::new(), parent }, 2),
            FileKind::Symlink => (Body::Symlink(Bytes::copy_from_slice(node.target)), 1),
            _ => (Body::Special, 1),
        };
        let (time, NewNode { kind, mode, umask, rdev, .. }) = (now(), node);
        let (kind, mode, rdev, Caller { uid, gid }) = (*kind, *mode & !*umask, *rdev, caller);
        let xattrs = BTreeMap::new();
        Self { kind, mode, uid, gid, nlink, rdev, atime: time, mtime: time, ctime: time, xattrs, body }
    }

    pub(super) fn file(&self) -> FsResult<&Content> {
        match &self.body {
            Body::Regular(content) => Ok(content),
            Body::Directory { .. } => Err(FsError::IsDirectory),
            _ => Err(FsError::Invalid),
        }
    }

    pub(super) fn file_mut(&mut self) -> FsResult<&mut Content> {
        match &mut self.body {
            Body::Regular(content) => Ok(content),
            Body::Directory { .. } => Err(FsError::IsDirectory),
            _ => Err(FsError::Invalid),
        }
    }

    fn size(&self) -> u64 {
        match &self.body {
            Body::Regular(content) => content.len(),
            Body::Symlink(target) => target.len() as u64,
            Body::Directory { .. } | Body::Special => 0,
        }
    }
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = NewNode { kind: FileKind::Directory, mode: 0o755, umask: 0, rdev: 0, target: &[] };
        let owner = Caller { uid: 0, gid: 0 };
        let inodes = HashMap::from([(Ino::ROOT, Node::new(owner, Ino::ROOT, &root))]);
        Self { inodes, last: Ino::ROOT }
    }

    pub(super) fn node(&self, ino: Ino) -> FsResult<&Node> {
        self.inodes.get(&ino).ok_or(FsError::Stale)
    }

    pub(super) fn node_mut(&mut self, ino: Ino) -> FsResult<&mut Node> {
        self.inodes.get_mut(&ino).ok_or(FsError::Stale)
    }

    pub(super) fn attributes(&self, ino: Ino) -> FsResult<Attributes> {
        let node = self.node(ino)?;
        let stored = if let Body::Regular(content) = &node.body { content.stored() } else { 0 };
        Ok(Attributes {
            ino,
            kind: node.kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            nlink: node.nlink,
            rdev: node.rdev,
            size: node.size(),
            blocks: stored / 512,
            atime: node.atime,
            mtime: node.mtime,
            ctime: node.ctime,
        })
    }

    pub(super) fn dir_entry(&self, name: &[u8], ino: Ino) -> FsResult<DirEntry> {
        Ok(DirEntry { ino, kind: self.node(ino)?.kind, name: name.to_vec() })
    }

    fn names(&self, ino: Ino) -> FsResult<&BTreeMap<Vec<u8>, Ino>> {
        match &self.node(ino)?.body {
            Body::Directory { names, .. } => Ok(names),
            _ => Err(FsError::NotDirectory),
        }
    }

    /// The names of a directory that changes now.
    fn names_mut(&mut self, ino: Ino) -> FsResult<&mut BTreeMap<Vec<u8>, Ino>> {
        let node = self.node_mut(ino)?;
        node.mtime = now();
        node.ctime = node.mtime;
        match &mut node.body {
            Body::Directory { names, .. } => Ok(names),
            _ => Err(FsError::NotDirectory),
        }
    }

    pub(super) fn find(&self, parent: Ino, name: &[u8]) -> FsResult<Ino> {
        self.names(parent)?.get(name).copied().ok_or(FsError::NotFound)
    }

    /// A name for an inode in a living directory.
    pub(super) fn insert(&mut self, parent: Ino, name: &[u8], ino: Ino) -> FsResult<()> {
        if self.names(parent)?.contains_key(name) {
            return Err(FsError::Exists);
        }
        if self.node(parent)?.nlink == 0 {
            return Err(FsError::NotFound);
        }
        self.names_mut(parent)?.insert(name.to_vec(), ino);
        Ok(())
    }

    pub(super) fn make(&mut self, caller: Caller, parent: Ino, name: &[u8], new: &NewNode<'_>) -> FsResult<Attributes> {
        let ino = self.last.next();
        let above = self.node(parent)?;
        let mut node = Node::new(caller, parent, new);
        if above.mode & libc::S_ISGID != 0 {
            node.gid = above.gid;
            node.mode |= if new.kind == FileKind::Directory { libc::S_ISGID } else { 0 };
        }
        self.insert(parent, name, ino)?;
        self.last = ino;
        if new.kind == FileKind::Directory {
            self.node_mut(parent)?.nlink += 1;
        }
        self.inodes.insert(ino, node);
        self.attributes(ino)
    }

    pub(super) fn unlink(&mut self, parent: Ino, name: &[u8]) -> FsResult<()> {
        let ino = self.find(parent, name)?;
        if self.node(ino)?.kind == FileKind::Directory {
            return Err(FsError::IsDirectory);
        }
        self.names_mut(parent)?.remove(name);
        let node = self.node_mut(ino)?;
        node.nlink -= 1;
        node.ctime = now();
        Ok(())
    }

    pub(super) fn rmdir(&mut self, parent: Ino, name: &[u8]) -> FsResult<()> {
        let ino = self.find(parent, name)?;
        if !self.names(ino)?.is_empty() {
            return Err(FsError::NotEmpty);
        }
        self.names_mut(parent)?.remove(name);
        self.node_mut(parent)?.nlink -= 1;
        self.node_mut(ino)?.nlink = 0;
        Ok(())
    }

    pub(super) fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> FsResult<()> {
        let moved = self.find(from.0, from.1)?;
        let target = self.find(to.0, to.1).ok();
        match (mode, target) {
            (RenameMode::Exchange, None) => return Err(FsError::NotFound),
            (RenameMode::NoReplace, Some(_)) => return Err(FsError::Exists),
            (_, Some(target)) if target == moved => return Ok(()),
            (RenameMode::Exchange, Some(target)) => {
                self.put(from.0, to.0, (from.1, target))?;
                return self.put(to.0, from.0, (to.1, moved));
            }
            (RenameMode::Replace, Some(target)) => self.clear_the_way(to, moved, target)?,
            (_, None) => {}
        }
        self.names_mut(from.0)?.remove(from.1);
        self.put(to.0, from.0, (to.1, moved))
    }

    /// Gives `entry` a place in `parent` and takes note of the move of a directory.
    fn put(&mut self, parent: Ino, before: Ino, entry: (&[u8], Ino)) -> FsResult<()> {
        self.names_mut(parent)?.insert(entry.0.to_vec(), entry.1);
        let node = self.node_mut(entry.1)?;
        node.ctime = now();
        if let Body::Directory { parent: up, .. } = &mut node.body {
            *up = parent;
            self.node_mut(before)?.nlink -= 1;
            self.node_mut(parent)?.nlink += 1;
        }
        Ok(())
    }

    fn clear_the_way(&mut self, to: (Ino, &[u8]), moved: Ino, target: Ino) -> FsResult<()> {
        let is_dir = |ino| Ok::<_, FsError>(self.node(ino)?.kind == FileKind::Directory);
        match (is_dir(moved)?, is_dir(target)?) {
            (true, false) => Err(FsError::NotDirectory),
            (false, true) => Err(FsError::IsDirectory),
            (true, true) => self.rmdir(to.0, to.1),
            (false, false) => self.unlink(to.0, to.1),
        }
    }
}
