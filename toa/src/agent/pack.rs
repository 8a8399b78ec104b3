//! Packing: from the request to everything staged in the proxy. Needs no bucket.
//!
//! A snapshot is packed on what will be below it when it is published: the base of the local layers, or the one snapshot
//! before it that is staged and on its way. If that one ends otherwise, what was packed on it is packed anew.

use super::Agent;
use super::attempt::Standing;
use super::open::open_base;
use super::stage::Staged;
use super::worker::Duty;
use crate::base::RunBase;
use crate::error::AgentError;
use crate::snapshot::{Event, Job};
use crate::status::{CancelReason, Role, SnapshotState};
use cloud_mgmt::ledger::SnapshotEntry;
use kvfs::Xid;
use kvfs::engine::LayerChanges;
use std::sync::Arc;
use uuid::Uuid;

/// Snapshots that are staged before the first of them is published, at most: each takes its size on the local disk.
const STAGED_AHEAD_MAX: usize = 1;

/// What a snapshot changes, and against what.
pub(super) struct Ground {
    pub(super) changes: LayerChanges,
    /// The manifest below; `None` for the empty base.
    pub(super) parent: Option<Arc<SnapshotEntry>>,
    /// The same as the collector reads it.
    pub(super) base: Option<Arc<RunBase>>,
    pub(super) standing: Standing,
}

/// How an attempt ended.
enum Packed {
    /// The job left this thread's hands.
    Done,
    /// What it stood on did not come about: it is packed anew.
    Unfounded,
}

impl Agent {
    /// Packs all that can be packed now.
    pub(super) fn pack_ready(&self) -> Result<(), AgentError> {
        while self.state.lock().role == Role::Master && !self.worker.is_stopping() {
            self.admit_sealed()?;
            let Some((mut job, before)) = self.next_to_pack()? else { break };
            if self.worker.is_wished(job.id) && self.cancel(&job)? {
                continue;
            }
            match self.pack(&mut job, before.as_ref()) {
                Ok(Packed::Done | Packed::Unfounded) | Err(AgentError::Cancelled) => {}
                Err(error) => return self.put_off(job, error),
            }
        }
        Ok(())
    }

    /// The first job that is this thread's and sealed, and the one before it, if that is not published yet.
    fn next_to_pack(&self) -> Result<Option<(Job, Option<Job>)>, AgentError> {
        let mut before: Vec<Job> = Vec::new();
        for job in self.jobs.open()? {
            match Duty::of(job.state) {
                // Those behind it wait, too: the order of the journal is that of the bucket.
                Some(Duty::Pack) if job.state == SnapshotState::Queued => break,
                Some(Duty::Pack) if before.len() > STAGED_AHEAD_MAX => break,
                Some(Duty::Pack) => return Ok(Some((job, before.pop()))),
                _ => before.push(job),
            }
        }
        Ok(None)
    }

    /// What `job` is packed on; `None` if the one before it moved on meanwhile.
    fn ground(&self, job: &Job, before: Option<&Job>) -> Result<Option<Ground>, AgentError> {
        let lost = || AgentError::Internal(format!("snapshot {} has no sealed layer", job.id));
        let engine = self.fs.engine().ok_or_else(lost)?;
        let _line = self.line.lock();
        // As it is now that nothing moves.
        let open = self.jobs.open()?;
        let now = open.iter().take_while(|other| other.xid < job.xid).last();
        let (parent, base, standing) = match (before, now) {
            (None, None) => (self.state.lock().base.clone(), self.run_base.lock().clone(), Standing::Official),
            (Some(before), Some(now)) if now.id == before.id && now.op == before.op => {
                let (Some(manifest), Some(op)) = (now.manifest.as_deref(), now.op) else { return Ok(None) };
                let parent = Some(Arc::new(manifest.clone()));
                let base = open_base(&self.objects, parent.as_deref())?;
                (parent, base, Standing::Staged { snapshot: now.id, op })
            }
            _ => return Ok(None),
        };
        let above = parent.as_ref().map_or(Xid::default(), |parent| Xid(parent.xid));
        let changes = engine.changes_of(job.id, above).ok_or_else(lost)?;
        Ok(Some(Ground { changes, parent, base, standing }))
    }

    /// Packs anew: an attempt that did not get to its end leaves nothing that anybody uses.
    fn pack(&self, job: &mut Job, before: Option<&Job>) -> Result<Packed, AgentError> {
        let Some(ground) = self.ground(job, before)? else { return Ok(Packed::Unfounded) };
        let op = Uuid::new_v4();
        job.objects.clear();
        job.op = Some(op);
        job.step(Event::PackingBegun)?;
        self.jobs.persist(job)?;
        fail::fail_point!("toa::snapshot::packing");
        self.attempt.begin(op, ground.standing);
        self.discard_strays()?;
        self.state.lock().meter.begin();
        let staged = self.stage(job, &ground);
        if staged.is_err() {
            // Whatever it says: it ended because somebody wants it to, or because what it reads is no more.
            self.worker.check(job.id)?;
            if !self.stands()? {
                return Ok(Packed::Unfounded);
            }
        }
        if staged? == Staged::Unchanged {
            self.end_cancelled(job.clone(), CancelReason::Unchanged)?;
            return Ok(Packed::Done);
        }
        self.hand_over(job)
    }

    /// Everything is staged: from here on the job is the shipper's.
    fn hand_over(&self, job: &mut Job) -> Result<Packed, AgentError> {
        let line = self.line.lock();
        if !self.stands()? {
            return Ok(Packed::Unfounded);
        }
        job.step(Event::PackingFinished)?;
        self.note_recovery(job);
        self.jobs.persist(job)?;
        drop(line);
        self.worker.hand_to(Duty::Ship);
        Ok(Packed::Done)
    }

    /// Gives the step to jobs whose layer is sealed, and a row to requests that the journal will not bring any more.
    pub(super) fn admit_sealed(&self) -> Result<(), AgentError> {
        let Some(engine) = self.fs.engine() else { return Ok(()) };
        let _line = self.line.lock();
        let mut known = self.jobs.ended()?;
        known.extend(self.jobs.open()?);
        let epoch = self.state.lock().epoch;
        let waiting = engine.pending_snapshots();
        for job in self.jobs.open()? {
            if job.state == SnapshotState::Queued && !waiting.iter().any(|pending| pending.request.id == job.id) {
                self.jobs.forget(&job)?;
            }
        }
        let persisted = engine.persisted_xid();
        // I2: what power loss could still take back does not exist yet.
        for pending in waiting.into_iter().filter(|pending| pending.xid <= persisted) {
            let found = known.iter().find(|job| job.id == pending.request.id);
            if found.is_none() && self.following.will_read(pending.xid) {
                continue;
            }
            let mut job = found.cloned().unwrap_or_else(|| Job::new(&pending.request, pending.xid, epoch));
            if pending.sealed && job.state == SnapshotState::Queued {
                job.step(Event::Sealed)?;
                self.jobs.persist(&job)?;
                fail::fail_point!("toa::snapshot::collected");
            } else if found.is_none() {
                self.jobs.persist(&job)?;
            }
        }
        Ok(())
    }
}
