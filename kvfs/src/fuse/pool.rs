//! A bounded pool of threads that may wait, so that session threads need not.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that start when there is work, up to a limit, and stay until the pool is closed.
pub(super) struct Pool {
    shared: Arc<Shared>,
}

/// Why a pool did not take a job. The job is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PoolError {
    /// As many jobs wait as may (I7).
    #[error("too many operations wait already")]
    Full,
    /// The filesystem is being unmounted.
    #[error("unmounted")]
    Closed,
    /// The host gives no thread.
    #[error("no thread to wait on")]
    NoThread,
}

struct Shared {
    name: &'static str,
    threads_max: usize,
    queue_max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Pool {
    pub(super) fn new(name: &'static str, threads_max: usize, queue_max: usize) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { name, threads_max, queue_max, state, changed }) }
    }

    /// Runs `job` on a thread of the pool, in turn; never waits.
    pub(super) fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), PoolError> {
        let mut state = self.shared.state.lock();
        if state.closed {
            return Err(PoolError::Closed);
        }
        if state.queue.len() >= self.shared.queue_max {
            return Err(PoolError::Full);
        }
        if state.idle <= state.queue.len() && state.threads < self.shared.threads_max {
            let shared = self.shared.clone();
            let spawned = std::thread::Builder::new().name(self.shared.name.into()).spawn(move || shared.work());
            match spawned {
                Ok(_detached) => state.threads += 1,
                Err(_) if state.threads > 0 => {}
                Err(_) => return Err(PoolError::NoThread),
            }
        }
        state.queue.push_back(Box::new(job));
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Takes no more jobs and drops those that have not begun.
    pub(super) fn close(&self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        let dropped = std::mem::take(&mut state.queue);
        drop(state);
        self.shared.changed.notify_all();
        drop(dropped);
    }

    /// Whether [`close`](Self::close) was called: what waits should give up.
    pub(super) fn is_closed(&self) -> bool {
        self.shared.state.lock().closed
    }
}

impl Drop for Pool {
    /// Does not join: the last owner may be a job of the pool itself.
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                // A job that panics answers with an error: its reply is dropped. The thread goes on, or a pool of one would
                // keep all that come later waiting for ever. What panicked has said so on its own.
                let _panicked = catch_unwind(AssertUnwindSafe(job));
                state = self.state.lock();
            } else if state.closed {
                state.threads -= 1;
                return;
            } else {
                state.idle += 1;
                self.changed.wait(&mut state);
                state.idle -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_run_side_by_side_up_to_the_limit_and_wait_up_to_the_queue() {
        let pool = Pool::new("test", 2, 1);
        let (started, starts) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for _ in 0..2 {
            let (started, gate) = (started.clone(), gate.clone());
            pool.submit(move || {
                started.send(()).unwrap();
                let _released = gate.lock().recv();
            })
            .unwrap();
            // Each has begun before the next comes, so the queue of one is free again.
            starts.recv().unwrap();
        }
        pool.submit(move || started.send(()).unwrap()).unwrap();
        assert_eq!(pool.submit(|| {}), Err(PoolError::Full));
        assert!(starts.try_recv().is_err());
        drop(release);
        starts.recv().unwrap();
    }

    #[test]
    fn a_pool_goes_on_after_a_job_that_panics() {
        let pool = Pool::new("test", 1, 8);
        let (answer, answers) = mpsc::channel::<u8>();
        let unanswered = answer.clone();
        pool.submit(move || {
            let _held = unanswered;
            panic!("a job of the test panics");
        })
        .unwrap();
        for round in 0..3 {
            let answer = answer.clone();
            pool.submit(move || answer.send(round).unwrap()).unwrap();
            assert_eq!(answers.recv(), Ok(round));
        }
        drop(answer);
        assert_eq!(answers.recv(), Err(mpsc::RecvError));
    }

    #[test]
    fn a_closed_pool_drops_what_has_not_begun() {
        let pool = Pool::new("test", 1, 8);
        let (started, starts) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        pool.submit(move || {
            started.send(()).unwrap();
            let _released = gate.recv();
        })
        .unwrap();
        starts.recv().unwrap();
        let (never, dropped) = mpsc::channel::<()>();
        pool.submit(move || never.send(()).unwrap()).unwrap();
        pool.close();
        assert!(dropped.recv().is_err());
        assert_eq!(pool.submit(|| {}), Err(PoolError::Closed));
        assert!(pool.is_closed());
        drop(release);
    }
}
