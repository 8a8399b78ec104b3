//! A published snapshot as the base of a filesystem.

use super::fetch::unavailable;
use super::objects::{ObjectRef, Objects, Piece, Wait};
use super::part::StoredPart;
use super::visible::{self, Part, StackedRun};
use crate::run::{FOOTER_BYTES, hash128};
use bytes::Bytes;
use cloud_mgmt::ledger::SnapshotEntry;
use kvfs::base::{Base, BaseError, Totals, Visit};
use kvfs::ids::PackNo;
use kvfs::schema::{FrameRef, Key, Value};
use kvfs::{Ino, Xid};
use lru::LruCache;
use parking_lot::Mutex;
use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of one request when a run is copied whole.
const COPY_BYTES: u64 = 8 << 20;
/// Pack names in memory.
const PACKS: NonZeroUsize = NonZeroUsize::MIN.saturating_add((64 << 10) - 1);

/// The index runs of one snapshot and the packs that they name.
#[derive(Debug)]
pub struct RunBase {
    objects: Arc<Objects>,
    /// Newest first.
    runs: Vec<StackedRun<StoredPart>>,
    xid: Xid,
    ino_end: Ino,
    totals: Totals,
    packs: Mutex<LruCache<PackNo, ObjectRef>>,
}

impl RunBase {
    /// Opens the snapshot that `entry` describes. Blocks: one request for the tail of each run that is not here, each
    /// at most the configured timeout. The ledger's hash of each run is checked. Parts of runs that are split by key are
    /// opened when something asks for a key in them.
    pub fn open(objects: &Arc<Objects>, entry: &SnapshotEntry) -> Result<Self, BaseError> {
        let mut runs = Vec::new();
        for run in entry.stacked_runs() {
            let mut parts = Vec::with_capacity(run.len());
            for part in run {
                let stored = StoredPart::new(objects, part)?;
                parts.push(Part { from: Ino(part.ino_from.unwrap_or(0)), tree: stored });
            }
            if let [whole] = parts.as_slice() {
                whole.tree.open(Wait::ForNetwork)?;
            }
            runs.push(StackedRun { parts });
        }
        Ok(Self {
            objects: Arc::clone(objects),
            runs,
            xid: Xid(entry.xid),
            ino_end: Ino(entry.ino_end),
            totals: Totals { inodes: entry.inodes, bytes: entry.bytes },
            packs: Mutex::new(LruCache::new(PACKS)),
        })
    }

    /// The same snapshot for a thread that may wait: look-ups fetch what is missing themselves, each piece for at most the
    /// configured timeout. Frames stay non-blocking.
    pub fn waiting(&self) -> Self {
        let part = |part: &Part<StoredPart>| Part { from: part.from, tree: part.tree.waiting() };
        let run = |run: &StackedRun<StoredPart>| StackedRun { parts: run.parts.iter().map(part).collect() };
        Self {
            objects: Arc::clone(&self.objects),
            runs: self.runs.iter().map(run).collect(),
            packs: Mutex::new(LruCache::new(PACKS)),
            ..*self
        }
    }

    /// Its runs, newest first, each with its parts as they stand (tombstones and cuts included), for merging them. Those of
    /// [`RunBase::waiting`] fetch what is missing.
    pub(crate) fn runs(&self) -> &[StackedRun<StoredPart>] {
        &self.runs
    }

    fn parts(&self) -> impl Iterator<Item = &StoredPart> {
        self.runs.iter().flat_map(|run| &run.parts).map(|part| &part.tree)
    }

    /// Names of the objects of its runs; see `Proxy::keep_only`.
    pub fn run_objects(&self) -> Vec<&str> {
        self.parts().map(|part| &*part.object().name).collect()
    }

    /// Copies its runs whole into the proxy and pins them there, so that no look-up needs the network (I8). Blocks; can be
    /// repeated. `Unavailable` also if the proxy has no room for them.
    pub fn make_local(&self) -> Result<(), BaseError> {
        self.parts().try_for_each(|part| self.copy_part(part))
    }

    fn copy_part(&self, part: &StoredPart) -> Result<(), BaseError> {
        let (object, root) = (part.object(), part.root());
        let full = |error: crate::proxy::ProxyError| unavailable(object, &error.to_string());
        let proxy = self.objects.proxy();
        if proxy.keep(&object.name).map_err(full)? {
            return Ok(());
        }
        let staged = proxy.stage(&object.name, object.size).map_err(full)?;
        let disk = |error: std::io::Error| unavailable(object, &error.to_string());
        let mut file = std::fs::File::create(staged.path()).map_err(disk)?;
        let mut tail = Vec::new();
        for start in (0..object.size).step_by(COPY_BYTES as usize) {
            let end = object.size.min(start + COPY_BYTES);
            let deadline = Instant::now() + Duration::from_millis(self.objects.options.fetch_timeout_ms);
            let bytes = self.objects.get(object, start..end, deadline)?;
            file.write_all(&bytes).map_err(disk)?;
            tail.extend_from_slice(&bytes);
            tail.drain(..tail.len().saturating_sub(FOOTER_BYTES));
        }
        // The footer proves that it is this run; each node is checked whenever it is read.
        if hash128(&tail) != *root {
            return Err(BaseError::Corrupt(format!("{}: the copy ends in another footer", object.name).into()));
        }
        match staged.commit_kept() {
            Ok(_) => Ok(()),
            // Somebody else was faster.
            Err(_) if proxy.keep(&object.name).unwrap_or(false) => Ok(()),
            Err(error) => Err(full(error)),
        }
    }

    /// The object of a pack.
    pub(crate) fn pack(&self, pack: PackNo) -> Result<ObjectRef, BaseError> {
        if let Some(object) = self.packs.lock().get(&pack) {
            return Ok(object.clone());
        }
        let value = self.get(Key::pack(pack).as_bytes())?;
        let Some(Ok((_, Value::Pack(found)))) = value.as_deref().map(Value::decode) else {
            return Err(BaseError::Corrupt(format!("pack {pack}: the index has no such pack").into()));
        };
        let object = ObjectRef { name: found.object.into(), size: found.size };
        self.packs.lock().put(pack, object.clone());
        Ok(object)
    }
}

impl Base for RunBase {
    fn xid(&self) -> Xid {
        self.xid
    }

    fn ino_end(&self) -> Ino {
        self.ino_end
    }

    fn totals(&self) -> Totals {
        self.totals
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BaseError> {
        visible::get(&self.runs, key)
    }

    fn scan(&self, from: &[u8], end: &[u8], visit: &mut Visit<'_>) -> Result<(), BaseError> {
        visible::scan(&self.runs, (from, end), visit)
    }

    fn read_frame(&self, frame: &FrameRef) -> Result<Bytes, BaseError> {
        if let Some(raw) = self.objects.cached_frame(&frame.hash, frame.raw_len) {
            return Ok(raw);
        }
        let object = self.pack(frame.pack)?;
        let piece = Piece { object, offset: frame.offset, len: frame.stored_len, hash: frame.hash };
        self.objects.frame(&piece, frame.raw_len)
    }
}
