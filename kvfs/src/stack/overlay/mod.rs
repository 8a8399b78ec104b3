//! The memory tier: 64 shards by inode, so that one writer does not stop all readers.

mod rows;

use super::tier::{Found, Tier};
use super::{Change, ChangeList, Stamped};
use crate::error::FsResult;
use crate::ids::{Ino, SegmentNo, Xid};
use crate::schema::{Extent, Key, Place, Space, Value, WindowValue};
use foldhash::fast::FixedState;
use parking_lot::{Mutex, RwLock};
use rows::Rows;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SHARDS: usize = 64;
/// Memory that an inode takes besides its rows, bytes, roughly.
const INODE_BYTES: u64 = 128;
/// Memory that a row takes besides what its value points to, bytes, roughly.
const ROW_BYTES: u64 = 112;

/// Inode numbers are ours: nobody can choose them to collide.
type Shard = HashMap<Ino, Rows, FixedState>;

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
                Change::Splice { key, from, to, new } => self.splice(key, xid, (*from, *to), new.as_ref()),
                Change::Cut(ino, first) => self.cut(*ino, *first, xid),
                Change::Wipe(ino) => self.wipe(*ino, xid),
            }
        }
    }

    /// All entries in key order.
    pub fn entries(&self) -> Vec<Found> {
        let shards: Vec<_> = self.shards.iter().map(RwLock::read).collect();
        let mut inodes: Vec<(Ino, &Rows)> =
            shards.iter().flat_map(|shard| shard.iter().map(|(ino, rows)| (*ino, rows))).collect();
        inodes.sort_unstable_by_key(|(ino, _)| *ino);
        let rows = inodes.into_iter().flat_map(|(ino, rows)| rows.range(&[], None).map(move |row| (ino, row)));
        rows.filter_map(|(ino, (tail, stamped))| Some((Key::of_tail(ino, tail)?, stamped.clone()))).collect()
    }

    fn shard(&self, ino: Ino) -> &RwLock<Shard> {
        // The multiplier spreads neighbouring numbers; any odd constant with mixed bits does.
        let at = (ino.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as usize;
        &self.shards[at % SHARDS]
    }

    fn put(&self, key: &Key, xid: Xid, value: &Value) {
        if let Value::Window(window) = value {
            self.note_segments(&window.extents);
        }
        let (ino, tail) = key.split();
        self.insert(&mut self.shard(ino).write(), ino, tail, (xid, value.clone()));
    }

    /// Changes a window in its place. Whoever made the change saw it in here, under the locks that still hold.
    fn splice(&self, key: &Key, xid: Xid, range: (u32, u32), new: Option<&Extent>) {
        self.note_segments(new);
        let (ino, tail) = key.split();
        let mut shard = self.shard(ino).write();
        let Some((stamp, Value::Window(window))) = shard.get_mut(&ino).and_then(|rows| rows.get_mut(tail)) else {
            debug_assert!(false, "a splice of a window that is not in memory");
            tracing::error!(%ino, "a change of a window that is not in memory is lost");
            return;
        };
        *stamp = xid;
        let grown = Arc::make_mut(window).splice(range.0, range.1, new.cloned());
        if grown >= 0 {
            self.bytes.fetch_add(grown.unsigned_abs(), Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(grown.unsigned_abs(), Ordering::Relaxed);
        }
    }

    fn note_segments<'e>(&self, extents: impl IntoIterator<Item = &'e Extent>) {
        let mut segments = None;
        for extent in extents {
            if let Place::Segment { blob, .. } = &extent.place {
                segments.get_or_insert_with(|| self.segments.lock()).insert(blob.segment);
            }
        }
    }

    /// Shows a window that is in here to `read`, without a copy.
    pub fn window<T>(&self, key: &Key, read: impl FnOnce(&WindowValue) -> T) -> Option<T> {
        let (ino, tail) = key.split();
        match self.shard(ino).read().get(&ino)?.get(tail)? {
            (_, Value::Window(window)) => Some(read(window)),
            _ => None,
        }
    }

    fn cut(&self, ino: Ino, first: u64, xid: Xid) {
        self.hiding.store(true, Ordering::Release);
        let mut shard = self.shard(ino).write();
        self.remove_range(&mut shard, ino, &Key::window(ino, first), &Key::end_of(ino, Space::Window));
        let key = Key::cut(ino);
        let first = match shard.get(&ino).and_then(|rows| rows.get(key.split().1)) {
            Some((_, Value::Cut(old))) => first.min(*old),
            _ => first,
        };
        self.insert(&mut shard, ino, key.split().1, (xid, Value::Cut(first)));
    }

    fn wipe(&self, ino: Ino, xid: Xid) {
        self.hiding.store(true, Ordering::Release);
        let mut shard = self.shard(ino).write();
        self.remove_range(&mut shard, ino, &Key::first_of(ino, Space::Cut), &Key::first_of(ino, Space::Dirent));
        self.insert(&mut shard, ino, Key::inode(ino).split().1, (xid, Value::Tombstone));
    }

    fn insert(&self, shard: &mut Shard, ino: Ino, tail: &[u8], stamped: Stamped) {
        self.touched.store(true, Ordering::Release);
        let mut grown = row_bytes(tail, &stamped);
        let rows = shard.entry(ino).or_insert_with(|| {
            grown += INODE_BYTES;
            Rows::default()
        });
        self.bytes.fetch_add(grown, Ordering::Relaxed);
        if let Some(old) = rows.insert(tail, stamped) {
            self.bytes.fetch_sub(row_bytes(tail, &old), Ordering::Relaxed);
        }
    }

    fn remove_range(&self, shard: &mut Shard, ino: Ino, from: &Key, end: &Key) {
        let Some(rows) = shard.get_mut(&ino) else { return };
        for (tail, old) in rows.remove_range(from.split().1, end.split().1) {
            self.bytes.fetch_sub(row_bytes(&tail, &old), Ordering::Relaxed);
        }
    }
}

/// Memory that a row takes, bytes, roughly.
fn row_bytes(tail: &[u8], stamped: &Stamped) -> u64 {
    let more = match &stamped.1 {
        Value::Window(window) => size_of::<WindowValue>() + window.memory_bytes(),
        Value::Xattr(value) => value.len(),
        Value::Inode(inode) => size_of_val(inode.as_ref()) + inode.name.len() + inode.target.len(),
        _ => 0,
    };
    ROW_BYTES + (tail.len() + more) as u64
}

impl Tier for Overlay {
    fn hides_any(&self) -> bool {
        self.hiding.load(Ordering::Acquire)
    }

    fn find(&self, key: &Key) -> FsResult<Option<Stamped>> {
        let (ino, tail) = key.split();
        Ok(self.shard(ino).read().get(&ino).and_then(|rows| rows.get(tail)).cloned())
    }

    fn collect(&self, from: &[u8], end: &[u8], limit: usize) -> FsResult<Vec<Found>> {
        // Ranges are always within one inode, except for a scan of orphan marks, which are all of inode 0.
        let Some((number, first)) = from.split_first_chunk::<8>() else { return Ok(Vec::new()) };
        let ino = Ino(u64::from_be_bytes(*number));
        let end = end.strip_prefix(number.as_slice());
        let shard = self.shard(ino).read();
        let Some(rows) = shard.get(&ino) else { return Ok(Vec::new()) };
        let found = rows.range(first, end).take(limit);
        Ok(found.filter_map(|(tail, stamped)| Some((Key::of_tail(ino, tail)?, stamped.clone()))).collect())
    }
}
