//! The agent: one filesystem on one node, as master, slave or deposed master.
//!
//! It opens what is there, hands out the filesystem to mount, follows the journal, packs and ships snapshots on
//! threads of its own, and promotes. Long work and everything that waits for the bucket runs on those or on blocking
//! threads, never on a FUSE thread.

mod attempt;
mod cancel;
mod evacuate;
mod failure;
mod follow;
mod listing;
mod meter;
mod open;
mod pack;
mod parts;
mod periodic;
mod promote;
mod reign;
mod room;
mod rows;
mod ship;
mod stage;
mod worker;

pub use evacuate::EVACUATION_BYTES_MIN;
pub use listing::Listing;
pub(crate) use open::{check_snapshot_features, select};

use crate::alert::Alerts;
use crate::base::{Objects, RunBase};
use crate::error::AgentError;
use crate::proxy::Proxy;
use crate::snapshot::job::timestamp;
use crate::snapshot::{FailurePolicy, Job, JobRows};
use crate::status::{AccessMode, AgentStatus, Role, SnapshotState, SnapshotStatus};
use cloud_mgmt::config::FsConfig;
use cloud_mgmt::ledger::{Appender, SnapshotEntry};
use cloud_mgmt::names::FsName;
use cloud_mgmt::store::ObjectStore;
use jiff::Timestamp;
use kvfs::Xid;
use kvfs::engine::{Engine, Opening};
use kvfs::fs::{Clock, FileSystem, Fs, SystemClock};
use kvfs::node::NodeStore;
use kvfs::op::{SnapshotKind, SnapshotRequest};
use meter::Meter;
use parking_lot::Mutex;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use uuid::Uuid;

/// The timer's snapshots in the ledger.
const PERIODIC: &str = "periodic";

/// Sizes and times of an agent.
#[derive(Clone, Copy, Debug)]
pub struct AgentOptions {
    /// A master looks at the ledger at least this often.
    pub check_interval: Duration,
    /// Hard limit of the proxy, bytes.
    pub proxy_max_bytes: u64,
    /// Hard limit of local file data, bytes.
    pub kvs_max_bytes: Option<u64>,
    /// Journal that is kept for a reader that is behind, bytes.
    pub journal_max_bytes: u64,
    /// One fetch from the bucket for a read of the filesystem.
    pub fetch_timeout: Duration,
    /// Objects that are uploaded at a time.
    pub upload_concurrency: usize,
    /// A snapshot is taken so often, if something has changed; `None`: only when somebody asks.
    pub snapshot_interval: Option<Duration>,
    /// What becomes of snapshots that cannot be published.
    pub failure: FailurePolicy,
    /// Whether each snapshot comes with a portable listing.
    pub listing: Listing,
    /// A part of an index run is closed at about this size, bytes; see `collect::RUN_PART_BYTES`.
    pub run_part_bytes: u64,
    /// A summary of the ledger is written after so many records; see `cloud_mgmt::ledger::SUMMARY_EVERY_RECORDS`.
    pub summary_every_records: NonZeroU64,
    /// Half-dead packs are left alone until so many bytes may be moved; see [`EVACUATION_BYTES_MIN`].
    pub evacuation_bytes_min: u64,
}

/// Everything that an agent is opened with.
#[derive(Clone)]
pub struct AgentSetup {
    /// The bucket.
    pub store: Arc<dyn ObjectStore>,
    /// The filesystem in it.
    pub name: FsName,
    /// Its configuration.
    pub config: FsConfig,
    /// The agent's files; held under a lock by the caller.
    pub instance_dir: PathBuf,
    /// Its host name, for people.
    pub host: String,
    /// Sizes and times.
    pub options: AgentOptions,
    /// Who hears of what needs a person.
    pub alerts: Arc<dyn Alerts>,
    /// Where asynchronous calls run.
    pub runtime: Handle,
    /// Whether the mount of an earlier process goes on.
    pub opening: Opening,
}

/// Which snapshot a slave shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotSelector {
    /// The newest official one.
    Latest,
    /// By id or name.
    Named(String),
}

/// What changes.
struct State {
    role: Role,
    epoch: u32,
    confirmed: bool,
    /// The manifest under the local layers, or the one that a slave shows.
    base: Option<Arc<SnapshotEntry>>,
    /// When the reign was last looked at.
    checked: Option<Checked>,
    /// Where the running interval between two periodic snapshots began.
    interval_began: Option<Timestamp>,
    store_reachable: Option<bool>,
    problem: Option<String>,
    /// The running upload.
    meter: Meter,
}

/// A look at the ledger.
#[derive(Clone, Copy)]
struct Checked {
    at: Instant,
    /// The last change then.
    xid: Xid,
}

/// Called when everything that the kernel remembers of the mount must go.
pub type Invalidate = Box<dyn Fn() + Send + Sync>;

/// See the module.
pub struct Agent {
    setup: AgentSetup,
    node: Arc<NodeStore>,
    jobs: JobRows,
    proxy: Arc<Proxy>,
    objects: Arc<Objects>,
    appender: Appender,
    fs: Arc<Fs>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// The base as the collector reads it; `None` for the empty base.
    run_base: Mutex<Option<Arc<RunBase>>>,
    worker: worker::Worker,
    following: follow::Following,
    attempt: attempt::Attempt,
    evacuating: evacuate::Evacuating,
    /// Held while the line of snapshots moves: one gets its base, is handed over, leaves the line, becomes the base.
    line: Mutex<()>,
    invalidate: Mutex<Option<Arc<Invalidate>>>,
    /// One request for a snapshot at a time: names are checked and taken together.
    requesting: Mutex<()>,
    promoting: tokio::sync::Mutex<()>,
}

impl Agent {
    /// Opens the master. The first time it claims epoch 1, or resumes what a crash left of that; a master of record
    /// restarts without the bucket, and finds out later whether it still reigns.
    pub async fn open_master(setup: AgentSetup) -> Result<Arc<Agent>, AgentError> {
        blocking(move || open::master(setup)).await
    }

    /// Opens a snapshot read-only. Needs the bucket.
    pub async fn open_slave(setup: AgentSetup, snapshot: SnapshotSelector) -> Result<Arc<Agent>, AgentError> {
        blocking(move || open::slave(setup, &snapshot)).await
    }

    /// The filesystem to mount. It stays the same through promotion and deposition.
    pub fn file_system(&self) -> Arc<dyn FileSystem> {
        Arc::clone(&self.fs) as _
    }

    /// Sets what is called, from a thread of the agent, when everything that the kernel remembers must go.
    pub fn set_invalidate(&self, callback: Invalidate) {
        *self.invalidate.lock() = Some(Arc::new(callback));
    }

    fn invalidate(&self) {
        let callback = self.invalidate.lock().clone();
        if let Some(callback) = callback {
            callback();
        }
    }

    /// Takes a snapshot of this instant: it is in the journal, durably, on return. The same `key` with the same name gives
    /// the same snapshot, for as long as that is known: for ever, once it is published.
    pub fn request_snapshot(&self, name: Option<String>, key: Option<Uuid>) -> Result<SnapshotStatus, AgentError> {
        self.engine()?;
        if let Some(name) = &name {
            check_snapshot_name(name)?;
        }
        let _turn = self.requesting.lock();
        if let Some(key) = key
            && let Some(known) = self.snapshot_of_key(key)?
        {
            let same = known.name == name;
            return if same {
                Ok(known)
            } else {
                Err(AgentError::KeyTaken { key, snapshot: known.id, name: known.name })
            };
        }
        let unpublished = |state| matches!(state, SnapshotState::Failed | SnapshotState::Cancelled);
        if let Some(name) = &name
            && self.snapshots()?.iter().any(|s| s.name.as_ref() == Some(name) && !unpublished(s.state))
        {
            return Err(AgentError::NameTaken { fs: self.setup.name.tag.to_string(), name: name.clone() });
        }
        let id = self.take_snapshot(name, key, SnapshotKind::User)?;
        self.snapshot(&id.to_string())
    }

    /// The caller holds the turn: names are checked and taken together.
    fn take_snapshot(&self, name: Option<String>, key: Option<Uuid>, kind: SnapshotKind) -> Result<Uuid, AgentError> {
        let id = Uuid::new_v4();
        let request = SnapshotRequest { id, name, kind, key, requested: self.clock.now() };
        let given_up = self.jobs.ended()?.iter().map(|job| job.id).collect();
        self.engine()?.take_snapshot(request, &given_up)?;
        self.worker.wake();
        Ok(id)
    }

    /// The snapshot that was asked for with that idempotency key.
    fn snapshot_of_key(&self, key: Uuid) -> Result<Option<SnapshotStatus>, AgentError> {
        if let Some(job) = self.all_jobs()?.into_iter().find(|job| job.key == Some(key)) {
            return Ok(Some(self.live_status(&job)));
        }
        let history = self.appender.ledger().known();
        let published = history.snapshots().into_iter().find(|published| published.snapshot.key == Some(key));
        Ok(published.map(|published| complete(&published.snapshot)))
    }

    /// All snapshots that this node knows: its own queue, and the official ones that it read of. Asks nobody.
    pub fn snapshots(&self) -> Result<Vec<SnapshotStatus>, AgentError> {
        let mut known: Vec<SnapshotStatus> = self.all_jobs()?.iter().map(|job| self.live_status(job)).collect();
        let is_master = self.state.lock().role == Role::Master;
        for published in self.appender.ledger().known().snapshots() {
            match known.iter_mut().find(|s| s.id == published.snapshot.id) {
                Some(own) if own.state == SnapshotState::Complete => {}
                // It becomes this master's base in a moment, and is complete then.
                Some(own) if is_master && !own.state.is_final() => {}
                Some(own) => *own = complete(&published.snapshot),
                None => known.push(complete(&published.snapshot)),
            }
        }
        if let Some(base) = self.state.lock().base.clone()
            && !known.iter().any(|s| s.id == base.id)
        {
            known.push(complete(&base));
        }
        known.sort_by_key(|s| (s.xid, s.epoch));
        Ok(known)
    }

    /// One of [`Agent::snapshots`] by id or name; of several with a name, the newest.
    pub fn snapshot(&self, id_or_name: &str) -> Result<SnapshotStatus, AgentError> {
        let id = Uuid::try_parse(id_or_name).ok();
        let fits = |s: &SnapshotStatus| Some(s.id) == id || s.name.as_deref() == Some(id_or_name);
        self.snapshots()?.into_iter().rev().find(fits).ok_or_else(|| AgentError::NoSnapshot {
            fs: self.setup.name.tag.to_string(),
            what: format!("snapshot {id_or_name:?}"),
        })
    }

    /// Takes over as the master of epoch `epoch` + 1, if `epoch` is the latest: the mounted slave becomes writable.
    /// Answers the new epoch.
    pub async fn promote(self: &Arc<Self>, epoch: u32) -> Result<u32, AgentError> {
        promote::promote(self, epoch).await
    }

    /// How it is.
    pub fn status(&self) -> AgentStatus {
        let queued = self.all_jobs().map_or(0, |jobs| jobs.iter().filter(|j| !j.state.is_final()).count());
        let engine = self.fs.engine();
        let state = self.state.lock();
        let access = match self.fs.access() {
            kvfs::fs::Access::ReadWrite => AccessMode::ReadWrite,
            kvfs::fs::Access::ReadOnly => AccessMode::ReadOnly,
        };
        let base_xid = state.base.as_ref().map_or(0, |base| base.xid);
        let read_only = engine.as_ref().and_then(|e| e.read_only_reason()).map(|reason| reason.to_string());
        let checkpoint = engine.as_ref().and_then(|e| e.problem()).map(|problem| format!("checkpoint: {problem}"));
        let shortage = engine.as_ref().and_then(|e| e.shortage());
        AgentStatus {
            role: state.role,
            access,
            epoch: state.epoch,
            confirmed: state.confirmed,
            snapshot: state.base.as_ref().map(|base| base.id),
            xid: engine.as_ref().map_or(base_xid, |e| e.last_xid().0),
            persisted_xid: engine.as_ref().map_or(base_xid, |e| e.persisted_xid().0),
            store_reachable: state.store_reachable,
            problem: read_only.or(shortage).or(checkpoint).or_else(|| state.problem.clone()),
            queued: queued as u32,
        }
    }

    /// Whether a flush to the local disk has failed: what was acknowledged may not be there for whoever opens next.
    pub fn has_failed_flush(&self) -> bool {
        self.fs.engine().is_some_and(|engine| engine.has_failed_flush())
    }

    /// Brings what is acknowledged into the layers, so that whoever opens next has little to do.
    pub async fn checkpoint(&self) -> Result<(), AgentError> {
        let engine = self.fs.engine();
        blocking(move || engine.map_or(Ok(()), |engine| Ok(engine.checkpoint()?))).await
    }

    /// Stops: what is acknowledged is checkpointed and flushed; uploads go on at the next mount.
    pub async fn close(self: &Arc<Self>) -> Result<(), AgentError> {
        let agent = Arc::clone(self);
        blocking(move || {
            let engine = agent.fs.engine();
            // What is acknowledged first: whoever ends a daemon that takes long must not cost a long recovery.
            if let Some(engine) = &engine
                && let Err(error) = engine.checkpoint()
            {
                tracing::warn!(%error, "the checkpoint before stopping failed");
            }
            agent.worker.stop();
            engine.map_or(Ok(()), |engine| Ok(engine.close()?))
        })
        .await
    }

    fn engine(&self) -> Result<Arc<Engine>, AgentError> {
        let role = self.state.lock().role;
        match (role, self.fs.engine()) {
            (Role::Master, Some(engine)) => Ok(engine),
            (Role::Deposed, engine) => {
                let reason = engine.and_then(|engine| engine.read_only_reason()).unwrap_or_default();
                Err(AgentError::Role {
                    what: format!("this node takes no snapshots of {} any more: {reason}", self.setup.name.tag),
                    hint: Some("its changes are kept in its state directory".into()),
                })
            }
            _ => Err(AgentError::Role {
                what: format!("this mount of {} shows a snapshot: it is read-only", self.setup.name.tag),
                hint: Some(format!("cbfs promote {} --epoch {}", self.setup.name.tag, self.state.lock().epoch)),
            }),
        }
    }

    /// Jobs with rows, and requests that have none yet; oldest first.
    fn all_jobs(&self) -> Result<Vec<Job>, AgentError> {
        // In the order in which a snapshot moves on: one that does so meanwhile is found twice, never not at all.
        let pending = self.fs.engine().map(|engine| engine.pending_snapshots()).unwrap_or_default();
        let open = self.jobs.open()?;
        let mut jobs = self.jobs.ended()?;
        let epoch = self.state.lock().epoch;
        let requested = pending.iter().map(|pending| Job::new(&pending.request, pending.xid, epoch));
        for job in open.into_iter().chain(requested) {
            if !jobs.iter().any(|known| known.id == job.id) {
                jobs.push(job);
            }
        }
        Ok(jobs)
    }

    /// The time, as people read it.
    fn now(&self) -> Timestamp {
        timestamp(self.clock.now())
    }

    fn live_status(&self, job: &Job) -> SnapshotStatus {
        let mut status = job.status();
        status.cancelling = !status.state.is_final() && self.worker.is_wished(job.id);
        let state = self.state.lock();
        match status.state {
            SnapshotState::Packing => {
                (status.objects_total, status.bytes_total) = state.meter.packed();
                (status.objects_done, status.bytes_done) = self.attempt.sent(job.op);
            }
            SnapshotState::Uploading => {
                status.bytes_done = (status.bytes_done + state.meter.sending()).min(status.bytes_total);
                status.rate = state.meter.rate();
                let left = status.bytes_total - status.bytes_done;
                status.eta = status.rate.filter(|rate| *rate > 0).map(|rate| left.div_ceil(rate));
            }
            _ => {}
        }
        status
    }
}

fn complete(entry: &SnapshotEntry) -> SnapshotStatus {
    let own_runs = entry.runs.iter().filter(|run| run.xid == entry.xid).count();
    let objects = (entry.packs_new.len() + own_runs) as u64;
    SnapshotStatus {
        id: entry.id,
        name: entry.name.clone(),
        kind: if entry.snapshot_kind == PERIODIC { SnapshotKind::Periodic } else { SnapshotKind::User },
        state: SnapshotState::Complete,
        cancelling: false,
        cancelled: None,
        requested: entry.requested,
        xid_from: Some(entry.xid_from),
        xid: entry.xid,
        epoch: entry.epoch,
        objects_total: objects,
        objects_done: objects,
        bytes_total: entry.uploaded,
        bytes_done: entry.uploaded,
        rate: None,
        eta: None,
        uploaded: entry.uploaded,
        attempts: 0,
        failing_since: None,
        failure: None,
        problem: None,
    }
}

/// A kind as the ledger calls it.
fn kind_name(kind: SnapshotKind) -> &'static str {
    match kind {
        SnapshotKind::User => "user",
        SnapshotKind::Periodic => PERIODIC,
    }
}

/// Whether a snapshot can have this name: it is looked up where an id or `latest` may stand, and written behind an `@`.
pub fn check_snapshot_name(name: &str) -> Result<(), AgentError> {
    let bad = |what: &'static str| Err(AgentError::BadName { name: name.to_owned(), what });
    if name.is_empty() || name.len() > 128 {
        bad("it must have 1 to 128 bytes")
    } else if name.chars().any(|c| c.is_control() || matches!(c, '@' | '/' | '#')) {
        bad("it must not contain '@', '/', '#' or control characters")
    } else if name == "latest" || Uuid::try_parse(name).is_ok() {
        bad("it could be taken for something else")
    } else {
        Ok(())
    }
}

/// Runs what may wait on a thread that may wait.
async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, AgentError> + Send + 'static,
) -> Result<T, AgentError> {
    tokio::task::spawn_blocking(run).await.map_err(|error| AgentError::Internal(error.to_string()))?
}

fn system_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}
