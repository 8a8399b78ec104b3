//! What a store was asked, counted: what a provider bills, and what a snapshot costs.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a request is for, as providers tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// Reads an object or a part of it.
    Get,
    /// Writes an object in one piece.
    Put,
    /// Belongs to a write in parts: its begin, each part, its end, or that it is given up.
    Part,
    /// Asks for the size of an object, or for the bucket.
    Head,
    /// Lists names.
    List,
    /// Deletes.
    Delete,
    /// Anything else.
    Other,
}

/// What one client has asked since it was made. A call that is given up counts as well: it may have been answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// Of kind [`RequestKind::Get`].
    pub get: u64,
    /// Of kind [`RequestKind::Put`].
    pub put: u64,
    /// Of kind [`RequestKind::Part`].
    pub part: u64,
    /// Of kind [`RequestKind::Head`].
    pub head: u64,
    /// Of kind [`RequestKind::List`].
    pub list: u64,
    /// Of kind [`RequestKind::Delete`].
    pub delete: u64,
    /// Of kind [`RequestKind::Other`].
    pub other: u64,
    /// How many of all these repeated a request that had failed.
    pub repeated: u64,
    /// Bytes of bodies that were sent, those of repetitions too.
    pub bytes_sent: u64,
    /// Bytes of objects that came.
    pub bytes_received: u64,
}

impl Requests {
    /// Requests of all kinds.
    pub fn total(&self) -> u64 {
        self.get + self.put + self.part + self.head + self.list + self.delete + self.other
    }
}

/// Counts for one client; whoever has it can look at any time.
#[derive(Debug, Default)]
pub struct RequestCounter {
    get: AtomicU64,
    put: AtomicU64,
    part: AtomicU64,
    head: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
    other: AtomicU64,
    repeated: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
}

impl RequestCounter {
    /// One request.
    pub fn asked(&self, kind: RequestKind) {
        let count = match kind {
            RequestKind::Get => &self.get,
            RequestKind::Put => &self.put,
            RequestKind::Part => &self.part,
            RequestKind::Head => &self.head,
            RequestKind::List => &self.list,
            RequestKind::Delete => &self.delete,
            RequestKind::Other => &self.other,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// The request before was a repetition.
    pub fn repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of a body went out.
    pub fn sent(&self, bytes: u64) {
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of an object came.
    pub fn received(&self, bytes: u64) {
        self.bytes_received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The sums so far.
    pub fn sums(&self) -> Requests {
        let sum = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Requests {
            get: sum(&self.get),
            put: sum(&self.put),
            part: sum(&self.part),
            head: sum(&self.head),
            list: sum(&self.list),
            delete: sum(&self.delete),
            other: sum(&self.other),
            repeated: sum(&self.repeated),
            bytes_sent: sum(&self.bytes_sent),
            bytes_received: sum(&self.bytes_received),
        }
    }
}
