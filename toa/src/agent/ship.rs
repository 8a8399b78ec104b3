//! Shipping one snapshot: pack, upload, publish. Every step can be begun again.

use super::stage::{Staged, hash_file};
use super::{Agent, rows};
use crate::base::RunBase;
use crate::error::AgentError;
use crate::snapshot::job::JobObject;
use crate::snapshot::{Event, Job};
use crate::status::{CancelReason, SnapshotState};
use cloud_mgmt::ledger::{Entry, LedgerError, LedgerErrorKind, Reign, SnapshotEntry};
use futures::StreamExt;
use futures::stream;
use kvfs::node::NodeChanges;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Pauses between attempts while a full proxy waits for the store.
const SEND_PAUSE_MIN: Duration = Duration::from_millis(500);
const SEND_PAUSE_MAX: Duration = Duration::from_secs(15);

/// An object on its way into the bucket.
struct Outgoing {
    name: String,
    size: u64,
    hash: Option<String>,
}

impl From<JobObject> for Outgoing {
    fn from(object: JobObject) -> Self {
        Self { name: object.name, size: object.size, hash: object.hash }
    }
}

impl Agent {
    /// Takes a collected snapshot to its end, from wherever it stands.
    pub(super) fn ship(&self, job: &mut Job) -> Result<(), AgentError> {
        if matches!(job.state, SnapshotState::Collected | SnapshotState::Packing)
            && self.pack(job)? == Staged::Unchanged
        {
            return self.end_cancelled(job.clone(), CancelReason::Unchanged);
        }
        if matches!(job.state, SnapshotState::Staged | SnapshotState::Uploading) {
            if let Err(error) = self.upload(job) {
                if matches!(error, AgentError::StagedLost(_)) {
                    job.step(Event::Spoiled)?;
                    self.jobs.persist(job)?;
                }
                return Err(error);
            }
            self.publish(job)?;
        }
        Ok(())
    }

    /// Packs anew: an attempt that did not get to its end leaves nothing that anybody uses.
    fn pack(&self, job: &mut Job) -> Result<Staged, AgentError> {
        job.objects.clear();
        job.op = Some(Uuid::new_v4());
        job.step(Event::PackingBegun)?;
        self.jobs.persist(job)?;
        fail::fail_point!("toa::snapshot::packing");
        self.discard_strays()?;
        self.state.lock().meter.begin();
        let staged = self.stage(job);
        if staged.is_err() {
            // Whatever it says: it ended because somebody wants it to.
            self.worker.check(job.id)?;
        }
        if staged? == Staged::Unchanged {
            return Ok(Staged::Unchanged);
        }
        job.step(Event::PackingFinished)?;
        self.note_recovery(job);
        self.jobs.persist(job)?;
        fail::fail_point!("toa::snapshot::staged");
        Ok(Staged::Ready)
    }

    /// Sends packs, then the run (I3).
    fn upload(&self, job: &mut Job) -> Result<(), AgentError> {
        job.step(Event::UploadBegun)?;
        self.jobs.persist(job)?;
        fail::fail_point!("toa::snapshot::uploading");
        self.confirm_reign()?;
        let packs: Vec<usize> = (0..job.objects.len().saturating_sub(1)).collect();
        let run: Vec<usize> = job.objects.len().checked_sub(1).into_iter().collect();
        for batch in [packs, run] {
            let waiting: Vec<usize> =
                batch.into_iter().filter(|at| job.objects.get(*at).is_some_and(|o| !o.sent)).collect();
            self.send_batch(job, &waiting)?;
        }
        Ok(())
    }

    fn send_batch(&self, job: &mut Job, batch: &[usize]) -> Result<(), AgentError> {
        let snapshot = job.id;
        let objects: Vec<(usize, JobObject)> =
            batch.iter().filter_map(|at| job.objects.get(*at).map(|o| (*at, o.clone()))).collect();
        let sends = objects.into_iter().map(|(at, object)| async move { self.send(&object.into()).await.map(|()| at) });
        let all = async {
            let mut sent = stream::iter(sends).buffer_unordered(self.setup.options.upload_concurrency.max(1));
            while let Some(done) = sent.next().await {
                let at = done?;
                if let Some(object) = job.objects.get_mut(at) {
                    object.sent = true;
                    self.proxy.uploaded(&object.name)?;
                    self.state.lock().meter.complete(object.size);
                }
                self.jobs.persist(job)?;
                fail::fail_point!("toa::snapshot::object_uploaded");
            }
            Ok(())
        };
        let watched = async {
            tokio::select! {
                done = all => done,
                lost = self.watch_reign() => Err(lost),
            }
        };
        let done = self.setup.runtime.block_on(self.worker.unless_ended(snapshot, watched));
        self.state.lock().meter.pause();
        if matches!(done, Err(AgentError::Cancelled | AgentError::Stopping | AgentError::StagedLost(_))) {
            // Says nothing of the bucket.
            return done;
        }
        self.heard(done)
    }

    /// Ends when this node does not reign any more: long uploads must not hide it.
    async fn watch_reign(&self) -> AgentError {
        loop {
            tokio::time::sleep(self.setup.options.check_interval).await;
            match self.appender.check_reign().await {
                Ok(Reign::Deposed { by }) => return LedgerError::Deposed { by: by.map(Box::new) }.into(),
                Ok(Reign::Deleted(deletion)) => {
                    let fs = self.setup.name.to_string();
                    return LedgerError::Deleted { fs, deletion: Box::new(deletion) }.into();
                }
                Ok(Reign::Mine { .. }) => {}
                // The uploads themselves tell whether the store is there.
                Err(error) => tracing::debug!(%error, "the ledger could not be read during an upload"),
            }
        }
    }

    /// Sends everything that is staged, to make room in the proxy. An outage is waited out: packing anew would send it
    /// all again.
    pub(super) fn send_staged(&self, snapshot: Uuid) -> Result<(), AgentError> {
        let mut pause = SEND_PAUSE_MIN;
        for (name, size) in self.proxy.staged() {
            let object = Outgoing { name: name.to_string(), size, hash: None };
            while let Err(error) = self.confirm_reign().and_then(|()| self.send_now(snapshot, &object)) {
                if !error.is_transient() || matches!(error, AgentError::Stopping | AgentError::Cancelled) {
                    return Err(error);
                }
                tracing::warn!(%error, "the proxy is full, and waits for the store");
                let _ = self.heard::<()>(Err(error));
                let nap = async {
                    tokio::time::sleep(pause).await;
                    Ok(())
                };
                self.setup.runtime.block_on(self.worker.unless_ended(snapshot, nap))?;
                pause = (pause * 2).min(SEND_PAUSE_MAX);
            }
        }
        Ok(())
    }

    /// Sends one staged object and waits for it; its place in the proxy can be had from then on.
    fn send_now(&self, snapshot: Uuid, object: &Outgoing) -> Result<(), AgentError> {
        self.setup.runtime.block_on(self.worker.unless_ended(snapshot, self.send(object)))?;
        Ok(self.proxy.uploaded(&object.name)?)
    }

    /// Sends one staged object; one that is staged no more was sent before a restart, or is lost. What leaves is what was
    /// packed: bytes that rotted on the local disk are not published.
    async fn send(&self, object: &Outgoing) -> Result<(), AgentError> {
        let lost = || AgentError::StagedLost(object.name.clone());
        let Some(path) = self.proxy.staged_path(&object.name) else {
            return match self.setup.store.head(&object.name).await {
                Ok(found) if found.size == object.size => Ok(()),
                Ok(found) => {
                    tracing::warn!(object = object.name, size = found.size, "was sent with another size: packed anew");
                    Err(lost())
                }
                Err(error) if error.is_not_found() => Err(lost()),
                Err(error) => Err(error.into()),
            };
        };
        if let Some(expected) = &object.hash {
            let file = path.clone();
            let found = tokio::task::spawn_blocking(move || hash_file(&file)).await;
            let found = found.map_err(|error| AgentError::Internal(error.to_string()))??;
            if found.to_hex().as_str() != expected {
                tracing::error!(path = %path.display(), "the local disk changed what was packed: packed anew");
                return Err(lost());
            }
        }
        let last = AtomicU64::new(0);
        let progress = |sent: u64| {
            let before = last.fetch_max(sent, Ordering::Relaxed);
            self.state.lock().meter.add_sent(sent.saturating_sub(before), Instant::now());
        };
        Ok(self.setup.store.put_file(&object.name, &path, &progress).await?)
    }

    /// Makes it official, then the base of the local layers (I4: complete only when the ledger is known to have it).
    fn publish(&self, job: &mut Job) -> Result<(), AgentError> {
        let missing = || AgentError::Internal(format!("snapshot {}: staged without a manifest", job.id));
        let entry = job.manifest.as_deref().cloned().ok_or_else(missing)?;
        fail::fail_point!("toa::snapshot::before_ledger");
        let append = async { self.appender.publish_snapshot(&entry).await.map_err(AgentError::from) };
        let applied = self.setup.runtime.block_on(self.worker.unless_stopped(append));
        if let Err(AgentError::Ledger(error)) = &applied
            && error.kind() == LedgerErrorKind::Condemned
        {
            job.step(Event::Spoiled)?;
            self.jobs.persist(job)?;
        }
        let applied = self.heard(applied)?;
        fail::fail_point!("toa::snapshot::after_ledger");
        // What is official, not what was sent: another life of this node (a copy of its disk, a backup of it) may have
        // published the same snapshot with the objects of its own attempt, and ours are garbage then.
        let Entry::Snapshot(official) = &applied.record.entry else {
            return Err(AgentError::Internal(format!("snapshot {}: its record is of another kind", job.id)));
        };
        self.adopt(job, official.as_ref().clone())
    }

    /// The published snapshot becomes the base. Until that is done the job stays as it is, and is tried again.
    fn adopt(&self, job: &mut Job, entry: SnapshotEntry) -> Result<(), AgentError> {
        let base = Arc::new(RunBase::open(&self.objects, &entry)?);
        base.make_local()?;
        let mut done = job.clone();
        done.step(Event::Published)?;
        self.note_recovery(&mut done);
        let mut changes = NodeChanges::default();
        changes.put(rows::BASE, &entry)?;
        self.jobs.end(&done, &mut changes)?;
        fail::fail_point!("toa::snapshot::before_complete");
        if let Some(engine) = self.fs.engine() {
            engine.publish(Arc::clone(&base) as _, &changes)?;
        }
        *job = done;
        *self.run_base.lock() = Some(Arc::clone(&base));
        self.state.lock().base = Some(Arc::new(entry));
        if let Err(error) = self.proxy.keep_only(&base.run_objects()) {
            tracing::warn!(%error, "runs that are not needed any more stay in the proxy");
        }
        Ok(())
    }
}
