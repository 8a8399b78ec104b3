//! The checkpointer thread, and how writers wait for it.

use super::Engine;
use super::compact::Pieces;
use crate::error::{FsError, FsResult};
use parking_lot::{Condvar, Mutex};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a writer waits for a checkpoint before it looks again.
const WAIT: Duration = Duration::from_millis(100);
/// Pause after a failed checkpoint.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Signals {
    wanted: bool,
    stop: bool,
    problem: Option<FsError>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Worker {
    signals: Mutex<Signals>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Starts the checkpointer; it lives as long as the engine.
    pub(super) fn start_worker(engine: &Arc<Engine>) -> FsResult<()> {
        let weak = Arc::downgrade(engine);
        let thread = std::thread::Builder::new()
            .name("cbfs-checkpoint".into())
            .spawn(move || checkpoint_loop(&weak))
            .map_err(|error| FsError::os("the checkpoint thread", &error))?;
        *engine.worker.thread.lock() = Some(thread);
        Ok(())
    }

    /// Lets a writer in, or makes it wait while memory is full (I7). Call it before taking any lock.
    pub fn admit(&self) -> FsResult<()> {
        let mut bytes = self.active()?.bytes();
        if bytes <= self.options.overlay_bytes_max {
            return Ok(());
        }
        self.want_checkpoint();
        while bytes > 2 * self.options.overlay_bytes_max {
            self.check_writable()?;
            self.want_checkpoint();
            self.await_worker()?;
            bytes = self.active()?.bytes();
        }
        Ok(())
    }

    /// Why checkpoints fail, if they do.
    pub fn problem(&self) -> Option<FsError> {
        self.worker.signals.lock().problem.clone()
    }

    /// Brings everything acknowledged so far into LMDB, now, on this thread.
    pub fn checkpoint(&self) -> FsResult<()> {
        self.checkpoint_now()
    }

    pub(super) fn want_checkpoint(&self) {
        self.worker.signals.lock().wanted = true;
        self.worker.changed.notify_all();
    }

    /// Waits for a moment of the worker's; its problem is an error.
    fn await_worker(&self) -> FsResult<()> {
        let mut signals = self.worker.signals.lock();
        if let Some(problem) = &signals.problem {
            return Err(problem.clone());
        }
        self.worker.changed.wait_for(&mut signals, WAIT);
        Ok(())
    }

    /// Waits until there is room to freeze another overlay.
    pub(super) fn await_room(&self) -> FsResult<()> {
        while self.stack.load().frozen.len() >= 2 {
            self.check_writable()?;
            self.want_checkpoint();
            self.await_worker()?;
        }
        Ok(())
    }

    /// Brings everything into LMDB, flushes and stops the thread. The engine answers reads afterwards, no writes.
    pub fn close(&self) -> FsResult<()> {
        self.purge_waiting();
        self.read_only.store(Some(Arc::new("closed".to_owned())));
        self.stop_worker();
        self.flush()?;
        self.freeze(None)?;
        self.insist(|| self.checkpoint_all())
    }

    /// Ends the checkpointer and nothing else: on disk stays what `kill -9` would leave.
    pub fn halt(&self) {
        self.read_only.store(Some(Arc::new("halted".to_owned())));
        self.stop_worker();
    }

    fn stop_worker(&self) {
        self.writeback.stop();
        self.worker.signals.lock().stop = true;
        self.worker.changed.notify_all();
        if let Some(thread) = self.worker.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread had ended by a panic");
        }
    }

    fn await_work(&self, since: Instant) -> Step {
        let mut signals = self.worker.signals.lock();
        let limit = if signals.problem.is_some() { RETRY } else { self.options.checkpoint_interval };
        while !signals.stop && !signals.wanted {
            // Short naps: the engine must not be kept alive by a thread that sleeps in it.
            if self.worker.changed.wait_for(&mut signals, WAIT).timed_out() {
                break;
            }
        }
        if signals.stop {
            Step::Stop
        } else if signals.wanted || since.elapsed() >= limit {
            signals.wanted = false;
            Step::Checkpoint
        } else {
            Step::Wait
        }
    }

    /// The pause after a failure; whoever stops the thread does not wait for its end.
    fn pause(&self) {
        let until = Instant::now() + RETRY;
        let mut signals = self.worker.signals.lock();
        while !signals.stop && !self.worker.changed.wait_until(&mut signals, until).timed_out() {}
    }

    fn report(&self, result: FsResult<()>) {
        let problem = result.err();
        if let Some(error) = &problem {
            tracing::error!(%error, "a checkpoint failed; it is tried again");
        }
        let mut signals = self.worker.signals.lock();
        let differs = signals.problem.is_some() != problem.is_some();
        signals.problem = problem;
        drop(signals);
        self.worker.changed.notify_all();
        if differs {
            self.notify();
        }
    }
}

enum Step {
    Stop,
    Wait,
    Checkpoint,
}

fn checkpoint_loop(engine: &Weak<Engine>) {
    let mut since = Instant::now();
    loop {
        let Some(engine) = engine.upgrade() else { return };
        match engine.await_work(since) {
            Step::Stop => return,
            Step::Wait => {
                engine.purge_waiting();
                if engine.has_retired() {
                    let _turn = engine.checkpointing.lock();
                    engine.reclaim();
                }
                compact(&engine, Pieces::One);
                end_shortage(&engine);
            }
            Step::Checkpoint => {
                let checkpoint = || engine.insist(|| engine.checkpoint_now());
                // A panic in here must not leave writers waiting for a thread that is gone.
                let result = catch_unwind(AssertUnwindSafe(checkpoint))
                    .unwrap_or_else(|_| Err(FsError::io("the checkpoint ended by a panic")));
                let failed = result.is_err();
                engine.report(result);
                engine.purge_again();
                if failed {
                    engine.pause();
                } else {
                    compact(&engine, Pieces::Some);
                }
                end_shortage(&engine);
                since = Instant::now();
            }
        }
    }
}

/// As with checkpoints, a panic does not end the thread.
fn compact(engine: &Engine, pieces: Pieces) {
    if catch_unwind(AssertUnwindSafe(|| engine.compact_some(pieces))).is_err() {
        tracing::error!("compaction of data segments ended by a panic");
    }
}

fn end_shortage(engine: &Engine) {
    if catch_unwind(AssertUnwindSafe(|| engine.end_shortage())).is_err() {
        tracing::error!("looking for room on the disk ended by a panic");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop_worker();
    }
}
