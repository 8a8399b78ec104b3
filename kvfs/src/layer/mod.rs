//! A layer: what changed between two snapshots, in one LMDB environment.
//!
//! ```text
//! layers/<n>/   kv    key → value                      the key space (schema)
//!               meta  "meta" → LayerMeta (postcard)     how far, sealed or not
//!               live  segment → extents that name it    so that segments can be recycled
//! ```
//! The top layer is written by checkpoints and compaction alone; a sealed layer is never written again.

mod build;
#[cfg(test)]
mod tests;
mod write;

pub use build::{create, list, remove, sync_dir};
pub use write::{CheckpointMark, CheckpointWriter};

use crate::base::{Totals, Visit};
use crate::error::{FsError, FsResult};
use crate::ids::{Epoch, Ino, SegmentNo, Xid};
use crate::lmdb::{self, LocalEnv};
use crate::op::SnapshotRequest;
use crate::request::DoneRequests;
use heed::Database;
use heed::types::Bytes as Raw;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How far a layer goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMeta {
    /// Position in the stack; never used again.
    pub number: u64,
    /// Everything up to this record is in the layers below.
    pub xid_from: Xid,
    /// Everything up to this record is in here.
    pub applied: Xid,
    /// Inodes from this number on were born in this layer or above: nothing below knows them.
    pub ino_floor: Ino,
    /// No inode up to `applied` has this number or a higher one.
    pub ino_end: Ino,
    /// Sums over the whole tree at `applied`.
    pub totals: Totals,
    /// It has a cut or an inode tombstone: something that hides keys of the layers below.
    pub hiding: bool,
    /// Requests up to `applied` that may not be answered: their records leave the journal.
    pub requests: DoneRequests,
    /// Set once, with the last write.
    pub sealed: Option<Seal>,
}

/// Why a layer ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The snapshot that was asked for.
    pub request: SnapshotRequest,
    /// The epoch under which it was asked.
    pub epoch: Epoch,
}

/// An open layer.
#[derive(Debug)]
pub struct Layer {
    path: PathBuf,
    env: LocalEnv,
    kv: Database<Raw, Raw>,
    meta_table: Database<Raw, Raw>,
    live_table: Database<Raw, Raw>,
    ino_floor: Ino,
    ino_end: AtomicU64,
    meta: RwLock<LayerMeta>,
    live: RwLock<BTreeMap<SegmentNo, u64>>,
}

const META_KEY: &[u8] = b"meta";
const TABLES: u32 = 3;

impl Layer {
    /// Opens the layer in the directory `path`.
    pub fn open(path: &Path) -> FsResult<Layer> {
        let env = lmdb::open(path, TABLES)?;
        let fail = |error: heed::Error| lmdb::failed(path, &error);
        let missing = || FsError::corrupt(format!("{}: not a layer", path.display()));
        let txn = env.read_txn().map_err(fail)?;
        let table = |name| env.open_database::<Raw, Raw>(&txn, Some(name)).map_err(fail)?.ok_or_else(missing);
        let (kv, meta_table, live_table) = (table("kv")?, table("meta")?, table("live")?);
        let stored = meta_table.get(&txn, META_KEY).map_err(fail)?.ok_or_else(missing)?;
        let meta: LayerMeta = postcard::from_bytes(stored).map_err(|_| missing())?;
        let mut live = BTreeMap::new();
        for row in live_table.iter(&txn).map_err(fail)? {
            let (segment, count) = row.map_err(fail)?;
            let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes).ok_or_else(missing);
            live.insert(SegmentNo(number(segment)?), number(count)?);
        }
        // The table handles live on only if their transaction ends well.
        txn.commit().map_err(fail)?;
        let (ino_floor, ino_end) = (meta.ino_floor, AtomicU64::new(meta.ino_end.0));
        let (meta, live) = (RwLock::new(meta), RwLock::new(live));
        Ok(Layer { path: path.to_owned(), env, kv, meta_table, live_table, ino_floor, ino_end, meta, live })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far it goes, as of the last checkpoint.
    pub fn meta(&self) -> LayerMeta {
        self.meta.read().clone()
    }

    /// See [`LayerMeta::ino_floor`].
    pub fn ino_floor(&self) -> Ino {
        self.ino_floor
    }

    /// See [`LayerMeta::ino_end`]. Grows before anybody can find the new inodes in here.
    pub fn ino_end(&self) -> Ino {
        Ino(self.ino_end.load(Ordering::Acquire))
    }

    /// See [`LayerMeta::hiding`].
    pub fn is_hiding(&self) -> bool {
        self.meta.read().hiding
    }

    /// The segments that its extents name.
    pub fn live_segments(&self) -> Vec<SegmentNo> {
        self.live.read().keys().copied().collect()
    }

    /// Shows the stored bytes of `key`, tombstones included, to `read`, which must be quick: it runs inside a read
    /// transaction.
    pub fn read<T>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> FsResult<Option<T>> {
        let txn = self.env.read_txn().map_err(|e| self.failed(&e))?;
        Ok(self.kv.get(&txn, key).map_err(|e| self.failed(&e))?.map(read))
    }

    /// Visits the stored keys in `[from, end)` in order, tombstones included. The visitor must be quick: it runs inside
    /// a read transaction.
    pub fn scan(&self, from: &[u8], end: &[u8], visit: &mut Visit<'_>) -> FsResult<()> {
        let txn = self.env.read_txn().map_err(|e| self.failed(&e))?;
        // LMDB knows no empty key.
        let start = if from.is_empty() { Bound::Unbounded } else { Bound::Included(from) };
        let range = (start, Bound::Excluded(end));
        for row in self.kv.range(&txn, &range).map_err(|e| self.failed(&e))? {
            let (key, value) = row.map_err(|e| self.failed(&e))?;
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn failed(&self, error: &heed::Error) -> FsError {
        lmdb::failed(&self.path, error)
    }
}
