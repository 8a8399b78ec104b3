//! Checkpoints: from memory into the top layer, in one LMDB transaction.

use super::compact::Emptying;
use super::rewrite::rewrite;
use super::{CommitState, Engine};
use crate::data::{DataStore, Room};
use crate::error::{FsError, FsResult};
use crate::ids::{Ino, Xid};
use crate::layer::{self, CheckpointMark, Layer, LayerMeta, Seal};
use crate::schema::{Extent, Place, Value};
use crate::stack::{Found, Frozen, Overlay};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Inline bytes that a window may keep in LMDB; more go to a data segment.
const WINDOW_INLINE_BYTES_MAX: usize = 1024;

/// What a checkpoint writes to data segments is flushed whenever it is so much, bytes: whoever calls fsync meanwhile waits for one such
/// piece at most, and the disk has no more before it.
const FLUSH_PIECE_BYTES: u64 = 2 << 20;

/// Bytes that a checkpoint moves out of segments which are being emptied, about.
const RELOCATED_BYTES_MAX: u64 = 32 << 20;

impl Engine {
    /// Freezes what there is and checkpoints it.
    pub(super) fn checkpoint_now(&self) -> FsResult<()> {
        // What came and went since the last one need not be written at all.
        self.purge_waiting();
        if self.stack.load().frozen.len() >= 2 {
            self.checkpoint_all()?;
        }
        if !self.active()?.is_empty() {
            self.freeze(None)?;
        }
        self.checkpoint_all()
    }

    /// Ends the active overlay at the last record; with `seal`, the layer too.
    pub(super) fn freeze(&self, seal: Option<Seal>) -> FsResult<()> {
        let state = self.commit.lock();
        self.freeze_at(self.journal.last(), &state, seal)
    }

    /// [`Engine::freeze`] for a caller that holds the commit lock.
    pub(super) fn freeze_at(&self, applied: Xid, state: &CommitState, seal: Option<Seal>) -> FsResult<()> {
        let overlay = self.active()?;
        let ino_end = Ino(self.next_ino.load(Ordering::Relaxed));
        let requests = state.requests.clone();
        let mark = CheckpointMark { applied, ino_end, totals: state.totals, requests, seal };
        self.change_tiers(|tiers| {
            tiers.frozen.insert(0, Arc::new(Frozen { overlay, mark, prepared: Mutex::default() }));
            tiers.active = Some(Arc::new(Overlay::default()));
        });
        Ok(())
    }

    /// Checkpoints all frozen overlays, oldest first.
    pub(super) fn checkpoint_all(&self) -> FsResult<()> {
        let _turn = self.checkpointing.lock();
        while let Some(frozen) = self.stack.load().frozen.last().cloned() {
            // Records first: LMDB must never be ahead of a journal that power loss shortened.
            self.flush()?;
            self.checkpoint_one(&frozen)?;
            self.release_journal(frozen.mark.applied)?;
            self.reclaim();
            if frozen.mark.seal.is_some() {
                self.notify();
            }
        }
        Ok(())
    }

    fn prepare(&self, top: &Layer, overlay: &Overlay) -> FsResult<Vec<Found>> {
        let mut compaction = self.compaction.lock();
        compaction.follow(top.meta().number);
        let flush = || flush_spilled(&self.data).map_err(|error| self.poison(error));
        prepare(&self.data, overlay, compaction.emptying(), &flush)
    }

    fn checkpoint_one(&self, frozen: &Arc<Frozen>) -> FsResult<()> {
        let tiers = self.stack.load();
        let top = tiers.layers.first().cloned().ok_or_else(|| FsError::io("there is no layer to write"))?;
        // The layer may be sealed already, when making the next one failed the last time.
        let is_sealed = frozen.mark.seal.is_some() && top.meta().sealed == frozen.mark.seal;
        if !is_sealed {
            let mut prepared = frozen.prepared.lock();
            if prepared.is_none() {
                *prepared = Some(self.prepare(&top, &frozen.overlay)?);
            }
            flush_spilled(&self.data).map_err(|error| self.poison(error))?;
            write(&top, prepared.as_deref().unwrap_or_default(), &frozen.mark)?;
        }
        let next = if frozen.mark.seal.is_some() { Some(open_next(&self.dirs.layers(), &top)?) } else { None };
        drop(tiers);
        self.change_tiers(|tiers| {
            tiers.frozen.retain(|other| !Arc::ptr_eq(other, frozen));
            if let Some(next) = next {
                tiers.layers.insert(0, Arc::new(next));
            }
        });
        self.look_again_at(&frozen.overlay.segments());
        Ok(())
    }
}

/// Makes the layer above a sealed one.
pub(super) fn open_next(layers: &Path, sealed: &Layer) -> FsResult<Layer> {
    let meta = sealed.meta();
    let next = LayerMeta {
        number: meta.number + 1,
        xid_from: meta.applied,
        ino_floor: meta.ino_end,
        hiding: false,
        sealed: None,
        ..meta
    };
    layer::create(layers, &next)
}

/// The entries of an overlay in key order, with most inline bytes moved to data segments, and what lies in segments that are
/// being emptied moved to others; `flush` flushes what was written so far, the last of it is the caller's. Done once for a
/// checkpoint, however often its transaction is tried: every time would fill the disk with another copy.
pub(super) fn prepare(
    data: &DataStore,
    overlay: &Overlay,
    emptying: &mut Emptying,
    flush: &dyn Fn() -> FsResult<()>,
) -> FsResult<Vec<Found>> {
    let mut entries = overlay.entries();
    let mut relocated = 0;
    for (_, (_, value)) in &mut entries {
        let Value::Window(window) = value else { continue };
        if window.inline_bytes() > WINDOW_INLINE_BYTES_MAX {
            // Acknowledged bytes find a place even in a full store: LMDB keeps them, on overflow pages.
            rewrite(data, Room::Ordinary, Arc::make_mut(window), |extent| Ok(inline(extent)))?;
        }
        // What is left moves with a later pass: writers wait for a checkpoint.
        if relocated < RELOCATED_BYTES_MAX {
            relocated += emptying.relocate(data, window)?.bytes;
        }
        if data.unflushed_bytes() >= FLUSH_PIECE_BYTES {
            flush()?;
        }
    }
    Ok(entries)
}

fn inline(extent: &Extent) -> Option<Bytes> {
    if let Place::Inline(bytes) = &extent.place { Some(bytes.clone()) } else { None }
}

/// Brings prepared entries into the top layer: durable on return. Touches no journal.
pub(super) fn write(top: &Layer, entries: &[Found], mark: &CheckpointMark) -> FsResult<()> {
    let mut writer = top.checkpoint()?;
    for (key, (xid, value)) in entries {
        writer.put(key, *xid, value)?;
    }
    fail::fail_point!("kvfs::checkpoint::before_commit", |_| Err(FsError::io("failpoint")));
    writer.commit(mark.clone())?;
    fail::fail_point!("kvfs::checkpoint::after_commit");
    Ok(())
}

/// What leaves the journal is flushed at its new place before LMDB names it.
pub(super) fn flush_spilled(data: &DataStore) -> FsResult<()> {
    fail::fail_point!("kvfs::checkpoint::unflushed", |_| Ok(()));
    Ok(data.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{Instance, options};
    use std::cell::Cell;

    /// Whoever calls fsync waits for what is flushed at a time: not for all that a checkpoint writes.
    #[test]
    fn what_a_checkpoint_writes_is_flushed_in_pieces() {
        let instance = Instance::new(options());
        let engine = &instance.engine;
        let files = 600;
        for n in 0..files {
            let file = instance.make(&format!("file {n}"));
            instance.write(file, 0, &[n as u8; 16 << 10]);
            // Not in bulk, so that the bytes are in the records.
            engine.sync().unwrap();
        }
        let (flushes, most) = (Cell::new(0), Cell::new(0));
        let flush = || {
            flushes.set(flushes.get() + 1);
            most.set(most.get().max(engine.data.unflushed_bytes()));
            Ok(engine.data.flush()?)
        };
        let overlay = engine.active().unwrap();
        let entries = prepare(&engine.data, &overlay, &mut Emptying::default(), &flush).unwrap();
        assert!(entries.len() >= 2 * files, "vacuous");
        assert!(flushes.get() >= 4, "{} flushes of 9.4 MiB", flushes.get());
        assert!(most.get() < FLUSH_PIECE_BYTES + (1 << 20), "{} bytes at a time", most.get());
    }
}
