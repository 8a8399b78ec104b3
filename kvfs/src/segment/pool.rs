//! The files of a log by number: new ones, spare ones, and a thread that prepares spares.
//!
//! ```text
//! <number>.<ext>     a segment            spare ──take──► segment ──give──► spare ──► … (or removed, if there are enough)
//! <number>.spare     a file to recycle    tmp ──fill, sync──► spare
//! <number>.tmp       being filled with zeros; removed at the next start
//! ```
//! Every change of a name takes a new number or keeps its own, and the file with the highest one is never removed, at most emptied:
//! so the names tell which numbers were given, also after a restart. After a power loss a name may be older than the header in
//! the file; then the header counts too, or the number would be given again and the old header would pass for a new one.

use super::disk::{Disk, DiskFile};
use super::header::{Header, Magic};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const FILL_CHUNK_BYTES: u64 = 1 << 20;
const PAUSE_IDLE: Duration = Duration::from_millis(10);
const PAUSE_BUSY: Duration = Duration::from_millis(40);
/// How many released files are kept for each one that is prepared: a checkpoint releases several at once.
const KEEP_FACTOR: usize = 4;

/// What kind of files a pool holds.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Kind of its headers.
    pub magic: Magic,
    /// Ending of a segment's name, without the dot.
    pub ext: &'static str,
    /// Bytes of a full segment.
    pub segment_bytes: u64,
    /// Spares that the background thread makes ready.
    pub spares: usize,
    /// When it may.
    pub filling: Filling,
}

/// When the background thread may write spares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// Always, slower while somebody writes: a flush of a fresh file costs several times as much as one of a spare.
    Steady,
    /// While nobody writes: what is written in bulk pays more for the zeros than it gains by them.
    Idle,
}

/// A file with a new number, from [`Pool::take`]. Its header is not written yet, its name not durable.
#[derive(Debug)]
pub struct Taken {
    /// Never given before.
    pub number: u64,
    /// The file, open.
    pub file: Arc<dyn DiskFile>,
    /// Its length: what it occupies already, bytes; 0 if it is new.
    pub bytes: u64,
}

/// A segment that was there at the start.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Its number, from its name.
    pub number: u64,
    /// Its length, bytes.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// The highest number that a segment or a spare got.
    latest: u64,
    spares: BTreeMap<u64, u64>,
    wanted: bool,
    /// None are prepared.
    halted: bool,
    stop: bool,
}

impl State {
    fn is_wanted(&self, spares: usize) -> bool {
        !self.halted && self.spares.values().filter(|bytes| **bytes > 0).count() < spares
    }

    fn spare_bytes(&self) -> u64 {
        self.spares.values().sum()
    }
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    options: PoolOptions,
    state: Mutex<State>,
    wake: Condvar,
    uses: AtomicU64,
    room_bytes: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    filler: Mutex<Option<JoinHandle<()>>>,
}

impl Pool {
    /// Lists the directory; answers with its segments in the order of their numbers.
    pub fn open(disk: Arc<dyn Disk>, options: PoolOptions) -> io::Result<(Self, Vec<Found>)> {
        let mut state = State::default();
        let mut found = Vec::new();
        for (name, bytes) in disk.list()? {
            let Some((number, ext)) = parse(&name) else { continue };
            state.next = state.next.max(number);
            if ext == "tmp" {
                disk.remove(&name)?;
                continue;
            }
            state.latest = state.latest.max(number);
            if ext == "spare" {
                state.spares.insert(number, bytes);
            } else if ext == options.ext {
                found.push(Found { number, bytes });
            } else {
                continue;
            }
            match Header::read(options.magic, &*disk.open(&name)?) {
                Ok(header) => state.next = state.next.max(header.map_or(0, |header| header.number)),
                // Whoever reads the segment finds it; a spare does not matter.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(error) => return Err(error),
            }
        }
        state.next = following(state.next)?;
        found.sort_by_key(|segment| segment.number);
        let shared = Shared {
            disk,
            options,
            state: Mutex::new(state),
            wake: Condvar::new(),
            uses: AtomicU64::new(0),
            room_bytes: AtomicU64::new(u64::MAX),
        };
        Ok((Self { shared: Arc::new(shared), filler: Mutex::new(None) }, found))
    }

    /// The name of a segment.
    pub fn name(&self, number: u64) -> String {
        file_name(number, self.shared.options.ext)
    }

    /// A file for a new segment: a spare of at most `spare_bytes_max` under a new number, or a new file.
    pub fn take(&self, spare_bytes_max: u64) -> io::Result<Taken> {
        let mut state = self.shared.state.lock();
        let number = state.next;
        let following = following(number)?;
        let name = self.name(number);
        let disk = &self.shared.disk;
        let mut taken = None;
        while taken.is_none() {
            let fitting = state.spares.iter().filter(|(_, bytes)| **bytes <= spare_bytes_max);
            let Some((spare, bytes)) = fitting.max_by_key(|(_, bytes)| **bytes).map(|(n, b)| (*n, *b)) else { break };
            match disk.rename(&file_name(spare, "spare"), &name) {
                Ok(()) => taken = Some((disk.open(&name)?, bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            state.spares.remove(&spare);
        }
        let (file, bytes) = match taken {
            Some(taken) => taken,
            None => (disk.create(&name)?, 0),
        };
        state.next = following;
        state.latest = number;
        Ok(Taken { number, file, bytes })
    }

    /// Segment `number` of `bytes` is not needed any more: it becomes a spare, or goes if there are enough.
    pub fn give(&self, number: u64, bytes: u64) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        match self.shared.disk.rename(&self.name(number), &file_name(number, "spare")) {
            Ok(()) => state.spares.insert(number, bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let room = self.shared.room_bytes.load(Ordering::Relaxed);
        let factor = if state.halted { 1 } else { KEEP_FACTOR };
        trim(&self.shared, &mut state, self.shared.options.spares.saturating_mul(factor), room)
    }

    /// Says how many bytes spares may occupy; removes, or empties, those that do not fit.
    pub fn set_room(&self, bytes: u64) -> io::Result<()> {
        self.shared.room_bytes.store(bytes, Ordering::Relaxed);
        let mut state = self.shared.state.lock();
        trim(&self.shared, &mut state, usize::MAX, bytes)
    }

    /// Bytes of all spares.
    pub fn spare_bytes(&self) -> u64 {
        self.shared.state.lock().spare_bytes()
    }

    /// Prepares none until [`Pool::resume`], and keeps no more than it would have prepared of those that are there and that come back.
    pub fn halt(&self) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        state.halted = true;
        trim(&self.shared, &mut state, self.shared.options.spares, self.shared.room_bytes.load(Ordering::Relaxed))
    }

    /// The end of [`Pool::halt`].
    pub fn resume(&self) {
        self.shared.state.lock().halted = false;
    }

    /// Tells the background thread that somebody writes: it goes slower.
    pub fn note_use(&self) {
        self.shared.uses.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks for spares; returns at once. The thread starts with the first call.
    pub fn prepare(&self) {
        {
            let mut state = self.shared.state.lock();
            if state.stop || state.wanted || !state.is_wanted(self.shared.options.spares) {
                return;
            }
            state.wanted = true;
        }
        self.shared.wake.notify_all();
        let mut filler = self.filler.lock();
        if filler.is_none() {
            let shared = self.shared.clone();
            let spawned = std::thread::Builder::new().name("cbfs-spares".into()).spawn(move || fill_loop(&shared));
            match spawned {
                Ok(handle) => *filler = Some(handle),
                Err(error) => tracing::warn!(%error, "no thread for spare segments; going on without"),
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.wake.notify_all();
        if let Some(handle) = self.filler.lock().take()
            && handle.join().is_err()
        {
            tracing::error!("the thread for spare segments panicked");
        }
    }
}

/// Removes spares, small ones first, until at most `count` of them in `bytes_max` are left. The file with the highest number keeps
/// its name and loses its bytes if need be.
fn trim(shared: &Shared, state: &mut State, count: usize, bytes_max: u64) -> io::Result<()> {
    loop {
        let removable = state.spares.iter().filter(|(number, _)| **number != state.latest);
        let Some((number, bytes)) = removable.min_by_key(|(_, bytes)| **bytes).map(|(n, b)| (*n, *b)) else { break };
        if bytes > 0 && state.spares.len() <= count && state.spare_bytes() <= bytes_max {
            return Ok(());
        }
        shared.disk.remove(&file_name(number, "spare"))?;
        state.spares.remove(&number);
    }
    if state.spare_bytes() > bytes_max {
        drop(shared.disk.create(&file_name(state.latest, "spare"))?);
        state.spares.insert(state.latest, 0);
    }
    Ok(())
}

fn fill_loop(shared: &Shared) {
    let mut state = shared.state.lock();
    while !state.stop {
        let size = shared.options.segment_bytes;
        if !state.wanted || !fits_now(shared, &state) || !state.is_wanted(shared.options.spares) {
            state.wanted = false;
            shared.wake.wait(&mut state);
            continue;
        }
        let number = state.next;
        state.next += 1;
        drop(state);
        let filled = fill(shared, number);
        state = shared.state.lock();
        let done = filled.map(|complete| complete && fits_now(shared, &state)).and_then(|complete| {
            if complete {
                shared.disk.rename(&file_name(number, "tmp"), &file_name(number, "spare"))?;
            }
            Ok(complete)
        });
        match done {
            Ok(true) => {
                state.spares.insert(number, size);
                state.latest = state.latest.max(number);
                continue;
            }
            Ok(false) => {}
            // A full disk is no news here: the writer meets it itself.
            Err(error) => tracing::debug!(%error, "a spare segment was not prepared"),
        }
        state.wanted = false;
        if let Err(error) = shared.disk.remove(&file_name(number, "tmp")) {
            tracing::debug!(%error, "an unfinished spare stays until the next start");
        }
    }
}

/// Whether another spare may be kept: that may have changed while it was filled.
fn fits_now(shared: &Shared, state: &State) -> bool {
    let occupied = state.spare_bytes().saturating_add(shared.options.segment_bytes);
    !state.halted && occupied <= shared.room_bytes.load(Ordering::Relaxed)
}

/// Waits until the next piece may be written; `false` if the thread was told to stop.
fn await_turn(shared: &Shared, uses: &mut u64) -> bool {
    loop {
        let now = shared.uses.load(Ordering::Relaxed);
        let busy = now != *uses;
        *uses = now;
        let mut state = shared.state.lock();
        if !state.stop {
            shared.wake.wait_for(&mut state, if busy { PAUSE_BUSY } else { PAUSE_IDLE });
        }
        if state.stop {
            return false;
        }
        drop(state);
        let still_busy = shared.uses.load(Ordering::Relaxed) != *uses;
        if shared.options.filling == Filling::Steady || !(busy || still_busy) {
            return true;
        }
    }
}

/// Writes a file of zeros at a low rate; `false` if it was told to stop, or there is no room any more.
fn fill(shared: &Shared, number: u64) -> io::Result<bool> {
    let file = shared.disk.create(&file_name(number, "tmp"))?;
    let size = shared.options.segment_bytes;
    let zeros = vec![0; FILL_CHUNK_BYTES.min(size) as usize];
    let mut at = 0;
    let mut uses = shared.uses.load(Ordering::Relaxed);
    while at < size {
        if !await_turn(shared, &mut uses) {
            return Ok(false);
        }
        let len = FILL_CHUNK_BYTES.min(size - at);
        file.write_at(zeros.get(..len as usize).unwrap_or_default(), at)?;
        file.start_writeback(at, len);
        at += len;
        let state = shared.state.lock();
        let occupied = state.spare_bytes() + at;
        if state.stop || state.halted || occupied > shared.room_bytes.load(Ordering::Relaxed) {
            return Ok(false);
        }
    }
    file.sync()?;
    Ok(true)
}

/// The number after `number`. There are more than anybody uses: a file or a header with the last one is damaged.
fn following(number: u64) -> io::Result<u64> {
    let used_up = || io::Error::new(io::ErrorKind::InvalidData, format!("a segment with the number {number}"));
    number.checked_add(1).ok_or_else(used_up)
}

fn file_name(number: u64, ext: &str) -> String {
    format!("{number:016x}.{ext}")
}

fn parse(name: &str) -> Option<(u64, &str)> {
    let (number, ext) = name.split_once('.')?;
    if number.len() != 16 {
        return None;
    }
    Some((u64::from_str_radix(number, 16).ok()?, ext))
}
