//! A filesystem in memory: the yardstick of the benchmarks, and the other side of the adapter's tests.
//!
//! It has the semantics of POSIX and nothing else: no journal, no disk. What a benchmark of it costs is the price of
//! FUSE; the difference to a real mount is the price of the engine.

mod content;
mod remote;
mod tree;

pub use remote::{Arrival, RemoteFs, Scope};

use bytes::Bytes;
use kvfs::fs::api::{Access, Attributes, Caller, DirEntry, FileSystem, FsStats, NewNode, SeekTarget};
use kvfs::op::{AllocateMode, AttributeChange, CopyRange, Privileges, RenameMode, XattrMode};
use kvfs::{FsError, FsResult, Ino};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tree::{Body, Tree, drop_privileges, now};

const XATTR_CAPABILITY: &[u8] = b"security.capability";
const SPACE_BYTES: u64 = 1 << 40;

/// A filesystem in memory.
pub struct NullFs {
    tree: RwLock<Tree>,
    read_only: AtomicBool,
    syncs: AtomicU64,
}

impl Default for NullFs {
    fn default() -> Self {
        Self { tree: RwLock::new(Tree::new()), read_only: AtomicBool::new(false), syncs: AtomicU64::new(0) }
    }
}

impl NullFs {
    /// Switches between master and slave.
    pub fn set_access(&self, access: Access) {
        self.read_only.store(access == Access::ReadOnly, Ordering::SeqCst);
    }

    /// Inodes that exist, unlinked ones included.
    pub fn inodes(&self) -> usize {
        self.read().inodes.len()
    }

    /// How often something was synced.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }

    fn read(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lock(&self) -> FsResult<RwLockWriteGuard<'_, Tree>> {
        match self.access() {
            Access::ReadWrite => Ok(self.tree.write().unwrap_or_else(PoisonError::into_inner)),
            Access::ReadOnly => Err(FsError::ReadOnly),
        }
    }
}

impl FileSystem for NullFs {
    fn access(&self) -> Access {
        if self.read_only.load(Ordering::SeqCst) { Access::ReadOnly } else { Access::ReadWrite }
    }

    fn lookup(&self, parent: Ino, name: &[u8]) -> FsResult<Attributes> {
        let tree = self.read();
        tree.attributes(tree.find(parent, name)?)
    }

    fn forgotten(&self, ino: Ino) {
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        if tree.inodes.get(&ino).is_some_and(|node| node.nlink == 0) {
            tree.inodes.remove(&ino);
        }
    }

    fn attributes(&self, ino: Ino) -> FsResult<Attributes> {
        self.read().attributes(ino)
    }

    fn set_attributes(&self, ino: Ino, change: &AttributeChange, privileges: Privileges) -> FsResult<Attributes> {
        let mut tree = self.write_lock()?;
        let node = tree.node_mut(ino)?;
        drop_privileges(node, privileges);
        node.mode = change.mode.unwrap_or(node.mode);
        node.uid = change.uid.unwrap_or(node.uid);
        node.gid = change.gid.unwrap_or(node.gid);
        node.ctime = now();
        if let Some(size) = change.size {
            node.file_mut()?.resize(size);
            node.mtime = node.ctime;
        }
        node.atime = change.atime.unwrap_or(node.atime);
        node.mtime = change.mtime.unwrap_or(node.mtime);
        tree.attributes(ino)
    }

    fn make(&self, caller: Caller, parent: Ino, name: &[u8], node: &NewNode<'_>) -> FsResult<Attributes> {
        self.write_lock()?.make(caller, parent, name, node)
    }

    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> FsResult<Attributes> {
        let mut tree = self.write_lock()?;
        if matches!(tree.node(ino)?.body, Body::Directory { .. }) {
            return Err(FsError::NotPermitted);
        }
        tree.insert(parent, name, ino)?;
        let node = tree.node_mut(ino)?;
        node.nlink += 1;
        node.ctime = now();
        tree.attributes(ino)
    }

    fn unlink(&self, parent: Ino, name: &[u8]) -> FsResult<()> {
        self.write_lock()?.unlink(parent, name)
    }

    fn rmdir(&self, parent: Ino, name: &[u8]) -> FsResult<()> {
        self.write_lock()?.rmdir(parent, name)
    }

    fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> FsResult<()> {
        self.write_lock()?.rename(from, to, mode)
    }

    fn read_link(&self, ino: Ino) -> FsResult<Bytes> {
        match &self.read().node(ino)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(FsError::Invalid),
        }
    }

    fn read(&self, ino: Ino, offset: u64, len: u32) -> FsResult<Bytes> {
        Ok(NullFs::read(self).node(ino)?.file()?.read(offset, len))
    }

    fn write(&self, ino: Ino, offset: u64, data: &[u8], privileges: Privileges) -> FsResult<u32> {
        let mut tree = self.write_lock()?;
        let node = tree.node_mut(ino)?;
        node.file_mut()?.write(offset, data);
        node.mtime = now();
        node.ctime = node.mtime;
        drop_privileges(node, privileges);
        u32::try_from(data.len()).map_err(|_| FsError::Invalid)
    }

    fn copy_range(&self, range: &CopyRange, privileges: Privileges) -> FsResult<u64> {
        let len = u32::try_from(range.len).unwrap_or(u32::MAX);
        let data = NullFs::read(self).node(range.from)?.file()?.read(range.from_offset, len);
        self.write(range.to, range.to_offset, &data, privileges).map(u64::from)
    }

    fn allocate(&self, ino: Ino, offset: u64, len: u64, mode: AllocateMode, privileges: Privileges) -> FsResult<()> {
        let mut tree = self.write_lock()?;
        let node = tree.node_mut(ino)?;
        let file = node.file_mut()?;
        let end = offset.checked_add(len).ok_or(FsError::FileTooLarge)?;
        if matches!(mode, AllocateMode::PunchHole | AllocateMode::ZeroRange | AllocateMode::ZeroRangeKeepSize) {
            file.erase(offset, end);
        }
        if matches!(mode, AllocateMode::Extend | AllocateMode::ZeroRange) {
            file.resize(file.len().max(end));
        }
        node.mtime = now();
        node.ctime = node.mtime;
        drop_privileges(node, privileges);
        Ok(())
    }

    fn seek(&self, ino: Ino, offset: u64, target: SeekTarget) -> FsResult<u64> {
        NullFs::read(self).node(ino)?.file()?.seek(offset, target).ok_or(FsError::NoSuchAddress)
    }

    fn sync(&self, _ino: Ino) -> FsResult<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn read_dir(&self, ino: Ino, after: Option<&[u8]>, max: usize) -> FsResult<Vec<DirEntry>> {
        let tree = NullFs::read(self);
        let Body::Directory { names, parent } = &tree.node(ino)?.body else { return Err(FsError::NotDirectory) };
        let dots = [(&b"."[..], ino), (&b".."[..], *parent)];
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = names.range::<[u8], _>((from, Bound::Unbounded)).map(|(name, ino)| (name.as_slice(), *ino));
        let first = dots.into_iter().filter(|_| after.is_none());
        first.chain(rest).take(max).map(|(name, ino)| tree.dir_entry(name, ino)).collect()
    }

    fn get_xattr(&self, ino: Ino, name: &[u8]) -> FsResult<Bytes> {
        NullFs::read(self).node(ino)?.xattrs.get(name).cloned().ok_or(FsError::NoAttribute)
    }

    fn list_xattrs(&self, ino: Ino) -> FsResult<Vec<Vec<u8>>> {
        Ok(NullFs::read(self).node(ino)?.xattrs.keys().cloned().collect())
    }

    fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> FsResult<()> {
        if name.starts_with(b"system.") {
            return Err(FsError::Unsupported);
        }
        let mut tree = self.write_lock()?;
        let node = tree.node_mut(ino)?;
        match (mode, node.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(FsError::Exists),
            (XattrMode::Replace, false) => return Err(FsError::NoAttribute),
            _ => {}
        }
        node.xattrs.insert(name.to_vec(), Bytes::copy_from_slice(value));
        node.ctime = now();
        Ok(())
    }

    fn remove_xattr(&self, ino: Ino, name: &[u8]) -> FsResult<()> {
        let mut tree = self.write_lock()?;
        let node = tree.node_mut(ino)?;
        node.xattrs.remove(name).ok_or(FsError::NoAttribute)?;
        node.ctime = now();
        Ok(())
    }

    fn stats(&self) -> FsResult<FsStats> {
        let tree = NullFs::read(self);
        let inodes = tree.inodes.len() as u64;
        Ok(FsStats { total_bytes: SPACE_BYTES, free_bytes: SPACE_BYTES / 2, inodes })
    }
}
