//! The proxy: its directory and its limit.

use super::index::{Index, Loose, Part, Pin};
use super::name::{escape, unescape, unescape_chunk};
use super::staged::Purpose;
use super::{ProxyError, StagedFile};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Bytes of an object that one chunk file holds (the last one of an object: fewer).
pub const CHUNK_BYTES: u64 = 1 << 20;

const STAGED: &str = "staged";
const KEPT: &str = "kept";
const WHOLE: &str = "whole";
const CHUNK: &str = "chunk";
const TMP: &str = "tmp";

/// Limits of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyOptions {
    /// Bytes of all files together, never exceeded.
    pub max_bytes: u64,
}

/// How full a proxy is, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Staged and kept objects.
    pub pinned: u64,
    /// Cached bytes that can be evicted.
    pub cached: u64,
    /// Promised to objects that are being written.
    pub reserved: u64,
    /// The limit of their sum.
    pub max: u64,
}

/// The local disk cache of bucket objects. All methods may be called from any thread; none waits for the network.
#[derive(Debug)]
pub struct Proxy {
    dir: PathBuf,
    options: ProxyOptions,
    index: Mutex<Index>,
    temp_number: AtomicU64,
}

impl Proxy {
    /// Opens the proxy in `dir` (created if missing), which belongs to this process alone: removes what a crash left
    /// half-written, rebuilds the index, and evicts what a lowered limit no longer allows.
    pub fn open(dir: &Path, options: ProxyOptions) -> Result<Arc<Self>, ProxyError> {
        let proxy = Self {
            dir: dir.to_owned(),
            options,
            index: Mutex::new(Index::new(options.max_bytes)),
            temp_number: AtomicU64::new(0),
        };
        for folder in [STAGED, KEPT, WHOLE, CHUNK, TMP] {
            let path = dir.join(folder);
            std::fs::create_dir_all(&path).map_err(ProxyError::io("create", &path))?;
        }
        for (path, _) in files_of(&dir.join(TMP))? {
            std::fs::remove_file(&path).map_err(ProxyError::io("remove", &path))?;
        }
        proxy.load_pinned(STAGED, Pin::Staged)?;
        proxy.load_pinned(KEPT, Pin::Kept)?;
        proxy.load_loose()?;
        let mut index = proxy.index.lock();
        let victims = index.shrink();
        proxy.evict(&mut index, &victims);
        drop(index);
        Ok(Arc::new(proxy))
    }

    fn load_pinned(&self, folder: &str, pin: Pin) -> Result<(), ProxyError> {
        for (path, meta) in files_of(&self.dir.join(folder))? {
            let Some(object) = file_name(&path).and_then(unescape) else {
                tracing::warn!(path = %path.display(), "a foreign file in the proxy is left alone");
                continue;
            };
            self.index.lock().add_pinned(object.into(), pin, meta.len());
        }
        Ok(())
    }

    /// The order of use is not kept over a restart; the order of arrival is.
    fn load_loose(&self) -> Result<(), ProxyError> {
        let mut found = Vec::new();
        for (path, meta) in files_of(&self.dir.join(WHOLE))? {
            let object = file_name(&path).and_then(unescape);
            found.push((path, meta, object.map(|object| (object, Part::Whole))));
        }
        for (path, meta) in files_of(&self.dir.join(CHUNK))? {
            let chunk = file_name(&path).and_then(unescape_chunk).filter(|_| meta.len() <= CHUNK_BYTES);
            found.push((path, meta, chunk.map(|(object, n)| (object, Part::Chunk(n)))));
        }
        found.sort_by_key(|(_, meta, _)| meta.modified().unwrap_or(SystemTime::UNIX_EPOCH));
        for (path, meta, file) in found {
            match file {
                Some((object, part)) => {
                    self.index.lock().add_loose(Loose { object: object.into(), part }, meta.len());
                }
                None => std::fs::remove_file(&path).map_err(ProxyError::io("remove", &path))?,
            }
        }
        Ok(())
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let (pinned, cached, reserved) = self.index.lock().bytes();
        Usage { pinned, cached, reserved, max: self.options.max_bytes }
    }

    /// Begins an object of about `room_bytes`, which are reserved now (evicting what is least recently used). Kind
    /// `NoSpace` if what is pinned leaves no room.
    pub fn stage(self: &Arc<Self>, object: &str, room_bytes: u64) -> Result<StagedFile, ProxyError> {
        escape(object)?;
        self.reserve(room_bytes)?;
        Ok(StagedFile::new(Arc::clone(self), object, self.temp_path(), room_bytes))
    }

    /// Makes sure that `needed` bytes are free on the disk, giving up cached files if it must.
    pub(super) fn ensure_disk(&self, needed: u64) -> Result<(), ProxyError> {
        let mut free = self.disk_free()?;
        if free < needed {
            let mut index = self.index.lock();
            let victims = index.give_up(needed - free);
            self.evict(&mut index, &victims);
            drop(index);
            free = self.disk_free()?;
        }
        if free < needed { Err(ProxyError::Disk { path: self.dir.clone(), needed, free }) } else { Ok(()) }
    }

    /// Gives up cached files so that `needed` bytes are free on the disk, if there are enough of them.
    pub fn give_way(&self, needed: u64) -> Result<(), ProxyError> {
        let free = self.disk_free()?;
        if free < needed && free.saturating_add(self.usage().cached) >= needed {
            self.ensure_disk(needed)
        } else {
            Ok(())
        }
    }

    fn disk_free(&self) -> Result<u64, ProxyError> {
        let stat =
            rustix::fs::statvfs(&self.dir).map_err(|error| ProxyError::io("statvfs", &self.dir)(error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Objects that are committed and not uploaded yet, with their sizes, sorted by name: also those of earlier lives.
    pub fn staged(&self) -> Vec<(Arc<str>, u64)> {
        self.index.lock().all_pinned(Pin::Staged)
    }

    /// The file of a staged object.
    pub fn staged_path(&self, object: &str) -> Option<PathBuf> {
        let (pin, _) = self.index.lock().pinned(object)?;
        (pin == Pin::Staged).then(|| self.path(STAGED, object)).flatten()
    }

    /// The bucket has `object`: if it is staged, it is cache from now on. After a crash it may be staged again; to send it
    /// twice is harmless.
    pub fn uploaded(&self, object: &str) -> Result<(), ProxyError> {
        match self.index.lock().pinned(object) {
            Some((Pin::Staged, _)) => {}
            _ => return Ok(()),
        }
        self.repin(object, Pin::Staged, (STAGED, WHOLE))
    }

    /// Gives a staged object up: its snapshot was cancelled or superseded.
    pub fn discard_staged(&self, object: &str) -> Result<(), ProxyError> {
        let mut index = self.index.lock();
        match index.pinned(object) {
            Some((Pin::Staged, _)) => index.remove_pinned(object),
            _ => return Ok(()),
        };
        let path = self.path(STAGED, object).ok_or_else(|| ProxyError::BadName(object.to_owned()))?;
        std::fs::remove_file(&path).map_err(ProxyError::io("remove", &path))
    }

    /// Pins an object that is here as a whole; `false` if it is not. A staged one stays staged.
    pub fn keep(&self, object: &str) -> Result<bool, ProxyError> {
        let mut index = self.index.lock();
        if index.pinned(object).is_some() {
            return Ok(true);
        }
        let file = Loose { object: object.into(), part: Part::Whole };
        if index.touch(&file).is_none() {
            return Ok(false);
        }
        self.rename(object, (WHOLE, KEPT))?;
        if let Some(len) = index.remove_loose(&file) {
            index.add_pinned(file.object, Pin::Kept, len);
        }
        Ok(true)
    }

    /// The opposite of [`Proxy::keep`]; nothing to do for others.
    pub fn release(&self, object: &str) -> Result<(), ProxyError> {
        match self.index.lock().pinned(object) {
            Some((Pin::Kept, _)) => {}
            _ => return Ok(()),
        }
        self.repin(object, Pin::Kept, (KEPT, WHOLE))
    }

    /// Releases every kept object but these: after a restart or a switch of the base.
    pub fn keep_only(&self, objects: &[&str]) -> Result<(), ProxyError> {
        let kept = self.index.lock().all_pinned(Pin::Kept);
        kept.iter().filter(|(object, _)| !objects.contains(&&**object)).try_for_each(|(object, _)| self.release(object))
    }

    /// Size of an object that is here as a whole.
    pub fn whole_bytes(&self, object: &str) -> Option<u64> {
        let mut index = self.index.lock();
        let pinned = index.pinned(object).map(|(_, len)| len);
        pinned.or_else(|| index.touch(&Loose { object: object.into(), part: Part::Whole }))
    }

    /// The bytes of `range` if all of them are here; unchecked. An unreadable file counts as missing.
    pub fn read(&self, object: &str, range: Range<u64>) -> Option<Bytes> {
        let len = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        // Once more if it is uploaded or released just now: its file moves.
        for _ in 0..2 {
            if self.whole_bytes(object).is_none_or(|size| range.end > size) {
                break;
            }
            if let Some(bytes) = read_at(&self.whole_path(object)?, range.start, len) {
                return Some(bytes.into());
            }
        }
        let mut bytes = Vec::with_capacity(len.min(2 * CHUNK_BYTES as usize));
        for chunk in chunks_of(&range) {
            let start = u64::from(chunk) * CHUNK_BYTES;
            let from = range.start.max(start) - start;
            let end = range.end.min(start + CHUNK_BYTES) - start;
            bytes.extend_from_slice(&self.read_chunk_part(object, chunk, from..end)?);
        }
        Some(bytes.into())
    }

    /// Whether a chunk is here on its own.
    pub fn has_chunk(&self, object: &str, chunk: u32) -> bool {
        self.index.lock().touch(&Loose { object: object.into(), part: Part::Chunk(chunk) }).is_some()
    }

    /// Caches a fetched chunk; `false` if what is pinned leaves no room.
    pub fn put_chunk(&self, object: &str, chunk: u32, bytes: &[u8]) -> Result<bool, ProxyError> {
        let len = bytes.len() as u64;
        match self.reserve(len) {
            Ok(()) => {}
            Err(ProxyError::Full { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        let temp = self.temp_path();
        let done = std::fs::write(&temp, bytes).map_err(ProxyError::io("write", &temp)).and_then(|()| {
            let path = self.chunk_path(object, chunk).ok_or_else(|| ProxyError::BadName(object.to_owned()))?;
            let mut index = self.index.lock();
            std::fs::rename(&temp, &path).map_err(ProxyError::io("rename", &path))?;
            index.unreserve(len);
            index.add_loose(Loose { object: object.into(), part: Part::Chunk(chunk) }, len);
            Ok(true)
        });
        if done.is_err() {
            self.unreserve(len);
            // The disk may be full: what was written of it must not stay. The next start removes what this cannot.
            let _ = std::fs::remove_file(&temp);
        }
        done
    }

    /// Forgets cached bytes of `range` that turned out wrong. A staged object stays: it is the only copy, and whoever
    /// reads it gets an error.
    pub fn forget(&self, object: &str, range: Range<u64>) {
        let mut index = self.index.lock();
        if let Some((Pin::Kept, _)) = index.pinned(object) {
            index.remove_pinned(object);
            self.remove_file(self.path(KEPT, object));
        }
        let chunks = chunks_of(&range).map(Part::Chunk);
        for part in chunks.chain([Part::Whole]) {
            let file = Loose { object: object.into(), part };
            if index.remove_loose(&file).is_some() {
                self.remove_file(self.loose_path(&file));
            }
        }
    }

    pub(super) fn reserve(&self, bytes: u64) -> Result<(), ProxyError> {
        let mut index = self.index.lock();
        let victims = index.reserve(bytes)?;
        self.evict(&mut index, &victims);
        Ok(())
    }

    pub(super) fn unreserve(&self, bytes: u64) {
        self.index.lock().unreserve(bytes);
    }

    /// Makes the durable file `temp` the object; durable on return. Its `(length, reserved room)` change places under one
    /// lock, so that nobody sees both.
    pub(super) fn adopt(
        &self,
        temp: &Path,
        object: &str,
        purpose: Purpose,
        (len, room_bytes): (u64, u64),
    ) -> Result<PathBuf, ProxyError> {
        let (folder, pin) = match purpose {
            Purpose::Upload => (STAGED, Pin::Staged),
            Purpose::Keep => (KEPT, Pin::Kept),
        };
        let path = self.path(folder, object).ok_or_else(|| ProxyError::BadName(object.to_owned()))?;
        let mut index = self.index.lock();
        if index.pinned(object).is_some() {
            return Err(ProxyError::State(object.to_owned(), "is in the proxy already"));
        }
        std::fs::rename(temp, &path).map_err(ProxyError::io("rename", &path))?;
        index.unreserve(room_bytes);
        index.add_pinned(object.into(), pin, len);
        drop(index);
        let dir = self.dir.join(folder);
        File::open(&dir).and_then(|dir| dir.sync_all()).map_err(ProxyError::io("sync", &dir))?;
        Ok(path)
    }

    /// From a pin to the evictable cache.
    fn repin(&self, object: &str, pin: Pin, folders: (&str, &str)) -> Result<(), ProxyError> {
        let mut index = self.index.lock();
        let Some((found, len)) = index.pinned(object) else {
            return Err(ProxyError::State(object.to_owned(), "is not in the proxy"));
        };
        if found != pin {
            return Err(ProxyError::State(object.to_owned(), "is kept for another reason"));
        }
        self.rename(object, folders)?;
        index.remove_pinned(object);
        index.add_loose(Loose { object: object.into(), part: Part::Whole }, len);
        Ok(())
    }

    fn rename(&self, object: &str, (from, to): (&str, &str)) -> Result<(), ProxyError> {
        let name = escape(object)?;
        let (from, to) = (self.dir.join(from).join(&name), self.dir.join(to).join(&name));
        std::fs::rename(&from, &to).map_err(ProxyError::io("rename", &from))
    }

    /// Removes evicted files. Under the lock, so that nobody puts the same name back in between.
    fn evict(&self, _index: &mut MutexGuard<'_, Index>, victims: &[Loose]) {
        for victim in victims {
            self.remove_file(self.loose_path(victim));
        }
    }

    fn remove_file(&self, path: Option<PathBuf>) {
        let Some(path) = path else { return };
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove a cached file");
        }
    }

    fn read_chunk_part(&self, object: &str, chunk: u32, part: Range<u64>) -> Option<Vec<u8>> {
        let len = self.index.lock().touch(&Loose { object: object.into(), part: Part::Chunk(chunk) })?;
        let path = self.chunk_path(object, chunk).filter(|_| part.end <= len)?;
        read_at(&path, part.start, (part.end - part.start) as usize)
    }

    fn temp_path(&self) -> PathBuf {
        self.dir.join(TMP).join(self.temp_number.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn path(&self, folder: &str, object: &str) -> Option<PathBuf> {
        Some(self.dir.join(folder).join(escape(object).ok()?))
    }

    /// The file of an object that is here as a whole.
    fn whole_path(&self, object: &str) -> Option<PathBuf> {
        let folder = match self.index.lock().pinned(object) {
            Some((Pin::Staged, _)) => STAGED,
            Some((Pin::Kept, _)) => KEPT,
            None => WHOLE,
        };
        self.path(folder, object)
    }

    fn chunk_path(&self, object: &str, chunk: u32) -> Option<PathBuf> {
        Some(self.dir.join(CHUNK).join(format!("{}@{chunk}", escape(object).ok()?)))
    }

    fn loose_path(&self, file: &Loose) -> Option<PathBuf> {
        match file.part {
            Part::Whole => self.path(WHOLE, &file.object),
            Part::Chunk(chunk) => self.chunk_path(&file.object, chunk),
        }
    }
}

/// Numbers of the chunks that `range` touches.
pub(crate) fn chunks_of(range: &Range<u64>) -> Range<u32> {
    if range.is_empty() {
        return 0..0;
    }
    (range.start / CHUNK_BYTES) as u32..(range.end.div_ceil(CHUNK_BYTES)) as u32
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn read_at(path: &Path, offset: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    let done = File::open(path).and_then(|file| file.read_exact_at(&mut bytes, offset));
    if let Err(error) = &done {
        tracing::debug!(path = %path.display(), %error, "a cached file cannot be read");
    }
    done.is_ok().then_some(bytes)
}

fn files_of(dir: &Path) -> Result<Vec<(PathBuf, std::fs::Metadata)>, ProxyError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(ProxyError::io("list", dir))? {
        let entry = entry.map_err(ProxyError::io("list", dir))?;
        let meta = entry.metadata().map_err(ProxyError::io("stat", &entry.path()))?;
        if meta.is_file() {
            files.push((entry.path(), meta));
        }
    }
    Ok(files)
}
