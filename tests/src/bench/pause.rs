//! How long single operations wait while checkpoints and snapshots happen.

use super::latency::{Latencies, PAUSE_LIMIT_MS, Summary};
use super::limits::{CBFS, HOST, NULL, title};
use super::machine::Machine;
use super::report::{mark, markdown};
use super::site::Site;
use super::steps::noise;
use super::target::{Filesystem, Maker, Target};
use anyhow::{Context, Result, anyhow};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

const BLOCK_BYTES: usize = 4096;
/// Blocks of the file that is written to.
const BLOCKS: u64 = 16 << 10;
/// Files that stay; older ones are removed.
const FILES_KEPT: usize = 20_000;
const FILES_PER_DIR: usize = 1000;
/// Of so many turns, one has an fsync.
const SYNC_EVERY: usize = 16;
/// Targets take turns of this length, so that whatever else the machine does hits all of them.
const SLICE: Duration = Duration::from_secs(20);

const CREATE: &str = "create + 4 KiB";
const STAT: &str = "stat";
const WRITE: &str = "4 KiB write";
const FSYNC: &str = "fsync";
const UNLINK: &str = "unlink";
const OPERATIONS: [&str; 5] = [CREATE, STAT, WRITE, FSYNC, UNLINK];

/// Times of single operations.
#[derive(Debug, Serialize)]
pub struct Pause {
    machine: Machine,
    seconds_each: f64,
    snapshot_every_seconds: f64,
    snapshots: usize,
    /// By target and operation.
    targets: BTreeMap<&'static str, BTreeMap<&'static str, Summary>>,
}

/// One thread's work on one target.
struct Worker {
    dir: PathBuf,
    file: File,
    body: Vec<u8>,
    turn: usize,
    random: SmallRng,
    times: BTreeMap<&'static str, Latencies>,
}

impl Pause {
    /// Works for `each` on every target, and asks for a snapshot every `snapshot_every`.
    pub fn measure(mut site: Site<'_>, each: Duration, snapshot_every: Duration) -> Result<Self> {
        let mut maker = Maker::new(site.dir, 0);
        let mut pairs = Vec::new();
        for id in [HOST, NULL, CBFS] {
            let target = maker.make(id)?;
            let worker = Worker::new(&target.place("pause", 0)?)?;
            pairs.push((target, worker));
        }
        let (mut worked, mut snapshots) = (Duration::ZERO, 0);
        while worked < each {
            let slice = SLICE.min(each.saturating_sub(worked));
            for (target, worker) in &mut pairs {
                site.tell(format_args!("{} for {slice:?}, after {worked:?} of {each:?}", target.id()));
                snapshots += work(target, worker, slice, (snapshot_every, snapshots))?;
                target.settle(site.settle)?;
            }
            worked += slice;
        }
        let mut targets = BTreeMap::new();
        for (target, worker) in pairs {
            let summaries = worker.times.iter().filter_map(|(name, times)| Some((*name, times.summary()?)));
            targets.insert(target.id(), summaries.collect());
            drop(worker);
            target.end()?;
        }
        Ok(Self {
            machine: Machine::this()?,
            seconds_each: worked.as_secs_f64(),
            snapshot_every_seconds: snapshot_every.as_secs_f64(),
            snapshots,
            targets,
        })
    }
}

/// How many snapshots were cut meanwhile.
fn work(target: &Target, worker: &mut Worker, slice: Duration, cuts: (Duration, usize)) -> Result<usize> {
    let Some(filesystem) = target.filesystem() else { return worker.run(slice).map(|()| 0) };
    let (ended, end) = channel::<()>();
    thread::scope(|scope| {
        let cutter = scope.spawn(move || cut(filesystem, cuts, || end_within(&end, cuts.0)));
        let worked = worker.run(slice);
        drop(ended);
        let cut = cutter.join().map_err(|_| anyhow!("the thread that cuts snapshots panicked"))?;
        worked.and(cut)
    })
}

fn end_within(end: &std::sync::mpsc::Receiver<()>, pause: Duration) -> bool {
    !matches!(end.recv_timeout(pause), Err(RecvTimeoutError::Timeout))
}

fn cut(filesystem: &Filesystem, (_, before): (Duration, usize), mut ended: impl FnMut() -> bool) -> Result<usize> {
    let mut count = 0;
    while !ended() {
        let outcome = filesystem.request_snapshot(&format!("pause-{before}-{count}"))?;
        // Four may wait to be published; more are refused as busy, which is no failure of this measurement.
        if outcome.code != Some(13) {
            outcome.success()?;
            count += 1;
        }
    }
    Ok(count)
}

impl Worker {
    fn new(place: &Path) -> Result<Self> {
        let file = File::options().write(true).create_new(true).open(place.join("blocks"))?;
        file.set_len(BLOCKS * BLOCK_BYTES as u64)?;
        let (body, random) = (noise(BLOCK_BYTES), SmallRng::seed_from_u64(11));
        Ok(Self { dir: place.to_owned(), file, body, turn: 0, random, times: BTreeMap::new() })
    }

    fn path(&self, number: usize) -> PathBuf {
        self.dir.join(format!("d{}", number / FILES_PER_DIR)).join(format!("f{number}"))
    }

    fn run(&mut self, slice: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < slice {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let (new, turn) = (self.path(self.turn), self.turn);
        if turn % FILES_PER_DIR == 0 {
            fs::create_dir(new.parent().context("no parent")?)?;
        }
        self.time(CREATE, |worker| Ok(File::create_new(&new)?.write_all(&worker.body)?))?;
        let old = self.random.random_range(turn.saturating_sub(FILES_KEPT - 1)..=turn);
        let old = self.path(old);
        self.time(STAT, |_| {
            fs::symlink_metadata(&old)?;
            Ok(())
        })?;
        let block = self.random.random_range(0..BLOCKS) * BLOCK_BYTES as u64;
        self.time(WRITE, |worker| Ok(worker.file.write_all_at(&worker.body, block)?))?;
        if turn % SYNC_EVERY == 0 {
            self.time(FSYNC, |worker| Ok(worker.file.sync_all()?))?;
        }
        if let Some(oldest) = turn.checked_sub(FILES_KEPT) {
            let oldest = self.path(oldest);
            self.time(UNLINK, |_| Ok(fs::remove_file(&oldest)?))?;
        }
        self.turn += 1;
        Ok(())
    }

    fn time(&mut self, name: &'static str, work: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let start = Instant::now();
        work(self).context(name)?;
        let took = start.elapsed();
        self.times.entry(name).or_default().add(took);
        Ok(())
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, seconds_each, snapshot_every_seconds, snapshots, targets } = self;
        write!(f, "{machine}; {seconds_each:.0} s on each, one thread; {snapshots} snapshots, one every ")?;
        writeln!(f, "{snapshot_every_seconds:.1} s; CBFS: p99.9 of at most {PAUSE_LIMIT_MS} ms\n")?;
        let mut rows = Vec::new();
        for operation in OPERATIONS {
            for target in [HOST, NULL, CBFS] {
                let Some(times) = targets.get(target).and_then(|all| all.get(operation)) else { continue };
                let verdict = if target == CBFS { mark(times.p999, PAUSE_LIMIT_MS) } else { "" };
                let mut row = vec![format!("{operation}, {}", title(target)), times.count.to_string()];
                row.extend([times.p50, times.p99, times.p999, times.max].map(|ms| format!("{ms:.3}")));
                row.extend([times.pauses.to_string(), verdict.to_owned()]);
                rows.push(row);
            }
        }
        let head = ["operation", "count", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "> 10 ms", ""];
        write!(f, "{}", markdown(&head, &rows))
    }
}
