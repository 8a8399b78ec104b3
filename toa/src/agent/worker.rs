//! The agent's thread: keeps the reign in view and ships snapshots, oldest first.

use super::Agent;
use crate::error::AgentError;
use crate::snapshot::{Event, Job};
use crate::status::{Role, SnapshotState};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use uuid::Uuid;

/// The thread looks at least this often whether its agent is gone.
const NAP: Duration = Duration::from_millis(200);
/// Pause after the first failure; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// See the module.
pub(super) struct Worker {
    woken: Mutex<bool>,
    changed: Condvar,
    stopping: watch::Sender<bool>,
    /// Snapshots that somebody wants cancelled, as in their rows.
    wishes: watch::Sender<BTreeSet<Uuid>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Default for Worker {
    fn default() -> Self {
        let (stopping, wishes) = (watch::Sender::new(false), watch::Sender::default());
        Self { woken: Mutex::new(false), changed: Condvar::new(), stopping, wishes, thread: Mutex::new(None) }
    }
}

impl Worker {
    /// There is something to do.
    pub(super) fn wake(&self) {
        *self.woken.lock() = true;
        self.changed.notify_all();
    }

    /// Ends the thread; what it is doing is given up where it stands and goes on at the next start.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
        self.wake();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the snapshot thread had ended by a panic");
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Work on that snapshot ends at its next look.
    pub(super) fn wish(&self, id: Uuid) {
        self.wishes.send_if_modified(|wishes| wishes.insert(id));
        self.wake();
    }

    pub(super) fn forget_wish(&self, id: Uuid) {
        self.wishes.send_if_modified(|wishes| wishes.remove(&id));
    }

    pub(super) fn wishes(&self) -> BTreeSet<Uuid> {
        self.wishes.borrow().clone()
    }

    pub(super) fn is_wished(&self, id: Uuid) -> bool {
        self.wishes.borrow().contains(&id)
    }

    /// Whether long work on that snapshot may go on.
    pub(super) fn check(&self, snapshot: Uuid) -> Result<(), AgentError> {
        if self.is_stopping() {
            Err(AgentError::Stopping)
        } else if self.is_wished(snapshot) {
            Err(AgentError::Cancelled)
        } else {
            Ok(())
        }
    }

    /// The same for what waits.
    pub(super) async fn unless_ended<T>(
        &self,
        snapshot: Uuid,
        work: impl Future<Output = Result<T, AgentError>>,
    ) -> Result<T, AgentError> {
        let mut wishes = self.wishes.subscribe();
        let watched = async {
            tokio::select! {
                done = work => done,
                _ = wishes.wait_for(|wishes| wishes.contains(&snapshot)) => Err(AgentError::Cancelled),
            }
        };
        self.unless_stopped(watched).await
    }

    /// Waits for `work`, but not longer than until the agent is stopped.
    pub(super) async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, AgentError>>,
    ) -> Result<T, AgentError> {
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            done = work => done,
            _ = stopping.wait_for(|stop| *stop) => Err(AgentError::Stopping),
        }
    }

    /// `true` if there is something to do, or nothing was done for `limit`.
    fn await_work(&self, since: Instant, limit: Duration) -> bool {
        let mut woken = self.woken.lock();
        if !*woken {
            self.changed.wait_for(&mut woken, NAP.min(limit));
        }
        std::mem::take(&mut *woken) || since.elapsed() >= limit
    }
}

impl Agent {
    /// Starts the thread of a master.
    pub(super) fn start_worker(agent: &Arc<Agent>) -> Result<(), AgentError> {
        if let Some(engine) = agent.fs.engine() {
            let weak = Arc::downgrade(agent);
            engine.set_listener(Box::new(move || {
                if let Some(agent) = weak.upgrade() {
                    agent.worker.wake();
                }
            }));
        }
        agent.jobs.wishes()?.into_iter().for_each(|id| agent.worker.wish(id));
        agent.begin_interval()?;
        let weak = Arc::downgrade(agent);
        let thread = std::thread::Builder::new().name("cbfs-snapshots".into()).spawn(move || work_loop(&weak));
        let thread = thread.map_err(|error| AgentError::Internal(error.to_string()))?;
        *agent.worker.thread.lock() = Some(thread);
        agent.worker.wake();
        Ok(())
    }

    /// One round: what can be shipped, and is this node still master?
    fn work(&self) -> Result<(), AgentError> {
        if self.state.lock().role != Role::Master {
            return Ok(());
        }
        self.admit_sealed()?;
        // Those that are sealed come first: a row follows the order of the journal.
        let ready: Vec<Job> =
            self.jobs.open()?.into_iter().take_while(|job| job.state != SnapshotState::Queued).collect();
        // Whoever sends something looks at the ledger before; packing needs no bucket.
        if ready.is_empty() && self.must_look_at_ledger() {
            self.confirm_reign()?;
        }
        for mut job in ready {
            if self.worker.is_stopping() || self.state.lock().role != Role::Master {
                break;
            }
            if let Err(error) = self.advance(&mut job) {
                return self.put_off(job, error);
            }
        }
        Ok(())
    }

    /// What needs no bucket, and is done whether that answers or not.
    fn local_work(&self) {
        if let Err(error) = self.fulfil_wishes() {
            tracing::warn!(%error, "a snapshot could not be cancelled yet");
        }
        if let Err(error) = self.periodic_snapshot() {
            tracing::warn!(%error, "no periodic snapshot could be taken");
        }
    }

    /// Takes a job to its end, whichever that is.
    fn advance(&self, job: &mut Job) -> Result<(), AgentError> {
        loop {
            if self.worker.is_wished(job.id) && self.cancel(job)? {
                return Ok(());
            }
            match self.ship(job) {
                Err(AgentError::Cancelled) => {}
                done => return done,
            }
        }
    }

    /// Gives a row to every request, and the step to those whose layer is sealed.
    pub(super) fn admit_sealed(&self) -> Result<(), AgentError> {
        let Some(engine) = self.fs.engine() else { return Ok(()) };
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
            if found.is_none() {
                fail::fail_point!("toa::snapshot::queued");
            }
            let mut job = found.cloned().unwrap_or_else(|| Job::new(&pending, epoch));
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

fn work_loop(agent: &Weak<Agent>) {
    let mut since = Instant::now();
    let mut pause: Option<Duration> = None;
    loop {
        let Some(agent) = agent.upgrade() else { return };
        if agent.worker.is_stopping() {
            return;
        }
        let limit = pause.unwrap_or_else(|| agent.check_interval());
        let woken = agent.worker.await_work(since, limit);
        agent.local_work();
        if !woken {
            continue;
        }
        if pause.is_some() && since.elapsed() < limit {
            // A store that is away is not asked more often because somebody waits.
            std::thread::sleep(NAP);
            agent.worker.wake();
            continue;
        }
        let work = || agent.work();
        // A panic must not end the watch over the reign.
        let done = catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err(AgentError::Internal("the snapshot thread met a bug".into())));
        pause = match done {
            Ok(()) => None,
            Err(AgentError::Stopping) => return,
            Err(error) => {
                tracing::debug!(%error, "a round of the snapshot thread failed");
                let _ = agent.heard::<()>(Err(error));
                Some(pause.map_or(RETRY_MIN, |last| (last * 2).min(RETRY_MAX)))
            }
        };
        since = Instant::now();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.worker.stop();
    }
}
