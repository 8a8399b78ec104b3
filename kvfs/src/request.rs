//! Which request of the kernel a thread works for: so that one that is sent again to another process is applied once.
//!
//! A process that dies may have committed an operation and not have answered it. The kernel sends the request again to
//! the process that follows. So the journal record of an operation that must not happen twice carries its request, and
//! whoever recovers knows what was done.
//!
//! A thread answers a request before it takes the next one. So of all the requests of one thread only the last one can
//! be without its answer: one request for each *lane* (a thread of one process life) is all that has to be remembered,
//! in memory, in a checkpoint and in recovery. Nothing has to be done when an answer is sent.

use crate::ids::Ino;
use serde::{Deserialize, Serialize};
use std::cell::Cell;

/// A request of the kernel, unique over all process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// The connection to the kernel, that is the mount: a random number.
    pub connection: u32,
    /// Its number on the connection.
    pub unique: u64,
}

/// A thread of one process life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lane {
    /// Which life, counted from 0 by whoever holds the connection.
    pub life: u32,
    /// Which thread of it.
    pub thread: u32,
}

/// What a journal record says of the request that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// The request.
    pub id: RequestId,
    /// Who works for it.
    pub lane: Lane,
}

/// A request that was committed and perhaps not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneRequest {
    /// The request, and who worked for it.
    pub requested: Requested,
    /// The inode that it made or gave a name to.
    pub ino: Option<Ino>,
}

/// What is done already of the requests that nobody may have answered: the last one of each lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneRequests {
    lanes: Vec<DoneRequest>,
}

impl DoneRequests {
    /// Takes over a request that was committed; the one before in its lane is answered.
    pub fn note(&mut self, done: DoneRequest) {
        match self.lanes.iter_mut().find(|known| known.requested.lane == done.requested.lane) {
            Some(known) => *known = done,
            None => self.lanes.push(done),
        }
    }

    /// What was done for a request, if it was.
    pub fn find(&self, id: RequestId) -> Option<DoneRequest> {
        self.lanes.iter().find(|done| done.requested.id == id).copied()
    }

    /// Forgets other connections: their requests do not come back.
    pub fn keep_connection(&mut self, connection: u32) {
        self.lanes.retain(|done| done.requested.id.connection == connection);
    }

    /// Forgets the lives before `life`: nothing of them is sent again any more.
    pub fn forget_before(&mut self, life: u32) {
        self.lanes.retain(|done| done.requested.lane.life >= life);
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }
}

thread_local! {
    static CURRENT: Cell<Option<Requested>> = const { Cell::new(None) };
}

/// While it lives, this thread works for a request: records that it commits carry it. One record for each request.
#[derive(Debug)]
pub struct WorkingFor {
    before: Option<Requested>,
}

impl WorkingFor {
    /// From now on.
    pub fn begin(requested: Requested) -> Self {
        Self { before: CURRENT.replace(Some(requested)) }
    }
}

impl Drop for WorkingFor {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// The request that this thread works for.
pub fn current() -> Option<Requested> {
    CURRENT.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(life: u32, thread: u32, unique: u64) -> DoneRequest {
        let requested = Requested { id: RequestId { connection: 7, unique }, lane: Lane { life, thread } };
        DoneRequest { requested, ino: Some(Ino(unique)) }
    }

    #[test]
    fn a_lane_remembers_its_last_request() {
        let mut all = DoneRequests::default();
        for request in [done(0, 0, 2), done(0, 1, 4), done(0, 0, 6)] {
            all.note(request);
        }
        assert_eq!(all.len(), 2);
        assert_eq!(all.find(RequestId { connection: 7, unique: 2 }), None, "it was answered before 6 came");
        assert_eq!(all.find(RequestId { connection: 7, unique: 4 }), Some(done(0, 1, 4)));
        assert_eq!(all.find(RequestId { connection: 8, unique: 4 }), None);
    }

    #[test]
    fn lives_do_not_take_each_others_place() {
        let mut all = DoneRequests::default();
        all.note(done(0, 0, 2));
        all.note(done(1, 0, 4));
        assert_eq!(all.len(), 2);
        all.forget_before(1);
        assert_eq!(all.find(RequestId { connection: 7, unique: 2 }), None);
        assert!(all.find(RequestId { connection: 7, unique: 4 }).is_some());
        all.keep_connection(8);
        assert!(all.is_empty());
    }

    #[test]
    fn a_thread_works_for_one_request_at_a_time() {
        assert_eq!(current(), None);
        let outer = WorkingFor::begin(done(0, 0, 2).requested);
        {
            let _inner = WorkingFor::begin(done(0, 0, 4).requested);
            assert_eq!(current(), Some(done(0, 0, 4).requested));
        }
        assert_eq!(current(), Some(done(0, 0, 2).requested));
        drop(outer);
        assert_eq!(current(), None);
    }
}
