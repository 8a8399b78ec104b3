//! Following the journal: requests for snapshots become jobs, in the order of their records.
//!
//! The thread reads persisted records only (I2), and where it is lies in the same transaction as the jobs that it made. The
//! journal keeps what it has not read. If it falls too far behind it is cut off: requests from the gap are found by their
//! sealed layers, which say all that a job needs.

use super::Agent;
use super::worker::Duty;
use crate::error::AgentError;
use crate::snapshot::Job;
use kvfs::Xid;
use kvfs::engine::{Engine, JournalRecord};
use kvfs::journal::{Followed, Position};
use kvfs::node::NodeChanges;
use kvfs::op::Op;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The agent among the readers of the journal.
const CONSUMER: &str = "toa";
/// Bytes that are read at once.
const BATCH_BYTES: usize = 1 << 20;
/// The place is kept at least so often, bytes of records: each time costs a flush, and lets the journal shrink.
const KEEP_EVERY_BYTES: u64 = 8 << 20;

/// How far the journal is followed.
#[derive(Debug, Default)]
pub(super) struct Following {
    reading: Mutex<Option<Reading>>,
    /// The first record behind the kept place; 0: not known yet; `u64::MAX`: the journal cannot be read now.
    kept: AtomicU64,
}

#[derive(Debug)]
struct Reading {
    position: Position,
    /// Bytes read since the place was kept.
    unkept_bytes: u64,
}

impl Following {
    /// Whether that record is still to be read: its request becomes a job then.
    pub(super) fn will_read(&self, xid: Xid) -> bool {
        xid.0 >= self.kept.load(Ordering::Acquire)
    }

    fn begin(&self, engine: &Engine) -> Result<Reading, AgentError> {
        let next = engine.consumer(CONSUMER)?.next;
        self.kept.store(next.0, Ordering::Release);
        Ok(Reading { position: Position::at(next), unkept_bytes: 0 })
    }
}

impl Agent {
    /// Reads all that is persisted. After a failure it begins again where its place was kept; until then requests are
    /// found by their layers: a journal that cannot be read holds up no snapshot.
    pub(super) fn follow_journal(&self) -> Result<(), AgentError> {
        let Some(engine) = self.fs.engine() else { return Ok(()) };
        let mut reading = self.following.reading.lock();
        let done = self.follow_on(&engine, &mut reading);
        if done.is_err() {
            *reading = None;
            self.following.kept.store(u64::MAX, Ordering::Release);
            self.worker.hand_to(Duty::Pack);
        }
        done
    }

    fn follow_on(&self, engine: &Engine, reading: &mut Option<Reading>) -> Result<(), AgentError> {
        let reading = match reading {
            Some(reading) => reading,
            none => none.insert(self.following.begin(engine)?),
        };
        while !self.worker.is_stopping() {
            match engine.read_journal(&mut reading.position, BATCH_BYTES)? {
                Followed::End => break,
                Followed::Records(records) => self.take_records(engine, reading, &records)?,
                Followed::Released(first) => {
                    tracing::warn!(from = %reading.position.next(), to = %first, "records of the journal were not read");
                    *reading = self.following.begin(engine)?;
                    self.worker.hand_to(Duty::Pack);
                }
            }
        }
        Ok(())
    }

    fn take_records(
        &self,
        engine: &Engine,
        reading: &mut Reading,
        records: &[JournalRecord],
    ) -> Result<(), AgentError> {
        // Nobody else makes a job of a request meanwhile, and none ends.
        let _line = self.line.lock();
        let mut changes = NodeChanges::default();
        let mut jobs = 0;
        for JournalRecord { xid, record, bytes } in records {
            reading.unkept_bytes += bytes;
            let Op::Snapshot(request) = &record.op else { continue };
            if self.jobs.find(request.id)?.is_none() {
                fail::fail_point!("toa::snapshot::queued");
                let job = Job::new(request, *xid, self.state.lock().epoch);
                self.jobs.put(&job, &mut changes)?;
                jobs += 1;
            }
        }
        if jobs > 0 || reading.unkept_bytes >= KEEP_EVERY_BYTES {
            engine.consumed(CONSUMER, reading.position.next(), &mut changes)?;
            self.following.kept.store(reading.position.next().0, Ordering::Release);
            reading.unkept_bytes = 0;
        }
        if jobs > 0 {
            self.worker.hand_to(Duty::Pack);
        }
        Ok(())
    }
}
