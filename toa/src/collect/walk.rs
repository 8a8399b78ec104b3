//! The ordered pass over the changes, inode by inode.

use super::error::CollectError;
use super::links::Links;
use super::packer::Packer;
use super::paths::Paths;
use super::records::Pending;
use super::rows::{Row, Rows, View};
use super::usage::{PackChange, Usage, as_window};
use super::{CollectInput, Collected, PackSink, RecordSink};
use crate::pack::{Member, MemberKind};
use bytes::Bytes;
use kvfs::Ino;
use kvfs::schema::{BlobRef, FileKind, InodeValue, Key, Space, Value};
use lru::LruCache;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

/// Changed windows of an inode that are held in memory; those of a larger file are read twice.
const WINDOWS_HELD: usize = 256;
/// Local blobs kept while the extents that share them are read.
const BLOBS_CACHED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// See the file's first line.
pub(super) struct Walk<'a> {
    pub(super) input: CollectInput<'a>,
    pub(super) view: View<'a>,
    pub(super) packer: Packer<'a>,
    pub(super) usage: Usage<'a>,
    pub(super) paths: Paths<'a>,
    pub(super) links: Links,
    pub(super) blobs: LruCache<BlobRef, Bytes>,
    orphans: BTreeSet<Ino>,
}

/// What changed of one inode, its entries as a directory apart.
pub(super) struct Group {
    pub ino: Ino,
    pub inode: Option<Row>,
    pub cut: Option<Row>,
    pub windows: Windows,
    pub xattrs: Vec<Row>,
}

/// The changed windows of an inode.
pub(super) enum Windows {
    /// In memory.
    Held(Vec<Row>),
    /// Too many: to be scanned.
    Many,
}

impl Windows {
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Held(rows) if rows.is_empty())
    }
}

impl<'a> Walk<'a> {
    pub fn new(input: CollectInput<'a>, sink: &'a mut dyn PackSink, out: &'a mut dyn RecordSink) -> Self {
        let view = View::new(&input);
        Self {
            view,
            packer: Packer::new(&input, sink, out),
            usage: Usage::new(view, input.pins),
            paths: Paths::new(view),
            links: Links::default(),
            blobs: LruCache::new(BLOBS_CACHED),
            orphans: BTreeSet::new(),
            input,
        }
    }

    pub fn run(mut self) -> Result<Collected, CollectError> {
        let mut rows = self.view.changed(Key::orphan(Ino(0)), Key::end_of_inode(Ino(u64::MAX)));
        while let Some(row) = rows.peek()? {
            let parts = row.parts()?;
            match parts.space {
                Space::Orphan | Space::Pack | Space::PackUsers | Space::Dirent => {
                    let Some(row) = rows.next()? else { break };
                    self.lone_row(row)?;
                }
                Space::Inode | Space::Cut | Space::Window | Space::Xattr => {
                    let ino = parts.ino;
                    let group = Group::read(ino, &mut rows)?;
                    self.group(group)?;
                }
            }
        }
        self.hard_links()?;
        self.packer.stage()?;
        self.settle()
    }

    fn lone_row(&mut self, row: Row) -> Result<(), CollectError> {
        let parts = row.parts()?;
        match parts.space {
            // Marks come first of all keys; they never leave this machine.
            Space::Orphan if !Value::is_tombstone(&row.value) => {
                self.orphans.extend(parts.number().map(Ino));
                Ok(())
            }
            Space::Dirent => {
                let ino = parts.ino;
                // Nobody else looks into it on its way out.
                if !matches!(row.decode()?.1, Value::Dirent(_) | Value::Tombstone) {
                    return Err(CollectError::Inconsistent(format!("a name in {ino} holds another kind of value")));
                }
                self.pass(ino, row)
            }
            Space::Pack | Space::PackUsers => {
                Err(CollectError::Inconsistent("a pack record among local changes".into()))
            }
            _ => Ok(()),
        }
    }

    /// Hands a record on as it is. A tombstone for what the base cannot have says nothing.
    pub(super) fn pass(&mut self, ino: Ino, row: Row) -> Result<(), CollectError> {
        if Value::is_tombstone(&row.value) && !self.view.is_old(ino) {
            return Ok(());
        }
        self.packer.record(row.key, Pending::Ready(row.value))
    }

    fn group(&mut self, mut group: Group) -> Result<(), CollectError> {
        let ino = group.ino;
        let inode = match group.inode.take() {
            Some(row) => match row.decode()? {
                (_, Value::Inode(inode)) if inode.nlink > 0 => {
                    self.pass(ino, row)?;
                    Some(inode)
                }
                (xid, Value::Inode(_) | Value::Tombstone) => {
                    self.gone(&group)?;
                    if self.view.base_get(&Key::inode(ino))?.is_none() {
                        // It was gone from the base before: the end of an open file shows in no snapshot.
                        return Ok(());
                    }
                    return self.pass(ino, Row { key: row.key, value: Value::Tombstone.encode(xid) });
                }
                _ => return Err(CollectError::Inconsistent(format!("inode {ino} holds another kind of value"))),
            },
            None => match self.view.get(&Key::inode(ino))? {
                Some(Value::Inode(inode)) if inode.nlink > 0 => Some(inode),
                _ => None,
            },
        };
        let Some(inode) = inode else { return Ok(()) };
        if let Some(cut) = group.cut.take_if(|_| self.view.is_old(ino)) {
            let key = cut.key.clone();
            self.packer.record(key, Pending::Ready(cut.value.clone()))?;
            group.cut = Some(cut);
        }
        if inode.kind == FileKind::Regular {
            self.file(&inode, &group)?;
        } else if self.is_new(ino)? {
            self.special(&inode, &group)?;
        }
        group.xattrs.into_iter().try_for_each(|row| self.pass(ino, row))
    }

    /// The inode is not part of the snapshot: its tombstone hides what the base has of it.
    fn gone(&mut self, group: &Group) -> Result<(), CollectError> {
        let marked = self.orphans.contains(&group.ino);
        if marked {
            let mut rows = WindowRows::new(self.view, group);
            while let Some(row) = rows.next()? {
                if let Some((_, window)) = as_window(&row)? {
                    self.usage.pin(&window);
                }
            }
        }
        if !self.view.is_old(group.ino) {
            return Ok(());
        }
        self.usage.each_in_base(group.ino, 0, |usage, _, window| {
            usage.drop_window(&window);
            if marked {
                usage.pin(&window);
            }
        })
    }

    pub(super) fn is_new(&self, ino: Ino) -> Result<bool, CollectError> {
        Ok(!self.view.is_old(ino) || self.view.base_get(&Key::inode(ino))?.is_none())
    }

    /// A new inode without bytes gets its headers, so that plain tar restores it.
    fn special(&mut self, inode: &InodeValue, group: &Group) -> Result<(), CollectError> {
        let kind = match inode.kind {
            FileKind::Directory => MemberKind::Directory,
            FileKind::Symlink => MemberKind::Symlink { target: inode.target.to_vec() },
            FileKind::Fifo => MemberKind::Fifo,
            FileKind::CharDevice => MemberKind::CharDevice { rdev: inode.rdev },
            FileKind::BlockDevice => MemberKind::BlockDevice { rdev: inode.rdev },
            // Tar has no sockets: they are in the index alone.
            FileKind::Socket | FileKind::Regular => return Ok(()),
        };
        let member = self.named_member(inode, group, kind)?;
        self.packer.bare(&member)
    }

    /// The member of an inode under one of its names. Where the known name is gone, and for further names, the links
    /// follow at the end.
    pub(super) fn named_member(
        &mut self,
        inode: &InodeValue,
        group: &Group,
        kind: MemberKind,
    ) -> Result<Member, CollectError> {
        let ino = group.ino;
        let known = self.paths.by_hint(ino, inode)?;
        let nameless = known.is_none();
        let member = Member {
            path: known.unwrap_or_else(|| format!(".cbfs/inode/{ino}").into_bytes()),
            kind,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            mtime: inode.mtime,
            xattrs: self.xattrs(group)?,
            ino,
        };
        if nameless || (inode.nlink > 1 && !inode.is_dir()) {
            self.links.expect(&member);
        }
        Ok(member)
    }

    fn xattrs(&self, group: &Group) -> Result<Vec<(Vec<u8>, Bytes)>, CollectError> {
        let mut all = BTreeMap::new();
        let mut apply = |row: &Row| -> Result<(), CollectError> {
            let name = row.parts()?.rest.to_vec();
            match row.decode()?.1 {
                Value::Xattr(value) => all.insert(name, value),
                _ => all.remove(&name),
            };
            Ok(())
        };
        if self.view.is_old(group.ino) {
            let first = Key::first_of(group.ino, Space::Xattr);
            let mut rows = self.view.in_base(first, Key::end_of(group.ino, Space::Xattr));
            while let Some(row) = rows.next()? {
                apply(&row)?;
            }
        }
        group.xattrs.iter().try_for_each(apply)?;
        Ok(all.into_iter().collect())
    }

    fn settle(mut self) -> Result<Collected, CollectError> {
        let xid = self.input.changes.xid();
        let mut packs_dead = Vec::new();
        let settled = self.usage.settle(self.packer.packs(), self.input.limits.packs_dead_max)?;
        for (number, change) in settled.packs {
            let value = match change {
                PackChange::Record(value) => Value::Pack(value),
                PackChange::Dead(dead) => {
                    packs_dead.push(dead);
                    Value::Tombstone
                }
            };
            self.packer.record(Key::pack(number).into_bytes(), Pending::Ready(value.encode(xid)))?;
        }
        for (number, users) in settled.users {
            let value = users.map_or(Value::Tombstone, Value::PackUsers);
            self.packer.record(Key::pack_users(number).into_bytes(), Pending::Ready(value.encode(xid)))?;
        }
        let (packs, pack_end, records) = self.packer.finish()?;
        Ok(Collected { packs, pack_end, packs_dead, records })
    }
}

impl Group {
    /// Takes the records of `ino` up to its directory entries from `rows`.
    fn read(ino: Ino, rows: &mut Rows<'_>) -> Result<Self, CollectError> {
        let mut group = Self { ino, inode: None, cut: None, windows: Windows::Held(Vec::new()), xattrs: Vec::new() };
        loop {
            let space = match rows.peek()? {
                Some(row) => Some(row.parts()?).filter(|parts| parts.ino == ino).map(|parts| parts.space),
                None => None,
            };
            let Some(space) = space.filter(|space| *space < Space::Dirent) else { return Ok(group) };
            let Some(row) = rows.next()? else { return Ok(group) };
            match (space, &mut group.windows) {
                (Space::Inode, _) => group.inode = Some(row),
                (Space::Cut, _) => group.cut = Some(row),
                (Space::Window, Windows::Held(held)) if held.len() < WINDOWS_HELD => held.push(row),
                (Space::Window, windows) => {
                    *windows = Windows::Many;
                    rows.seek(&Key::end_of(ino, Space::Window));
                }
                _ => group.xattrs.push(row),
            }
        }
    }

    /// First window of the base that is dead; `u64::MAX` if none is.
    pub fn cut_at(&self) -> Result<u64, CollectError> {
        match &self.cut {
            Some(row) => match row.decode()?.1 {
                Value::Cut(first) => Ok(first),
                _ => Ok(u64::MAX),
            },
            None => Ok(u64::MAX),
        }
    }
}

/// The changed windows of a group in order, as often as needed.
pub(super) enum WindowRows<'g, 'a> {
    Held(std::slice::Iter<'g, Row>),
    Scan(Rows<'a>),
}

impl<'g, 'a> WindowRows<'g, 'a> {
    pub fn new(view: View<'a>, group: &'g Group) -> Self {
        match &group.windows {
            Windows::Held(rows) => Self::Held(rows.iter()),
            Windows::Many => Self::Scan(view.changed(Key::window(group.ino, 0), Key::end_of(group.ino, Space::Window))),
        }
    }

    pub fn next(&mut self) -> Result<Option<Row>, CollectError> {
        match self {
            Self::Held(rows) => Ok(rows.next().cloned()),
            Self::Scan(rows) => rows.next(),
        }
    }
}
