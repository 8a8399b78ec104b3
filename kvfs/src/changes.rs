//! What changed since the last published snapshot, as an agent collects it.

use crate::base::{Totals, Visit};
use crate::error::FsResult;
use crate::ids::{Epoch, Ino, Xid};
use crate::op::SnapshotRequest;
use crate::schema::BlobRef;
use bytes::Bytes;

/// The merged sealed layers of one snapshot request: immutable, on local disk, readable from any thread for as long as
/// the value lives. Keys and values are those of [`crate::schema`]; extents point to local blobs, to frames of packs
/// that the base knows, or are inline.
pub trait ChangeSet: Send + Sync {
    /// The snapshot that was asked for.
    fn request(&self) -> &SnapshotRequest;
    /// The epoch under which it was asked.
    fn epoch(&self) -> Epoch;
    /// Changes are newer than this (the base's xid) …
    fn xid_from(&self) -> Xid;
    /// … and not newer than this.
    fn xid(&self) -> Xid;
    /// No inode of the snapshot has this number or a higher one.
    fn ino_end(&self) -> Ino;
    /// Sums over the whole tree of the snapshot.
    fn totals(&self) -> Totals;
    /// Visits every change with a key in `[from, end)` in key order: tombstones, cuts and orphan marks included.
    fn scan(&self, from: &[u8], end: &[u8], visit: &mut Visit<'_>) -> FsResult<()>;
    /// The change of one key, tombstones included; `None` if it did not change.
    fn get(&self, key: &[u8]) -> FsResult<Option<Bytes>>;
    /// All bytes of a local blob, checked against its crc.
    fn read_blob(&self, blob: &BlobRef) -> FsResult<Bytes>;
}
