//! What the open directories have listed, in a file that outlives the process.
//!
//! The kernel gives back cookies, and what a cookie means is known to the process that gave it out alone. So before a
//! reply goes out, its names are appended to a file in memory (memfd), which whoever keeps the connection keeps, too:
//! no disk, one system call for each reply. After `kill -9` the next process reads it and every listing goes on.
//!
//! ```text
//! at 0       where the log begins (u64)
//! a record   length of the rest (u32) | crc32c of the rest (u32) | handle (u64) | first (u64) | names
//! first = 0  the handle is closed
//! first = n  the names have the cookies n, n + 1 …; what had them before is void
//! names      how many (u32) | their lengths (u16 each) | their bytes
//! ```
//! A record that is torn was never answered. The log is written anew, behind itself, when most of it is dead.

use super::directory::Cookies;
use rustix::fs::FallocateFlags;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const START_BYTES: u64 = 8;
const FRAME_BYTES: usize = 8;
/// A log that is shorter than this is not worth cleaning, bytes.
const CLEAN_BYTES: u64 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct CookieFile {
    file: File,
    start: u64,
    end: u64,
    /// Cleaned when it is so long.
    clean_at: u64,
    /// Handles whose end is not written yet: it goes with the next record.
    closed: Vec<u64>,
    buffer: Vec<u8>,
}

impl CookieFile {
    /// Opens what an earlier process wrote, or an empty file.
    pub(super) fn open(file: File) -> io::Result<(Self, HashMap<u64, Cookies>)> {
        let mut word = [0; START_BYTES as usize];
        let start = match file.read_exact_at(&mut word, 0) {
            Ok(()) => u64::from_le_bytes(word).max(START_BYTES),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => START_BYTES,
            Err(error) => return Err(error),
        };
        let mut log = Self { file, start, end: start, clean_at: CLEAN_BYTES, closed: Vec::new(), buffer: Vec::new() };
        let (tables, end) = log.read()?;
        log.end = end;
        Ok((log, tables))
    }

    /// A handle is not used any more.
    pub(super) fn close(&mut self, handle: u64) {
        self.closed.push(handle);
    }

    /// What was added to the names of a handle; in the file on return.
    pub(super) fn append(&mut self, handle: u64, cookies: &mut Cookies) -> io::Result<()> {
        self.buffer.clear();
        for closed in std::mem::take(&mut self.closed) {
            put_record(&mut self.buffer, closed, &Listed::default());
        }
        put_record(&mut self.buffer, handle, &cookies.unsaved());
        self.write_buffer()?;
        cookies.saved();
        if self.end - self.start > self.clean_at { self.clean() } else { Ok(()) }
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.end)?;
        self.end += self.buffer.len() as u64;
        Ok(())
    }

    /// Writes what is alive behind the log, makes that the log, and gives back the memory before it.
    fn clean(&mut self) -> io::Result<()> {
        let (tables, _) = self.read()?;
        let start = self.end;
        self.buffer.clear();
        for (handle, cookies) in &tables {
            put_record(&mut self.buffer, *handle, &cookies.all());
        }
        self.write_buffer()?;
        // Eight bytes in one page: all of them or none.
        self.file.write_all_at(&start.to_le_bytes(), 0)?;
        self.start = start;
        self.clean_at = CLEAN_BYTES + 2 * (self.end - self.start);
        self.buffer.shrink_to(CLEAN_BYTES as usize);
        self.free_dead()
    }

    /// Gives back the pages before the log; what is dead in its first page becomes zeros.
    fn free_dead(&self) -> io::Result<()> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.file, hole, START_BYTES, self.start - START_BYTES)?)
    }

    /// All tables, and where the last whole record ends.
    fn read(&self) -> io::Result<(HashMap<u64, Cookies>, u64)> {
        let len = self.file.metadata()?.len().saturating_sub(self.start);
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, self.start)?;
        let (mut tables, mut at) = (HashMap::<u64, Cookies>::new(), 0);
        while let Some((handle, first, names, next)) = record(&bytes, at) {
            at = next;
            if first == 0 {
                tables.remove(&handle);
            } else {
                tables.entry(handle).or_default().restore(first, names);
            }
        }
        Ok((tables, self.start + at as u64))
    }
}

/// Names in the order of their cookies.
#[derive(Default)]
pub(super) struct Listed<'c> {
    /// The cookie of the first one.
    pub(super) first: u64,
    /// Where the first one begins, and each one ends, in bytes that come before and with `bytes`.
    pub(super) start: usize,
    pub(super) ends: &'c [usize],
    pub(super) bytes: &'c [u8],
}

fn put_record(out: &mut Vec<u8>, handle: u64, listed: &Listed<'_>) {
    let frame = out.len();
    out.reserve(FRAME_BYTES + 20 + 2 * listed.ends.len() + listed.bytes.len());
    out.extend_from_slice(&[0; FRAME_BYTES]);
    out.extend_from_slice(&handle.to_le_bytes());
    out.extend_from_slice(&listed.first.to_le_bytes());
    out.extend_from_slice(&(listed.ends.len() as u32).to_le_bytes());
    let mut start = listed.start;
    for end in listed.ends {
        out.extend_from_slice(&((end - start) as u16).to_le_bytes());
        start = *end;
    }
    out.extend_from_slice(listed.bytes);
    let (head, body) = out.split_at_mut(frame + FRAME_BYTES);
    let (len, crc) = (body.len() as u32, crc32c::crc32c(body));
    for (place, word) in head[frame..].chunks_exact_mut(4).zip([len, crc]) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

/// The record at `at` (handle, first, names) and where the next one is; `None`: it is not there in one piece.
fn record(bytes: &[u8], at: usize) -> Option<(u64, u64, Names<'_>, usize)> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (len, crc) = (word(at)? as usize, word(at + 4)?);
    let next = at.checked_add(FRAME_BYTES)?.checked_add(len)?;
    let body = bytes.get(at + FRAME_BYTES..next)?;
    let (handle, rest) = body.split_first_chunk()?;
    let (first, rest) = rest.split_first_chunk()?;
    let (count, rest) = rest.split_first_chunk()?;
    let (lengths, bytes) = rest.split_at_checked(2 * u32::from_le_bytes(*count) as usize)?;
    let whole = crc32c::crc32c(body) == crc;
    whole.then(|| (u64::from_le_bytes(*handle), u64::from_le_bytes(*first), Names { lengths, bytes }, next))
}

/// The names of a record.
pub(super) struct Names<'b> {
    lengths: &'b [u8],
    bytes: &'b [u8],
}

impl<'b> Iterator for Names<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        let (length, lengths) = self.lengths.split_first_chunk()?;
        let (name, bytes) = self.bytes.split_at_checked(u16::from_le_bytes(*length) as usize)?;
        (self.lengths, self.bytes) = (lengths, bytes);
        Some(name)
    }
}
