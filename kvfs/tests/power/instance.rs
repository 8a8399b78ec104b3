//! An engine on a state directory, with a base that the test keeps, as an agent would.

use crate::base::MemoryBase;
use crate::violation::broken;
use anyhow::{Context, Result};
use kvfs::base::Base;
use kvfs::data::DataOptions;
use kvfs::engine::{
    Engine, EngineIdentity, EngineOptions, EngineSetup, InstanceDirs, Opening, create_instance, identity_of,
};
use kvfs::fs::{FileSystem, Fs, SystemClock};
use kvfs::journal::JournalOptions;
use kvfs::node::{NodeChanges, NodeStore};
use kvfs::op::{SnapshotKind, SnapshotRequest};
use kvfs::schema::Time;
use kvfs::stack::Stack;
use kvfs::{Epoch, FsResult, Ino};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const IDENTITY: EngineIdentity = EngineIdentity { fs: Uuid::from_u128(1), epoch: Epoch(1) };
/// The row that says which base is published, by its xid.
const BASE_ROW: &str = "test/base";

/// Bases that were published, by xid. They lie in the bucket, so no loss of power reaches them.
#[derive(Default)]
pub struct Bases(Mutex<BTreeMap<u64, Arc<MemoryBase>>>);

/// An open engine.
pub struct Instance {
    pub fs: Arc<Fs>,
    pub engine: Arc<Engine>,
}

/// Small segments, so that they are recycled all the time.
pub fn small_options(rng: &mut StdRng) -> EngineOptions {
    let spares = rng.random_range(0..2);
    EngineOptions {
        overlay_bytes_max: rng.random_range(30_000..400_000),
        checkpoint_interval: Duration::from_millis(if rng.random_bool(0.3) { 20 } else { 3_600_000 }),
        published_kept: rng.random_range(0..2),
        sealed_max: 4,
        journal: JournalOptions { segment_bytes: 32 << 10, spares },
        journal_max_bytes: 1 << 20,
        data: DataOptions { segment_bytes: 128 << 10, spares, ..DataOptions::default() },
        // In some rounds the checkpoint thread compacts by itself.
        compact_floor_bytes: if rng.random_bool(0.3) { 0 } else { u64::MAX },
        ballast_bytes: 0,
    }
}

impl Instance {
    /// Opens what is in `dir`; makes it if it was not made completely.
    pub fn open(dir: &Path, bases: &Bases, options: EngineOptions) -> Result<Self> {
        Self::try_open(dir, bases, options).map_err(|error| broken(format!("it does not open: {error}")))
    }

    /// As [`Instance::open`], with the error as it is.
    pub fn try_open(dir: &Path, bases: &Bases, options: EngineOptions) -> FsResult<Self> {
        let dirs = InstanceDirs::new(dir);
        let node = Arc::new(NodeStore::open(&dirs.node())?);
        let published = node.get::<u64>(BASE_ROW)?.unwrap_or(0);
        let base = bases.0.lock().entry(published).or_default().clone();
        if identity_of(&node)?.is_none() {
            create_instance(&dirs, &node, IDENTITY, base.as_ref())?;
        }
        let stack = Arc::new(Stack::read_only(base));
        let setup =
            EngineSetup { dirs, node, stack, owner: (0, 0), now: Time::default(), options, opening: Opening::Fresh };
        let engine = Engine::open(setup)?;
        let fs = Arc::new(Fs::new(engine.clone(), Arc::new(SystemClock)));
        Ok(Self { fs, engine })
    }

    /// As `kill -9` leaves it.
    pub fn kill(self) {
        self.engine.halt();
    }

    /// A snapshot's request.
    pub fn request(id: Uuid) -> SnapshotRequest {
        SnapshotRequest { id, name: None, kind: SnapshotKind::User, key: None, requested: Time::default() }
    }

    /// What the base is after the pending snapshot `id`, if it is sealed.
    pub fn collect(&self, id: Uuid, bases: &Bases) -> FsResult<Option<Arc<MemoryBase>>> {
        let Some(below) = bases.0.lock().get(&self.engine.base().xid().0).cloned() else { return Ok(None) };
        let Some(changes) = self.engine.changes_of(id, below.xid()) else { return Ok(None) };
        Ok(Some(Arc::new(below.next(&changes)?)))
    }

    /// Publishes `base`: durable on return.
    pub fn publish(&self, base: Arc<MemoryBase>, bases: &Bases) -> FsResult<()> {
        let xid = base.xid().0;
        bases.0.lock().insert(xid, base.clone());
        let mut rows = NodeChanges::default();
        rows.put(BASE_ROW, &xid)?;
        self.engine.publish(base, &rows)
    }

    /// The inode of the directory `name` in the root, if it is there.
    pub fn top(&self, name: &str) -> Result<Ino> {
        let found = self.fs.lookup(Ino::ROOT, name.as_bytes());
        found.map(|found| found.ino).with_context(|| format!("no directory {name}"))
    }
}

/// A filesystem that shows `base` and nothing else.
pub fn show(base: Arc<MemoryBase>) -> Fs {
    Fs::read_only(Arc::new(Stack::read_only(base)), Arc::new(SystemClock))
}
