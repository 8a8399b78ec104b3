//! The n-th request to the host fails, for every n: an error to the caller, nothing acknowledged is lost, no hang, and
//! read-only where going on would lie.

use crate::instance::{Bases, Instance};
use crate::powerfs::{Calls, Effect, Fault, Loss, PowerFs};
use crate::reference::Reference;
use crate::round::check_totals;
use crate::tree::{self, Tree};
use crate::violation::broken;
use crate::work::{Errors, History, Shared, Worker};
use anyhow::{Context, Result, bail, ensure};
use kvfs::Ino;
use kvfs::data::DataOptions;
use kvfs::engine::EngineOptions;
use kvfs::fs::{Caller, FileSystem, NewNode};
use kvfs::journal::JournalOptions;
use kvfs::schema::FileKind;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A run that takes longer hangs.
const HANG: Duration = Duration::from_secs(120);
const STEPS: usize = 60;

/// When the fault is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum During {
    /// While the filesystem is used.
    Work,
    /// While it recovers from a kill.
    Recovery,
    /// While it is closed.
    Closing,
}

/// How a sweep over all requests goes.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    pub during: During,
    pub calls: Calls,
    pub effect: Effect,
    pub errno: i32,
    pub times: u64,
}

/// What a sweep has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub runs: usize,
    pub refused: usize,
    pub read_only: usize,
    pub confirmed: usize,
}

fn options() -> EngineOptions {
    EngineOptions {
        overlay_bytes_max: 100_000,
        checkpoint_interval: Duration::from_secs(3600),
        published_kept: 0,
        sealed_max: 4,
        journal: JournalOptions { segment_bytes: 32 << 10, spares: 1 },
        journal_max_bytes: 1 << 20,
        data: DataOptions { segment_bytes: 128 << 10, spares: 1, ..DataOptions::default() },
        // The steps say when.
        compact_floor_bytes: u64::MAX,
        ballast_bytes: 0,
    }
}

/// Lets request 1, 2, 3 … fail, every `stride`-th, until a run has met no fault.
pub fn sweep(sweep: Sweep, seed: u64, stride: u64) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut nth = 1 + seed % stride;
    loop {
        let Sweep { calls, effect, errno, times, .. } = sweep;
        let fault = Fault { calls, nth, times, errno, effect };
        let (done, outcome) = mpsc::channel();
        thread::spawn(move || done.send(run(sweep.during, fault, seed)));
        let one = match outcome.recv_timeout(HANG) {
            Ok(one) => one.with_context(|| format!("{sweep:?}, seed {seed}, n = {nth}"))?,
            Err(_) => bail!(broken(format!("a hang or a panic: {sweep:?}, seed {seed}, n = {nth}"))),
        };
        let Some(one) = one else { break };
        seen.runs += 1;
        seen.refused += one.refused;
        seen.read_only += one.read_only;
        seen.confirmed += one.confirmed;
        nth += stride;
    }
    ensure!(seen.runs > 0, "vacuous: no request failed in {sweep:?}");
    Ok(seen)
}

/// One run; `None` if the fault did not strike.
fn run(during: During, fault: Fault, seed: u64) -> Result<Option<Seen>> {
    let (power, bases) = (PowerFs::mount()?, Bases::default());
    let instance = Instance::open(&power.life(), &bases, options())?;
    let node = NewNode { kind: FileKind::Directory, mode: 0o755, umask: 0, rdev: 0, target: b"" };
    instance.fs.make(Caller { uid: 0, gid: 0 }, Ino::ROOT, b"t0", &node)?;
    instance.fs.sync(Ino::ROOT)?;
    if during == During::Work {
        power.plan(fault);
    }
    let shared = Shared::new(Errors::Planned, (&power, &instance, &bases), &[Reference::new()]);
    Worker::new(&shared, 0, seed, &std::collections::BTreeMap::new())?.work(STEPS)?;
    // While it lives, everything acknowledged is there to be read, or an error says that it cannot be.
    if let Some(found) = scan_or_error(&instance, &power)? {
        expect_last(&found, &shared.histories[0]).context("while the daemon lives")?;
    }
    let mut seen = Seen {
        runs: 1,
        refused: shared.refused.load(Ordering::SeqCst),
        confirmed: shared.confirmed_syncs.load(Ordering::SeqCst),
        read_only: usize::from(instance.engine.read_only_reason().is_some()),
    };
    if during == During::Closing {
        power.plan(fault);
    }
    // A clean end, or none.
    let is_closed = (seed + fault.nth).is_multiple_of(2) || during == During::Closing;
    let closed = if is_closed { instance.engine.close() } else { Ok(()) };
    if during != During::Recovery && power.struck() == 0 {
        closed.map_err(|error| broken(format!("close: {error}")))?;
    }
    let Shared { mut histories, .. } = shared;
    let history = histories.remove(0);
    instance.kill();
    if during == During::Recovery {
        power.plan(fault);
        if let Ok(instance) = Instance::try_open(&power.life(), &bases, options()) {
            instance.kill();
        } else {
            seen.refused += 1;
        }
    }
    let mut lossy = power.syncs_failed() > 0;
    let struck = power.heal() > 0;
    if (seed + fault.nth).is_multiple_of(3) {
        lossy |= cut_while_it_recovers(&power, &bases, seed + fault.nth)?;
    }
    let shown = check_after(&power, &bases, &history, lossy)?;
    // Whoever has seen it after a start sees it after a loss of power too.
    power.cut_now(&Loss::from_seed(seed + fault.nth));
    power.power_on();
    let instance = Instance::open(&power.life(), &bases, options())?;
    let found = scan(&instance)?;
    if found != shown {
        bail!(broken(format!("gone with the power: {}", tree::differences(&shown, &found))));
    }
    instance.kill();
    Ok(struck.then_some(seen))
}

/// Opens it and loses power meanwhile; whether that came in time.
fn cut_while_it_recovers(power: &PowerFs, bases: &Bases, seed: u64) -> Result<bool> {
    power.power_on();
    power.cut_at(1 + seed % 50, Loss::from_seed(seed));
    let instance = Instance::open(&power.life(), bases, options())?;
    let cut = power.is_cut();
    instance.kill();
    power.power_on();
    Ok(cut)
}

/// Opens it without faults: everything acknowledged is there; after a failed flush or a loss of power, everything that was
/// confirmed.
fn check_after(power: &PowerFs, bases: &Bases, history: &History, lossy: bool) -> Result<Tree> {
    let instance = Instance::open(&power.life(), bases, options())?;
    let found = scan(&instance)?;
    let moments = history.moments.lock();
    let least = if lossy { history.floor() } else { moments.len() - 1 };
    let at = (least..moments.len()).rev().find(|at| tree::of_model(&moments[*at].model) == found);
    let Some(at) = at else {
        let expected = tree::of_model(&moments[least].model);
        let last = moments.len() - 1;
        bail!(broken(format!(
            "after a restart, with {least} of {last} certain: {}",
            tree::differences(&expected, &found)
        )));
    };
    check_totals(&instance, std::slice::from_ref(&moments[at].model))?;
    instance.kill();
    Ok(found)
}

fn scan(instance: &Instance) -> Result<Tree> {
    let top = instance.top("t0").map_err(|error| broken(error.to_string()))?;
    Ok(tree::scan(&instance.fs, top).map_err(|error| broken(format!("reading: {error}")))?.0)
}

/// What is there; `None` if reading fails and the fault has struck: LMDB refuses everything after a failure on its first
/// pages, until a restart.
fn scan_or_error(instance: &Instance, power: &PowerFs) -> Result<Option<Tree>> {
    match scan(instance) {
        Ok(found) => Ok(Some(found)),
        Err(_) if power.struck() > 0 => Ok(None),
        Err(error) => Err(error),
    }
}

fn expect_last(found: &Tree, history: &History) -> Result<()> {
    let moments = history.moments.lock();
    let expected = moments.last().map(|last| tree::of_model(&last.model)).unwrap_or_default();
    if *found != expected {
        bail!(broken(tree::differences(&expected, found)));
    }
    Ok(())
}
