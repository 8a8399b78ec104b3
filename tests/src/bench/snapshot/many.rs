//! A filesystem of many files: the memory of its first snapshot, and whether later ones cost what changed.

use super::cost::{Cost, take};
use super::figures::{Unit, What};
use super::{Bench, GROWTH, MEMORY, Mounted};
use crate::bench::fill::{Fill, fill, path_of};
use crate::bench::processes::Processes;
use anyhow::{Context, Result, anyhow};
use rand::rngs::SmallRng;
use rand::seq::index::sample;
use rand::{Rng, SeedableRng};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Memory above idle while a first snapshot is taken, MB.
const MEMORY_LIMIT_MB: f64 = 200.0;
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
const FILES: &str = "files";

/// A filesystem of many files with a snapshot of them.
pub(super) struct Many {
    pub mounted: Mounted,
    pub files: usize,
}

impl Many {
    pub fn top(&self) -> PathBuf {
        self.mounted.dir().join(FILES)
    }

    /// Writes `count` files anew, chosen by `seed`; they stay as large as they were.
    fn change(&self, count: usize, bytes: usize, seed: u64) -> Result<()> {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut body = vec![0; bytes];
        let top = self.top();
        for number in sample(&mut random, self.files, count.min(self.files)) {
            random.fill(&mut body[..]);
            File::options().write(true).open(path_of(&top, number))?.write_all(&body)?;
        }
        Ok(())
    }
}

impl Bench<'_, '_> {
    /// A filesystem of `files` files without a snapshot.
    fn filled(&mut self, files: usize) -> Result<Mounted> {
        self.site.tell(format_args!("creating {files} files"));
        let mounted = self.filesystem()?;
        fill(&mounted.dir().join(FILES), &Fill { from: 0, to: files, bytes: self.plan.amounts.file_bytes })?;
        mounted.filesystem.settle(self.site.settle)?;
        Ok(mounted)
    }

    /// The filesystem of `files` files that is there already, or a new one, with a snapshot.
    pub(super) fn many(&mut self, files: usize) -> Result<Many> {
        match self.many.take() {
            Some(many) if many.files == files => return Ok(many),
            Some(other) => other.mounted.end()?,
            None => {}
        }
        let mounted = self.filled(files)?;
        self.site.tell(format_args!("first snapshot of {files} files"));
        mounted.filesystem.publish("first")?;
        Ok(Many { mounted, files })
    }

    pub(super) fn memory(&mut self) -> Result<()> {
        let files = self.plan.amounts.files;
        let mounted = self.filled(files)?;
        let processes = mounted.filesystem.processes();
        let idle = processes.anonymous_bytes()?;
        self.site.tell(format_args!("first snapshot of {files} files"));
        let (cost, most) = watched(&processes, || take(&mounted.filesystem, "first"))?;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let name = |what: &str| format!("{what}, {files} files");
        self.figures.add(What::new(MEMORY, name("memory before the first snapshot"), Unit::Megabytes), megabytes(idle));
        self.figures.add(
            What::new(MEMORY, name("memory above that, at most"), Unit::Megabytes).at_most(MEMORY_LIMIT_MB),
            megabytes(most.saturating_sub(idle)),
        );
        self.figures.add(What::new(MEMORY, name("first snapshot"), Unit::Seconds), cost.seconds);
        self.figures.add(What::new(MEMORY, name("first snapshot, daemon"), Unit::CpuSeconds), cost.cpu_seconds);
        self.figures.add(What::new(MEMORY, name("first snapshot, bytes"), Unit::Mebibytes), cost.mebibytes());
        if let Some(other) = self.many.replace(Many { mounted, files }) {
            other.mounted.end()?;
        }
        Ok(())
    }

    pub(super) fn growth(&mut self) -> Result<()> {
        let (rounds, files) = (self.plan.amounts.rounds, self.plan.amounts.files);
        let many = self.many(files)?;
        for round in 0..rounds {
            let mut before: Option<(usize, Cost)> = None;
            for (at, &count) in self.plan.amounts.changed.iter().enumerate() {
                self.site.tell(format_args!("round {} of {rounds}: a snapshot of {count} changed files", round + 1));
                let seed = self.plan.amounts.seed + (round * self.plan.amounts.changed.len() + at) as u64;
                many.change(count, self.plan.amounts.file_bytes, seed)?;
                many.mounted.filesystem.settle(self.site.settle)?;
                let cost = take(&many.mounted.filesystem, &format!("changed-{round}-{at}"))?;
                self.add_growth(count, &cost, before.as_ref());
                before = Some((count, cost));
            }
        }
        self.many = Some(many);
        Ok(())
    }

    /// What so many changes cost, and how that grew since fewer of them.
    fn add_growth(&mut self, count: usize, cost: &Cost, before: Option<&(usize, Cost)>) {
        let name = |what: &str| format!("{what}, {count} changed of {}", self.plan.amounts.files);
        let (time, cpu, bytes) = (name("time"), name("daemon"), name("bytes"));
        self.figures.add(What::new(GROWTH, time, Unit::Seconds), cost.seconds);
        self.figures.add(What::new(GROWTH, cpu, Unit::CpuSeconds), cost.cpu_seconds);
        self.figures.add(What::new(GROWTH, bytes, Unit::Mebibytes), cost.mebibytes());
        let Some((fewer, less)) = before else { return };
        let factor = count as f64 / (*fewer).max(1) as f64;
        self.figures.add(
            What::new(GROWTH, format!("time, {count} / {fewer} changed"), Unit::Times).at_most(factor),
            cost.seconds / less.seconds.max(1e-9),
        );
    }
}

/// Runs `work`; with its answer, the most memory that the processes had meanwhile.
fn watched<T>(processes: &Processes, work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| -> Result<u64> {
            let mut most = 0;
            while !ended.load(Ordering::Relaxed) {
                most = most.max(processes.anonymous_bytes()?);
                thread::sleep(SAMPLE_EVERY);
            }
            Ok(most)
        });
        let done = work();
        ended.store(true, Ordering::Relaxed);
        let most = watch.join().map_err(|_| anyhow!("the watching thread panicked"))?;
        Ok((done?, most.context("watching the memory")?))
    })
}
