//! The live end of the journal: append, group flush, release of what was applied.

use super::record::{self, FRAME_BYTES};
use super::{JournalError, JournalIdentity, JournalOptions, Replay};
use crate::ids::Xid;
use crate::segment::flush::GroupFlush;
use crate::segment::header::{HEADER_BYTES, Header, Magic, fresh_salt};
use crate::segment::pool::{Pool, Taken};
use crate::segment::{Disk, DiskFile, HostDisk};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a journal is made of, before and after the replay.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) pool: Pool,
    pub(super) identity: JournalIdentity,
    pub(super) options: JournalOptions,
}

/// A segment file, newest last in a journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) first: Xid,
    pub(super) bytes: u64,
}

/// The segment that is written now.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) segment: Segment,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) salt: u32,
    pub(super) at: u64,
}

struct Tail {
    older: VecDeque<Segment>,
    live: Live,
    last: Xid,
    /// Files with bytes that no flush has covered; the live one among them if need be.
    dirty: Vec<Arc<dyn DiskFile>>,
    live_dirty: bool,
    names_dirty: bool,
    frame: Vec<u8>,
}

/// See the module. Dropping it flushes nothing.
pub struct Journal {
    ground: Ground,
    tail: Mutex<Tail>,
    last: AtomicU64,
    /// The newest segment whose header and name are known to be durable.
    durable_segment: AtomicU64,
    flushed: GroupFlush,
    /// From here on somebody reads; `u64::MAX`: nobody.
    held: AtomicU64,
    /// Up to here bytes outside of the journal that records name are durable too, so an end before it is damage.
    whole: AtomicU64,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("last", &self.last())
            .field("persisted", &self.persisted())
            .finish_non_exhaustive()
    }
}

impl Ground {
    /// Makes `taken` a segment whose first record will be `first`. Written, not yet durable.
    pub(super) fn write_header(&self, taken: Taken, first: Xid, persisted: Xid) -> io::Result<Live> {
        let Taken { number, file, bytes } = taken;
        let JournalIdentity { fs, epoch } = self.identity;
        let salt = fresh_salt();
        let header = Header { magic: Magic::Journal, fs, epoch, number, first, persisted, salt };
        file.write_at(&header.encode(), 0)?;
        Ok(Live { segment: Segment { number, first, bytes: bytes.max(HEADER_BYTES) }, file, salt, at: HEADER_BYTES })
    }

    fn body_bytes_max(&self) -> usize {
        (self.options.segment_bytes.min(u64::from(u32::MAX)) as usize)
            .saturating_sub(HEADER_BYTES as usize + FRAME_BYTES)
    }
}

impl Journal {
    /// Opens or creates the journal in `dir`; `applied` is the last record that the caller's state holds. A hole behind
    /// it is [`JournalError::Gap`].
    pub fn open(
        dir: &Path,
        identity: JournalIdentity,
        applied: Xid,
        options: JournalOptions,
    ) -> Result<Replay, JournalError> {
        let disk = HostDisk::new(dir).map_err(JournalError::from_io("open the directory"))?;
        Self::open_on(Arc::new(disk), identity, applied, options)
    }

    /// As [`Journal::open`], on any disk.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        identity: JournalIdentity,
        applied: Xid,
        options: JournalOptions,
    ) -> Result<Replay, JournalError> {
        Replay::start(disk, identity, applied, options)
    }

    /// Takes over after a replay: everything up to `last` is durable, as is the live segment.
    pub(super) fn resume(ground: Ground, older: VecDeque<Segment>, live: Live, last: Xid) -> Self {
        let durable_segment = AtomicU64::new(live.segment.number);
        let tail =
            Tail { older, live, last, dirty: Vec::new(), live_dirty: false, names_dirty: false, frame: Vec::new() };
        Self {
            ground,
            tail: Mutex::new(tail),
            last: AtomicU64::new(last.0),
            durable_segment,
            flushed: GroupFlush::new(last.0),
            held: AtomicU64::new(u64::MAX),
            whole: AtomicU64::new(last.0),
        }
    }

    /// Appends a record; answers with its xid. In the page cache on return: it survives `kill -9`, not power loss.
    /// After an error the journal is as it was.
    pub fn append(&self, body: &[u8]) -> Result<Xid, JournalError> {
        self.flushed.check()?;
        let max = self.ground.body_bytes_max();
        if body.len() > max {
            return Err(JournalError::TooLarge { bytes: body.len(), max });
        }
        let mut guard = self.tail.lock();
        let tail = &mut *guard;
        let xid = tail.last.next();
        let need = record::framed_bytes(body.len()) as u64;
        let size = self.ground.options.segment_bytes;
        if tail.live.at + need > size && tail.live.at > HEADER_BYTES {
            self.rotate(tail).map_err(JournalError::from_io("start a segment"))?;
        }
        record::encode(tail.live.salt, xid, body, &mut tail.frame);
        if let Err(error) = tail.live.file.write_at(&tail.frame, tail.live.at) {
            erase(&tail.live);
            return Err(JournalError::from_io("append")(error));
        }
        fail::fail_point!("journal.appended");
        let half = size / 2;
        let reached_half = tail.live.at < half && tail.live.at + need >= half;
        tail.live.at += need;
        tail.live.segment.bytes = tail.live.segment.bytes.max(tail.live.at);
        tail.live_dirty = true;
        tail.last = xid;
        self.last.store(xid.0, Ordering::Release);
        drop(guard);
        self.ground.pool.note_use();
        if reached_half {
            self.ground.pool.prepare();
        }
        Ok(xid)
    }

    fn rotate(&self, tail: &mut Tail) -> io::Result<()> {
        let taken = self.ground.pool.take(u64::MAX)?;
        let (number, bytes) = (taken.number, taken.bytes);
        tail.names_dirty = true;
        let live = match self.ground.write_header(taken, tail.last.next(), self.whole()) {
            Ok(live) => live,
            Err(error) => {
                // A header that did reach the disk would void what is appended to the old segment from now on: its name
                // must go, durably with the next flush, or nothing may be acknowledged any more.
                if let Err(undo) = self.ground.pool.give(number, bytes) {
                    self.flushed.poison(&undo);
                }
                return Err(error);
            }
        };
        fail::fail_point!("journal.rotated");
        let full = std::mem::replace(&mut tail.live, live);
        if tail.live_dirty {
            tail.dirty.push(full.file);
        }
        tail.older.push_back(full.segment);
        tail.live_dirty = true;
        Ok(())
    }

    /// Makes durable what was appended before the call; answers with the persisted xid. Callers at the same time share
    /// one flush. A failure is final: [`JournalError::Poisoned`] from then on.
    pub fn flush(&self) -> Result<Xid, JournalError> {
        self.flush_behind(Xid(u64::MAX))
    }

    /// [`Journal::flush`] for a caller whose records name bytes elsewhere and who has made those of all records up to
    /// `outside` durable. The flush may take later records along, whose bytes are not: they may be lost without being damaged.
    pub fn flush_behind(&self, outside: Xid) -> Result<Xid, JournalError> {
        let mark = self.flushed.reach(self.last().0, || {
            let (files, names, goal, newest) = {
                let mut tail = self.tail.lock();
                let mut files = std::mem::take(&mut tail.dirty);
                if std::mem::take(&mut tail.live_dirty) {
                    files.push(tail.live.file.clone());
                }
                (files, std::mem::take(&mut tail.names_dirty), tail.last, tail.live.segment.number)
            };
            fail::fail_point!("journal.flushing");
            for file in files {
                file.sync()?;
            }
            if names {
                self.ground.disk.sync_dir()?;
            }
            self.durable_segment.store(newest, Ordering::Release);
            fail::fail_point!("journal.flushed");
            Ok(goal.0)
        })?;
        self.whole.fetch_max(outside.0.min(mark), Ordering::AcqRel);
        Ok(Xid(mark))
    }

    /// The last record that is known to be durable with all bytes that it names.
    pub fn whole(&self) -> Xid {
        Xid(self.whole.load(Ordering::Acquire))
    }

    /// The last record that was appended.
    pub fn last(&self) -> Xid {
        Xid(self.last.load(Ordering::Acquire))
    }

    /// The last record that is known to be durable.
    pub fn persisted(&self) -> Xid {
        Xid(self.flushed.done())
    }

    /// From `from` on somebody still reads records; `None`: nobody does.
    pub fn hold(&self, from: Option<Xid>) {
        self.held.store(from.map_or(u64::MAX, |from| from.0), Ordering::Release);
    }

    /// Records up to `upto` are not needed any more: segments with nothing else are recycled, never the live one. What
    /// is not persisted stays in any case, and what somebody [holds](Journal::hold).
    pub fn release(&self, upto: Xid) -> Result<(), JournalError> {
        let held = Xid(self.held.load(Ordering::Acquire).saturating_sub(1));
        let upto = upto.min(self.persisted()).min(held);
        loop {
            let done = {
                let mut tail = self.tail.lock();
                let follower = *tail.older.get(1).unwrap_or(&tail.live.segment);
                // The follower must be there after a power loss, or the journal would seem to begin behind a hole.
                let durable = follower.number <= self.durable_segment.load(Ordering::Acquire);
                match tail.older.front().copied() {
                    Some(segment) if durable && follower.first <= upto.next() => {
                        tail.older.pop_front();
                        segment
                    }
                    _ => return Ok(()),
                }
            };
            self.ground.pool.give(done.number, done.bytes).map_err(JournalError::from_io("recycle a segment"))?;
        }
    }

    /// The first record that it still has, or will have.
    pub fn first(&self) -> Xid {
        let tail = self.tail.lock();
        tail.older.front().unwrap_or(&tail.live.segment).first
    }

    /// The first record of its newest segments that occupy `bytes_max` together, or of the live one alone.
    pub fn first_within(&self, bytes_max: u64) -> Xid {
        let tail = self.tail.lock();
        let mut occupied = tail.live.segment.bytes;
        let mut first = tail.live.segment.first;
        for segment in tail.older.iter().rev() {
            occupied += segment.bytes;
            if occupied > bytes_max {
                break;
            }
            first = segment.first;
        }
        first
    }

    /// The segment with record `xid`, by its number, and the first record of the one behind it.
    pub(super) fn segment_of(&self, xid: Xid) -> Option<(u64, Xid)> {
        let tail = self.tail.lock();
        let mut end = Xid(u64::MAX);
        for segment in std::iter::once(&tail.live.segment).chain(tail.older.iter().rev()) {
            if segment.first <= xid {
                return Some((segment.number, end));
            }
            end = segment.first;
        }
        None
    }

    pub(super) fn open_file(&self, number: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.ground.disk.open(&self.ground.pool.name(number))
    }

    pub(super) fn record_bytes_max(&self) -> usize {
        record::framed_bytes(self.ground.body_bytes_max())
    }

    /// Prepares no spare segments until [`Journal::allow_spares`], and keeps few: on a full disk they would take what removing needs. The
    /// ones that stay are for its records.
    pub fn hold_spares(&self) -> Result<(), JournalError> {
        self.ground.pool.halt().map_err(JournalError::from_io("remove a spare"))
    }

    /// The end of [`Journal::hold_spares`].
    pub fn allow_spares(&self) {
        self.ground.pool.resume();
    }

    /// Bytes of all its files, spares included.
    pub fn bytes_on_disk(&self) -> u64 {
        let tail = self.tail.lock();
        let older: u64 = tail.older.iter().map(|segment| segment.bytes).sum();
        older + tail.live.segment.bytes + self.ground.pool.spare_bytes()
    }
}

/// Takes back a record that may have been written although the host reported an error: the caller will say that the
/// operation failed, so a replay should not bring it back. Best effort; the next append goes to the same place.
fn erase(live: &Live) {
    if let Err(error) = live.file.write_at(&[0; FRAME_BYTES], live.at) {
        tracing::debug!(%error, "a failed append could not be erased");
    }
}
