//! Checked bytes of bucket objects, wherever they are.

use super::fetch::{Ahead, PieceFetch};
use crate::pack::FRAME_RAW_BYTES_MAX;
use crate::proxy::{ByteLru, Proxy};
use crate::run::{Hash128, Node, hash128};
use bytes::Bytes;
use cloud_mgmt::store::ObjectStore;
use kvfs::base::BaseError;
use lru::LruCache;
use parking_lot::{Condvar, Mutex};
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Objects whose last fetch is remembered, to see sequential reading.
const STREAMS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// An immutable object of the bucket. Its size is known from where its name is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// Its whole name, as the store knows it.
    pub name: Arc<str>,
    /// Bytes.
    pub size: u64,
}

/// Bytes of an object with their hash: a node, a frame, a footer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// The object.
    pub object: ObjectRef,
    /// Where it starts, bytes.
    pub offset: u64,
    /// Its length, bytes.
    pub len: u32,
    /// BLAKE3-128 of it.
    pub hash: Hash128,
}

impl Piece {
    /// Its bytes in the object; `None` if they are not within it.
    pub(super) fn range(&self) -> Option<Range<u64>> {
        let end = self.offset.checked_add(u64::from(self.len))?;
        (end <= self.object.size).then_some(self.offset..end)
    }

    pub(super) fn corrupt(&self) -> BaseError {
        let Self { object, offset, len, .. } = self;
        BaseError::Corrupt(format!("{}: {len} bytes at {offset} do not match their hash", object.name).into())
    }
}

/// Limits of [`Objects`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectsOptions {
    /// One fetch with everything that it waits for, milliseconds; then it is `Unavailable`.
    pub fetch_timeout_ms: u64,
    /// Decoded index nodes in memory, bytes.
    pub node_cache_bytes: usize,
    /// Decompressed frames in memory, bytes.
    pub frame_cache_bytes: usize,
    /// Compressed pieces that were just fetched, bytes: so that a fetch helps even if the proxy is full of what is
    /// pinned.
    pub recent_cache_bytes: usize,
    /// Bytes ahead of a sequential reader that one request brings at most.
    pub read_ahead_bytes: u64,
}

impl Default for ObjectsOptions {
    fn default() -> Self {
        Self {
            fetch_timeout_ms: 30_000,
            node_cache_bytes: 64 << 20,
            frame_cache_bytes: 64 << 20,
            recent_cache_bytes: 32 << 20,
            read_ahead_bytes: 8 << 20,
        }
    }
}

/// Checked bytes from the caches, the proxy and the store. Shared by all bases of a daemon.
#[derive(Debug)]
pub struct Objects {
    pub(super) proxy: Arc<Proxy>,
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) runtime: Handle,
    pub(super) options: ObjectsOptions,
    /// Chunks that a thread is fetching now.
    pub(super) in_flight: Mutex<HashSet<(Arc<str>, u32)>>,
    pub(super) landed: Condvar,
    pub(super) streams: Mutex<LruCache<Arc<str>, Ahead>>,
    /// By hash: what has the same hash has the same bytes.
    pub(super) recent: Mutex<ByteLru<Hash128, Bytes>>,
    nodes: Mutex<ByteLru<(Hash128, u8), Arc<Node>>>,
    frames: Mutex<ByteLru<Hash128, Bytes>>,
}

impl Objects {
    /// Reads through `proxy` from `store`, whose calls run on `runtime`.
    pub fn new(proxy: Arc<Proxy>, store: Arc<dyn ObjectStore>, runtime: Handle, options: ObjectsOptions) -> Arc<Self> {
        Arc::new(Self {
            proxy,
            store,
            runtime,
            options,
            in_flight: Mutex::default(),
            landed: Condvar::new(),
            streams: Mutex::new(LruCache::new(STREAMS)),
            recent: Mutex::new(ByteLru::new(options.recent_cache_bytes)),
            nodes: Mutex::new(ByteLru::new(options.node_cache_bytes)),
            frames: Mutex::new(ByteLru::new(options.frame_cache_bytes)),
        })
    }

    /// The proxy that it reads through.
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// The bucket.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Where its calls run.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The bytes of a piece, checked (I6). Never waits for the network: what is missing is `NotResident`, and its
    /// `fetch` brings it.
    pub fn read(self: &Arc<Self>, piece: &Piece) -> Result<Bytes, BaseError> {
        self.read_warm(piece, piece.offset)
    }

    /// The same; the fetch brings what lies between `warm_from` and the piece as well.
    pub(super) fn read_warm(self: &Arc<Self>, piece: &Piece, warm_from: u64) -> Result<Bytes, BaseError> {
        match self.read_local(piece)? {
            Some(bytes) => Ok(bytes),
            None => Err(BaseError::NotResident(Arc::new(PieceFetch::new(Arc::clone(self), piece.clone(), warm_from)))),
        }
    }

    /// As [`Objects::read`], but fetches what is missing: blocks for at most the configured timeout. Not for async tasks.
    pub fn read_or_fetch(&self, piece: &Piece) -> Result<Bytes, BaseError> {
        self.fetch(piece, piece.offset)
    }

    /// What is on this machine, if it is right. Wrong bytes of a cache are forgotten and count as missing.
    pub(super) fn read_local(&self, piece: &Piece) -> Result<Option<Bytes>, BaseError> {
        let range = piece.range().ok_or_else(|| piece.corrupt())?;
        if let Some(bytes) = self.recent.lock().get(&piece.hash) {
            return Ok(Some(bytes).filter(|bytes| bytes.len() == piece.len as usize));
        }
        let object = &piece.object.name;
        let Some(bytes) = self.proxy.read(object, range.clone()) else { return Ok(None) };
        if hash128(&bytes) == piece.hash {
            return Ok(Some(bytes));
        }
        tracing::warn!(object = &**object, offset = piece.offset, "cached bytes do not match their hash");
        self.proxy.forget(object, range);
        if self.proxy.staged_path(object).is_some() {
            return Err(piece.corrupt());
        }
        Ok(None)
    }

    /// The node of a run at a piece.
    pub(super) fn node(
        self: &Arc<Self>,
        piece: &Piece,
        decode: impl FnOnce(&[u8]) -> Result<Node, BaseError>,
        (level, wait): (u8, Wait),
    ) -> Result<Arc<Node>, BaseError> {
        let key = (piece.hash, level);
        if let Some(node) = self.nodes.lock().get(&key) {
            return Ok(node);
        }
        let stored = match wait {
            Wait::Never => self.read(piece)?,
            Wait::ForNetwork => self.read_or_fetch(piece)?,
        };
        let node = Arc::new(decode(&stored)?);
        self.nodes.lock().put(key, Arc::clone(&node), node.memory_bytes());
        Ok(node)
    }

    /// A frame that is decompressed already.
    pub(super) fn cached_frame(&self, hash: &Hash128, raw_len: u32) -> Option<Bytes> {
        self.frames.lock().get(hash).filter(|raw| raw.len() == raw_len as usize)
    }

    /// The decompressed bytes of a frame: exactly `raw_len`. Non-blocking as [`Objects::read`].
    pub(super) fn frame(self: &Arc<Self>, piece: &Piece, raw_len: u32) -> Result<Bytes, BaseError> {
        let stored = self.read(piece)?;
        let raw = decompress(&stored, raw_len).ok_or_else(|| {
            let Piece { object, offset, .. } = piece;
            BaseError::Corrupt(format!("{}: the frame at {offset} is not {raw_len} bytes", object.name).into())
        })?;
        self.frames.lock().put(piece.hash, raw.clone(), raw.len());
        Ok(raw)
    }
}

/// Whether a look-up may wait for the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// What is missing is `NotResident`.
    Never,
    /// Blocks, for at most the configured timeout per piece.
    ForNetwork,
}

/// Checked bytes, decompressed; `None` unless they say themselves that they are `raw_len` bytes, and are.
fn decompress(stored: &[u8], raw_len: u32) -> Option<Bytes> {
    let content = zstd::zstd_safe::get_frame_content_size(stored).ok().flatten();
    if raw_len > FRAME_RAW_BYTES_MAX || content != Some(u64::from(raw_len)) {
        return None;
    }
    let raw = zstd::bulk::decompress(stored, raw_len as usize).ok()?;
    (raw.len() == raw_len as usize).then(|| raw.into())
}
