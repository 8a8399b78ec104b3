//! Writing and reading blobs.
//!
//! A write reserves its place under a short lock and writes outside of it. Segments are never written again after a
//! restart: the first write starts a new one.

use super::run::{Part, Run};
use super::{BLOB_BYTES_MAX, DataError, DataOptions, Room};
use crate::ids::{Epoch, SegmentNo, Xid};
use crate::schema::BlobRef;
use crate::segment::flush::GroupFlush;
use crate::segment::header::{HEADER_BYTES, Header, Magic, fresh_salt};
use crate::segment::past_cache::READ_BYTES_MAX;
use crate::segment::pool::{Filling, Pool, PoolOptions, Taken};
use crate::segment::{Disk, DiskFile, HostDisk};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

/// Open files kept for reading, each with two descriptors at most; beyond, all are closed and opened again as needed.
const OPEN_FILES_MAX: usize = 192;

#[derive(Debug)]
struct Live {
    number: SegmentNo,
    file: Arc<dyn DiskFile>,
    at: u64,
}

#[derive(Debug, Default)]
struct Segments {
    /// Every segment that is no spare → bytes that it occupies.
    bytes: BTreeMap<SegmentNo, u64>,
    /// The sum of them.
    used: u64,
    live: Option<Live>,
    /// Written and not flushed; an entry is made after its bytes were written.
    dirty: BTreeMap<SegmentNo, Arc<dyn DiskFile>>,
    names_dirty: bool,
    /// Counts entries into `dirty`: the mark that a flush reaches.
    writes: u64,
}

/// See the module. Dropping it flushes nothing.
#[derive(Debug)]
pub struct DataStore {
    disk: Arc<dyn Disk>,
    pool: Pool,
    options: DataOptions,
    segments: Mutex<Segments>,
    open: RwLock<HashMap<SegmentNo, Arc<dyn DiskFile>>>,
    flushed: GroupFlush,
    /// Written since the last flush began, bytes.
    unflushed: AtomicU64,
}

struct Place {
    number: SegmentNo,
    offset: u64,
    file: Arc<dyn DiskFile>,
}

impl DataStore {
    /// Opens or creates the segments in `dir`.
    pub fn open(dir: &Path, options: DataOptions) -> Result<Self, DataError> {
        let disk = HostDisk::new(dir).map_err(DataError::from_io("open the directory"))?;
        Self::open_on(Arc::new(disk), options)
    }

    /// As [`DataStore::open`], on any disk.
    pub fn open_on(disk: Arc<dyn Disk>, options: DataOptions) -> Result<Self, DataError> {
        let pool_options = PoolOptions {
            magic: Magic::Data,
            ext: "data",
            segment_bytes: u64::from(options.segment_bytes),
            spares: options.spares,
            filling: Filling::Idle,
        };
        let (pool, found) = Pool::open(disk.clone(), pool_options).map_err(DataError::from_io("list the segments"))?;
        let bytes: BTreeMap<_, _> = found.iter().map(|segment| (SegmentNo(segment.number), segment.bytes)).collect();
        let used = bytes.values().sum();
        let room = options.max_bytes.map_or(u64::MAX, |max| max.saturating_sub(used));
        pool.set_room(room).map_err(DataError::from_io("remove a spare"))?;
        Ok(Self {
            disk,
            pool,
            options,
            segments: Mutex::new(Segments { bytes, used, ..Segments::default() }),
            open: RwLock::default(),
            flushed: GroupFlush::new(0),
            unflushed: AtomicU64::new(0),
        })
    }

    /// After recovery: all segments but `live` ones are recycled.
    pub fn retain(&self, live: &BTreeSet<SegmentNo>) -> Result<(), DataError> {
        let dead: Vec<_> = {
            let segments = self.segments.lock();
            segments.bytes.keys().copied().filter(|number| !live.contains(number)).collect()
        };
        dead.into_iter().try_for_each(|number| self.recycle(number)).map_err(DataError::from_io("recycle a segment"))
    }

    /// Writes a blob of at most [`BLOB_BYTES_MAX`] bytes. In the page cache on return: it survives `kill -9`, not power
    /// loss.
    pub fn write(&self, bytes: &[u8]) -> Result<BlobRef, DataError> {
        self.write_in(Room::Ordinary, bytes)
    }

    /// [`DataStore::write`] that says which part of the store it may take.
    pub fn write_in(&self, room: Room, bytes: &[u8]) -> Result<BlobRef, DataError> {
        self.flushed.check()?;
        if bytes.len() > BLOB_BYTES_MAX {
            return Err(DataError::TooLarge(bytes.len()));
        }
        let len = bytes.len() as u32;
        let place = self.reserve(room, u64::from(len))?;
        let crc = crc32c::crc32c(bytes);
        if let Err(error) = place.file.write_at(bytes, place.offset) {
            self.unreserve(&place, u64::from(len));
            return Err(DataError::from_io("write")(error));
        }
        fail::fail_point!("data.written");
        {
            let mut segments = self.segments.lock();
            segments.writes += 1;
            segments.dirty.entry(place.number).or_insert(place.file);
        }
        self.unflushed.fetch_add(u64::from(len), Ordering::Relaxed);
        self.pool.note_use();
        Ok(BlobRef { segment: place.number, offset: place.offset as u32, len, crc })
    }

    fn reserve(&self, room: Room, len: u64) -> Result<Place, DataError> {
        let size = u64::from(self.options.segment_bytes);
        let mut guard = self.segments.lock();
        let segments = &mut *guard;
        let full = segments.live.as_ref().is_none_or(|live| live.at + len > size && live.at > HEADER_BYTES);
        if full {
            self.start_segment(segments, room, len)?;
        } else if let Some(live) = &segments.live {
            let growth = segments.growth(live.number, live.at + len);
            self.make_room(segments, room, growth)?;
        }
        let Some(live) = &mut segments.live else { return Err(DataError::NoSpace) };
        let place = Place { number: live.number, offset: live.at, file: live.file.clone() };
        live.at += len;
        segments.occupy(place.number, place.offset + len);
        let reached_half = place.offset < size / 2 && place.offset + len >= size / 2;
        drop(guard);
        if reached_half {
            self.pool.prepare();
        }
        Ok(place)
    }

    fn start_segment(&self, segments: &mut Segments, room: Room, len: u64) -> Result<(), DataError> {
        let max = self.options.limit(room).unwrap_or(u64::MAX);
        let used = segments.used;
        if used.saturating_add(HEADER_BYTES + len) > max {
            return Err(DataError::NoSpace);
        }
        let taken = self.pool.take(max - used).map_err(DataError::from_io("start a segment"))?;
        let Taken { number, file, bytes } = taken;
        // Whatever happens next: the name is there, and a flush has to make it durable.
        segments.names_dirty = true;
        let header = Header {
            magic: Magic::Data,
            fs: Uuid::nil(),
            epoch: Epoch(0),
            number,
            first: Xid(0),
            persisted: Xid(0),
            salt: fresh_salt(),
        };
        let ready = file.write_at(&header.encode(), 0).map_err(DataError::from_io("start a segment"));
        let ready = ready.and_then(|()| {
            let growth = (HEADER_BYTES + len).max(bytes);
            self.make_room(segments, room, growth)
        });
        if let Err(error) = ready {
            self.pool.give(number, bytes).map_err(DataError::from_io("recycle a segment"))?;
            return Err(error);
        }
        fail::fail_point!("data.rotated");
        let number = SegmentNo(number);
        segments.occupy(number, bytes.max(HEADER_BYTES));
        segments.dirty.insert(number, file.clone());
        segments.live = Some(Live { number, file, at: HEADER_BYTES });
        Ok(())
    }

    /// Refuses `growth` more bytes beyond the limit; spares go first.
    fn make_room(&self, segments: &Segments, room: Room, growth: u64) -> Result<(), DataError> {
        let Some(max) = self.options.limit(room) else { return Ok(()) };
        let used = segments.used.saturating_add(growth);
        if used > max {
            return Err(DataError::NoSpace);
        }
        if growth > 0 {
            self.pool.set_room(max - used).map_err(DataError::from_io("remove a spare"))?;
        }
        Ok(())
    }

    /// Gives the place of a failed write back, if nobody has reserved behind it.
    fn unreserve(&self, place: &Place, len: u64) {
        let mut segments = self.segments.lock();
        if let Some(live) = &mut segments.live
            && live.number == place.number
            && live.at == place.offset + len
        {
            live.at = place.offset;
        }
    }

    /// Reads `out.len()` bytes, `within` bytes into the blob. Checked if that is the whole blob; a part of a blob is as
    /// the disk gives it, as long as no flush has failed: from then on what is read may never have reached the disk, and
    /// the whole blob is checked each time.
    pub fn read(&self, blob: &BlobRef, within: u32, out: &mut [u8]) -> Result<(), DataError> {
        let beyond = DataError::Beyond { within, bytes: out.len(), len: blob.len };
        if u64::from(within) + out.len() as u64 > u64::from(blob.len) {
            return Err(beyond);
        }
        let whole = out.len() as u64 == u64::from(blob.len);
        if !whole && self.flushed.has_failed() {
            let bytes = self.read_all(blob)?;
            let part = bytes.get(within as usize..within as usize + out.len()).ok_or(beyond)?;
            out.copy_from_slice(part);
            return Ok(());
        }
        let file = self.file(blob)?;
        let got = file.read_at(out, u64::from(blob.offset) + u64::from(within)).map_err(DataError::from_io("read"))?;
        if got < out.len() || (whole && crc32c::crc32c(out) != blob.crc) {
            return Err(DataError::Corrupt(*blob));
        }
        Ok(())
    }

    /// Reads the whole blob, checked.
    pub fn read_all(&self, blob: &BlobRef) -> Result<Bytes, DataError> {
        if blob.len as usize > BLOB_BYTES_MAX {
            return Err(DataError::Corrupt(*blob));
        }
        let mut out = vec![0; blob.len as usize];
        self.read(blob, 0, &mut out)?;
        Ok(out.into())
    }

    /// Reads what `parts` name in one go, if they lie side by side in one segment that is flushed, past the page cache: for those who keep what
    /// they read. All of it is checked: what is missing of the blobs at both ends is read as well. `None` if it cannot be done so, or if
    /// anything is wrong with it: read each by itself.
    pub fn read_run(&self, parts: &[Part]) -> Option<Bytes> {
        let run = Run::of(parts)?;
        // What is not flushed is in the page cache, and after a failed flush only there.
        let is_flushed = !self.flushed.has_failed() && !self.segments.lock().dirty.contains_key(&run.segment);
        if !is_flushed || run.bytes > READ_BYTES_MAX {
            return None;
        }
        let bytes = self.file(&parts.first()?.blob).ok()?.read_past_cache(run.begin, run.bytes).ok()?;
        let mut rest = bytes.get(..run.bytes)?;
        for Part { blob, .. } in parts {
            let (own, behind) = rest.split_at_checked(blob.len as usize)?;
            if crc32c::crc32c(own) != blob.crc {
                return None;
            }
            rest = behind;
        }
        Some(bytes.slice(run.wanted))
    }

    /// Reads back the bytes of an earlier process life, checked, as the disk has them: after a failed flush the page cache
    /// may say otherwise. After a kill they may be in the page cache only, so the next flush makes them durable too.
    pub fn adopt(&self, blob: &BlobRef) -> Result<(), DataError> {
        let is_new = !self.segments.lock().dirty.contains_key(&blob.segment);
        if is_new {
            self.file(blob)?.forget_cache().map_err(DataError::from_io("read back"))?;
            // Its header is read again too.
            self.open.write().remove(&blob.segment);
        }
        let file = self.file(blob)?;
        self.read_all(blob)?;
        let mut segments = self.segments.lock();
        segments.dirty.insert(blob.segment, file);
        segments.names_dirty = true;
        segments.writes += 1;
        Ok(())
    }

    fn file(&self, blob: &BlobRef) -> Result<Arc<dyn DiskFile>, DataError> {
        let number = blob.segment;
        if let Some(file) = self.open.read().get(&number) {
            return Ok(file.clone());
        }
        let file = match self.disk.open(&self.pool.name(number.0)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(DataError::Missing(number)),
            Err(error) => return Err(DataError::from_io("open a segment")(error)),
        };
        let header = match Header::read(Magic::Data, &*file) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            header => header.map_err(DataError::from_io("read a header"))?,
        };
        if header.is_none_or(|header| header.number != number.0) {
            return Err(DataError::Corrupt(*blob));
        }
        let mut open = self.open.write();
        if open.len() >= OPEN_FILES_MAX {
            open.clear();
        }
        open.insert(number, file.clone());
        Ok(file)
    }

    /// Makes durable what was written before the call. Callers at the same time share one flush; nothing to do is
    /// cheap. A failure is final: [`DataError::Poisoned`] from then on.
    pub fn flush(&self) -> Result<(), DataError> {
        let target = self.segments.lock().writes;
        self.flushed.reach(target, || {
            let (dirty, names, goal) = {
                let mut segments = self.segments.lock();
                self.unflushed.store(0, Ordering::Relaxed);
                let dirty = std::mem::take(&mut segments.dirty);
                (dirty, std::mem::take(&mut segments.names_dirty), segments.writes)
            };
            fail::fail_point!("data.flushing");
            for file in dirty.values() {
                file.sync()?;
            }
            if names {
                self.disk.sync_dir()?;
            }
            fail::fail_point!("data.flushed");
            Ok(goal)
        })?;
        Ok(())
    }

    /// Bytes written since the last flush began.
    pub fn unflushed_bytes(&self) -> u64 {
        self.unflushed.load(Ordering::Relaxed)
    }

    /// Nothing durable and no reader names these segments any more: their files are recycled under new numbers. The one
    /// that is written now stays.
    pub fn free(&self, segments: &[SegmentNo]) {
        for number in segments {
            if let Err(error) = self.recycle(*number) {
                tracing::warn!(segment = %number, %error, "a data segment could not be recycled; its bytes stay in use");
            }
        }
    }

    fn recycle(&self, number: SegmentNo) -> io::Result<()> {
        let mut segments = self.segments.lock();
        if segments.live.as_ref().is_some_and(|live| live.number == number) {
            return Ok(());
        }
        let Some(bytes) = segments.bytes.get(&number).copied() else { return Ok(()) };
        self.open.write().remove(&number);
        self.pool.give(number.0, bytes)?;
        segments.bytes.remove(&number);
        segments.used -= bytes;
        segments.dirty.remove(&number);
        Ok(())
    }

    /// Gives the room of segments that wait to be used again to the disk; none are prepared until [`DataStore::allow_spares`].
    pub fn drop_spares(&self) -> Result<(), DataError> {
        self.pool.halt().map_err(DataError::from_io("remove a spare"))?;
        self.pool.set_room(0).map_err(DataError::from_io("remove a spare"))
    }

    /// The end of [`DataStore::drop_spares`].
    pub fn allow_spares(&self) -> Result<(), DataError> {
        self.pool.resume();
        let segments = self.segments.lock();
        let room = self.options.max_bytes.map_or(u64::MAX, |max| max.saturating_sub(segments.used));
        self.pool.set_room(room).map_err(DataError::from_io("remove a spare"))
    }

    /// All segments but the one that is written now.
    pub fn sealed_segments(&self) -> Vec<SegmentNo> {
        self.sealed_sizes().into_iter().map(|(number, _)| number).collect()
    }

    /// The same with the bytes that each occupies.
    pub fn sealed_sizes(&self) -> Vec<(SegmentNo, u64)> {
        let segments = self.segments.lock();
        let live = segments.live.as_ref().map(|live| live.number);
        let all = segments.bytes.iter().map(|(number, bytes)| (*number, *bytes));
        all.filter(|(number, _)| Some(*number) != live).collect()
    }

    /// Bytes that may still be written within the limit; `None` if there is none.
    pub fn free_bytes(&self, room: Room) -> Option<u64> {
        self.options.limit(room).map(|limit| limit.saturating_sub(self.used_bytes()))
    }

    /// Bytes that the segments occupy; spares, which give way, do not count.
    pub fn used_bytes(&self) -> u64 {
        self.segments.lock().used
    }
}

impl Segments {
    /// Segment `number` reaches up to `end` at least.
    fn occupy(&mut self, number: SegmentNo, end: u64) {
        self.used += self.growth(number, end);
        let bytes = self.bytes.entry(number).or_default();
        *bytes = (*bytes).max(end);
    }

    /// By how much segment `number` grows if it is written up to `end`.
    fn growth(&self, number: SegmentNo, end: u64) -> u64 {
        end.saturating_sub(self.bytes.get(&number).copied().unwrap_or_default())
    }
}
