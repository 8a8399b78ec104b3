//! Group flush: one leader flushes for everybody who waits; a failed flush is final.

use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// An earlier flush failed: the kernel may have dropped what it could not write, so a second try would prove nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a flush failed, nothing more is accepted: {0}")]
pub struct Poisoned(pub Arc<str>);

#[derive(Debug, Default)]
struct State {
    running: bool,
    poison: Option<Poisoned>,
}

/// How far a log is flushed, and who does the next flush.
#[derive(Debug)]
pub struct GroupFlush {
    done: AtomicU64,
    /// Whether there is a poison, for those who only want to know.
    failed: AtomicBool,
    state: Mutex<State>,
    turn: Condvar,
}

impl GroupFlush {
    /// Everything up to `done` is flushed.
    pub fn new(done: u64) -> Self {
        Self {
            done: AtomicU64::new(done),
            failed: AtomicBool::new(false),
            state: Mutex::default(),
            turn: Condvar::new(),
        }
    }

    /// How far everything is flushed.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// An error once a flush has failed.
    pub fn check(&self) -> Result<(), Poisoned> {
        self.state.lock().poison.clone().map_or(Ok(()), Err)
    }

    /// Whether a flush has failed. Costs nothing.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Refuses everything from now on because of `error`.
    pub fn poison(&self, error: &io::Error) -> Poisoned {
        let poison = Poisoned(error.to_string().into());
        self.failed.store(true, Ordering::Release);
        self.state.lock().poison.get_or_insert(poison).clone()
    }

    /// Returns when everything up to `target` is flushed, with the mark that was reached. `run` flushes all there is and
    /// answers with its mark; it is called by one thread at a time, and only if nobody else's flush was enough.
    pub fn reach(&self, target: u64, run: impl FnOnce() -> io::Result<u64>) -> Result<u64, Poisoned> {
        let mut state = self.state.lock();
        loop {
            if let Some(poison) = &state.poison {
                return Err(poison.clone());
            }
            if self.done() >= target {
                return Ok(self.done());
            }
            if !state.running {
                break;
            }
            // A flush that began before our bytes were written may not cover them: wait for it, then look again.
            self.turn.wait(&mut state);
        }
        state.running = true;
        drop(state);
        let outcome = run();
        let answer = match outcome {
            Ok(mark) => {
                self.done.fetch_max(mark, Ordering::AcqRel);
                Ok(self.done())
            }
            Err(error) => Err(self.poison(&error)),
        };
        self.state.lock().running = false;
        self.turn.notify_all();
        answer
    }
}
