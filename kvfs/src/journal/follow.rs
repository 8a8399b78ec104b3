//! Reading a journal that is being written: persisted records only, from a place that the reader remembers.
//!
//! Nothing stops the writer. A segment that is recycled under a reader has another salt from then on, so what is read of
//! it does not check, and the reader hears that its records are gone.

use super::{Journal, JournalError, record};
use crate::ids::Xid;
use crate::segment::DiskFile;
use crate::segment::header::{HEADER_BYTES, Header, Magic, u32_at};
use std::io;
use std::sync::Arc;

/// Bytes that are read at once, if a record is not longer.
const CHUNK_BYTES: usize = 256 << 10;

/// A record as it was appended.
pub type RawRecord = (Xid, Vec<u8>);

/// Where a reader is.
#[derive(Debug)]
pub struct Position {
    next: Xid,
    open: Option<Open>,
}

/// The segment with the next record.
#[derive(Debug)]
struct Open {
    number: u64,
    salt: u32,
    file: Arc<dyn DiskFile>,
    /// The record at `at`.
    expected: Xid,
    at: u64,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Followed<R = RawRecord> {
    /// Records in order, at least one.
    Records(Vec<R>),
    /// All persisted records were read.
    End,
    /// The next records are gone; this is the first that there is.
    Released(Xid),
}

impl Position {
    /// The reader wants record `next`.
    pub fn at(next: Xid) -> Self {
        Self { next, open: None }
    }

    /// The record that it wants next.
    pub fn next(&self) -> Xid {
        self.next
    }
}

impl Open {
    /// Bytes from where it stands, with the whole of the next record if it is there.
    fn chunk(&self, record_bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut chunk = self.read(CHUNK_BYTES)?;
        let framed = u32_at(&chunk, 0).map_or(0, |body| record::framed_bytes(body as usize));
        if framed > chunk.len() && framed <= record_bytes_max {
            chunk = self.read(framed)?;
        }
        Ok(chunk)
    }

    fn read(&self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut chunk = vec![0; bytes];
        let len = self.file.read_at(&mut chunk, self.at)?;
        chunk.truncate(len);
        Ok(chunk)
    }
}

impl Journal {
    /// Reads on from `position`: about `bytes_max` bytes of persisted records.
    pub fn follow(&self, position: &mut Position, bytes_max: usize) -> Result<Followed, JournalError> {
        let persisted = self.whole();
        let mut records: Vec<RawRecord> = Vec::new();
        let mut bytes = 0;
        while position.next <= persisted && bytes < bytes_max {
            let Some(read) = self.read_some(position, persisted)? else {
                if records.is_empty() {
                    return Ok(Followed::Released(self.first()));
                }
                // What was read before is right, whatever became of its file since.
                break;
            };
            bytes += read.iter().map(|(_, body)| body.len()).sum::<usize>();
            records.extend(read);
        }
        Ok(if records.is_empty() { Followed::End } else { Followed::Records(records) })
    }

    /// The next records of one segment, none behind `persisted`; `None` if they are gone.
    fn read_some(&self, position: &mut Position, persisted: Xid) -> Result<Option<Vec<RawRecord>>, JournalError> {
        let failed = || JournalError::from_io("read a segment that is being written");
        let Some((number, end)) = self.segment_of(position.next) else { return Ok(None) };
        if position.open.as_ref().is_none_or(|open| open.number != number) {
            position.open = self.open_segment(number).map_err(failed())?;
        }
        let last = persisted.min(Xid(end.0.saturating_sub(1)));
        let mut records = Vec::new();
        while records.is_empty() {
            let Some(open) = &mut position.open else { return Ok(None) };
            let chunk = open.chunk(self.record_bytes_max()).map_err(failed())?;
            let mut used = 0;
            while open.expected <= last
                && let Some((body, behind)) = record::decode(open.salt, open.expected, &chunk, used)
            {
                if open.expected >= position.next {
                    records.push((open.expected, body.to_vec()));
                    position.next = open.expected.next();
                }
                used = behind;
                open.expected = open.expected.next();
            }
            open.at += used as u64;
            if used == 0 {
                let bad = open.expected;
                position.open = None;
                return match self.segment_of(bad) {
                    Some((still, _)) if still == number => Err(JournalError::Corrupt { bad, persisted }),
                    _ => Ok(None),
                };
            }
        }
        Ok(Some(records))
    }

    /// A segment from its beginning; `None` if it was recycled meanwhile.
    fn open_segment(&self, number: u64) -> io::Result<Option<Open>> {
        let file = match self.open_file(number) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let header = Header::read(Magic::Journal, &*file)?.filter(|header| header.number == number);
        Ok(header.map(|header| Open { number, salt: header.salt, file, expected: header.first, at: HEADER_BYTES }))
    }
}
