//! The storage engine of a master: journal, overlay, checkpoints, layers, snapshots.
//!
//! ```text
//! operation ─► draft (apply) ─► commit: journal record + overlay, under one short lock
//! checkpointer thread: freeze the overlay ─► flush data and journal ─► one LMDB transaction ─► swap the tiers
//! snapshot: journal record ─► freeze there ─► that checkpoint also seals the layer and opens the next
//! publish: the base moves up; layers that it contains are kept as a cache for a while, then removed
//! ```

mod ballast;
mod changes;
mod checkpoint;
mod commit;
mod compact;
mod consumers;
mod create;
mod evacuate;
mod publish;
mod purge;
mod reclaim;
mod recovery;
mod rewrite;
mod shortage;
mod snapshot;
#[cfg(test)]
mod testing;
mod worker;
mod writeback;

pub use changes::LayerChanges;
pub use commit::PendingBytes;
pub use consumers::{Consumer, JournalRecord};
pub use create::{create_instance, identity_of};
pub use recovery::{EngineSetup, Opening};
pub use snapshot::{PendingSnapshot, SnapshotRefusal};

use crate::base::{Base, Totals};
use crate::data::{DataOptions, DataStore, Room};
use crate::error::{FsError, FsResult};
use crate::ids::{Epoch, Ino, Xid};
use crate::journal::{Journal, JournalOptions};
use crate::node::NodeStore;
use crate::request::DoneRequests;
use crate::stack::{Overlay, Stack, Tiers};
use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, RwLock};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// Sizes and times of an engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// A checkpoint starts at this much memory in the overlay, bytes; writers wait at twice as much.
    pub overlay_bytes_max: u64,
    /// … and at the latest after this time.
    pub checkpoint_interval: Duration,
    /// Sealed layers that wait to be published; more snapshots are refused.
    pub sealed_max: usize,
    /// Published layers that are kept as a cache.
    pub published_kept: usize,
    /// Sizes of the journal.
    pub journal: JournalOptions,
    /// Journal that is kept for a consumer that is behind, bytes.
    pub journal_max_bytes: u64,
    /// Sizes of the data segments.
    pub data: DataOptions,
    /// With less in the data segments of the open layer nobody looks for half-dead ones, bytes.
    pub compact_floor_bytes: u64,
    /// Room on the host's disk that is held for the time when it is full, bytes; a sixteenth of the disk at most.
    pub ballast_bytes: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            overlay_bytes_max: 64 << 20,
            checkpoint_interval: Duration::from_secs(5),
            sealed_max: 4,
            published_kept: 4,
            journal: JournalOptions::default(),
            journal_max_bytes: 1 << 30,
            data: DataOptions::default(),
            compact_floor_bytes: 512 << 20,
            ballast_bytes: 64 << 20,
        }
    }
}

/// Whose engine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EngineIdentity {
    /// The filesystem.
    pub fs: Uuid,
    /// The epoch that this instance writes under.
    pub epoch: Epoch,
}

/// The files of an instance.
#[derive(Clone, Debug)]
pub struct InstanceDirs {
    root: PathBuf,
}

impl InstanceDirs {
    /// The files below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
    /// The node store.
    pub fn node(&self) -> PathBuf {
        self.root.join("node")
    }
    /// The layers.
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }
    /// The journal.
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }
    /// The data segments.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }
    /// All of it.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Row of the node store: which instance this is. Its presence says that the instance was made completely.
pub(crate) const IDENTITY_ROW: &str = "engine/identity";

/// What changes with every record.
struct CommitState {
    totals: Totals,
    requests: DoneRequests,
}

/// Told when a layer has been sealed or a problem came or went.
pub type Listener = Box<dyn Fn() + Send + Sync>;

/// See the module. One per instance directory; dropped, its thread has ended.
pub struct Engine {
    dirs: InstanceDirs,
    identity: EngineIdentity,
    options: EngineOptions,
    stack: Arc<Stack>,
    node: Arc<NodeStore>,
    journal: Journal,
    consumers: consumers::Consumers,
    data: Arc<DataStore>,
    commit: Mutex<CommitState>,
    /// Held by whoever checkpoints: one at a time.
    checkpointing: Mutex<()>,
    /// Guards every swap of the tiers; taken inside `commit`, never the other way round.
    moves: Mutex<()>,
    next_ino: AtomicU64,
    /// Bytes written since an application last asked for a flush.
    unsynced_bytes: AtomicU64,
    /// Held (read) from writing bytes to a data segment until the record that names them is in the overlay.
    stored_writes: RwLock<()>,
    read_only: ArcSwapOption<String>,
    poisoned: AtomicBool,
    worker: worker::Worker,
    writeback: writeback::Writeback,
    retired: Mutex<reclaim::Retired>,
    listener: ArcSwapOption<Listener>,
    purges: purge::Purges,
    /// To make room in a full store.
    room: Mutex<reclaim::Attempts>,
    /// Locked after the turn to checkpoint, never before it.
    compaction: Mutex<compact::Compaction>,
    ballast: ballast::Ballast,
    shortage_looks: shortage::Looks,
}

impl Engine {
    /// The tiers that it writes.
    pub fn stack(&self) -> &Arc<Stack> {
        &self.stack
    }
    /// The instance's own records.
    pub fn node(&self) -> &Arc<NodeStore> {
        &self.node
    }
    /// Local file bytes.
    pub fn data(&self) -> &Arc<DataStore> {
        &self.data
    }
    /// Whose engine it is.
    pub fn identity(&self) -> EngineIdentity {
        self.identity
    }
    /// The instance's files.
    pub fn dirs(&self) -> &InstanceDirs {
        &self.dirs
    }
    /// The last record: acknowledged, perhaps not yet flushed.
    pub fn last_xid(&self) -> Xid {
        self.journal.last()
    }
    /// The last record that survives power loss.
    pub fn persisted_xid(&self) -> Xid {
        self.journal.whole()
    }
    /// Sums over the tree.
    pub fn totals(&self) -> Totals {
        self.commit.lock().totals
    }
    /// A fresh inode number.
    pub fn allocate_ino(&self) -> Ino {
        Ino(self.next_ino.fetch_add(1, Ordering::Relaxed))
    }

    /// Stops all writing from now on, for the reason given.
    pub fn make_read_only(&self, reason: &str) {
        tracing::warn!(reason, "the filesystem is read-only from now on");
        self.read_only.store(Some(Arc::new(reason.to_owned())));
        self.notify();
    }

    /// Why writing has stopped, if it has.
    pub fn read_only_reason(&self) -> Option<Arc<String>> {
        self.read_only.load_full()
    }

    /// Sets who is told of sealed layers and problems.
    pub fn set_listener(&self, listener: Listener) {
        self.listener.store(Some(Arc::new(listener)));
    }

    pub(crate) fn notify(&self) {
        if let Some(listener) = self.listener.load_full() {
            listener();
        }
    }

    pub(crate) fn check_writable(&self) -> FsResult<()> {
        if self.read_only.load().is_some() { Err(FsError::ReadOnly) } else { Ok(()) }
    }

    /// Changes the tiers under the lock for it; returns the old list.
    pub(crate) fn change_tiers(&self, change: impl FnOnce(&mut Tiers)) -> Arc<Tiers> {
        let _moving = self.moves.lock();
        let mut tiers = self.stack.load().duplicate();
        change(&mut tiers);
        self.stack.swap(tiers)
    }

    pub(crate) fn active(&self) -> FsResult<Arc<Overlay>> {
        self.stack.load().active.clone().ok_or(FsError::ReadOnly)
    }

    /// The base that the local tiers stand on.
    pub fn base(&self) -> Arc<dyn Base> {
        Arc::clone(&self.stack.load().base)
    }
}

impl Engine {
    /// Bytes that may still be written: what the host's disk has, within the limit of the data segments.
    pub fn free_bytes(&self) -> FsResult<u64> {
        if self.ballast.is_away() { Ok(0) } else { self.free_bytes_for(Room::Ordinary) }
    }

    fn free_bytes_for(&self, room: Room) -> FsResult<u64> {
        let stat = rustix::fs::statvfs(self.dirs.root())
            .map_err(|error| FsError::os(&self.dirs.root().display().to_string(), &error.into()))?;
        let host = stat.f_bavail.saturating_mul(stat.f_frsize);
        Ok(self.data.free_bytes(room).map_or(host, |limit| limit.min(host)))
    }
}
