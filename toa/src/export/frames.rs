//! Frames of packs, fetched ahead in the order in which they will be used: neighbours with one request, each once.

use crate::base::{Objects, RunBase};
use crate::pack::decode_frame;
use crate::proxy::ByteLru;
use crate::run::Hash128;
use bytes::Bytes;
use cloud_mgmt::store::{ObjectStore, StoreError};
use kvfs::base::{Base, BaseError};
use kvfs::ids::PackNo;
use kvfs::schema::FrameRef;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Bytes of one request, at most (a single frame may have more).
const REQUEST_BYTES: u64 = 4 << 20;
/// What lies between two frames that are wanted and is fetched with them rather than with a request of its own.
const GAP_BYTES: u64 = 64 << 10;
/// Compressed bytes that are fetched or on their way and not used yet, at most.
const AHEAD_BYTES: u64 = 32 << 20;
/// Requests of these.
const AHEAD_REQUESTS: usize = 64;
/// Requests at a time.
const CONCURRENCY: usize = 8;
/// Decompressed frames that later files may share.
const DECODED_BYTES: usize = 32 << 20;
/// Rounds in which the bytes of a frame may be pushed out of the caches again.
const ROUNDS: usize = 8;

/// See the file's first line. It is an accelerator: what it does not have, or has wrong, is read as a mount reads it,
/// which fetches again, and names object and place if that does not help.
pub(super) struct Frames<'a> {
    base: &'a RunBase,
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    timeout: Duration,
    permits: Arc<Semaphore>,
    /// Frames that will be used, and the request that brings them, once there is one.
    planned: HashMap<Hash128, Option<u64>>,
    /// Those without a request, in the order of use.
    wanted: VecDeque<FrameRef>,
    requests: HashMap<u64, Request>,
    next_request: u64,
    ahead_bytes: u64,
    decoded: ByteLru<Hash128, Bytes>,
}

/// A range of an object with frames that are still to be used.
struct Request {
    start: u64,
    bytes: u64,
    frames_left: usize,
    state: Landing,
    task: JoinHandle<()>,
}

enum Landing {
    Flying(mpsc::Receiver<Result<Bytes, StoreError>>),
    Here(Bytes),
    Lost,
}

impl Drop for Request {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<'a> Frames<'a> {
    pub fn new(base: &'a RunBase, objects: &Objects, timeout: Duration) -> Self {
        Self {
            base,
            store: Arc::clone(objects.store()),
            runtime: objects.runtime().clone(),
            timeout,
            permits: Arc::new(Semaphore::new(CONCURRENCY)),
            planned: HashMap::new(),
            wanted: VecDeque::new(),
            requests: HashMap::new(),
            next_request: 0,
            ahead_bytes: 0,
            decoded: ByteLru::new(DECODED_BYTES),
        }
    }

    /// The frame will be used, after all that were wanted before.
    pub fn want(&mut self, frame: &FrameRef) {
        if !self.planned.contains_key(&frame.hash) && self.decoded.get(&frame.hash).is_none() {
            self.planned.insert(frame.hash, None);
            self.wanted.push_back(*frame);
        }
    }

    /// Sends requests for what is wanted, as far as the limits allow.
    pub fn pump(&mut self) {
        while self.ahead_bytes < AHEAD_BYTES && self.requests.len() < AHEAD_REQUESTS && self.request() {}
    }

    /// The raw bytes of a frame, checked (I6).
    pub fn take(&mut self, frame: &FrameRef) -> Result<Bytes, BaseError> {
        if let Some(raw) = self.decoded.get(&frame.hash).filter(|raw| raw.len() == frame.raw_len as usize) {
            return Ok(raw);
        }
        let landed = self.landed(frame);
        let decoded = landed.map(|stored| decode_frame(&stored, frame));
        let raw = match decoded {
            Some(Ok(raw)) => raw,
            Some(Err(error)) => {
                tracing::warn!(%error, "a fetched frame is wrong, and is fetched again");
                self.alone(frame)?
            }
            None => self.alone(frame)?,
        };
        self.decoded.put(frame.hash, raw.clone(), raw.len());
        self.pump();
        Ok(raw)
    }

    /// As a mount reads it.
    fn alone(&self, frame: &FrameRef) -> Result<Bytes, BaseError> {
        let mut last = self.base.read_frame(frame);
        for _ in 0..ROUNDS {
            match &last {
                Err(BaseError::NotResident(need)) => need.fetch()?,
                _ => break,
            }
            last = self.base.read_frame(frame);
        }
        last
    }

    /// What was fetched ahead of a frame; waits for it if it is on its way.
    fn landed(&mut self, frame: &FrameRef) -> Option<Bytes> {
        if self.planned.get(&frame.hash)?.is_none() && self.wanted.front() == Some(frame) {
            self.request();
        }
        let number = self.planned.remove(&frame.hash)??;
        let request = self.requests.get_mut(&number)?;
        let from = frame.offset.checked_sub(request.start)? as usize;
        let stored = request.wait(self.timeout).and_then(|bytes| {
            let end = from.checked_add(frame.stored_len as usize).filter(|end| *end <= bytes.len())?;
            Some(bytes.slice(from..end))
        });
        request.frames_left -= 1;
        if request.frames_left == 0 {
            self.ahead_bytes -= request.bytes;
            self.requests.remove(&number);
        }
        stored
    }

    /// Sends one request for the first frames that are wanted; whether there were any.
    fn request(&mut self) -> bool {
        let Some(first) = self.next_wanted(None) else { return false };
        // Whoever takes it is told what is wrong.
        let Ok(object) = self.base.pack(first.pack) else {
            self.planned.remove(&first.hash);
            return true;
        };
        let number = self.next_request;
        self.next_request += 1;
        let mut range = first.offset..first.offset.saturating_add(u64::from(first.stored_len));
        self.planned.insert(first.hash, Some(number));
        let mut frames_left = 1;
        while let Some(next) = self.next_wanted(Some((first.pack, &range))) {
            range.end = next.offset + u64::from(next.stored_len);
            self.planned.insert(next.hash, Some(number));
            frames_left += 1;
        }
        let (sender, answer) = mpsc::sync_channel(1);
        let (store, permits) = (Arc::clone(&self.store), Arc::clone(&self.permits));
        let (start, bytes) = (range.start, range.end - range.start);
        let task = self.runtime.spawn(async move {
            // The semaphore is never closed.
            let _turn = permits.acquire().await;
            let result = store.get_range(&object.name, range).await;
            // Nobody listens any more if the export has ended.
            drop(sender.send(result));
        });
        self.ahead_bytes += bytes;
        self.requests.insert(number, Request { start, bytes, frames_left, state: Landing::Flying(answer), task });
        true
    }

    /// Takes the first wanted frame, if it goes on where a request so far ends.
    fn next_wanted(&mut self, so_far: Option<(PackNo, &Range<u64>)>) -> Option<FrameRef> {
        // What was taken out of turn needs no request any more.
        while self.wanted.pop_front_if(|next| self.planned.get(&next.hash) != Some(&None)).is_some() {}
        self.wanted.pop_front_if(|next| {
            let Some((pack, range)) = so_far else { return true };
            let end = next.offset.saturating_add(u64::from(next.stored_len));
            let near = next.offset >= range.end && next.offset - range.end <= GAP_BYTES;
            next.pack == pack && near && end - range.start <= REQUEST_BYTES
        })
    }
}

impl Request {
    /// Its bytes; `None` if they did not come. The reason is told by whoever fetches them again.
    fn wait(&mut self, timeout: Duration) -> Option<&Bytes> {
        if let Landing::Flying(answer) = &self.state {
            self.state = match answer.recv_timeout(timeout) {
                Ok(Ok(bytes)) if bytes.len() as u64 == self.bytes => Landing::Here(bytes),
                Ok(Ok(_)) | Err(_) => Landing::Lost,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a fetch ahead failed");
                    Landing::Lost
                }
            };
        }
        match &self.state {
            Landing::Here(bytes) => Some(bytes),
            Landing::Flying(_) | Landing::Lost => None,
        }
    }
}
