//! Opening an engine: after a clean stop, a `kill -9` or a power loss.
//!
//! LMDB is consistent as it is; the journal's records behind it are applied again, up to the first one that is bad or
//! whose bytes did not make it; what follows is void. Then everything is checkpointed once, and work begins. The page cache
//! is not believed: a flush may have failed in an earlier life, and what it should have written be there only.

use super::ballast::Ballast;
use super::compact::Emptying;
use super::{CommitState, Engine, EngineOptions, IDENTITY_ROW, InstanceDirs, checkpoint, publish, reclaim};
use crate::apply::{Draft, apply};
use crate::base::Totals;
use crate::data::DataStore;
use crate::error::{FsError, FsResult};
use crate::ids::{Epoch, Ino, Xid};
use crate::journal::{Journal, JournalIdentity};
use crate::layer::{self, CheckpointMark, Layer, Seal};
use crate::node::NodeStore;
use crate::op::{NewInode, Op, Payload, Record};
use crate::request::{DoneRequest, DoneRequests};
use crate::schema::{BlobRef, FileKind, Time};
use crate::segment::FailureKind;
use crate::stack::{Overlay, Stack, Tiers};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// Everything that an engine is opened with.
pub struct EngineSetup {
    /// Its files.
    pub dirs: InstanceDirs,
    /// Its own records, already open.
    pub node: Arc<NodeStore>,
    /// What it stands on: a stack with nothing but the base.
    pub stack: Arc<Stack>,
    /// Owner and group of the root directory, should it have to be made.
    pub owner: (u32, u32),
    /// The time of the records that opening itself writes.
    pub now: Time,
    /// Sizes and times.
    pub options: EngineOptions,
    /// Whether somebody still uses what an earlier process served.
    pub opening: Opening,
}

/// What an engine is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A new mount: nobody holds anything. Inodes without names go.
    Fresh,
    /// The mount of a process that is gone: its open files go on, so inodes without names stay, and requests of this
    /// connection that were done come back if they were not answered.
    Resumed {
        /// See [`RequestId::connection`](crate::request::RequestId::connection).
        connection: u32,
    },
}

impl Engine {
    /// Opens the instance that [`super::create_instance`] made, and starts its checkpointer.
    pub fn open(setup: EngineSetup) -> FsResult<Arc<Engine>> {
        let ballast = || Ballast::open(setup.dirs.root(), setup.options.ballast_bytes);
        let root = setup.dirs.root().display().to_string();
        ballast().make_way_for_start().map_err(|error| FsError::os(&root, &error))?;
        let base = Arc::clone(&setup.stack.load().base);
        loop {
            match Self::open_with(&setup, ballast()) {
                // The layers of this attempt are closed before the next one opens them.
                Err(FsError::NoSpace) if ballast().give_up() => {
                    drop(setup.stack.swap(Tiers::read_only(Arc::clone(&base))));
                }
                opened => return opened,
            }
        }
    }

    fn open_with(setup: &EngineSetup, ballast: Ballast) -> FsResult<Arc<Engine>> {
        let EngineSetup { dirs, node, stack, owner, now, options, opening } = setup;
        let (owner, now, options, opening) = (*owner, *now, *options, *opening);
        let missing = || FsError::io(format!("{}: the instance was never made completely", dirs.root().display()));
        let identity: super::EngineIdentity = node.get(IDENTITY_ROW)?.ok_or_else(missing)?;
        let base = Arc::clone(&stack.load().base);
        let layers = open_layers(&dirs.layers(), base.xid())?;
        let data = Arc::new(DataStore::open(&dirs.data(), options.data)?);
        let mut replay = Replaying::begin(dirs, stack, (&data, identity.epoch), layers)?;
        replay.expect(opening);
        replay.room = if ballast.is_away() { StartRoom::Short } else { StartRoom::Enough };
        let at = JournalIdentity { fs: identity.fs, epoch: identity.epoch };
        let mut records = Journal::open(&dirs.journal(), at, replay.last, options.journal)?;
        while let Some((xid, body)) = records.next()? {
            if !replay.take(xid, &body)? {
                break;
            }
        }
        // The journal's new segment says that everything up to here is durable.
        checkpoint::flush_spilled(&data)?;
        let journal = records.finish(replay.last)?;
        if !replay.overlay.is_empty() && replay.room == StartRoom::Enough {
            replay.checkpoint(None)?;
        }
        let (totals, next_ino, last) = (replay.totals, replay.next_ino, replay.last);
        let requests = replay.requests.clone();
        stack.swap(replay.into_tiers(base.xid(), options.published_kept)?);
        data.retain(&reclaim::named_segments(&stack.load()))?;
        let consumers = super::consumers::Consumers::load(node)?;
        journal.hold(consumers.least());
        let engine = Arc::new(Engine {
            dirs: dirs.clone(),
            identity,
            options,
            stack: Arc::clone(stack),
            node: Arc::clone(node),
            journal,
            consumers,
            data,
            commit: Mutex::new(CommitState { totals, requests }),
            checkpointing: Mutex::new(()),
            moves: Mutex::new(()),
            next_ino: AtomicU64::new(next_ino.0),
            unsynced_bytes: AtomicU64::new(0),
            stored_writes: RwLock::new(()),
            read_only: ArcSwapOption::empty(),
            poisoned: AtomicBool::new(false),
            worker: super::worker::Worker::default(),
            writeback: super::writeback::Writeback::default(),
            retired: Mutex::default(),
            listener: ArcSwapOption::empty(),
            purges: super::purge::Purges::default(),
            room: Mutex::default(),
            compaction: Mutex::default(),
            ballast,
            shortage_looks: super::shortage::Looks::default(),
        });
        engine.begin(last == base.xid(), owner, now)?;
        match opening {
            Opening::Fresh => engine.purge_orphans()?,
            Opening::Resumed { .. } => engine.keep_orphans()?,
        }
        engine.flush()?;
        engine.hold_ballast();
        Engine::start_worker(&engine)?;
        Engine::start_writeback(&engine)?;
        Ok(engine)
    }

    /// The first records of a new instance.
    fn begin(&self, is_first: bool, owner: (u32, u32), now: Time) -> FsResult<()> {
        if is_first {
            self.run(now, Op::Epoch { epoch: self.identity.epoch })?;
        }
        let tiers = self.stack.load();
        if tiers.base.xid().0 == 0 && tiers.view().inode(Ino::ROOT)?.is_none() {
            let (uid, gid) = owner;
            let kind = FileKind::Directory;
            let root = NewInode { ino: Ino::ROOT, kind, mode: 0o755, uid, gid, rdev: 0, target: Bytes::new() };
            self.run(now, Op::Root(root))?;
        }
        Ok(())
    }
}

/// The stack while records are applied again.
struct Replaying<'a> {
    dirs: &'a InstanceDirs,
    stack: &'a Stack,
    data: &'a DataStore,
    epoch: Epoch,
    overlay: Arc<Overlay>,
    layers: Vec<Arc<Layer>>,
    last: Xid,
    next_ino: Ino,
    totals: Totals,
    requests: DoneRequests,
    opening: Opening,
    room: StartRoom,
}

/// What the disk has for a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartRoom {
    Enough,
    /// The ballast is away: only what must be written is. The journal has the rest, which stays in memory, and the
    /// checkpointer brings it into LMDB.
    Short,
}

/// Memory that a replay may fill before it checkpoints, bytes.
const REPLAY_BYTES_MAX: u64 = 64 << 20;

impl<'a> Replaying<'a> {
    fn begin(
        dirs: &'a InstanceDirs,
        stack: &'a Stack,
        local: (&'a DataStore, Epoch),
        mut layers: Vec<Arc<Layer>>,
    ) -> FsResult<Self> {
        let top = layers.first().ok_or_else(|| FsError::corrupt(format!("{}: no layer", dirs.layers().display())))?;
        let meta = top.meta();
        if meta.sealed.is_some() {
            let next = checkpoint::open_next(&dirs.layers(), top)?;
            layers.insert(0, Arc::new(next));
        }
        let (data, epoch) = local;
        let (last, next_ino, totals, requests) = (meta.applied, meta.ino_end, meta.totals, meta.requests);
        let (overlay, opening, room) = (Arc::default(), Opening::Fresh, StartRoom::Enough);
        let replaying =
            Self { dirs, stack, data, epoch, overlay, layers, last, next_ino, totals, requests, opening, room };
        replaying.show();
        Ok(replaying)
    }

    /// Requests that can come back: those of the connection that goes on.
    fn expect(&mut self, opening: Opening) {
        match opening {
            Opening::Fresh => self.requests = DoneRequests::default(),
            Opening::Resumed { connection } => self.requests.keep_connection(connection),
        }
        self.opening = opening;
    }

    fn note(&mut self, done: Option<DoneRequest>) {
        let Opening::Resumed { connection } = self.opening else { return };
        if let Some(done) = done.filter(|done| done.requested.id.connection == connection) {
            self.requests.note(done);
        }
    }

    /// Makes what there is the current tiers, for the next record to read.
    fn show(&self) {
        let base = Arc::clone(&self.stack.load().base);
        let (active, layers) = (Some(Arc::clone(&self.overlay)), self.layers.clone());
        self.stack.swap(Tiers { active, frozen: Vec::new(), layers, base, readers: Arc::default() });
    }

    /// Applies one record; `false` if its bytes are not there, and so the journal ends before it.
    fn take(&mut self, xid: Xid, body: &[u8]) -> FsResult<bool> {
        let unreadable = |what: &str| FsError::corrupt(format!("journal record {xid}: {what}"));
        let record: Record = postcard::from_bytes(body).map_err(|_| unreadable("does not decode"))?;
        if let Payload::Stored(blobs) = &record.payload
            && !self.has_bytes(xid, blobs)?
        {
            return Ok(false);
        }
        let tiers = self.stack.load();
        let mut draft = Draft::new(tiers.view());
        apply(&record, &mut draft).map_err(|error| unreadable(&format!("cannot be applied again: {error}")))?;
        let changes = draft.into_changes();
        self.overlay.apply(&changes, xid);
        self.totals.inodes = self.totals.inodes.saturating_add_signed(changes.inodes);
        self.totals.bytes = self.totals.bytes.saturating_add_signed(changes.bytes);
        self.last = xid;
        self.note(record.done_request());
        match record.op {
            Op::Make { inode, .. } | Op::MakeWithAcls { inode, .. } => {
                self.next_ino = self.next_ino.max(inode.ino.next());
            }
            Op::Snapshot(request) => {
                let epoch = self.epoch;
                self.checkpoint(Some(Seal { request, epoch }))?;
            }
            _ if self.overlay.bytes() > REPLAY_BYTES_MAX && self.room == StartRoom::Enough => self.checkpoint(None)?,
            _ => {}
        }
        Ok(true)
    }

    /// Whether the bytes that record `xid` names made it to the disk.
    fn has_bytes(&self, xid: Xid, blobs: &[BlobRef]) -> FsResult<bool> {
        // For a test of the tests: a replay that believes whatever it finds.
        fail::fail_point!("kvfs::recovery::unchecked", |_| Ok(true));
        for blob in blobs {
            match self.data.adopt(blob) {
                Ok(()) => {}
                // Never flushed, so the record was not either: the journal knows if that is not true.
                Err(error) if error.kind() == FailureKind::Corrupt => {
                    tracing::warn!(%xid, %error, "the journal ends before this record");
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn checkpoint(&mut self, seal: Option<Seal>) -> FsResult<()> {
        let top = self.layers.first().cloned().ok_or_else(|| FsError::corrupt("no layer to write"))?;
        let (applied, ino_end, totals) = (self.last, self.next_ino, self.totals);
        let requests = self.requests.clone();
        let ends = seal.is_some();
        let flush = || checkpoint::flush_spilled(self.data);
        let entries = match self.room {
            StartRoom::Enough => checkpoint::prepare(self.data, &self.overlay, &mut Emptying::default(), &flush)?,
            // An attempt that fails would leave copies in data segments for the next one to trip over.
            StartRoom::Short => self.overlay.entries(),
        };
        checkpoint::flush_spilled(self.data)?;
        checkpoint::write(&top, &entries, &CheckpointMark { applied, ino_end, totals, requests, seal })?;
        if ends {
            let next = checkpoint::open_next(&self.dirs.layers(), &top)?;
            self.layers.insert(0, Arc::new(next));
        }
        self.overlay = Arc::default();
        self.show();
        Ok(())
    }

    /// The tiers to work with; layers that the base contains go, but for the newest.
    fn into_tiers(self, published: Xid, kept: usize) -> FsResult<Tiers> {
        self.show();
        let mut tiers = self.stack.load().duplicate();
        drop(self.layers);
        for layer in publish::drop_published(&mut tiers, published, kept) {
            layer::remove(layer.path())?;
        }
        Ok(tiers)
    }
}

fn open_layers(dir: &Path, base: Xid) -> FsResult<Vec<Arc<Layer>>> {
    let mut layers = Vec::new();
    for path in layer::list(dir)? {
        layers.insert(0, Arc::new(Layer::open(&path)?));
    }
    if layers.last().is_some_and(|oldest: &Arc<Layer>| oldest.meta().xid_from > base) {
        return Err(FsError::corrupt(format!("{}: a layer above the base is missing", dir.display())));
    }
    for pair in layers.windows(2) {
        if let [upper, lower] = pair
            && upper.meta().xid_from != lower.meta().applied
        {
            let (upper, lower) = (upper.path().display(), lower.path().display());
            return Err(FsError::corrupt(format!("{upper} does not follow {lower}: a layer is missing")));
        }
    }
    Ok(layers)
}
