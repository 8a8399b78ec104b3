//! A snapshot on its way, as a row of the node store.

use super::{Event, next};
use crate::error::AgentError;
use crate::status::{CancelReason, FailureClass, SnapshotState, SnapshotStatus};
use cloud_mgmt::ledger::SnapshotEntry;
use jiff::Timestamp;
use kvfs::Xid;
use kvfs::node::{NodeChanges, NodeStore};
use kvfs::op::{SnapshotKind, SnapshotRequest};
use kvfs::schema::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

/// Rows of snapshots that are not complete.
const JOBS: &str = "job/";
/// Rows of snapshots that ended here, so that they can be told without the bucket.
const ENDED: &str = "ended/";

/// Rows of snapshots that somebody wants cancelled.
const WISHES: &str = "cancel/";

/// Ended snapshots that are remembered here; the ledger knows all that were published.
const ENDED_MAX: usize = 100;

/// An object of a snapshot, in the proxy or in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobObject {
    /// Its whole name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the whole, 64 hex digits; rows of older versions have none.
    #[serde(default)]
    pub hash: Option<String>,
    /// The bucket has it.
    pub sent: bool,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The snapshot.
    pub id: Uuid,
    /// Its name.
    pub name: Option<String>,
    /// Who asked for it.
    #[serde(default = "user")]
    pub kind: SnapshotKind,
    /// The caller's idempotency key.
    pub key: Option<Uuid>,
    /// The instant that it shows.
    pub requested: Timestamp,
    /// The last journal record of the snapshot below it, once that is known.
    #[serde(default)]
    pub xid_from: Option<u64>,
    /// Its last journal record.
    pub xid: u64,
    /// The epoch that it was asked under.
    pub epoch: u32,
    /// How far it is.
    pub state: SnapshotState,
    /// The attempt: in the names of all its objects.
    pub op: Option<Uuid>,
    /// What it uploads, in upload order (packs, a listing, then the run).
    pub objects: Vec<JobObject>,
    /// The manifest, from `staged` on.
    pub manifest: Option<Box<SnapshotEntry>>,
    /// How often a step was begun anew.
    pub attempts: u32,
    /// Since when it does not go on.
    #[serde(default)]
    pub failing_since: Option<Timestamp>,
    /// How lasting that is; people were told of it.
    #[serde(default)]
    pub failure: Option<FailureClass>,
    /// What went wrong last.
    pub problem: Option<String>,
    /// Why it was cancelled.
    #[serde(default)]
    pub cancelled: Option<CancelReason>,
    /// Bytes that it took in the bucket, once it ended.
    pub uploaded: u64,
}

/// The kind of jobs from before there was another.
fn user() -> SnapshotKind {
    SnapshotKind::User
}

/// A time of the journal as the rest of the world writes it.
pub(crate) fn timestamp(time: Time) -> Timestamp {
    Timestamp::new(time.secs, time.nanos as i32).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Job {
    /// A snapshot that was just asked for.
    pub fn new(request: &SnapshotRequest, xid: Xid, epoch: u32) -> Self {
        Self {
            id: request.id,
            name: request.name.clone(),
            kind: request.kind,
            key: request.key,
            requested: timestamp(request.requested),
            xid_from: None,
            xid: xid.0,
            epoch,
            state: SnapshotState::Queued,
            op: None,
            objects: Vec::new(),
            manifest: None,
            attempts: 0,
            failing_since: None,
            failure: None,
            problem: None,
            cancelled: None,
            uploaded: 0,
        }
    }

    /// Takes the step that `event` means.
    pub fn step(&mut self, event: Event) -> Result<(), AgentError> {
        let state = next(self.state, event)
            .ok_or_else(|| AgentError::Internal(format!("snapshot {}: {event:?} in {:?}", self.id, self.state)))?;
        tracing::info!(snapshot = %self.id, from = ?self.state, to = ?state, "snapshot");
        self.state = state;
        Ok(())
    }

    /// It goes on: what went wrong before is over.
    pub fn recovered(&mut self) {
        self.problem = None;
        self.failing_since = None;
        self.failure = None;
    }

    /// What people see of it.
    pub fn status(&self) -> SnapshotStatus {
        let sent = || self.objects.iter().filter(|o| o.sent);
        SnapshotStatus {
            id: self.id,
            name: self.name.clone(),
            kind: self.kind,
            state: self.state,
            cancelling: false,
            cancelled: self.cancelled,
            requested: self.requested,
            xid_from: self.xid_from,
            xid: self.xid,
            epoch: self.epoch,
            objects_total: self.objects.len() as u64,
            objects_done: sent().count() as u64,
            bytes_total: self.uploaded.max(self.objects.iter().map(|o| o.size).sum()),
            bytes_done: self.uploaded.max(sent().map(|o| o.size).sum()),
            rate: None,
            eta: None,
            uploaded: self.uploaded,
            attempts: self.attempts,
            failing_since: self.failing_since,
            failure: self.failure,
            problem: self.problem.clone(),
        }
    }

    fn row(&self) -> String {
        format!("{:016x}", self.xid)
    }
}

/// The rows of all jobs.
#[derive(Clone, Debug)]
pub struct JobRows {
    node: Arc<NodeStore>,
}

impl JobRows {
    /// The rows in `node`.
    pub fn new(node: Arc<NodeStore>) -> Self {
        Self { node }
    }

    /// Snapshots that are not complete, oldest first.
    pub fn open(&self) -> Result<Vec<Job>, AgentError> {
        Ok(self.node.list(JOBS)?.into_iter().map(|(_, job)| job).collect())
    }

    /// Snapshots that ended here, oldest first.
    pub fn ended(&self) -> Result<Vec<Job>, AgentError> {
        Ok(self.node.list(ENDED)?.into_iter().map(|(_, job)| job).collect())
    }

    /// The row of a snapshot, whether it ended or not.
    pub fn find(&self, id: Uuid) -> Result<Option<Job>, AgentError> {
        // In the order in which a job moves.
        let mut jobs = self.open()?;
        jobs.extend(self.ended()?);
        Ok(jobs.into_iter().find(|job| job.id == id))
    }

    /// Keeps a job; durable on return.
    pub fn persist(&self, job: &Job) -> Result<(), AgentError> {
        Ok(self.node.persist_row(&format!("{JOBS}{}", job.row()), job)?)
    }

    /// The same together with other changes.
    pub fn put(&self, job: &Job, changes: &mut NodeChanges) -> Result<(), AgentError> {
        changes.put(&format!("{JOBS}{}", job.row()), job)?;
        Ok(())
    }

    /// Moves a job to those that ended, together with other changes; the oldest of many are forgotten.
    pub fn end(&self, job: &Job, changes: &mut NodeChanges) -> Result<(), AgentError> {
        let uploaded = if job.state == SnapshotState::Complete { job.objects.iter().map(|o| o.size).sum() } else { 0 };
        let ended = Job { objects: Vec::new(), manifest: None, uploaded, ..job.clone() };
        changes.remove(&format!("{JOBS}{}", job.row()));
        changes.remove(&wish_row(job.id));
        changes.put(&format!("{ENDED}{}", job.row()), &ended)?;
        let known = self.ended()?;
        for old in known.iter().take(known.len().saturating_sub(ENDED_MAX)) {
            changes.remove(&format!("{ENDED}{}", old.row()));
        }
        Ok(())
    }

    /// Forgets a job that never was: its journal record did not survive a power loss.
    pub fn forget(&self, job: &Job) -> Result<(), AgentError> {
        let mut changes = NodeChanges::default();
        changes.remove(&format!("{JOBS}{}", job.row())).remove(&wish_row(job.id));
        Ok(self.node.persist(&changes)?)
    }

    /// Keeps the wish that a snapshot be cancelled; durable on return.
    pub fn wish_cancelled(&self, id: Uuid) -> Result<(), AgentError> {
        Ok(self.node.persist_row(&wish_row(id), &id)?)
    }

    /// Drops such a wish.
    pub fn forget_wish(&self, id: Uuid) -> Result<(), AgentError> {
        let mut changes = NodeChanges::default();
        changes.remove(&wish_row(id));
        Ok(self.node.persist(&changes)?)
    }

    /// Snapshots that somebody wants cancelled and that have not ended.
    pub fn wishes(&self) -> Result<BTreeSet<Uuid>, AgentError> {
        Ok(self.node.list(WISHES)?.into_iter().map(|(_, id)| id).collect())
    }
}

fn wish_row(id: Uuid) -> String {
    format!("{WISHES}{id}")
}
