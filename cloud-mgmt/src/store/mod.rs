//! A place for immutable objects.
//!
//! One trait for S3, for a directory used as a bucket and for the memory of a test. Everything in a bucket is written
//! once, except best-effort hints; the ledger rests on [`ObjectStore::put_if_absent`] alone.

pub mod conformance;
pub mod dir;
pub mod error;
pub mod memory;
mod object_name;
mod observed;
pub mod requests;
pub mod s3;
pub mod url;

pub use dir::DirStore;
pub use error::{StoreError, StoreErrorKind};
pub use memory::{Conditions, FaultMoment, FaultPlan, MemoryStore};
pub use observed::{Call, Counted, Observed, Observer};
pub use requests::{RequestCounter, RequestKind, Requests};
pub use s3::S3Store;
pub use url::{Addressing, S3Address, StoreUrl};

use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

/// What became of a conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// A clean success: the object is ours.
    Created,
    /// The name was taken when the store looked. By whom is for the caller to read: after a lost answer the SDK's own
    /// retry gets this for its own success.
    Taken,
}

/// What a store tells of an object without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Name below the store's prefix.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When the store took it; by the store's clock, for people only.
    pub modified: Option<SystemTime>,
}

/// A place for objects. Names are relative to the store's prefix, components joined by single `/`.
///
/// Every call has a time limit of its own (see [`StoreOptions`]) and ends with an error, never with a hang. Success of a
/// write means: durable as far as the store promises (a directory: fsynced, its directory too).
#[async_trait]
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// The store's URL without credentials, for messages.
    fn url(&self) -> &str;

    /// Writes `body` if nothing has that name. Atomic among any number of racing writers: one `Created`. An `Err` says
    /// nothing about whether it was applied.
    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError>;

    /// Uploads a local file under a name that is never used for other bytes (packs, runs); large files in parts, with
    /// `progress` told the bytes sent so far. Sending the same file again is harmless.
    async fn put_file(&self, name: &str, file: &Path, progress: &(dyn Fn(u64) + Send + Sync))
    -> Result<(), StoreError>;

    /// Writes or overwrites: only for best-effort objects that nothing depends on.
    async fn put(&self, name: &str, body: Bytes) -> Result<(), StoreError>;

    /// The whole object.
    async fn get(&self, name: &str) -> Result<Bytes, StoreError>;

    /// Exactly the bytes of `range`; a body that ends early is resumed from where it stopped. A range beyond the end is
    /// an error of kind [`StoreErrorKind::Corrupt`].
    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Size, or kind [`StoreErrorKind::NotFound`].
    async fn head(&self, name: &str) -> Result<ObjectMeta, StoreError>;

    /// All objects whose name starts with `prefix`, sorted by name.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError>;

    /// The first components below `prefix` (which ends with `/` or is empty): objects only, no "directories"; sorted.
    /// Cheap also in a bucket with millions of objects.
    async fn list_here(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError>;

    /// Deletes; an object that is not there is deleted.
    async fn delete(&self, name: &str) -> Result<(), StoreError>;

    /// Aborts uploads in parts that a process which is gone has left behind: of objects whose name starts with `prefix`
    /// and of which `abandoned` says that nobody sends them any more. Answers how many. Their parts cost money, and
    /// [`list`](Self::list) does not show them. Stores that write objects in one piece have none.
    async fn abort_uploads(
        &self,
        prefix: &str,
        abandoned: &(dyn for<'n> Fn(&'n str) -> bool + Send + Sync),
    ) -> Result<u64, StoreError>;
}

/// Time limits and parallelism of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// One attempt of one request without progress, milliseconds.
    pub attempt_timeout_ms: u64,
    /// One call with its retries (transfers of large objects: between two bits of progress), milliseconds.
    pub operation_timeout_ms: u64,
    /// Parts or ranges in flight per call.
    pub concurrency: usize,
}

impl StoreOptions {
    /// For commands that a person waits for: an answer within 10 s.
    pub const INTERACTIVE: Self = Self { attempt_timeout_ms: 3_000, operation_timeout_ms: 8_000, concurrency: 8 };
    /// For daemons, which retry for ever on top of this.
    pub const DAEMON: Self = Self { attempt_timeout_ms: 10_000, operation_timeout_ms: 30_000, concurrency: 8 };
}
