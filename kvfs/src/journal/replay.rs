//! Reading a journal back after a start, and the switch to writing.
//!
//! Which records count is decided by the headers: a segment is void from the first xid of any later segment on. So a new
//! segment behind record L takes back everything that was written after L, in one durable step.

use super::log::{Ground, Live, Segment};
use super::{Journal, JournalError, JournalIdentity, JournalOptions, record};
use crate::ids::Xid;
use crate::segment::header::{HEADER_BYTES, Header, Magic};
use crate::segment::pool::{Filling, Found, Pool, PoolOptions};
use crate::segment::{Disk, DiskFile};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

const SEGMENT_BYTES_MIN: u64 = 2 * HEADER_BYTES;

#[derive(Debug)]
struct Scanned {
    found: Found,
    header: Header,
    file: Arc<dyn DiskFile>,
}

/// The records behind the applied state, in order. Nothing on disk changes before [`Replay::finish`].
#[derive(Debug)]
pub struct Replay {
    ground: Ground,
    applied: Xid,
    /// Valid segments in order, their first xids ascending.
    chain: Vec<Scanned>,
    /// Files that hold nothing valid.
    stale: Vec<Found>,
    /// The segment of the chain that is read, and its bytes.
    at: usize,
    bytes: Option<Vec<u8>>,
    offset: usize,
    /// The record that comes next.
    expected: Xid,
    ended: bool,
}

impl Replay {
    pub(super) fn start(
        disk: Arc<dyn Disk>,
        identity: JournalIdentity,
        applied: Xid,
        options: JournalOptions,
    ) -> Result<Self, JournalError> {
        let options = JournalOptions { segment_bytes: options.segment_bytes.max(SEGMENT_BYTES_MIN), ..options };
        let pool_options = PoolOptions {
            magic: Magic::Journal,
            ext: "journal",
            segment_bytes: options.segment_bytes,
            spares: options.spares,
            filling: Filling::Steady,
        };
        let (pool, found) =
            Pool::open(disk.clone(), pool_options).map_err(JournalError::from_io("list the segments"))?;
        let mut chain: Vec<Scanned> = Vec::new();
        let mut stale = Vec::new();
        for found in found.into_iter().rev() {
            let scanned = scan(&*disk, &pool, found).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => JournalError::Header(found.number),
                _ => JournalError::from_io("read a header")(error),
            })?;
            let Some(scanned) = scanned else {
                stale.push(found);
                continue;
            };
            let Header { fs, epoch, number, .. } = scanned.header;
            if fs != identity.fs || epoch != identity.epoch {
                return Err(JournalError::Foreign { number, fs, epoch });
            }
            if chain.last().is_some_and(|later| later.header.first <= scanned.header.first) {
                stale.push(found);
            } else {
                chain.push(scanned);
            }
        }
        chain.reverse();
        let behind = chain.partition_point(|segment| segment.header.first <= applied.next());
        let (at, expected) = match (behind.checked_sub(1), chain.first()) {
            (Some(at), _) => (at, chain.get(at).map_or(applied.next(), |segment| segment.header.first)),
            (None, Some(segment)) => return Err(JournalError::Gap { applied, first: segment.header.first }),
            (None, None) => (0, applied.next()),
        };
        let ground = Ground { disk, pool, identity, options };
        Ok(Self { ground, applied, chain, stale, at, bytes: None, offset: 0, expected, ended: false })
    }

    /// The next record; `None` at the end: the first record that is not there in one piece. Damage within what is known
    /// to have been flushed is [`JournalError::Corrupt`].
    #[allow(clippy::should_implement_trait)] // an iterator could not say that the journal is broken
    pub fn next(&mut self) -> Result<Option<(Xid, Bytes)>, JournalError> {
        while !self.ended {
            let follower = self.chain.get(self.at + 1).map(|segment| segment.header.first);
            if follower == Some(self.expected) {
                self.at += 1;
                self.bytes = None;
                continue;
            }
            let Some(segment) = self.chain.get(self.at) else { break };
            if self.bytes.is_none() {
                self.bytes = Some(read_all(&*segment.file).map_err(JournalError::from_io("read a segment"))?);
                self.offset = HEADER_BYTES as usize;
            }
            let bytes = self.bytes.as_deref().unwrap_or_default();
            let Some((body, next)) = record::decode(segment.header.salt, self.expected, bytes, self.offset) else {
                break;
            };
            let xid = self.expected;
            self.offset = next;
            self.expected = xid.next();
            if xid > self.applied {
                return Ok(Some((xid, Bytes::copy_from_slice(body))));
            }
        }
        self.ended = true;
        self.bytes = None;
        self.check_end()?;
        Ok(None)
    }

    /// A later segment's header knows what was durable when it was written; an earlier end is damage.
    fn check_end(&self) -> Result<(), JournalError> {
        let known = self.chain.iter().map(|segment| segment.header.persisted).max().unwrap_or_default();
        if self.expected <= known && self.expected > self.applied {
            return Err(JournalError::Corrupt { bad: self.expected, persisted: known });
        }
        Ok(())
    }

    /// Starts writing: the next record is `last` + 1. Everything replayed up to `last` is durable on return, everything
    /// behind it is void for ever. `last` must be among the records that were read, or the applied one.
    pub fn finish(self, last: Xid) -> Result<Journal, JournalError> {
        let end = Xid(self.expected.0 - 1).max(self.applied);
        if last < self.applied || last > end {
            return Err(JournalError::NotReplayed { last, applied: self.applied, end });
        }
        // A caller that stops early must not void what a later segment knows to have been flushed.
        let known = self.chain.iter().map(|segment| segment.header.persisted).max().unwrap_or_default();
        if last < known && last < end {
            return Err(JournalError::Corrupt { bad: last.next(), persisted: known });
        }
        let live = self.persist_switch(last).map_err(JournalError::from_io("start after the replay"))?;
        fail::fail_point!("journal.switched");
        let (kept, void): (Vec<_>, Vec<_>) = self.chain.iter().partition(|segment| segment.header.first <= last);
        let void = void.into_iter().map(|segment| segment.found).chain(self.stale.iter().copied());
        for Found { number, bytes } in void {
            self.ground.pool.give(number, bytes).map_err(JournalError::from_io("recycle a segment"))?;
        }
        let older: VecDeque<Segment> = kept
            .into_iter()
            .map(|segment| Segment {
                number: segment.found.number,
                first: segment.header.first,
                bytes: segment.found.bytes,
            })
            .collect();
        Ok(Journal::resume(self.ground, older, live, last))
    }

    fn persist_switch(&self, last: Xid) -> io::Result<Live> {
        // After a kill the replayed records may be in the page cache only.
        for segment in self.chain.iter().take(self.at + 1) {
            segment.file.sync()?;
        }
        let taken = self.ground.pool.take(u64::MAX)?;
        let live = self.ground.write_header(taken, last.next(), last)?;
        live.file.sync()?;
        self.ground.disk.sync_dir()?;
        Ok(live)
    }
}

/// The header of a segment; `None` if it is not of this life of the file. From here on it is read as the disk has it:
/// after a failed flush the page cache may say otherwise.
fn scan(disk: &dyn Disk, pool: &Pool, found: Found) -> io::Result<Option<Scanned>> {
    let file = disk.open(&pool.name(found.number))?;
    file.forget_cache()?;
    let header = Header::read(Magic::Journal, &*file)?;
    if header.as_ref().is_some_and(|header| header.persisted >= header.first) {
        // What was durable when a segment began lies before it, and there is no record 0.
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a header that contradicts itself"));
    }
    Ok(header.filter(|header| header.number == found.number).map(|header| Scanned { found, header, file }))
}

fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.size_bytes()? as usize];
    let len = file.read_at(&mut bytes, 0)?;
    bytes.truncate(len);
    Ok(bytes)
}
