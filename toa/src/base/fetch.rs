//! Brings missing bytes from the store into the proxy.

use super::objects::{ObjectRef, Objects, Piece};
use crate::proxy::{CHUNK_BYTES, chunks_of};
use crate::run::hash128;
use bytes::Bytes;
use cloud_mgmt::store::{StoreError, StoreErrorKind};
use kvfs::base::{BaseError, Fetch};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Rounds of one fetch in which the proxy may evict what was just brought, before that counts as unavailable.
const ROUNDS: usize = 4;

/// Where the last request of an object ended, and how much the next one may bring if it continues there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    next: u32,
    window: u32,
}

/// A missing piece.
pub(super) struct PieceFetch {
    objects: Arc<Objects>,
    piece: Piece,
    warm_from: u64,
}

impl PieceFetch {
    pub(super) fn new(objects: Arc<Objects>, piece: Piece, warm_from: u64) -> Self {
        Self { objects, piece, warm_from }
    }
}

impl fmt::Debug for PieceFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {} of {}", self.piece.len, self.piece.offset, self.piece.object.name)
    }
}

impl Fetch for PieceFetch {
    fn fetch(&self) -> Result<(), BaseError> {
        self.objects.fetch(&self.piece, self.warm_from).map(drop)
    }
}

impl Objects {
    /// The bytes of a piece, fetched if they are missing, together with what lies between `warm_from` and it. Wrong bytes
    /// are fetched once more, then the piece is `Corrupt`.
    pub(super) fn fetch(&self, piece: &Piece, warm_from: u64) -> Result<Bytes, BaseError> {
        if let Some(bytes) = self.read_local(piece)? {
            return Ok(bytes);
        }
        let deadline = Instant::now() + Duration::from_millis(self.options.fetch_timeout_ms);
        let range = piece.range().ok_or_else(|| piece.corrupt())?;
        let span = warm_from.min(range.start)..range.end;
        let mut last = piece.corrupt();
        for _ in 0..2 {
            match self.bring(&piece.object, &span, &range, deadline) {
                Ok(bytes) if hash128(&bytes) == piece.hash => {
                    self.recent.lock().put(piece.hash, bytes.clone(), bytes.len());
                    return Ok(bytes);
                }
                Ok(_) => last = piece.corrupt(),
                Err(error @ BaseError::Corrupt(_)) => last = error,
                Err(error) => return Err(error),
            }
            tracing::warn!(object = &*piece.object.name, offset = piece.offset, "fetched bytes are wrong");
            self.proxy.forget(&piece.object.name, range.clone());
        }
        Err(last)
    }

    /// Makes the chunks of `span` resident; the answer is `range` of it, unchecked.
    fn bring(
        &self,
        object: &ObjectRef,
        span: &Range<u64>,
        range: &Range<u64>,
        deadline: Instant,
    ) -> Result<Bytes, BaseError> {
        for _ in 0..ROUNDS {
            let Some(claim) = self.claim(object, chunks_of(span), deadline)? else {
                match self.proxy.read(&object.name, range.clone()) {
                    Some(bytes) => return Ok(bytes),
                    // A file that is too short, unreadable, or just evicted.
                    None => self.proxy.forget(&object.name, range.clone()),
                }
                continue;
            };
            let start = u64::from(claim.chunks.start) * CHUNK_BYTES;
            let end = (u64::from(claim.chunks.end) * CHUNK_BYTES).min(object.size);
            let bytes = self.get(object, start..end, deadline)?;
            self.cache_chunks(object, claim.chunks.start, &bytes);
            drop(claim);
            if let Some(bytes) = self.stitch(object, range, start, &bytes) {
                return Ok(bytes);
            }
        }
        Err(unavailable(object, "the proxy is too small to hold what is read"))
    }

    /// Takes the missing chunks of `needed` and some beyond for this thread; `None` if nothing is missing. Waits for
    /// chunks that another thread is fetching.
    fn claim<'a>(
        &'a self,
        object: &ObjectRef,
        needed: Range<u32>,
        deadline: Instant,
    ) -> Result<Option<Claim<'a>>, BaseError> {
        let mut in_flight = self.in_flight.lock();
        loop {
            let flies = |n: u32, set: &HashSet<(Arc<str>, u32)>| set.contains(&(Arc::clone(&object.name), n));
            if needed.clone().any(|n| flies(n, &in_flight)) {
                if self.landed.wait_until(&mut in_flight, deadline).timed_out() {
                    return Err(unavailable(object, "no answer in time"));
                }
                continue;
            }
            let missing: Vec<u32> = needed.clone().filter(|n| !self.proxy.has_chunk(&object.name, *n)).collect();
            let (Some(first), Some(last)) = (missing.first(), missing.last()) else { return Ok(None) };
            let mut end = last + 1;
            let wanted = self.window(object, *first..end);
            let object_end = object.size.div_ceil(CHUNK_BYTES) as u32;
            while end < wanted.min(object_end) && !flies(end, &in_flight) && !self.proxy.has_chunk(&object.name, end) {
                end += 1;
            }
            let chunks = *first..end;
            in_flight.extend(chunks.clone().map(|n| (Arc::clone(&object.name), n)));
            return Ok(Some(Claim { objects: self, object: Arc::clone(&object.name), chunks }));
        }
    }

    /// Where a request that has to bring `chunks` may end: doubles while an object is read on and on.
    fn window(&self, object: &ObjectRef, chunks: Range<u32>) -> u32 {
        let quarter = self.proxy.usage().max / 4;
        let most = (self.options.read_ahead_bytes.min(quarter) / CHUNK_BYTES) as u32;
        let mut streams = self.streams.lock();
        let window = match streams.get(&object.name) {
            Some(ahead) if chunks.contains(&ahead.next) => (ahead.window * 2).min(most),
            _ => 1,
        };
        let end = chunks.end.max(chunks.start.saturating_add(window));
        streams.put(Arc::clone(&object.name), Ahead { next: end, window: window.max(1) });
        end
    }

    /// Puts fetched chunks into the proxy. What does not fit is still handed to the reader.
    fn cache_chunks(&self, object: &ObjectRef, first: u32, bytes: &Bytes) {
        for (n, chunk) in (first..).zip(bytes.chunks(CHUNK_BYTES as usize)) {
            match self.proxy.put_chunk(&object.name, n, chunk) {
                Ok(true) => {}
                Ok(false) => tracing::debug!(object = &*object.name, "no room in the proxy beside what is pinned"),
                Err(error) => tracing::warn!(%error, "a fetched chunk is not cached"),
            }
        }
    }

    /// `range` out of what was fetched (from `start` on) and what was resident around it.
    fn stitch(&self, object: &ObjectRef, range: &Range<u64>, start: u64, fetched: &Bytes) -> Option<Bytes> {
        let end = start + fetched.len() as u64;
        let inner = range.start.clamp(start, end)..range.end.clamp(start, end);
        let middle = fetched.slice((inner.start - start) as usize..(inner.end - start) as usize);
        if inner == *range {
            return Some(middle);
        }
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        if range.start < start {
            bytes.extend_from_slice(&self.proxy.read(&object.name, range.start..start.min(range.end))?);
        }
        bytes.extend_from_slice(&middle);
        if range.end > end {
            bytes.extend_from_slice(&self.proxy.read(&object.name, end.max(range.start)..range.end)?);
        }
        Some(bytes.into())
    }

    /// One ranged request, run on the runtime while this thread waits.
    pub(super) fn get(&self, object: &ObjectRef, range: Range<u64>, deadline: Instant) -> Result<Bytes, BaseError> {
        let (sender, answer) = mpsc::sync_channel(1);
        let (store, name) = (Arc::clone(&self.store), Arc::clone(&object.name));
        let wanted = range.end - range.start;
        let task = self.runtime.spawn(async move {
            let result = store.get_range(&name, range).await;
            // Nobody listens any more if the time is over.
            let _ = sender.send(result);
        });
        match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok(bytes)) if bytes.len() as u64 == wanted => Ok(bytes),
            Ok(Ok(_)) => Err(BaseError::Corrupt(format!("{}: the store sent another length", object.name).into())),
            Ok(Err(error)) => Err(from_store(&error)),
            Err(_) => {
                task.abort();
                Err(unavailable(object, "no answer in time"))
            }
        }
    }
}

/// Chunks that one thread fetches; others wait until it is dropped.
struct Claim<'a> {
    objects: &'a Objects,
    object: Arc<str>,
    chunks: Range<u32>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut in_flight = self.objects.in_flight.lock();
        for n in self.chunks.clone() {
            in_flight.remove(&(Arc::clone(&self.object), n));
        }
        self.objects.landed.notify_all();
    }
}

pub(super) fn unavailable(object: &ObjectRef, why: &str) -> BaseError {
    BaseError::Unavailable(format!("{}: {why}", object.name).into())
}

fn from_store(error: &StoreError) -> BaseError {
    let text = error.to_string().into();
    match error.kind() {
        StoreErrorKind::NotFound => BaseError::Gone(text),
        StoreErrorKind::Corrupt => BaseError::Corrupt(text),
        _ => BaseError::Unavailable(text),
    }
}
