//! A disk for tests: it loses what was not synced, tears writes, fails on command.

use super::disk::{Disk, DiskFile};
use parking_lot::Mutex;
use rand::Rng;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

const SECTOR_BYTES: usize = 512;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A write of which nothing arrives.
    WriteBefore,
    /// A write of which the first half arrives.
    WriteTorn,
    /// A write that arrives, but the answer is an error.
    WriteAfter,
    /// A sync that fails; what it should have written is lost.
    Sync,
    /// From now on nothing works.
    PowerOff,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    fault: Fault,
    /// Matching operations before it strikes.
    countdown: u64,
    errno: i32,
}

#[derive(Clone, Debug)]
enum NameOp {
    Link(String, u64),
    Rename(String, String),
    Unlink(String),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    cache: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct State {
    inodes: HashMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    name_ops: Vec<NameOp>,
    next_inode: u64,
    plan: Option<Plan>,
    off: bool,
    syncs: u64,
    sync_pause: Duration,
}

/// See the module. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: u64,
}

impl SimDisk {
    /// The `nth` operation (from 1) that `fault` can strike fails with `errno`.
    pub(crate) fn fail_nth(&self, fault: Fault, nth: u64, errno: i32) {
        self.0.lock().plan = Some(Plan { fault, countdown: nth, errno });
    }

    /// Whether the fault is still to come; forgets it.
    pub(crate) fn disarm(&self) -> bool {
        self.0.lock().plan.take().is_some()
    }

    /// Whether the fault is still to come.
    pub(crate) fn armed(&self) -> bool {
        self.0.lock().plan.is_some()
    }

    /// Makes each sync of a file last that long.
    pub(crate) fn slow_syncs(&self, pause: Duration) {
        self.0.lock().sync_pause = pause;
    }

    /// How many files were synced.
    pub(crate) fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// The disk after a power loss: of the unsynced operations on names a prefix is left, of the unsynced writes any
    /// sectors. Users of the old disk see it dead.
    pub(crate) fn lose_power(&self, rng: &mut impl Rng) -> SimDisk {
        let mut old = self.0.lock();
        old.off = true;
        let mut names = old.durable_names.clone();
        let kept = rng.random_range(0..=old.name_ops.len());
        old.name_ops.iter().take(kept).for_each(|op| op.apply(&mut names));
        let mut inodes = HashMap::new();
        let lose_all = rng.random_bool(0.2);
        for inode in names.values() {
            let mut bytes = old.inodes[inode].durable.clone();
            for (offset, written) in &old.inodes[inode].pending {
                let lose_write = lose_all || rng.random_bool(0.3);
                survive(&mut bytes, *offset, written, |rng_bool| !lose_write && rng.random_bool(rng_bool));
            }
            inodes.insert(*inode, Inode { cache: bytes.clone(), durable: bytes, pending: Vec::new() });
        }
        let next_inode = old.next_inode;
        let state = State { inodes, names: names.clone(), durable_names: names, next_inode, ..State::default() };
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// A second disk with the same bytes, as a kill of the process leaves them.
    pub(crate) fn lose_nothing(&self) -> SimDisk {
        let old = self.0.lock();
        let state = State {
            inodes: old.inodes.clone(),
            names: old.names.clone(),
            durable_names: old.durable_names.clone(),
            name_ops: old.name_ops.clone(),
            next_inode: old.next_inode,
            ..State::default()
        };
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// Flips one bit of a file, durably.
    pub(crate) fn flip(&self, name: &str, bit: usize) {
        let mut state = self.0.lock();
        let inode = state.names[name];
        let inode = state.inodes.get_mut(&inode).unwrap();
        inode.cache[bit / 8] ^= 1 << (bit % 8);
        inode.durable.clone_from(&inode.cache);
    }

    /// Cuts a file, durably.
    pub(crate) fn cut(&self, name: &str, bytes: usize) {
        let mut state = self.0.lock();
        let inode = state.names[name];
        let inode = state.inodes.get_mut(&inode).unwrap();
        inode.cache.truncate(bytes);
        inode.durable.clone_from(&inode.cache);
    }

    /// The bytes of a file as a reader sees them.
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.0.lock();
        state.inodes[&state.names[name]].cache.clone()
    }

    /// All names that end like that, in order.
    pub(crate) fn names(&self, ext: &str) -> Vec<String> {
        self.0.lock().names.keys().filter(|name| name.ends_with(ext)).cloned().collect()
    }
}

/// Applies a write sector by sector, each if `keep` says so.
fn survive(bytes: &mut Vec<u8>, offset: usize, written: &[u8], mut keep: impl FnMut(f64) -> bool) {
    let mut at = offset;
    let end = offset + written.len();
    while at < end {
        let stop = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        if keep(0.8) {
            put(bytes, at, &written[at - offset..stop - offset]);
        }
        at = stop;
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

impl NameOp {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

impl State {
    fn alive(&self) -> io::Result<()> {
        if self.off { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    /// Whether the planned fault strikes now.
    fn strikes(&mut self, possible: &[Fault]) -> Option<(Fault, io::Error)> {
        let plan = self.plan.as_mut().filter(|plan| possible.contains(&plan.fault))?;
        plan.countdown -= 1;
        if plan.countdown > 0 {
            return None;
        }
        let plan = self.plan.take()?;
        self.off = plan.fault == Fault::PowerOff;
        Some((plan.fault, io::Error::from_raw_os_error(plan.errno)))
    }

    fn change_name(&mut self, op: NameOp) -> io::Result<()> {
        self.alive()?;
        if let Some((_, error)) = self.strikes(&[Fault::PowerOff]) {
            return Err(error);
        }
        op.apply(&mut self.names);
        self.name_ops.push(op);
        Ok(())
    }
}

impl Disk for SimDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.next_inode += 1;
        let inode = state.next_inode;
        state.change_name(NameOp::Link(name.to_owned(), inode))?;
        state.inodes.insert(inode, Inode::default());
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.0.lock();
        state.alive()?;
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameOp::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().change_name(NameOp::Unlink(name.to_owned()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.alive()?;
        if let Some((_, error)) = state.strikes(&[Fault::Sync, Fault::PowerOff]) {
            return Err(error);
        }
        state.durable_names = state.names.clone();
        state.name_ops.clear();
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.0.lock();
        state.alive()?;
        Ok(state.names.iter().map(|(name, inode)| (name.clone(), state.inodes[inode].cache.len() as u64)).collect())
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.alive()?;
        let strike = state.strikes(&[Fault::WriteBefore, Fault::WriteTorn, Fault::WriteAfter, Fault::PowerOff]);
        let arrives = match &strike {
            None | Some((Fault::WriteAfter, _)) => bytes,
            Some((Fault::WriteTorn, _)) => &bytes[..bytes.len() / 2],
            Some(_) => &[],
        };
        let inode = state.inodes.get_mut(&self.inode).unwrap();
        put(&mut inode.cache, offset as usize, arrives);
        inode.pending.push((offset as usize, arrives.to_vec()));
        strike.map_or(Ok(()), |(_, error)| Err(error))
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.0.lock();
        state.alive()?;
        let bytes = state.inodes[&self.inode].cache.get(offset as usize..).unwrap_or_default();
        let len = bytes.len().min(out.len());
        out[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn sync(&self) -> io::Result<()> {
        let (covered, pause) = {
            let mut state = self.disk.0.lock();
            state.alive()?;
            state.syncs += 1;
            let strike = state.strikes(&[Fault::Sync, Fault::PowerOff]);
            let pause = state.sync_pause;
            let inode = state.inodes.get_mut(&self.inode).unwrap();
            if let Some((fault, error)) = strike {
                if fault == Fault::Sync {
                    inode.pending.clear();
                }
                return Err(error);
            }
            (inode.pending.len(), pause)
        };
        // Only what was written before the call is covered: writers go on during the pause.
        std::thread::sleep(pause);
        let mut state = self.disk.0.lock();
        state.alive()?;
        let inode = state.inodes.get_mut(&self.inode).unwrap();
        let covered = covered.min(inode.pending.len());
        for (offset, written) in inode.pending.drain(..covered) {
            put(&mut inode.durable, offset, &written);
        }
        Ok(())
    }

    fn start_writeback(&self, _offset: u64, _len: u64) {}

    fn forget_cache(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.alive()?;
        let inode = state.inodes.get_mut(&self.inode).unwrap();
        let mut there = inode.durable.clone();
        inode.pending.iter().for_each(|(offset, written)| put(&mut there, *offset, written));
        inode.cache = there;
        Ok(())
    }
    fn size_bytes(&self) -> io::Result<u64> {
        let state = self.disk.0.lock();
        state.alive()?;
        Ok(state.inodes[&self.inode].cache.len() as u64)
    }
}
