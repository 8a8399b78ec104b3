//! Typed look-ups in a stack.

use super::tier::{BaseTier, Tier};
use super::{Tiers, merge_batch};
use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::schema::key::Parts;
use crate::schema::{DirentValue, InodeValue, Key, Space, Value, WindowValue};
use bytes::Bytes;
use std::sync::Arc;

/// Entries that are taken from a tier at a time at most.
const BATCH_MAX: usize = 4096;

/// Reads one [`Tiers`].
#[derive(Clone, Copy)]
pub struct View<'t> {
    tiers: &'t Tiers,
}

impl<'t> View<'t> {
    pub(super) fn new(tiers: &'t Tiers) -> Self {
        Self { tiers }
    }

    /// The live value of `key`.
    pub fn get(&self, key: &Key) -> FsResult<Option<Value>> {
        let Some(parts) = Parts::parse(key.as_bytes()) else { return Ok(None) };
        let base = BaseTier(self.tiers.base.as_ref());
        for tier in self.tiers.knowing(parts.subject(), &base) {
            if let Some((_, value)) = tier.find(key)? {
                return Ok(Some(value).filter(|value| *value != Value::Tombstone));
            }
            if parts.space == Space::Window && tier.hides(&parts)? {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// An inode, unlinked ones included.
    pub fn inode(&self, ino: Ino) -> FsResult<Option<Arc<InodeValue>>> {
        match self.get(&Key::inode(ino))? {
            None => Ok(None),
            Some(Value::Inode(inode)) => Ok(Some(inode)),
            Some(_) => Err(wrong_kind(ino, "inode")),
        }
    }

    /// A name of a directory.
    pub fn dirent(&self, parent: Ino, name: &[u8]) -> FsResult<Option<DirentValue>> {
        match self.get(&Key::dirent(parent, name))? {
            None => Ok(None),
            Some(Value::Dirent(dirent)) => Ok(Some(dirent)),
            Some(_) => Err(wrong_kind(parent, "directory entry")),
        }
    }

    /// The extents of a window; an absent one is all hole.
    pub fn window(&self, ino: Ino, window: u64) -> FsResult<Arc<WindowValue>> {
        match self.get(&Key::window(ino, window))? {
            None => Ok(Arc::default()),
            Some(Value::Window(value)) => Ok(value),
            Some(_) => Err(wrong_kind(ino, "window")),
        }
    }

    /// Shows a window to `read` if the memory that operations change has it.
    pub fn active_window<T>(&self, key: &Key, read: impl FnOnce(&WindowValue) -> T) -> Option<T> {
        self.tiers.active.as_ref()?.window(key, read)
    }

    /// An extended attribute.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> FsResult<Option<Bytes>> {
        match self.get(&Key::xattr(ino, name))? {
            None => Ok(None),
            Some(Value::Xattr(value)) => Ok(Some(value)),
            Some(_) => Err(wrong_kind(ino, "extended attribute")),
        }
    }

    /// The live entries of a space of an inode from the key `from` on, in order, at most `limit`.
    pub fn scan(&self, ino: Ino, space: Space, from: &Key, limit: usize) -> FsResult<Vec<(Key, Value)>> {
        self.scan_range(ino, (from, &Key::end_of(ino, space)), limit)
    }

    /// The live entries of an inode with keys in `[from, end)`, in order, at most `limit`.
    pub fn scan_range(&self, ino: Ino, range: (&Key, &Key), limit: usize) -> FsResult<Vec<(Key, Value)>> {
        let (from, end) = range;
        let base = BaseTier(self.tiers.base.as_ref());
        let known: Vec<&dyn Tier> = self.tiers.knowing(ino, &base).collect();
        let mut step = limit.saturating_add(8).clamp(16, BATCH_MAX);
        let mut live = Vec::new();
        let mut from = from.as_bytes().to_vec();
        loop {
            let batch = merge_batch(&known, &from, end.as_bytes(), step)?;
            for (key, (_, value)) in batch.entries {
                if value != Value::Tombstone {
                    live.push((key, value));
                }
            }
            match batch.next {
                Some(next) if live.len() < limit => {
                    from = next;
                    // Long runs of tombstones are not walked in small steps.
                    step = (step * 2).min(BATCH_MAX);
                }
                _ => break,
            }
        }
        live.truncate(limit);
        Ok(live)
    }
}

fn wrong_kind(ino: Ino, what: &str) -> FsError {
    FsError::corrupt(format!("inode {ino}: the value of its {what} is of another kind"))
}
