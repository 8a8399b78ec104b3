//! One checkpoint into a layer: one LMDB transaction.

use super::{Layer, LayerMeta, META_KEY, Seal};
use crate::base::Totals;
use crate::error::{FsError, FsResult};
use crate::ids::{Ino, SegmentNo, Xid};
use crate::request::DoneRequests;
use crate::schema::key::Parts;
use crate::schema::{Key, Place, Space, Value};
use heed::RwTxn;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::Ordering;

/// Up to where a checkpoint goes.
#[derive(Clone, Debug)]
pub struct CheckpointMark {
    /// The last record in it.
    pub applied: Xid,
    /// See [`LayerMeta::ino_end`].
    pub ino_end: Ino,
    /// See [`LayerMeta::totals`].
    pub totals: Totals,
    /// See [`LayerMeta::requests`].
    pub requests: DoneRequests,
    /// The layer ends here.
    pub seal: Option<Seal>,
}

impl LayerMeta {
    /// Where the layer is already: for a write that brings nothing new.
    pub fn mark(self) -> CheckpointMark {
        let Self { applied, ino_end, totals, requests, sealed, .. } = self;
        CheckpointMark { applied, ino_end, totals, requests, seal: sealed }
    }
}

/// A write transaction on the top layer. Begins and commits on one thread; dropped, it changed nothing.
pub struct CheckpointWriter<'l> {
    layer: &'l Layer,
    txn: RwTxn<'l>,
    /// Change of the number of extents that name a segment.
    live: BTreeMap<SegmentNo, i64>,
    floor: Ino,
    hiding: bool,
}

impl Layer {
    /// Begins a checkpoint.
    pub fn checkpoint(&self) -> FsResult<CheckpointWriter<'_>> {
        let txn = self.env.write_txn().map_err(|e| self.failed(&e))?;
        Ok(CheckpointWriter {
            layer: self,
            txn,
            live: BTreeMap::new(),
            floor: self.ino_floor(),
            hiding: self.is_hiding(),
        })
    }
}

impl CheckpointWriter<'_> {
    /// Puts one value; keys best come in order. A cut or an inode tombstone first takes what it hides out of this layer.
    pub fn put(&mut self, key: &Key, xid: Xid, value: &Value) -> FsResult<()> {
        let Some(parts) = Parts::parse(key.as_bytes()) else {
            return Err(FsError::corrupt("a key in memory is not of the schema"));
        };
        // Nothing below can know an inode that was born in this layer: no tombstone is needed to hide it.
        let born_here = parts.subject() >= self.floor;
        if parts.space == Space::Window {
            self.forget_old_window(key)?;
        }
        match value {
            Value::Tombstone if parts.space == Space::Inode => {
                self.delete_range(&Key::first_of(parts.ino, Space::Cut), &Key::first_of(parts.ino, Space::Dirent))?;
            }
            Value::Cut(first) => {
                self.delete_range(&Key::window(parts.ino, *first), &Key::end_of(parts.ino, Space::Window))?;
            }
            _ => {}
        }
        if born_here && matches!(value, Value::Tombstone | Value::Cut(_)) {
            return self.delete(key);
        }
        self.hiding |= matches!(value, Value::Cut(_)) || (*value == Value::Tombstone && parts.space == Space::Inode);
        if let Value::Cut(first) = value {
            let below = self.stored_cut(key)?.map_or(*first, |old| old.min(*first));
            return self.store(key, &Value::Cut(below).encode(xid));
        }
        self.count(value, 1);
        self.store(key, &value.encode(xid))
    }

    /// Commits: durable on return.
    pub fn commit(mut self, mark: CheckpointMark) -> FsResult<()> {
        let layer = self.layer;
        let fail = |e: heed::Error| layer.failed(&e);
        let mut live = layer.live.read().clone();
        for (segment, change) in std::mem::take(&mut self.live) {
            let count = live.get(&segment).copied().unwrap_or(0).saturating_add_signed(change);
            let row = segment.0.to_be_bytes();
            if count == 0 {
                live.remove(&segment);
                layer.live_table.delete(&mut self.txn, &row).map_err(fail)?;
            } else {
                live.insert(segment, count);
                layer.live_table.put(&mut self.txn, &row, &count.to_be_bytes()).map_err(fail)?;
            }
        }
        let CheckpointMark { applied, ino_end, totals, requests, seal } = mark;
        let hiding = self.hiding;
        let meta = LayerMeta { applied, ino_end, totals, hiding, requests, sealed: seal, ..layer.meta() };
        let bytes = postcard::to_stdvec(&meta).map_err(|e| FsError::io(format!("{}: {e}", layer.path.display())))?;
        layer.meta_table.put(&mut self.txn, META_KEY, &bytes).map_err(fail)?;
        self.txn.commit().map_err(fail)?;
        *layer.live.write() = live;
        layer.ino_end.store(meta.ino_end.0, Ordering::Release);
        *layer.meta.write() = meta;
        Ok(())
    }

    fn store(&mut self, key: &Key, bytes: &[u8]) -> FsResult<()> {
        self.layer.kv.put(&mut self.txn, key.as_bytes(), bytes).map_err(|e| self.layer.failed(&e))
    }

    fn delete(&mut self, key: &Key) -> FsResult<()> {
        self.layer.kv.delete(&mut self.txn, key.as_bytes()).map(|_| ()).map_err(|e| self.layer.failed(&e))
    }

    fn stored(&self, key: &Key) -> FsResult<Option<Value>> {
        let found = self.layer.kv.get(&self.txn, key.as_bytes()).map_err(|e| self.layer.failed(&e))?;
        found.map(|bytes| decode(self.layer, bytes)).transpose()
    }

    fn stored_cut(&self, key: &Key) -> FsResult<Option<u64>> {
        Ok(self.stored(key)?.and_then(|value| match value {
            Value::Cut(first) => Some(first),
            _ => None,
        }))
    }

    fn forget_old_window(&mut self, key: &Key) -> FsResult<()> {
        if let Some(old) = self.stored(key)? {
            self.count(&old, -1);
        }
        Ok(())
    }

    fn delete_range(&mut self, from: &Key, end: &Key) -> FsResult<()> {
        let range = (Bound::Included(from.as_bytes()), Bound::Excluded(end.as_bytes()));
        let mut named: BTreeMap<SegmentNo, i64> = BTreeMap::new();
        let mut found = false;
        for row in self.layer.kv.range(&self.txn, &range).map_err(|e| self.layer.failed(&e))? {
            let (_, bytes) = row.map_err(|e| self.layer.failed(&e))?;
            count_segments(&mut named, &decode(self.layer, bytes)?, 1);
            found = true;
        }
        for (segment, count) in named {
            *self.live.entry(segment).or_default() -= count;
        }
        if found {
            self.layer.kv.delete_range(&mut self.txn, &range).map_err(|e| self.layer.failed(&e))?;
        }
        Ok(())
    }

    fn count(&mut self, value: &Value, by: i64) {
        count_segments(&mut self.live, value, by);
    }
}

fn count_segments(counts: &mut BTreeMap<SegmentNo, i64>, value: &Value, by: i64) {
    let Value::Window(window) = value else { return };
    for extent in &window.extents {
        if let Place::Segment { blob, .. } = &extent.place {
            *counts.entry(blob.segment).or_default() += by;
        }
    }
}

fn decode(layer: &Layer, bytes: &[u8]) -> FsResult<Value> {
    Value::decode(bytes)
        .map(|(_, value)| value)
        .map_err(|error| FsError::corrupt(format!("{}: {error}", layer.path.display())))
}
