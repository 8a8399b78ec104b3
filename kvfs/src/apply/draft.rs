//! The changes of one record while they are being made: reads see them over the stack.

use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::schema::key::Parts;
use crate::schema::{DirentValue, FileKind, InodeValue, Key, Space, Value, WindowValue};
use crate::stack::{Change, ChangeList, View};
use std::collections::HashMap;

/// See the module.
pub struct Draft<'v> {
    view: View<'v>,
    values: HashMap<Key, Value>,
    list: ChangeList,
}

impl<'v> Draft<'v> {
    /// Nothing changed yet.
    pub fn new(view: View<'v>) -> Self {
        Self { view, values: HashMap::new(), list: ChangeList::default() }
    }

    /// What was changed.
    pub fn into_changes(self) -> ChangeList {
        self.list
    }

    /// What lies under the draft.
    pub fn view(&self) -> View<'v> {
        self.view
    }

    /// An inode that must be there.
    pub fn inode(&self, ino: Ino) -> FsResult<InodeValue> {
        match self.values.get(&Key::inode(ino)) {
            Some(Value::Inode(inode)) => Ok(inode.clone()),
            Some(_) => Err(FsError::NotFound),
            None => self.view.inode(ino)?.ok_or(FsError::NotFound),
        }
    }

    /// A directory that must be there and not be removed.
    pub fn directory(&self, ino: Ino) -> FsResult<InodeValue> {
        let inode = self.inode(ino)?;
        if !inode.is_dir() {
            return Err(FsError::NotDirectory);
        }
        if inode.nlink == 0 { Err(FsError::NotFound) } else { Ok(inode) }
    }

    /// A name of a directory.
    pub fn dirent(&self, parent: Ino, name: &[u8]) -> FsResult<Option<DirentValue>> {
        match self.values.get(&Key::dirent(parent, name)) {
            Some(Value::Dirent(dirent)) => Ok(Some(*dirent)),
            Some(_) => Ok(None),
            None => self.view.dirent(parent, name),
        }
    }

    /// A window of a file. A draft never cuts and then reads behind its own cut.
    pub fn window(&self, ino: Ino, window: u64) -> FsResult<WindowValue> {
        match self.values.get(&Key::window(ino, window)) {
            Some(Value::Window(value)) => Ok(value.clone()),
            Some(_) => Ok(WindowValue::default()),
            None => self.view.window(ino, window),
        }
    }

    /// Whether an extended attribute is there.
    pub fn has_xattr(&self, ino: Ino, name: &[u8]) -> FsResult<bool> {
        match self.values.get(&Key::xattr(ino, name)) {
            Some(value) => Ok(*value != Value::Tombstone),
            None => Ok(self.view.xattr(ino, name)?.is_some()),
        }
    }

    /// Whether a directory has no names.
    pub fn is_empty_dir(&self, ino: Ino) -> FsResult<bool> {
        let first = Key::first_of(ino, Space::Dirent);
        Ok(self.view.scan(ino, Space::Dirent, &first, 1)?.is_empty())
    }

    /// The windows of `[first, end)` that have extents.
    pub fn windows(&self, ino: Ino, first: u64, end: u64) -> FsResult<Vec<(u64, WindowValue)>> {
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
        self.values.insert(key.clone(), value.clone());
        self.list.changes.push(Change::Put(key, value));
    }

    /// Writes an inode; counts what it adds to the sums over the tree.
    pub fn put_inode(&mut self, ino: Ino, inode: InodeValue) -> FsResult<()> {
        let old = match self.values.get(&Key::inode(ino)) {
            Some(Value::Inode(old)) => counted(old),
            Some(_) => (0, 0),
            None => self.view.inode(ino)?.as_ref().map_or((0, 0), counted),
        };
        let new = counted(&inode);
        self.list.inodes += new.0 - old.0;
        self.list.bytes += new.1 - old.1;
        self.put(Key::inode(ino), Value::Inode(inode));
        Ok(())
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
    pub fn put_window(&mut self, ino: Ino, window: u64, value: WindowValue) {
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
        self.values.insert(Key::inode(ino), Value::Tombstone);
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
