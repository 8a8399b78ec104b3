//! Rounds of work, loss of power and recovery, and what must hold after each.

use crate::instance::{Bases, Instance, show, small_options};
use crate::powerfs::{Loss, PowerFs};
use crate::reference::{Content, Reference};
use crate::tree::{self, Tree};
use crate::violation::broken;
use crate::work::{Errors, History, Moment, Shared, Span, Taken, Worker};
use anyhow::{Context, Result, bail};
use kvfs::fs::{Caller, FileSystem, Fs, NewNode};
use kvfs::schema::FileKind;
use kvfs::{Ino, Xid};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::thread;
use uuid::Uuid;

/// A snapshot that must be there, with what it must show of each thread's directory.
struct Kept {
    id: Uuid,
    xid: Xid,
    /// A snapshot whose request did not come back may be missing.
    certain: bool,
    /// One of these, for each thread.
    shows: Vec<Vec<Tree>>,
}

/// A filesystem that lives through one loss of power after the other.
pub struct Chain {
    power: PowerFs,
    bases: Bases,
    rng: StdRng,
    /// The state of each thread's directory.
    models: Vec<Reference>,
    kept: Vec<Kept>,
    /// The base that was confirmed, by its xid.
    published: u64,
    pub stats: Stats,
}

/// What a chain has been through: a test in which nothing happened shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub rounds: usize,
    pub operations: usize,
    pub lost: usize,
    pub confirmed_syncs: usize,
    pub snapshots: usize,
    pub cuts_in_recovery: usize,
    pub requests: u64,
}

impl Chain {
    /// Makes the filesystem, with a directory for each of `threads` threads; now and then the power goes meanwhile.
    pub fn new(seed: u64, threads: usize) -> Result<Self> {
        let (power, rng) = (PowerFs::mount()?, StdRng::seed_from_u64(seed));
        let models = vec![Reference::new(); threads];
        let mut chain = Self {
            power,
            bases: Bases::default(),
            rng,
            models,
            kept: Vec::new(),
            published: 0,
            stats: Stats::default(),
        };
        if chain.rng.random_bool(0.5) {
            let nth = chain.rng.random_range(1..80);
            chain.power.cut_at(nth, Loss::from_seed(seed));
            chain.make_tops()?;
            if !chain.power.is_cut() {
                chain.power.cut_now(&Loss::from_seed(seed));
            }
            chain.power.power_on();
        }
        chain.make_tops()?;
        Ok(chain)
    }

    /// The ground, for lies.
    pub fn power(&self) -> &PowerFs {
        &self.power
    }

    fn make_tops(&mut self) -> Result<()> {
        let instance = Instance::open(&self.power.life(), &self.bases, small_options(&mut self.rng))?;
        for thread in 0..self.models.len() {
            let node = NewNode { kind: FileKind::Directory, mode: 0o755, umask: 0, rdev: 0, target: b"" };
            let name = format!("t{thread}");
            match instance.fs.make(Caller { uid: 0, gid: 0 }, Ino::ROOT, name.as_bytes(), &node) {
                Ok(_) | Err(kvfs::FsError::Exists) => {}
                Err(error) => bail!(broken(format!("mkdir: {error}"))),
            }
        }
        instance.fs.sync(Ino::ROOT).map_err(|error| broken(format!("fsync: {error}")))?;
        instance.kill();
        Ok(())
    }

    /// Works, loses power, recovers, checks.
    pub fn round(&mut self, steps: usize) -> Result<()> {
        let options = small_options(&mut self.rng);
        let instance = Instance::open(&self.power.life(), &self.bases, options)?;
        self.power.power_on();
        let shared = Shared::new(Errors::Broken, (&self.power, &instance, &self.bases), &self.models);
        let loss = Loss::from_seed(self.rng.next_u64());
        // About so many requests come of a round; the rest of the rounds lose power when all is done.
        let expected = (steps * self.models.len()) as u64 * 4;
        self.power.cut_at(self.rng.random_range(1..expected), loss);
        let seeds: Vec<u64> = self.models.iter().map(|_| self.rng.next_u64()).collect();
        let done: Result<Vec<usize>> = thread::scope(|scope| {
            let mut running = Vec::new();
            for (me, seed) in seeds.into_iter().enumerate() {
                let (_, paths) = tree::scan(&instance.fs, instance.top(&format!("t{me}"))?)?;
                let mut worker = Worker::new(&shared, me, seed, &paths)?;
                running.push(scope.spawn(move || worker.work(steps).map(|()| worker.done)));
            }
            running.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?).collect()
        });
        let done = done?;
        // What is killed first has more to lose: the power goes while it recovers.
        let is_killed = !self.power.is_cut() && self.rng.random_bool(0.5);
        if !self.power.is_cut() && !is_killed {
            self.power.cut_now(&loss);
        }
        self.stats.requests += self.power.requests();
        let Shared { histories, taken, published, confirmed_syncs, .. } = shared;
        self.stats.confirmed_syncs += confirmed_syncs.into_inner();
        self.stats.operations += done.iter().sum::<usize>();
        self.published = self.published.max(published.into_inner());
        self.note_snapshots(&taken.into_inner(), &histories);
        instance.kill();
        self.recover(&histories, if is_killed { 1.0 } else { 0.25 })?;
        self.stats.rounds += 1;
        Ok(())
    }

    fn note_snapshots(&mut self, taken: &[Taken], histories: &[History]) {
        for Taken { id, xid, confirmed, span } in taken {
            let shows = candidates(span, histories);
            self.stats.snapshots += usize::from(*confirmed);
            self.kept.push(Kept { id: *id, xid: *xid, certain: *confirmed, shows });
        }
    }

    fn recover(&mut self, histories: &[History], mut chance: f64) -> Result<()> {
        // Now and then the power goes again while it recovers.
        let mut instance = loop {
            self.power.power_on();
            let again = self.rng.random_bool(std::mem::replace(&mut chance, 0.25));
            if again {
                let nth = self.rng.random_range(1..60);
                self.power.cut_at(nth, Loss::from_seed(self.rng.next_u64()));
            }
            let opened = Instance::open(&self.power.life(), &self.bases, small_options(&mut self.rng));
            if !self.power.is_cut() {
                break opened?;
            }
            self.stats.cuts_in_recovery += 1;
            opened?.kill();
        };
        // What was planned and did not come is not to come later.
        self.power.power_on();
        let first = self.check(&instance, histories)?;
        // A clean restart, or another kill, shows the same.
        let clean = self.rng.random_bool(0.5);
        if clean {
            instance.engine.close().map_err(|error| broken(format!("close: {error}")))?;
        }
        instance.kill();
        instance = Instance::open(&self.power.life(), &self.bases, small_options(&mut self.rng))?;
        for (me, expected) in first.iter().enumerate() {
            let (found, _) = tree::scan(&instance.fs, instance.top(&format!("t{me}"))?)
                .map_err(|error| broken(format!("after a restart: {error}")))?;
            let expected = tree::of_model(expected);
            if found != expected {
                bail!(broken(format!("a restart shows something else: {}", tree::differences(&expected, &found))));
            }
        }
        self.check_snapshots(&instance)?;
        instance.kill();
        self.models = first;
        Ok(())
    }

    /// The states that the recovered filesystem shows, if it shows what it must.
    fn check(&mut self, instance: &Instance, histories: &[History]) -> Result<Vec<Reference>> {
        let mut matching = Vec::new();
        for (me, history) in histories.iter().enumerate() {
            let top = instance.top(&format!("t{me}")).map_err(|error| broken(error.to_string()))?;
            let (found, _) = tree::scan(&instance.fs, top)
                .map_err(|error| broken(format!("reading what was recovered: {error}")))?;
            matching.push(self.matching(me, history, &found)?);
        }
        let chosen = consistent(&matching, histories).ok_or_else(|| {
            broken(format!("no prefix of the order explains what is there: threads stand at {matching:?}"))
        })?;
        let models: Vec<Reference> =
            chosen.iter().zip(histories).map(|(at, history)| history.moments.lock()[*at].model.clone()).collect();
        self.stats.lost +=
            chosen.iter().zip(histories).map(|(at, history)| history.moments.lock().len() - 1 - at).sum::<usize>();
        check_totals(instance, &models)?;
        self.check_snapshots(instance)?;
        Ok(models)
    }

    fn matching(&self, me: usize, history: &History, found: &Tree) -> Result<Vec<usize>> {
        let moments = history.moments.lock();
        let trees: Vec<Tree> = moments.iter().map(|moment| tree::of_model(&moment.model)).collect();
        let all: Vec<usize> = (0..trees.len()).filter(|at| trees[*at] == *found).collect();
        let fitting: Vec<usize> = all.iter().copied().filter(|at| *at >= history.floor()).collect();
        if fitting.is_empty() {
            let floor = history.floor();
            let last = trees.len() - 1;
            let nearest = &trees[floor];
            bail!(broken(format!(
                "thread {me}: durable up to {floor} of {last}, found {all:?}; against {floor}: {}; against {last}: {}",
                tree::differences(nearest, found),
                tree::differences(&trees[last], found)
            )));
        }
        Ok(fitting)
    }

    /// Snapshots that were confirmed are there, and show one of the instants that they may show.
    fn check_snapshots(&mut self, instance: &Instance) -> Result<()> {
        let published = instance.engine.base().xid();
        if published.0 < self.published {
            bail!(broken(format!("published up to {}, now the base is {published}", self.published)));
        }
        let pending = instance.engine.pending_snapshots();
        let mut known = Vec::new();
        // Publishing one may have become durable although nobody was told.
        for kept in std::mem::take(&mut self.kept).into_iter().filter(|kept| kept.xid > published) {
            if pending.iter().any(|pending| pending.request.id == kept.id) {
                known.push(self.check_snapshot(instance, kept)?);
            } else if kept.certain {
                bail!(broken(format!("snapshot {} is gone", kept.id)));
            }
        }
        if pending.len() != known.len() {
            bail!(broken(format!("{} snapshots wait, {} were asked for", pending.len(), known.len())));
        }
        self.kept = known;
        Ok(())
    }

    fn check_snapshot(&self, instance: &Instance, mut kept: Kept) -> Result<Kept> {
        // Older ones have to be below it: collect shows all changes since the base.
        let collected = instance.collect(kept.id, &self.bases);
        let Some(base) = collected.map_err(|error| broken(format!("collecting snapshot {}: {error}", kept.id)))? else {
            bail!(broken(format!("snapshot {} is there and not sealed after a start", kept.id)));
        };
        let slave = show(base);
        for (me, candidates) in kept.shows.iter_mut().enumerate() {
            let found =
                scan_top(&slave, me).map_err(|error| broken(format!("reading snapshot {}: {error}", kept.id)))?;
            if !candidates.contains(&found) {
                let nearest = candidates.last().map(|last| tree::differences(last, &found)).unwrap_or_default();
                bail!(broken(format!("snapshot {} shows something else of thread {me}: {nearest}", kept.id)));
            }
            *candidates = vec![found];
        }
        kept.certain = true;
        Ok(kept)
    }
}

fn scan_top(fs: &Fs, me: usize) -> Result<Tree> {
    let top = fs.lookup(Ino::ROOT, format!("t{me}").as_bytes())?;
    Ok(tree::scan(fs, top.ino)?.0)
}

/// What a snapshot may show of each thread.
fn candidates(span: &Span, histories: &[History]) -> Vec<Vec<Tree>> {
    let one = |((from, to), history): (&(usize, usize), &History)| {
        let moments = history.moments.lock();
        let last = moments.len() - 1;
        moments[*from..=(*to).min(last)].iter().map(|moment| tree::of_model(&moment.model)).collect()
    };
    span.iter().zip(histories).map(one).collect()
}

/// One moment of each thread such that nothing is missing that ended before something that is there began.
fn consistent(matching: &[Vec<usize>], histories: &[History]) -> Option<Vec<usize>> {
    let moments: Vec<Vec<(u64, u64)>> = histories
        .iter()
        .map(|history| history.moments.lock().iter().map(|Moment { began, ended, .. }| (*began, *ended)).collect())
        .collect();
    let mut chosen = Vec::new();
    choose(matching, &moments, &mut chosen).then_some(chosen)
}

fn choose(matching: &[Vec<usize>], moments: &[Vec<(u64, u64)>], chosen: &mut Vec<usize>) -> bool {
    if chosen.len() == matching.len() {
        let missing = chosen.iter().zip(moments).filter_map(|(at, all)| all.get(at + 1).map(|(_, ended)| *ended));
        let first_missing = missing.min().unwrap_or(u64::MAX);
        let present = chosen.iter().zip(moments).map(|(at, all)| all[*at].0).max().unwrap_or(0);
        return first_missing > present;
    }
    for at in matching[chosen.len()].iter().rev() {
        chosen.push(*at);
        if choose(matching, moments, chosen) {
            return true;
        }
        chosen.pop();
    }
    false
}

/// The sums over the tree are those of the tree.
pub fn check_totals(instance: &Instance, models: &[Reference]) -> Result<()> {
    let (mut inodes, mut bytes) = (1, 0);
    for node in models.iter().flat_map(|model| model.nodes.values()).filter(|node| node.names > 0) {
        inodes += 1;
        if let Content::File(content) = &node.content {
            bytes += content.len() as u64;
        }
    }
    let totals = instance.engine.totals();
    if (totals.inodes, totals.bytes) != (inodes, bytes) {
        bail!(broken(format!("sums {totals:?}, there are {inodes} inodes with {bytes} bytes")));
    }
    Ok(())
}

/// `rounds` rounds in chains of some; the sums of what happened.
pub fn run(seed: u64, rounds: usize, prepare: impl Fn(&PowerFs)) -> Result<Stats> {
    let mut sums = Stats::default();
    let mut seed = seed;
    while sums.rounds < rounds {
        let mut rng = StdRng::seed_from_u64(seed);
        let threads = *[1, 1, 2, 3].get(rng.random_range(0..4)).unwrap_or(&1);
        let at = || format!("CBFS_POWER_SEED={seed}, {threads} threads");
        let mut chain = Chain::new(rng.next_u64(), threads).with_context(at)?;
        prepare(chain.power());
        for round in 0..rng.random_range(2..8) {
            let steps = rng.random_range(10..150);
            chain.round(steps).with_context(|| format!("{}, round {round}", at()))?;
        }
        let Stats { rounds, operations, lost, confirmed_syncs, snapshots, cuts_in_recovery, requests } = chain.stats;
        sums.rounds += rounds;
        sums.operations += operations;
        sums.lost += lost;
        sums.confirmed_syncs += confirmed_syncs;
        sums.snapshots += snapshots;
        sums.cuts_in_recovery += cuts_in_recovery;
        sums.requests += requests;
        seed += 1;
    }
    Ok(sums)
}
