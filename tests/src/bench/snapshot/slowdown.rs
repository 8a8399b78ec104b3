//! How much slower an application is while a snapshot is packed and uploaded: the same work alone and beside one.

use super::figures::{Unit, What};
use super::tree::unpack;
use super::{Bench, SLOWDOWN};
use crate::bench::steps::noise;
use crate::bench::target::Filesystem;
use crate::process::Outcome;
use anyhow::{Context, Result, anyhow};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: f64 = 1.3;
const BLOCK_BYTES: usize = 4096;

impl Bench<'_, '_> {
    /// A tree is unpacked alone; then once more while the snapshot of the first one is on its way. The second one is what
    /// the snapshot beside the loop of fsyncs has to bring away.
    pub(super) fn slowdown(&mut self) -> Result<()> {
        let tree = self.plan.tree.clone().context("no source tree")?;
        let mounted = self.filesystem()?;
        let filesystem = &mounted.filesystem;
        let fsync_time = Duration::try_from_secs_f64(self.plan.amounts.fsync_seconds).context("--fsync-seconds")?;
        for round in 0..self.plan.amounts.rounds {
            let (_, alone) = unpack(&tree, &self.place(filesystem, "untar alone", round)?)?;
            let dir = self.place(filesystem, "untar beside a snapshot", round)?;
            let ((_, beside), overlap) = during(filesystem, &format!("untar-{round}"), |_| unpack(&tree, &dir))?;
            let times = [alone, beside].map(|time| time.as_secs_f64());
            self.add_ratio(("untar", Unit::Seconds), times, overlap);

            let dir = self.place(filesystem, "fsync alone", round)?;
            let start = Instant::now();
            let alone = fsyncs(&dir, || start.elapsed() < fsync_time)?;
            let dir = self.place(filesystem, "fsync beside a snapshot", round)?;
            let (beside, overlap) = during(filesystem, &format!("fsync-{round}"), |goes_on| {
                fsyncs(&dir, || goes_on.load(Ordering::Relaxed))
            })?;
            self.add_ratio(("fsync", Unit::Milliseconds), [alone * 1e3, beside * 1e3], overlap);
        }
        mounted.end()
    }

    /// A new directory, once nothing is left to be done.
    fn place(&mut self, filesystem: &Filesystem, what: &str, round: usize) -> Result<PathBuf> {
        let rounds = self.plan.amounts.rounds;
        self.site.tell(format_args!("slow-down, round {} of {rounds}: {what}", round + 1));
        filesystem.settle(self.site.settle)?;
        let place = filesystem.dir().join(format!("{what} {round}").replace(' ', "-"));
        fs::create_dir(&place)?;
        Ok(place)
    }

    fn add_ratio(&mut self, (what, unit): (&str, Unit), [alone, beside]: [f64; 2], overlap: f64) {
        let name = |rest: &str| format!("{what} {rest}");
        self.figures.add(What::new(SLOWDOWN, name("alone"), unit), alone);
        self.figures.add(What::new(SLOWDOWN, name("beside a snapshot"), unit), beside);
        self.figures.add(
            What::new(SLOWDOWN, name("beside a snapshot / alone"), Unit::Times).at_most(LIMIT),
            beside / alone.max(1e-9),
        );
        self.figures
            .add(What::new(SLOWDOWN, name("beside: share of its time with the snapshot"), Unit::Times), overlap);
    }
}

/// Runs `work` while a snapshot is on its way, which it can ask for: with its answer, for which share of its time the
/// snapshot was not published yet.
fn during<T>(filesystem: &Filesystem, name: &str, work: impl FnOnce(&AtomicBool) -> Result<T>) -> Result<(T, f64)> {
    let goes_on = AtomicBool::new(true);
    filesystem.request_snapshot(name).and_then(Outcome::success)?;
    let start = Instant::now();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let published = filesystem.wait_published(name);
            goes_on.store(false, Ordering::Relaxed);
            published.map(|()| start.elapsed())
        });
        let done = work(&goes_on);
        let took = start.elapsed();
        let published = waiter.join().map_err(|_| anyhow!("the waiting thread panicked"))??;
        Ok((done?, published.as_secs_f64().min(took.as_secs_f64()) / took.as_secs_f64().max(1e-9)))
    })
}

/// Small files that are made durable one by one, as long as `goes_on`: seconds for each.
fn fsyncs(dir: &Path, mut goes_on: impl FnMut() -> bool) -> Result<f64> {
    let block = noise(BLOCK_BYTES);
    let (start, mut count) = (Instant::now(), 0);
    loop {
        let mut file = File::create_new(dir.join(format!("f{count}")))?;
        file.write_all(&block)?;
        file.sync_all()?;
        count += 1;
        if !goes_on() {
            return Ok(start.elapsed().as_secs_f64() / f64::from(count));
        }
    }
}
