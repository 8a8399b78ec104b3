//! The attempt that is being packed: what of it may leave already, and what it stands on.
//!
//! Shared by the two threads. Whatever becomes of the attempt, objects that left early are orphans at worst (I3); nothing
//! here survives a restart, because packing begins anew then.

use crate::error::AgentError;
use crate::snapshot::job::JobObject;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use uuid::Uuid;

/// What a snapshot is packed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The base of the local layers.
    Official,
    /// A snapshot before it that is on its way, as that attempt of it has staged it.
    Staged {
        /// The snapshot.
        snapshot: Uuid,
        /// Its attempt.
        op: Uuid,
    },
}

/// See the module.
#[derive(Default)]
pub(super) struct Attempt(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    op: Option<Uuid>,
    standing: Option<Standing>,
    /// Complete in the proxy, in the order in which they were written.
    ready: VecDeque<JobObject>,
    /// Sizes of those that the bucket has.
    sent: BTreeMap<String, u64>,
    /// Why nothing more of it can ever leave.
    hopeless: Option<AgentError>,
}

impl Attempt {
    /// A new one begins; of the last one nothing more leaves.
    pub(super) fn begin(&self, op: Uuid, standing: Standing) {
        *self.0.lock() = Inner { op: Some(op), standing: Some(standing), ..Inner::default() };
    }

    /// What it stands on.
    pub(super) fn standing(&self) -> Option<Standing> {
        self.0.lock().standing
    }

    /// An object of attempt `op` may leave.
    pub(super) fn offer(&self, op: Option<Uuid>, object: JobObject) {
        let mut inner = self.0.lock();
        if inner.op == op {
            inner.ready.push_back(object);
        }
    }

    /// The same for all of `staged` that are of this attempt and were never offered.
    pub(super) fn offer_rest(&self, staged: impl Iterator<Item = (String, u64)>) {
        let mut inner = self.0.lock();
        let Some(op) = inner.op.map(|op| op.simple().to_string()) else { return };
        for (name, size) in staged.filter(|(name, _)| name.contains(&op)) {
            if !inner.sent.contains_key(&name) && !inner.ready.iter().any(|object| object.name == name) {
                inner.ready.push_back(JobObject { name, size, hash: None, sent: false });
            }
        }
    }

    /// What may leave of attempt `op` now; what is not sent comes back by [`Attempt::offer`].
    pub(super) fn take_ready(&self, op: Option<Uuid>) -> Vec<JobObject> {
        let mut inner = self.0.lock();
        if op.is_some() && inner.op == op { inner.ready.drain(..).collect() } else { Vec::new() }
    }

    /// The bucket has an object of attempt `op`.
    pub(super) fn note_sent(&self, op: Option<Uuid>, object: &JobObject) {
        let mut inner = self.0.lock();
        if inner.op == op {
            inner.sent.insert(object.name.clone(), object.size);
        }
    }

    /// Objects and bytes of attempt `op` that left early.
    pub(super) fn sent(&self, op: Option<Uuid>) -> (u64, u64) {
        let inner = self.0.lock();
        if inner.op == op { (inner.sent.len() as u64, inner.sent.values().sum()) } else { (0, 0) }
    }

    /// Whether that object left early.
    pub(super) fn has_sent(&self, object: &str) -> bool {
        self.0.lock().sent.contains_key(object)
    }

    /// Nothing more of attempt `op` can leave.
    pub(super) fn give_up(&self, op: Option<Uuid>, error: AgentError) {
        let mut inner = self.0.lock();
        if inner.op == op {
            inner.hopeless = Some(error);
        }
    }

    /// Why nothing more can leave, once.
    pub(super) fn hopeless(&self) -> Option<AgentError> {
        self.0.lock().hopeless.take()
    }
}
