//! Committing a record: the journal first, then the overlay, under one short lock.

use super::Engine;
use super::shortage::Need;
use crate::apply::{Draft, KnownName, apply};
use crate::data::Room;
use crate::error::{FsError, FsResult};
use crate::ids::Xid;
use crate::op::{INLINE_BYTES_MAX, Op, Payload, Record};
use crate::request::{self, DoneRequest, RequestId};
use crate::schema::{BlobRef, Time, WINDOW_BYTES};
use crate::stack::{ChangeList, Overlay};
use bytes::Bytes;
use parking_lot::RwLockReadGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// So many bytes written since the last fsync are taken for bulk.
const BULK_BYTES: u64 = 1 << 20;
/// Writes up to this length travel in their record also in bulk: LMDB keeps most of them as they are.
const BULK_INLINE_BYTES_MAX: usize = 1 << 10;
/// Room for most records, without the bytes of a write.
const RECORD_BYTES: usize = 256;

/// The bytes of a write on their way into a record. Held until the record is committed.
pub struct PendingBytes<'e> {
    payload: Payload,
    _stored: Option<RwLockReadGuard<'e, ()>>,
}

impl PendingBytes<'_> {
    /// In the record itself.
    pub(super) fn inline(data: &[u8]) -> Self {
        Self { payload: Payload::Inline(Bytes::copy_from_slice(data)), _stored: None }
    }
}

impl Engine {
    /// Applies one operation: acknowledged (it survives `kill -9`) on return. The caller holds the locks of the inodes
    /// that it reads and writes.
    pub fn run(&self, time: Time, op: Op) -> FsResult<Xid> {
        self.run_knowing(time, op, &[])
    }

    /// [`Engine::run`] for a caller who has looked up `names` under the locks that it holds.
    pub fn run_knowing(&self, time: Time, op: Op, names: &[KnownName]) -> FsResult<Xid> {
        self.run_record(&Record { time, op, payload: Payload::None, requested: request::current() }, names)
    }

    /// Puts the bytes of a write where they will stay until the next checkpoint: small ones into the record, others
    /// into data segments. Small ones that come in bulk, with no fsync among them, go into data segments too: nobody
    /// waits for a second flush, and they are written once and not twice. Holds no lock on inodes.
    pub fn place_bytes(&self, data: &[u8]) -> FsResult<PendingBytes<'_>> {
        if self.ballast.is_away() {
            return Err(FsError::NoSpace);
        }
        let unsynced = self.unsynced_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        let is_bulk = unsynced > BULK_BYTES && data.len() > BULK_INLINE_BYTES_MAX;
        if data.len() <= INLINE_BYTES_MAX && !is_bulk {
            if self.is_full() && (!self.make_room() || self.is_full()) {
                return Err(FsError::NoSpace);
            }
            return Ok(PendingBytes::inline(data));
        }
        self.check_writable()?;
        match self.store_bytes(data) {
            Err(FsError::NoSpace) if self.make_room() => self.store_bytes(data),
            done => done,
        }
    }

    /// [`Engine::place_bytes`] for bytes that no application writes: nobody waits for a flush of them, and they do not count
    /// among those between two flushes.
    pub(super) fn place_bulk(&self, data: &[u8]) -> FsResult<PendingBytes<'_>> {
        self.check_writable()?;
        if data.len() > BULK_INLINE_BYTES_MAX {
            return self.store_bytes(data);
        }
        if self.is_full() { Err(FsError::NoSpace) } else { Ok(PendingBytes::inline(data)) }
    }

    fn store_bytes(&self, data: &[u8]) -> FsResult<PendingBytes<'_>> {
        let guard = self.stored_writes.read();
        let written: Result<Vec<BlobRef>, _> =
            data.chunks(WINDOW_BYTES as usize).map(|chunk| self.data.write(chunk)).collect();
        let blobs = written.map_err(|error| self.note_failure(error.into()))?;
        self.note_written();
        Ok(PendingBytes { payload: Payload::Stored(blobs), _stored: Some(guard) })
    }

    /// Bytes that wait in the journal for the next checkpoint need a place too.
    fn is_full(&self) -> bool {
        self.data.free_bytes(Room::Ordinary) == Some(0)
    }

    /// [`Engine::run`] for a write.
    pub fn run_write(&self, time: Time, op: Op, bytes: PendingBytes<'_>) -> FsResult<Xid> {
        self.run_record(&Record { time, op, payload: bytes.payload, requested: request::current() }, &[])
    }

    pub(super) fn run_record(&self, record: &Record, names: &[KnownName]) -> FsResult<Xid> {
        self.check_writable()?;
        let need = self.admit_op(&record.op)?;
        let body = encode(record)?;
        loop {
            let tiers = self.stack.load();
            let active = tiers.active.as_ref().ok_or(FsError::ReadOnly)?;
            let mut draft = Draft::knowing(tiers.view(), names);
            apply(record, &mut draft)?;
            let changes = draft.into_changes();
            if changes.changes.is_empty() && matches!(record.op, Op::Evacuate(_)) {
                // Its bytes would be in no tier, and their segment could go while a replay still asks for the record.
                return Ok(self.journal.last());
            }
            let commit = || self.commit(&body, active, &changes, record);
            let committed = if need == Need::Room { commit() } else { self.insist(commit) };
            if let Some(xid) = committed? {
                return Ok(xid);
            }
        }
    }

    /// Appends and takes over into `active`; `None` if that was frozen since the changes were drafted on it: they may
    /// build on what only it has. Never waits for a disk flush or for LMDB.
    fn commit(
        &self,
        body: &[u8],
        active: &Arc<Overlay>,
        changes: &ChangeList,
        record: &Record,
    ) -> FsResult<Option<Xid>> {
        let mut state = self.commit.lock();
        let is_current = self.stack.load().active.as_ref().is_some_and(|current| Arc::ptr_eq(current, active));
        if !is_current {
            return Ok(None);
        }
        let xid = self.journal.append(body).map_err(|error| self.note_failure(error.into()))?;
        active.apply(changes, xid);
        self.purges.note(changes);
        state.totals.inodes = state.totals.inodes.saturating_add_signed(changes.inodes);
        state.totals.bytes = state.totals.bytes.saturating_add_signed(changes.bytes);
        if let Some(done) = record.done_request() {
            state.requests.note(done);
        }
        Ok(Some(xid))
    }

    /// [`Engine::flush`] for an application.
    pub fn sync(&self) -> FsResult<()> {
        self.unsynced_bytes.store(0, Ordering::Relaxed);
        self.flush().map(|_| ())
    }

    /// What was done for a request, by this process or by one before it on the same connection.
    pub fn done_request(&self, id: RequestId) -> Option<DoneRequest> {
        self.commit.lock().requests.find(id)
    }

    /// Requests of process lives before `life` are all answered.
    pub fn forget_requests_before(&self, life: u32) {
        self.commit.lock().requests.forget_before(life);
    }

    /// Everything acknowledged before the call survives power loss on return (I1).
    pub fn flush(&self) -> FsResult<Xid> {
        // For what comes of a power loss the order of the two does not matter: checksums tell a record whose bytes did not
        // make it. But the journal may only call durable what was written before the data was flushed.
        let goal = self.journal.last();
        self.flush_data()?;
        self.journal.flush_behind(goal).map_err(|error| self.poison(error.into()))?;
        Ok(goal)
    }

    pub(super) fn flush_data(&self) -> FsResult<()> {
        self.data.flush().map_err(|error| self.poison(error.into()))
    }

    /// A failed flush is final: what the page cache says now may not be what the disk holds.
    pub(crate) fn poison(&self, error: FsError) -> FsError {
        // Before anybody gets the error, also whoever comes second: nothing is taken any more.
        let reason = Some(Arc::new(format!("flushing to the local disk failed: {error}")));
        self.read_only.compare_and_swap(&None::<Arc<String>>, reason);
        if !self.poisoned.swap(true, Ordering::AcqRel) {
            tracing::error!(%error, "flushing to the local disk failed");
            self.notify();
        }
        error
    }

    /// Whether a flush has failed: what was acknowledged may not be there for whoever opens next.
    pub fn has_failed_flush(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    fn note_failure(&self, error: FsError) -> FsError {
        if let FsError::Io(what) = &error {
            tracing::error!(%what, "a local write failed");
        }
        error
    }
}

pub(crate) fn encode(record: &Record) -> FsResult<Vec<u8>> {
    let inline = if let Payload::Inline(bytes) = &record.payload { bytes.len() } else { 0 };
    let body = Vec::with_capacity(RECORD_BYTES + inline);
    postcard::to_extend(record, body).map_err(|error| FsError::io(format!("encoding a journal record: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{Instance, options};

    /// Two flushes fail at once: the second caller gets its error while the first one has only noted that it failed.
    #[test]
    fn whoever_gets_the_error_of_a_flush_finds_nothing_writable_any_more() {
        let instance = Instance::new(options());
        let engine = &instance.engine;
        engine.poisoned.store(true, Ordering::Release);
        drop(engine.poison(FsError::io("a test")));
        assert!(engine.read_only_reason().is_some_and(|reason| reason.contains("a test")));
        assert!(matches!(engine.check_writable(), Err(FsError::ReadOnly)));
    }
}
