//! Snapshots that shall not be published: asked for, superseded, or without anything to publish.
//!
//! A wish is a row of its own, durable before the caller hears of it, and the thread that has the job does the rest: at
//! once, also in the middle of packing or sending. Only while a record of the snapshot may be on its way into the ledger, the
//! ledger is asked first.

use super::worker::Duty;
use super::{Agent, rows};
use crate::alert::{Alert, AlertKind};
use crate::error::AgentError;
use crate::snapshot::{Event, Job};
use crate::status::{CancelReason, SnapshotState, SnapshotStatus};
use kvfs::node::NodeChanges;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Snapshots that ended without being published, at most: the layer of each is looked through by every look-up, until a
/// later snapshot takes its changes along.
const GIVEN_UP_MAX: usize = 24;

/// Whether the ledger has a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Official {
    /// It has not, and nothing is on its way.
    No,
    /// It has.
    Yes,
    /// The ledger must be asked.
    Unknown,
}

impl Agent {
    /// Asks that a snapshot be not published; the wish is durable on return, and `cancelling` in its status until it is
    /// done. One that was cancelled before is answered as it is; one that has ended otherwise is refused.
    pub fn cancel_snapshot(&self, id_or_name: &str) -> Result<SnapshotStatus, AgentError> {
        self.engine()?;
        let _turn = self.requesting.lock();
        let status = self.snapshot(id_or_name)?;
        match status.state {
            SnapshotState::Cancelled => return Ok(status),
            state if state.is_final() => return Err(AgentError::Ended { snapshot: id_or_name.to_owned(), state }),
            _ if !self.may_end_unpublished()? => return Err(AgentError::TooManyGivenUp { count: GIVEN_UP_MAX }),
            _ => {}
        }
        self.jobs.wish_cancelled(status.id)?;
        fail::fail_point!("toa::cancel::wished");
        self.worker.wish(status.id);
        self.snapshot(&status.id.to_string())
    }

    /// Whether one more may end without being published.
    pub(super) fn may_end_unpublished(&self) -> Result<bool, AgentError> {
        let ended: BTreeSet<Uuid> = self.jobs.ended()?.iter().map(|job| job.id).collect();
        let pending = self.fs.engine().map(|engine| engine.pending_snapshots()).unwrap_or_default();
        Ok(pending.iter().filter(|pending| ended.contains(&pending.request.id)).count() < GIVEN_UP_MAX)
    }

    /// Fulfils the wishes that need no answer of the ledger, for the jobs of the calling thread; the packer drops those
    /// that came too late.
    pub(super) fn fulfil_wishes(&self, duty: Duty) -> Result<(), AgentError> {
        let wishes = self.worker.wishes();
        if wishes.is_empty() || self.engine().is_err() {
            return Ok(());
        }
        if duty == Duty::Pack {
            self.admit_sealed()?;
        }
        // Asked first: a request that becomes a job meanwhile is found twice.
        let requested: BTreeSet<Uuid> =
            self.engine()?.pending_snapshots().into_iter().map(|pending| pending.request.id).collect();
        let open = self.jobs.open()?;
        let ended: BTreeSet<Uuid> = self.jobs.ended()?.into_iter().map(|job| job.id).collect();
        for id in wishes {
            match open.iter().find(|job| job.id == id) {
                Some(job) if Duty::of(job.state) == Some(duty) && self.official(job)? == Official::No => {
                    self.end_cancelled(job.clone(), CancelReason::User)?;
                }
                Some(_) => {}
                // Not a job yet.
                None if requested.contains(&id) && !ended.contains(&id) => {}
                None if duty == Duty::Pack => self.drop_wish(id)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Fulfils the wish for a job that the ledger may have. `false`: it has, so the job goes on to its end.
    pub(super) fn cancel(&self, job: &Job) -> Result<bool, AgentError> {
        if self.official(job)? == Official::Unknown {
            let resolve = async { self.appender.resolve().await.map_err(AgentError::from) };
            let resolved = self.setup.runtime.block_on(self.worker.unless_stopped(resolve));
            self.heard(resolved)?;
            self.confirm_reign()?;
        }
        match self.official(job)? {
            Official::No => self.end_cancelled(job.clone(), CancelReason::User).map(|()| true),
            Official::Yes => self.drop_wish(job.id).map(|()| false),
            Official::Unknown => {
                Err(AgentError::Internal(format!("snapshot {}: the ledger's answer did not settle it", job.id)))
            }
        }
    }

    /// What is known of the ledger about a job. Records of this reign are written by this process life alone once it is
    /// confirmed, and each is kept as an intent before it leaves.
    pub(super) fn official(&self, job: &Job) -> Result<Official, AgentError> {
        // First of all: the row of a node that was restored from a backup may be older than the record.
        if self.appender.ledger().known().snapshot(job.id).is_some() {
            return Ok(Official::Yes);
        }
        if job.state != SnapshotState::Uploading {
            return Ok(Official::No);
        }
        let confirmed = self.state.lock().confirmed;
        Ok(if !confirmed || rows::has_intent(&self.node)? { Official::Unknown } else { Official::No })
    }

    /// Ends a job that the ledger does not have and never will.
    pub(super) fn end_cancelled(&self, mut job: Job, reason: CancelReason) -> Result<(), AgentError> {
        job.step(Event::Cancelled)?;
        job.cancelled = Some(reason);
        self.end_unpublished(&job)?;
        fail::fail_point!("toa::snapshot::cancelled");
        if let CancelReason::Superseded { by } = reason {
            fail::fail_point!("toa::snapshot::superseded");
            tracing::error!(snapshot = %job.id, %by, problem = job.problem, "the snapshot made way for a newer one");
            self.alert(AlertKind::SnapshotSuperseded, &job);
        }
        Ok(())
    }

    /// Moves a job to the ended ones; what it had staged is of no use, and what was packed on it is packed anew.
    pub(super) fn end_unpublished(&self, job: &Job) -> Result<(), AgentError> {
        let mut changes = NodeChanges::default();
        self.jobs.end(job, &mut changes)?;
        self.unfound(job, &mut changes)?;
        self.worker.forget_wish(job.id);
        if let Err(error) = self.discard_strays() {
            tracing::warn!(%error, "what the snapshot had staged stays in the proxy until the next one");
        }
        Ok(())
    }

    /// The job goes back to the packer: what it had staged cannot be published.
    pub(super) fn spoil(&self, job: &mut Job) -> Result<(), AgentError> {
        job.step(Event::Spoiled)?;
        let mut changes = NodeChanges::default();
        self.jobs.put(job, &mut changes)?;
        self.unfound(job, &mut changes)
    }

    /// Makes `changes`, which take `job` out of the line, durable, and with them that whatever is staged behind it is
    /// packed anew: it stands on `job`.
    fn unfound(&self, job: &Job, changes: &mut NodeChanges) -> Result<(), AgentError> {
        let line = self.line.lock();
        for mut later in self.jobs.open()? {
            if later.xid > job.xid && later.state == SnapshotState::Staged {
                later.step(Event::Spoiled)?;
                self.jobs.put(&later, changes)?;
            }
        }
        self.node.persist(changes)?;
        drop(line);
        self.worker.hand_to(Duty::Pack);
        Ok(())
    }

    /// Removes staged objects that belong to no open job: attempts that broke off, snapshots that ended.
    pub(super) fn discard_strays(&self) -> Result<(), AgentError> {
        // In this order: an attempt has its row before it stages anything.
        let staged = self.proxy.staged();
        let ops: Vec<String> =
            self.jobs.open()?.iter().filter_map(|job| job.op).map(|op| op.simple().to_string()).collect();
        for (object, _) in staged {
            if !ops.iter().any(|op| object.contains(op.as_str())) {
                self.proxy.discard_staged(&object)?;
            }
        }
        Ok(())
    }

    fn drop_wish(&self, id: Uuid) -> Result<(), AgentError> {
        self.jobs.forget_wish(id)?;
        self.worker.forget_wish(id);
        Ok(())
    }

    /// Tells people about a job. It was logged already.
    pub(super) fn alert(&self, kind: AlertKind, job: &Job) {
        self.setup.alerts.raise(Alert {
            kind,
            fs: self.setup.name.to_string(),
            snapshot: Some(job.id),
            name: job.name.clone(),
            problem: job.problem.clone().unwrap_or_default(),
            since: job.failing_since,
        });
    }
}
