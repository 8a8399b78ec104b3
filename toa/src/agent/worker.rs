//! The agent's threads. One follows the journal, one packs snapshots, one sends and publishes them and keeps the reign in
//! view: the next snapshot is packed while the one before it is on its way, and packs leave while later ones are written.
//! One empties half-dead packs after a snapshot.
//!
//! A job belongs to packer or shipper at a time, by its state: nobody else writes its row.

use super::Agent;
use crate::error::AgentError;
use crate::status::SnapshotState;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use uuid::Uuid;

/// The threads look at least this often whether their agent is gone.
const NAP: Duration = Duration::from_millis(200);
/// Pause after the first failure; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// The journal is read at least so often.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// From the journal to jobs.
    Follow,
    /// From the request to everything staged, without the bucket.
    Pack,
    /// From there to the end.
    Ship,
    /// Empties half-dead packs.
    Evacuate,
}

impl Duty {
    /// Whose job one in that state is; nobody's, once it has ended.
    pub(super) fn of(state: SnapshotState) -> Option<Self> {
        match state {
            SnapshotState::Queued | SnapshotState::Collected | SnapshotState::Packing => Some(Self::Pack),
            SnapshotState::Staged | SnapshotState::Uploading => Some(Self::Ship),
            SnapshotState::Complete | SnapshotState::Failed | SnapshotState::Cancelled => None,
        }
    }

    fn thread_name(self) -> &'static str {
        match self {
            Self::Follow => "cbfs-follower",
            Self::Pack => "cbfs-packer",
            Self::Ship => "cbfs-shipper",
            Self::Evacuate => "cbfs-evacuator",
        }
    }
}

/// That there is something to do.
#[derive(Default)]
struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn raise(&self) {
        *self.raised.lock() = true;
        self.changed.notify_all();
    }

    /// Waits for it, for `limit` at most; whether it was raised. It is down then.
    fn take(&self, limit: Duration) -> bool {
        let mut raised = self.raised.lock();
        if !*raised {
            self.changed.wait_for(&mut raised, limit);
        }
        std::mem::take(&mut *raised)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Worker {
    follow: Signal,
    pack: Signal,
    ship: Signal,
    evacuate: Signal,
    stopping: watch::Sender<bool>,
    /// Snapshots that somebody wants cancelled, as in their rows.
    wishes: watch::Sender<BTreeSet<Uuid>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Worker {
    fn signal(&self, duty: Duty) -> &Signal {
        match duty {
            Duty::Follow => &self.follow,
            Duty::Pack => &self.pack,
            Duty::Ship => &self.ship,
            Duty::Evacuate => &self.evacuate,
        }
    }

    /// There is something to do, for whichever of them.
    pub(super) fn wake(&self) {
        self.evacuate.raise();
        self.follow.raise();
        self.pack.raise();
        self.ship.raise();
    }

    /// The other thread has left something for this one.
    pub(super) fn hand_to(&self, duty: Duty) {
        self.signal(duty).raise();
    }

    /// Ends the threads; what they are doing is given up where it stands and goes on at the next start.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
        self.wake();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a snapshot thread had ended by a panic");
            }
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

    /// In the middle of its work a thread waits until the other one has done something, or for a moment.
    pub(super) fn nap(&self, duty: Duty) {
        self.signal(duty).take(NAP);
    }
}

impl Agent {
    /// Starts the threads of a master.
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
        for duty in [Duty::Follow, Duty::Pack, Duty::Ship, Duty::Evacuate] {
            let weak = Arc::downgrade(agent);
            let name = duty.thread_name().to_owned();
            let thread = std::thread::Builder::new().name(name).spawn(move || work_loop(&weak, duty));
            let thread = thread.map_err(|error| AgentError::Internal(error.to_string()))?;
            agent.worker.threads.lock().push(thread);
        }
        agent.worker.wake();
        Ok(())
    }

    /// What needs no bucket, and is done whether that answers or not.
    fn local_work(&self, duty: Duty) {
        if matches!(duty, Duty::Follow | Duty::Evacuate) {
            return;
        }
        if duty == Duty::Ship {
            self.give_way();
        }
        if let Err(error) = self.fulfil_wishes(duty) {
            tracing::warn!(%error, "a snapshot could not be cancelled yet");
        }
        if duty == Duty::Pack
            && let Err(error) = self.periodic_snapshot()
        {
            tracing::warn!(%error, "no periodic snapshot could be taken");
        }
    }

    fn work(&self, duty: Duty) -> Result<(), AgentError> {
        match duty {
            Duty::Follow => self.follow_journal(),
            Duty::Pack => self.pack_ready(),
            Duty::Ship => self.ship_ready(),
            Duty::Evacuate => self.evacuate_ready(),
        }
    }
}

fn work_loop(agent: &Weak<Agent>, duty: Duty) {
    let mut since = Instant::now();
    let mut pause: Option<Duration> = None;
    loop {
        let Some(agent) = agent.upgrade() else { return };
        if agent.worker.is_stopping() {
            return;
        }
        let limit = pause.unwrap_or_else(|| match duty {
            Duty::Follow => FOLLOW_EVERY,
            Duty::Pack | Duty::Ship | Duty::Evacuate => agent.check_interval(),
        });
        let woken = agent.worker.signal(duty).take(NAP.min(limit)) || since.elapsed() >= limit;
        agent.local_work(duty);
        if !woken {
            continue;
        }
        if pause.is_some() && since.elapsed() < limit {
            // A store that is away is not asked more often because somebody waits.
            std::thread::sleep(NAP);
            agent.worker.hand_to(duty);
            continue;
        }
        let work = || agent.work(duty);
        // A panic must not end the watch over the reign.
        let done = catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err(AgentError::Internal("a snapshot thread met a bug".into())));
        pause = match done {
            Ok(()) => None,
            Err(AgentError::Stopping) => return,
            Err(error) => {
                tracing::debug!(%error, ?duty, "a round of a snapshot thread failed");
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
