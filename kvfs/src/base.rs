//! The tier below everything local: a published, immutable snapshot.
//!
//! kvfs defines what it needs; the tiered-object agent provides it.

use crate::ids::{Ino, Xid};
use crate::schema::FrameRef;
use bytes::Bytes;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Something that is not on this machine and can be fetched. The one place where a filesystem operation may wait for
/// the network, on a thread that may wait.
pub trait Fetch: Send + Sync + std::fmt::Debug {
    /// Fetches and checks it; blocks for at most the configured timeout. After success a retry of the operation makes
    /// progress.
    fn fetch(&self) -> Result<(), BaseError>;
}

/// A shared [`Fetch`].
pub type Need = Arc<dyn Fetch>;

/// Why the base could not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BaseError {
    /// Not on this machine yet: fetch, then ask again.
    #[error("not resident: {0:?}")]
    NotResident(Need),
    /// Bytes that do not match their hash; names the object.
    #[error("corrupt: {0}")]
    Corrupt(Arc<str>),
    /// The store did not answer in time; names the object.
    #[error("unavailable: {0}")]
    Unavailable(Arc<str>),
    /// The snapshot is gone from the bucket.
    #[error("gone: {0}")]
    Gone(Arc<str>),
}

/// What a scan shows its visitor: key and value, both as in [`crate::schema`].
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A published snapshot. Never blocks on the network: what is missing is [`BaseError::NotResident`].
pub trait Base: Send + Sync {
    /// The journal record up to which the base contains everything.
    fn xid(&self) -> Xid;
    /// No inode of the base has this number or a higher one.
    fn ino_end(&self) -> Ino;
    /// Inodes and bytes in the base, for statfs.
    fn totals(&self) -> Totals;
    /// The value of `key` as [`crate::schema::Value`] bytes; a tombstone or an absent key is `None`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BaseError>;
    /// Visits the live keys in `[from, end)` in order, until the visitor breaks.
    fn scan(&self, from: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), BaseError>;
    /// The raw (decompressed, checked) bytes of a whole frame.
    fn read_frame(&self, frame: &FrameRef) -> Result<Bytes, BaseError>;
}

/// Sums over a whole tree, kept by addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    /// Inodes of every kind, the root included.
    pub inodes: u64,
    /// Sum of the sizes of regular files, holes included.
    pub bytes: u64,
}

/// The base of a new filesystem: nothing at all.
#[derive(Debug, Default)]
pub struct EmptyBase;

impl Base for EmptyBase {
    fn xid(&self) -> Xid {
        Xid(0)
    }
    fn ino_end(&self) -> Ino {
        Ino(0)
    }
    fn totals(&self) -> Totals {
        Totals::default()
    }
    fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, BaseError> {
        Ok(None)
    }
    fn scan(&self, _from: &[u8], _end: &[u8], _visit: &mut Visit<'_>) -> Result<(), BaseError> {
        Ok(())
    }
    fn read_frame(&self, frame: &FrameRef) -> Result<Bytes, BaseError> {
        Err(BaseError::Corrupt(format!("pack {}: an empty base has no packs", frame.pack).into()))
    }
}
