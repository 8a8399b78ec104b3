//! The memory tier: 64 shards by inode, so that one writer does not stop all readers.

use super::tier::{Found, Tier};
use super::{Change, ChangeList, Stamped};
use crate::error::FsResult;
use crate::ids::{Ino, SegmentNo, Xid};
use crate::schema::key::Parts;
use crate::schema::{Extent, Key, Place, Space, Value};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SHARDS: usize = 64;
/// Memory that an entry takes besides its key and inline bytes, roughly.
const ENTRY_BYTES: u64 = 160;

type Shard = BTreeMap<Key, Stamped>;

/// What happened since the last checkpoint.
#[derive(Debug)]
pub struct Overlay {
    shards: Vec<RwLock<Shard>>,
    /// Segments that any extent in here ever named: grows only, so that a replay finds their bytes.
    segments: Mutex<BTreeSet<SegmentNo>>,
    bytes: AtomicU64,
    /// Something was put, even if it is gone again.
    touched: AtomicBool,
    /// It has a cut or an inode tombstone.
    hiding: AtomicBool,
}

impl Default for Overlay {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self {
            shards,
            segments: Mutex::default(),
            bytes: AtomicU64::new(0),
            touched: AtomicBool::new(false),
            hiding: AtomicBool::new(false),
        }
    }
}

impl Overlay {
    /// Memory in use, bytes, roughly.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether nothing was ever put.
    pub fn is_empty(&self) -> bool {
        !self.touched.load(Ordering::Acquire)
    }

    /// Segments that its extents name or named.
    pub fn segments(&self) -> Vec<SegmentNo> {
        self.segments.lock().iter().copied().collect()
    }

    /// Takes over the changes of record `xid`.
    pub fn apply(&self, list: &ChangeList, xid: Xid) {
        for change in &list.changes {
            match change {
                Change::Put(key, value) => self.put(key, xid, value),
                Change::Cut(ino, first) => self.cut(*ino, *first, xid),
                Change::Wipe(ino) => self.wipe(*ino, xid),
            }
        }
    }

    /// All entries of one shard in key order; shards are `0..Overlay::shard_count()`.
    pub fn shard_entries(&self, shard: usize) -> Vec<Found> {
        self.shards
            .get(shard)
            .map(|shard| shard.read().iter().map(|(k, v)| (k.clone(), v.clone())).collect())
            .unwrap_or_default()
    }

    /// See [`Overlay::shard_entries`].
    pub fn shard_count() -> usize {
        SHARDS
    }

    fn shard(&self, ino: Ino) -> &RwLock<Shard> {
        // The multiplier spreads neighbouring numbers; any odd constant with mixed bits does.
        let at = (ino.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as usize;
        &self.shards[at % SHARDS]
    }

    fn put(&self, key: &Key, xid: Xid, value: &Value) {
        let Some(parts) = Parts::parse(key.as_bytes()) else { return };
        if let Value::Window(window) = value {
            let mut segments = None;
            for extent in &window.extents {
                if let Place::Segment { blob, .. } = &extent.place {
                    segments.get_or_insert_with(|| self.segments.lock()).insert(blob.segment);
                }
            }
        }
        self.insert(&mut self.shard(parts.ino).write(), key.clone(), (xid, value.clone()));
    }

    fn cut(&self, ino: Ino, first: u64, xid: Xid) {
        self.hiding.store(true, Ordering::Release);
        let mut shard = self.shard(ino).write();
        self.remove_range(&mut shard, &Key::window(ino, first), &Key::end_of(ino, Space::Window));
        let first = match shard.get(&Key::cut(ino)) {
            Some((_, Value::Cut(old))) => first.min(*old),
            _ => first,
        };
        self.insert(&mut shard, Key::cut(ino), (xid, Value::Cut(first)));
    }

    fn wipe(&self, ino: Ino, xid: Xid) {
        self.hiding.store(true, Ordering::Release);
        let mut shard = self.shard(ino).write();
        self.remove_range(&mut shard, &Key::first_of(ino, Space::Cut), &Key::first_of(ino, Space::Dirent));
        self.insert(&mut shard, Key::inode(ino), (xid, Value::Tombstone));
    }

    fn insert(&self, shard: &mut Shard, key: Key, stamped: Stamped) {
        self.touched.store(true, Ordering::Release);
        self.bytes.fetch_add(entry_bytes(&key, &stamped), Ordering::Relaxed);
        let old = shard.get(&key).map_or(0, |old| entry_bytes(&key, old));
        self.bytes.fetch_sub(old, Ordering::Relaxed);
        shard.insert(key, stamped);
    }

    fn remove_range(&self, shard: &mut Shard, from: &Key, end: &Key) {
        let doomed: Vec<Key> = shard.range::<Key, _>(from..end).map(|(key, _)| key.clone()).collect();
        for key in doomed {
            if let Some(old) = shard.remove(&key) {
                self.bytes.fetch_sub(entry_bytes(&key, &old), Ordering::Relaxed);
            }
        }
    }
}

/// Memory that an entry takes, roughly.
fn entry_bytes(key: &Key, stamped: &Stamped) -> u64 {
    let more = match &stamped.1 {
        Value::Window(window) => window.extents.iter().map(extent_bytes).sum(),
        Value::Xattr(value) => value.len(),
        Value::Inode(inode) => inode.name.len() + inode.target.len(),
        _ => 0,
    };
    ENTRY_BYTES + (key.as_bytes().len() + more) as u64
}

fn extent_bytes(extent: &Extent) -> usize {
    let inline = if let Place::Inline(bytes) = &extent.place { bytes.len() } else { 0 };
    size_of::<Extent>() + inline
}

impl Tier for Overlay {
    fn hides_any(&self) -> bool {
        self.hiding.load(Ordering::Acquire)
    }

    fn find(&self, key: &Key) -> FsResult<Option<Stamped>> {
        let Some(parts) = Parts::parse(key.as_bytes()) else { return Ok(None) };
        Ok(self.shard(parts.ino).read().get(key).cloned())
    }

    fn collect(&self, from: &[u8], end: &[u8], limit: usize) -> FsResult<Vec<Found>> {
        let range = (Bound::Included(from), Bound::Excluded(end));
        let take = |shard: &RwLock<Shard>| -> Vec<Found> {
            let shard = shard.read();
            shard.range::<[u8], _>(range).take(limit).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        // Ranges are always within one inode, except for a scan of orphan marks, which are all of inode 0.
        let ino = from.first_chunk::<8>().map(|b| Ino(u64::from_be_bytes(*b)));
        Ok(ino.map(|ino| take(self.shard(ino))).unwrap_or_default())
    }
}
