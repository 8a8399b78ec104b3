//! Shipping: from what is staged to an official snapshot. Every step can be begun again.

use super::stage::hash_file;
use super::worker::Duty;
use super::{Agent, rows};
use crate::base::RunBase;
use crate::error::AgentError;
use crate::snapshot::job::JobObject;
use crate::snapshot::{Event, Job};
use crate::status::{Role, SnapshotState};
use cloud_mgmt::ledger::{Entry, LedgerError, LedgerErrorKind, Reign, SnapshotEntry};
use futures::StreamExt;
use futures::stream;
use kvfs::node::NodeChanges;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use uuid::Uuid;

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
    /// Sends what can be sent, and publishes what is complete, oldest first; is this node still master?
    pub(super) fn ship_ready(&self) -> Result<(), AgentError> {
        while self.state.lock().role == Role::Master && !self.worker.is_stopping() {
            // Only the first: the order of the journal is that of the ledger.
            let Some(mut job) = self.jobs.open()?.into_iter().next() else { break };
            if Duty::of(job.state) == Some(Duty::Ship) {
                if let Err(error) = self.finish(&mut job) {
                    return self.put_off(job, error);
                }
            } else if !self.send_early(&job)? {
                break;
            }
        }
        // Whoever sends something looks at the ledger before.
        if self.state.lock().role == Role::Master && self.must_look_at_ledger() {
            self.confirm_reign()?;
        }
        Ok(())
    }

    /// Takes a staged job to its end, whichever that is; or back to the packer.
    fn finish(&self, job: &mut Job) -> Result<(), AgentError> {
        loop {
            if self.worker.is_wished(job.id) && self.cancel(job)? {
                return Ok(());
            }
            match self.upload_and_publish(job) {
                Err(AgentError::Cancelled) => {}
                done => return done,
            }
        }
    }

    fn upload_and_publish(&self, job: &mut Job) -> Result<(), AgentError> {
        let missing = || AgentError::Internal(format!("snapshot {}: staged without a manifest", job.id));
        let manifest = job.manifest.as_deref().cloned().ok_or_else(missing)?;
        if !self.is_on_base(job, &manifest) {
            tracing::info!(snapshot = %job.id, "what the snapshot was packed on did not come about: packed anew");
            return self.spoil(job);
        }
        if let Err(error) = self.upload(job, &manifest) {
            if matches!(error, AgentError::StagedLost(_)) {
                self.spoil(job)?;
            }
            return Err(error);
        }
        self.publish(job, &manifest)
    }

    /// Whether the manifest continues the base, and uses nothing but its runs and those of the job.
    fn is_on_base(&self, job: &Job, manifest: &SnapshotEntry) -> bool {
        let base = self.state.lock().base.clone();
        let runs = base.as_ref().map(|base| base.runs.as_slice()).unwrap_or_default();
        let of_base = |object: &String| runs.iter().any(|run| run.object == *object);
        manifest.parent == base.as_ref().map(|base| base.id)
            && manifest.runs.iter().all(|run| of_base(&run.object) || job.objects.iter().any(|o| o.name == run.object))
            && manifest.runs_dead.iter().all(of_base)
    }

    /// Sends what is packed so far of a job that is still being packed; whether there was anything.
    fn send_early(&self, job: &Job) -> Result<bool, AgentError> {
        let ready = self.attempt.take_ready(job.op);
        if ready.is_empty() || self.worker.is_wished(job.id) {
            return Ok(false);
        }
        let mut left: BTreeMap<String, JobObject> = ready.iter().map(|o| (o.name.clone(), o.clone())).collect();
        let sent = self.confirm_reign_for(job).and_then(|()| {
            self.send_all(job.id, ready.into_iter().map(Outgoing::from).collect(), &mut |name| {
                if let Some(object) = left.remove(name) {
                    self.attempt.note_sent(job.op, &object);
                }
                self.worker.hand_to(Duty::Pack);
                Ok(())
            })
        });
        for object in left.into_values() {
            self.attempt.offer(job.op, object);
        }
        match sent {
            Ok(()) => Ok(true),
            Err(AgentError::Cancelled) => Ok(false),
            Err(error) if error.is_transient() && !matches!(error, AgentError::StagedLost(_)) => Err(error),
            Err(error) => {
                tracing::warn!(snapshot = %job.id, %error, "nothing can leave while the snapshot is packed");
                self.attempt.give_up(job.op, error);
                self.worker.hand_to(Duty::Pack);
                Ok(false)
            }
        }
    }

    /// Looks at the ledger before the first object of an attempt leaves; once is enough for a short one.
    fn confirm_reign_for(&self, job: &Job) -> Result<(), AgentError> {
        if self.attempt.sent(job.op).0 > 0 && !self.must_look_at_ledger() {
            return Ok(());
        }
        self.confirm_reign()
    }

    /// Sends packs, then the parts of the run (I3).
    fn upload(&self, job: &mut Job, manifest: &SnapshotEntry) -> Result<(), AgentError> {
        if job.state == SnapshotState::Staged {
            fail::fail_point!("toa::snapshot::staged");
        }
        job.step(Event::UploadBegun)?;
        for object in &mut job.objects {
            object.sent |= self.attempt.has_sent(&object.name);
        }
        self.jobs.persist(job)?;
        fail::fail_point!("toa::snapshot::uploading");
        self.confirm_reign_for(job)?;
        let is_run = |object: &JobObject| manifest.runs.iter().any(|run| run.object == object.name);
        let (run, packs): (Vec<_>, Vec<_>) = job.objects.iter().cloned().partition(is_run);
        for batch in [packs, run] {
            let waiting: Vec<Outgoing> = batch.into_iter().filter(|o| !o.sent).map(Outgoing::from).collect();
            self.send_all(job.id, waiting, &mut |name| {
                for object in job.objects.iter_mut().filter(|object| object.name == name) {
                    object.sent = true;
                }
                self.jobs.persist(job)
            })?;
        }
        Ok(())
    }

    /// Sends objects, several at a time; `sent` hears of each that the bucket has.
    fn send_all(
        &self,
        snapshot: Uuid,
        objects: Vec<Outgoing>,
        sent: &mut dyn FnMut(&str) -> Result<(), AgentError>,
    ) -> Result<(), AgentError> {
        if objects.is_empty() {
            return Ok(());
        }
        let sends = objects.into_iter().map(|object| async move { self.send(&object).await.map(|()| object) });
        let all = async {
            let mut done = stream::iter(sends).buffer_unordered(self.setup.options.upload_concurrency.max(1));
            while let Some(object) = done.next().await {
                let object = object?;
                self.proxy.uploaded(&object.name)?;
                self.state.lock().meter.complete(object.size);
                sent(&object.name)?;
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
    fn publish(&self, job: &mut Job, manifest: &SnapshotEntry) -> Result<(), AgentError> {
        fail::fail_point!("toa::snapshot::before_ledger");
        let append = async { self.appender.publish_snapshot(manifest).await.map_err(AgentError::from) };
        let applied = self.setup.runtime.block_on(self.worker.unless_stopped(append));
        if let Err(AgentError::Ledger(error)) = &applied
            && error.kind() == LedgerErrorKind::Condemned
        {
            self.spoil(job)?;
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
        let uploaded = entry.packs_new.iter().map(|pack| pack.size).sum();
        let mut done = job.clone();
        done.step(Event::Published)?;
        self.note_recovery(&mut done);
        let mut changes = NodeChanges::default();
        changes.put(rows::BASE, &entry)?;
        self.jobs.end(&done, &mut changes)?;
        fail::fail_point!("toa::snapshot::before_complete");
        {
            let _line = self.line.lock();
            if let Some(engine) = self.fs.engine() {
                engine.publish(Arc::clone(&base) as _, &changes)?;
            }
            *self.run_base.lock() = Some(Arc::clone(&base));
            self.state.lock().base = Some(Arc::new(entry));
        }
        *job = done;
        self.earn_evacuation(uploaded);
        self.worker.hand_to(Duty::Pack);
        if let Err(error) = self.proxy.keep_only(&base.run_objects()) {
            tracing::warn!(%error, "runs that are not needed any more stay in the proxy");
        }
        Ok(())
    }
}
