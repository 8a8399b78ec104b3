//! What the bucket is asked: for one small snapshot, and by a filesystem that nobody uses.

use super::figures::{Unit, What};
use super::{Bench, IDLE, Mounted, REQUESTS};
use crate::bench::steps::noise;
use anyhow::{Context, Result};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

const SMALL_LIMIT: f64 = 6.0;
const IDLE_LIMIT: f64 = 1.0;
const SMALL_BYTES: usize = 4096;
/// What a snapshot asks may come a little after it is complete.
const LINGER: Duration = Duration::from_millis(500);

impl Bench<'_, '_> {
    /// A filesystem with a few files and one snapshot.
    fn small(&mut self) -> Result<Mounted> {
        let mounted = self.filesystem()?;
        fs::write(mounted.dir().join("file"), noise(SMALL_BYTES))?;
        mounted.filesystem.publish("first")?;
        thread::sleep(LINGER);
        Ok(mounted)
    }

    pub(super) fn requests(&mut self) -> Result<()> {
        let mounted = self.small()?;
        for number in 0..self.plan.amounts.small {
            self.site.tell(format_args!("requests of small snapshot {} of {}", number + 1, self.plan.amounts.small));
            fs::write(mounted.dir().join(format!("file-{number}")), noise(SMALL_BYTES))?;
            let before = mounted.filesystem.requests()?;
            mounted.filesystem.publish(&format!("small-{number}"))?;
            thread::sleep(LINGER);
            let after = mounted.filesystem.requests()?;
            let mut add = |what: What, from: u64, to: u64| self.figures.add(what, to.saturating_sub(from) as f64);
            add(
                What::new(REQUESTS, "requests of a snapshot of one new file", Unit::Count).at_most(SMALL_LIMIT),
                before.total(),
                after.total(),
            );
            add(What::new(REQUESTS, "of them GET", Unit::Count), before.get, after.get);
            add(What::new(REQUESTS, "of them PUT", Unit::Count), before.put, after.put);
        }
        mounted.end()
    }

    pub(super) fn idle(&mut self) -> Result<()> {
        let idle = Duration::try_from_secs_f64(self.plan.amounts.idle_seconds).context("--idle-seconds")?;
        let mounted = self.small()?;
        mounted.filesystem.settle(self.site.settle)?;
        self.site.tell(format_args!("doing nothing for {idle:?}"));
        let (start, before) = (Instant::now(), mounted.filesystem.requests()?.total());
        thread::sleep(idle);
        let asked = mounted.filesystem.requests()?.total().saturating_sub(before);
        let minutes = start.elapsed().as_secs_f64() / 60.0;
        self.figures.add(
            What::new(IDLE, "requests a minute of an idle filesystem", Unit::Count).at_most(IDLE_LIMIT),
            asked as f64 / minutes.max(1e-9),
        );
        mounted.end()
    }
}
