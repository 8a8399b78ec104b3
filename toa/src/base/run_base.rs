//! A published snapshot as the base of a filesystem.

use super::fetch::unavailable;
use super::objects::{ObjectRef, Objects, Piece, Wait};
use super::visible::{self, Aged};
use crate::run::{FOOTER_BYTES, Footer, Hash128, Node, NodePtr, NodeSource, RunError, Tree, hash128};
use bytes::Bytes;
use cloud_mgmt::ledger::{RunEntry, SnapshotEntry};
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

/// What the first request of a run brings from its end: its footer and, up to some millions of files, all inner nodes.
const TAIL_BYTES: u64 = 1 << 20;
/// Bytes of one request when a run is copied whole.
const COPY_BYTES: u64 = 8 << 20;
/// Pack names in memory.
const PACKS: NonZeroUsize = NonZeroUsize::MIN.saturating_add((64 << 10) - 1);

/// The index runs of one snapshot and the packs that they name.
#[derive(Debug)]
pub struct RunBase {
    objects: Arc<Objects>,
    runs: Vec<Aged<ObjectNodes>>,
    xid: Xid,
    ino_end: Ino,
    totals: Totals,
    packs: Mutex<LruCache<PackNo, ObjectRef>>,
}

/// The nodes of a run in the bucket.
#[derive(Clone, Debug)]
pub struct ObjectNodes {
    objects: Arc<Objects>,
    object: ObjectRef,
    root: Hash128,
    wait: Wait,
}

impl From<RunError> for BaseError {
    fn from(error: RunError) -> Self {
        Self::Corrupt(error.to_string().into())
    }
}

impl NodeSource for ObjectNodes {
    type Error = BaseError;

    fn node(&self, pointer: &NodePtr, level: u8) -> Result<Arc<Node>, BaseError> {
        let piece =
            Piece { object: self.object.clone(), offset: pointer.offset, len: pointer.stored_len, hash: pointer.hash };
        let decode = |stored: &[u8]| {
            let name = |error| BaseError::Corrupt(format!("{}: {error}", self.object.name).into());
            Node::decode(stored, pointer, level).map_err(name)
        };
        self.objects.node(&piece, decode, (level, self.wait))
    }
}

impl RunBase {
    /// Opens the snapshot that `entry` describes. Blocks: one request for the tail of each run that is not here, each
    /// at most the configured timeout. The ledger's hash of each run is checked.
    pub fn open(objects: &Arc<Objects>, entry: &SnapshotEntry) -> Result<Self, BaseError> {
        let mut runs: Vec<Aged<ObjectNodes>> = Vec::with_capacity(entry.runs.len());
        for (at, run) in entry.runs.iter().enumerate() {
            let object = ObjectRef { name: run.object.as_str().into(), size: run.size };
            let (footer, root) = open_footer(objects, &object, run)?;
            let same_age = runs.last().filter(|last| {
                let other = last.tree.footer();
                (other.xid_from, other.xid) == (footer.xid_from, footer.xid)
            });
            let age = same_age.map_or(at, |last| last.age);
            let nodes = ObjectNodes { objects: Arc::clone(objects), object, root, wait: Wait::Never };
            runs.push(Aged { age, tree: Tree::new(footer, nodes) });
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
        let waiting = |aged: &Aged<ObjectNodes>| Aged { age: aged.age, tree: waiting_tree(&aged.tree) };
        Self {
            objects: Arc::clone(&self.objects),
            runs: self.runs.iter().map(waiting).collect(),
            packs: Mutex::new(LruCache::new(PACKS)),
            ..*self
        }
    }

    /// Its runs, newest first, one by one as they stand (tombstones and cuts included), for merging them. Steps of their
    /// cursors fetch what is missing.
    pub fn run_trees(&self) -> Vec<Tree<ObjectNodes>> {
        self.runs.iter().map(|aged| waiting_tree(&aged.tree)).collect()
    }

    /// Names of its runs, newest first; see `Proxy::keep_only`.
    pub fn run_objects(&self) -> Vec<&str> {
        self.runs.iter().map(|aged| &*aged.tree.source().object.name).collect()
    }

    /// Copies its runs whole into the proxy and pins them there, so that no look-up needs the network (I8). Blocks; can be
    /// repeated. `Unavailable` also if the proxy has no room for them.
    pub fn make_local(&self) -> Result<(), BaseError> {
        self.runs.iter().try_for_each(|aged| self.copy_run(aged))
    }

    fn copy_run(&self, aged: &Aged<ObjectNodes>) -> Result<(), BaseError> {
        let ObjectNodes { object, root, .. } = aged.tree.source();
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

fn open_footer(objects: &Objects, object: &ObjectRef, run: &RunEntry) -> Result<(Footer, Hash128), BaseError> {
    let wrong = |why: &str| BaseError::Corrupt(format!("{}: {why}", run.object).into());
    let root = parse_root(&run.root).ok_or_else(|| wrong("the ledger has no valid root hash of it"))?;
    let offset = run.size.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| wrong("shorter than a footer"))?;
    let piece = Piece { object: object.clone(), offset, len: FOOTER_BYTES as u32, hash: root };
    let bytes = objects.fetch(&piece, run.size.saturating_sub(TAIL_BYTES))?;
    let footer = Footer::decode(&bytes, run.size, &root).map_err(|error| wrong(&error.to_string()))?;
    if (footer.xid_from.0, footer.xid.0, footer.records) != (run.xid_from, run.xid, run.records) {
        return Err(wrong("the ledger tells another xid range or record count"));
    }
    Ok((footer, root))
}

fn waiting_tree(tree: &Tree<ObjectNodes>) -> Tree<ObjectNodes> {
    let nodes = ObjectNodes { wait: Wait::ForNetwork, ..tree.source().clone() };
    Tree::new(tree.footer().clone(), nodes)
}

/// 32 hex digits.
fn parse_root(text: &str) -> Option<Hash128> {
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| digits)?;
    Some(number.to_be_bytes())
}
