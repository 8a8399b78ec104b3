//! Operations that must not happen twice, although the kernel may ask twice: once this process, once the one before it.
//!
//! What was committed and not answered is known by its request (see [`crate::request`]): then it is answered as done.
//! The others need none of this. They give the same result again, and the kernel holds the lock of the inode that they
//! change until they are answered.

use crate::error::{FsError, FsResult};
use crate::fs::api::{Attributes, FileSystem};
use crate::request::{DoneRequest, Lane, RequestId, Requested, WorkingFor};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// The kernel marks so what it sends again.
const SENT_AGAIN: u64 = 1 << 63;

/// Numbers of threads, given at their first operation.
static THREADS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static THREAD: Cell<Option<u32>> = const { Cell::new(None) };
    /// The connection on which this thread has seen a request that was not sent again.
    static SEEN_NEW: Cell<u32> = const { Cell::new(0) };
}

/// The requests of one connection in one process life.
#[derive(Debug)]
pub(super) struct Requests {
    connection: u32,
    life: u32,
    /// Session threads that may still have a request in hand that was sent again. The kernel hands these out before
    /// any new one, and a thread does one after the other: a thread that sees a new one has no old one any more.
    with_old: AtomicUsize,
}

impl Requests {
    pub(super) fn new(connection: u32, life: u32, session_threads: usize) -> Self {
        Self { connection, life, with_old: AtomicUsize::new(session_threads) }
    }

    /// A request that must not be done twice. Call it on the session thread that read it.
    pub(super) fn once(&self, fs: &dyn FileSystem, unique: u64) -> Once {
        let sent = if unique & SENT_AGAIN == 0 { Sent::New } else { Sent::Again };
        if sent == Sent::New && self.life > 0 {
            self.seen_new(fs);
        }
        Once { id: RequestId { connection: self.connection, unique: unique & !SENT_AGAIN }, life: self.life, sent }
    }

    fn seen_new(&self, fs: &dyn FileSystem) {
        if SEEN_NEW.get() == self.connection {
            return;
        }
        SEEN_NEW.set(self.connection);
        if self.with_old.fetch_sub(1, Ordering::AcqRel) == 1 {
            fs.forget_requests_before(self.life);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    New,
    Again,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Once {
    id: RequestId,
    life: u32,
    sent: Sent,
}

impl Once {
    /// The result of `op`, or of what was done for this request before.
    pub(super) fn run<T: Done>(self, fs: &dyn FileSystem, op: impl FnOnce() -> FsResult<T>) -> FsResult<T> {
        if self.sent == Sent::Again
            && let Some(done) = fs.done_request(self.id)
        {
            tracing::debug!(unique = self.id.unique, "done already, not answered");
            return T::again(fs, done);
        }
        let lane = Lane { life: self.life, thread: thread() };
        let working = WorkingFor::begin(Requested { id: self.id, lane });
        let result = op();
        drop(working);
        fail::fail_point!("fuse::before_answer");
        result
    }
}

fn thread() -> u32 {
    THREAD.get().unwrap_or_else(|| {
        let number = THREADS.fetch_add(1, Ordering::Relaxed);
        THREAD.set(Some(number));
        number
    })
}

/// A result that can be given again.
pub(super) trait Done: Sized {
    /// What is to be answered to a request that was done.
    fn again(fs: &dyn FileSystem, done: DoneRequest) -> FsResult<Self>;
}

impl Done for () {
    fn again(_fs: &dyn FileSystem, _done: DoneRequest) -> FsResult<Self> {
        Ok(())
    }
}

impl Done for Attributes {
    fn again(fs: &dyn FileSystem, done: DoneRequest) -> FsResult<Self> {
        fs.attributes(done.ino.ok_or(FsError::Stale)?)
    }
}
