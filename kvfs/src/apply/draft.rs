//! The changes of one record while they are being made: reads see them over the stack.

use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::schema::key::Parts;
use crate::schema::{DirentValue, Extent, FileKind, InodeValue, Key, Space, Value, WindowValue};
use crate::stack::{Change, ChangeList, View};
use bytes::Bytes;
use std::sync::Arc;

/// What a name stands for, as somebody has looked it up.
#[derive(Clone, Debug)]
pub struct KnownName {
    /// The directory.
    pub parent: Ino,
    /// The name.
    pub name: Bytes,
    /// `None` if there is no such name.
    pub dirent: Option<DirentValue>,
}

/// See the module. A record changes few keys: finding one among the changes by looking at each is quicker than a map.
pub struct Draft<'v> {
    view: View<'v>,
    /// Inodes as they are in the view, those that were asked for.
    loaded: Vec<(Ino, Arc<InodeValue>)>,
    names: &'v [KnownName],
    list: ChangeList,
}

impl<'v> Draft<'v> {
    /// Nothing changed yet.
    pub fn new(view: View<'v>) -> Self {
        Self::knowing(view, &[])
    }

    /// Nothing changed yet; what `names` stand for was looked up before, under locks that still hold.
    pub fn knowing(view: View<'v>, names: &'v [KnownName]) -> Self {
        Self { view, loaded: Vec::new(), names, list: ChangeList::default() }
    }

    /// What was changed.
    pub fn into_changes(self) -> ChangeList {
        self.list
    }

    /// What lies under the draft.
    pub fn view(&self) -> View<'v> {
        self.view
    }

    /// What this draft has put under `key` last.
    fn drafted(&self, key: &Key) -> Option<&Value> {
        self.list.changes.iter().rev().find_map(|change| match change {
            Change::Put(changed, value) if changed == key => Some(value),
            _ => None,
        })
    }

    /// An inode that must be there.
    pub fn inode(&mut self, ino: Ino) -> FsResult<InodeValue> {
        Ok(InodeValue::clone(&*self.shared_inode(ino)?.ok_or(FsError::NotFound)?))
    }

    fn shared_inode(&mut self, ino: Ino) -> FsResult<Option<Arc<InodeValue>>> {
        match self.drafted(&Key::inode(ino)) {
            Some(Value::Inode(inode)) => return Ok(Some(Arc::clone(inode))),
            Some(_) => return Ok(None),
            None => {}
        }
        if let Some((_, inode)) = self.loaded.iter().find(|(loaded, _)| *loaded == ino) {
            return Ok(Some(Arc::clone(inode)));
        }
        let found = self.view.inode(ino)?;
        self.loaded.extend(found.iter().map(|inode| (ino, Arc::clone(inode))));
        Ok(found)
    }

    /// A directory that must be there and not be removed.
    pub fn directory(&mut self, ino: Ino) -> FsResult<InodeValue> {
        let inode = self.inode(ino)?;
        if !inode.is_dir() {
            return Err(FsError::NotDirectory);
        }
        if inode.nlink == 0 { Err(FsError::NotFound) } else { Ok(inode) }
    }

    /// A name of a directory.
    pub fn dirent(&self, parent: Ino, name: &[u8]) -> FsResult<Option<DirentValue>> {
        match self.drafted(&Key::dirent(parent, name)) {
            Some(Value::Dirent(dirent)) => Ok(Some(*dirent)),
            Some(_) => Ok(None),
            None => match self.names.iter().find(|known| known.parent == parent && known.name == name) {
                Some(known) => Ok(known.dirent),
                None => self.view.dirent(parent, name),
            },
        }
    }

    /// A window of a file. A draft never cuts and then reads behind its own cut.
    pub fn window(&self, ino: Ino, window: u64) -> FsResult<Arc<WindowValue>> {
        let key = Key::window(ino, window);
        let last = self.list.changes.iter().rposition(|change| matches!(change, Change::Put(put, _) if *put == key));
        let mut value = match last.and_then(|at| self.list.changes.get(at)) {
            Some(Change::Put(_, Value::Window(value))) => Arc::clone(value),
            Some(_) => Arc::default(),
            None => self.view.window(ino, window)?,
        };
        for change in self.list.changes.iter().skip(last.map_or(0, |at| at + 1)) {
            if let Change::Splice { key: spliced, from, to, new } = change
                && *spliced == key
            {
                Arc::make_mut(&mut value).splice(*from, *to, new.clone());
            }
        }
        Ok(value)
    }

    /// Replaces `[from, to)` of a window, which is not empty, by `new`, which fills it, or by a hole. Answers by how much
    /// that changes the bytes in extents.
    ///
    /// A window that the memory tier has, the usual case of many small writes, is changed there, in its place: the change
    /// carries the difference alone.
    pub fn splice(&mut self, ino: Ino, window: u64, range: (u32, u32), new: Option<Extent>) -> FsResult<i64> {
        let ((from, to), key) = (range, Key::window(ino, window));
        let stored = |value: &WindowValue| {
            let after = if new.is_some() { u64::from(to - from) } else { 0 };
            after as i64 - value.stored_bytes_in(from, to) as i64
        };
        let first_touch = !self.list.changes.iter().any(|change| match change {
            Change::Put(changed, _) | Change::Splice { key: changed, .. } => *changed == key,
            Change::Cut(..) | Change::Wipe(_) => false,
        });
        if first_touch && let Some(delta) = self.view.active_window(&key, stored) {
            self.list.changes.push(Change::Splice { key, from, to, new });
            return Ok(delta);
        }
        let mut value = self.window(ino, window)?;
        let delta = stored(&value);
        Arc::make_mut(&mut value).splice(from, to, new);
        self.put_window(ino, window, value);
        Ok(delta)
    }

    /// Whether an extended attribute is there.
    pub fn has_xattr(&self, ino: Ino, name: &[u8]) -> FsResult<bool> {
        match self.drafted(&Key::xattr(ino, name)) {
            Some(value) => Ok(*value != Value::Tombstone),
            None => Ok(self.view.xattr(ino, name)?.is_some()),
        }
    }

    /// Whether a directory has no names.
    pub fn is_empty_dir(&self, ino: Ino) -> FsResult<bool> {
        let first = Key::first_of(ino, Space::Dirent);
        Ok(self.view.scan(ino, Space::Dirent, &first, 1)?.is_empty())
    }

    /// The windows of `[first, end)` that have extents, without what this draft has changed.
    pub fn windows(&self, ino: Ino, first: u64, end: u64) -> FsResult<Vec<(u64, Arc<WindowValue>)>> {
        let mut windows = Vec::new();
        let range = (&Key::window(ino, first), &Key::window(ino, end));
        for (key, value) in self.view.scan_range(ino, range, usize::MAX)? {
            if let (Some(number), Value::Window(value)) = (Parts::parse(key.as_bytes()).and_then(|p| p.number()), value)
            {
                windows.push((number, value));
            }
        }
        Ok(windows)
    }

    fn put(&mut self, key: Key, value: Value) {
        self.list.changes.push(Change::Put(key, value));
    }

    /// Writes an inode; counts what it adds to the sums over the tree.
    pub fn put_inode(&mut self, ino: Ino, inode: InodeValue) -> FsResult<()> {
        let old = self.shared_inode(ino)?.as_deref().map_or((0, 0), counted);
        let new = counted(&inode);
        self.list.inodes += new.0 - old.0;
        self.list.bytes += new.1 - old.1;
        self.put(Key::inode(ino), Value::Inode(Arc::new(inode)));
        Ok(())
    }

    /// Writes an inode whose number was never used.
    pub fn put_new_inode(&mut self, ino: Ino, inode: InodeValue) {
        let new = counted(&inode);
        self.list.inodes += new.0;
        self.list.bytes += new.1;
        self.put(Key::inode(ino), Value::Inode(Arc::new(inode)));
    }

    /// Writes a name.
    pub fn put_dirent(&mut self, parent: Ino, name: &[u8], dirent: DirentValue) {
        self.put(Key::dirent(parent, name), Value::Dirent(dirent));
    }

    /// Removes a name.
    pub fn remove_dirent(&mut self, parent: Ino, name: &[u8]) {
        self.put(Key::dirent(parent, name), Value::Tombstone);
    }

    /// Writes the extents of a window; none at all make it a tombstone.
    pub fn put_window(&mut self, ino: Ino, window: u64, value: Arc<WindowValue>) {
        let value = if value.is_empty() { Value::Tombstone } else { Value::Window(value) };
        self.put(Key::window(ino, window), value);
    }

    /// Drops all windows at or behind `first`.
    pub fn cut(&mut self, ino: Ino, first: u64) {
        self.list.changes.push(Change::Cut(ino, first));
    }

    /// Writes or removes an extended attribute.
    pub fn put_xattr(&mut self, ino: Ino, name: &[u8], value: Value) {
        self.put(Key::xattr(ino, name), value);
    }

    /// Marks an inode without names.
    pub fn mark_orphan(&mut self, ino: Ino) {
        self.put(Key::orphan(ino), Value::Orphan);
    }

    /// Removes an inode without names, with all that it has.
    pub fn purge(&mut self, ino: Ino) {
        self.list.changes.push(Change::Wipe(ino));
        self.put(Key::orphan(ino), Value::Tombstone);
    }
}

/// What an inode adds to the sums over the tree: without names, nothing.
fn counted(inode: &InodeValue) -> (i64, i64) {
    match inode.kind {
        _ if inode.nlink == 0 => (0, 0),
        FileKind::Regular => (1, inode.size as i64),
        _ => (1, 0),
    }
}
