//! `kill -9` at random moments, while programs write and a snapshot is at work.

use crate::{Durable, check_durable};
use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::node::{Mounted, Node};
use cbfs_tests::on_both_stores;
use cbfs_tests::paths::count_from_env;
use cbfs_tests::scenario::{Scenario, write_durable};
use cbfs_tests::serial::serial;
use rand::Rng;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

on_both_stores!(killed_at_random);

/// Writers of new files, one that appends to a log and one that replaces a file, and a snapshot at work; `kill -9` at a random
/// moment; `CBFS_CRASH_ROUNDS` says how often.
fn killed_at_random(kind: StoreKind) -> Result<()> {
    let _turn = serial()?;
    let rounds = count_from_env("CBFS_CRASH_ROUNDS", 5)?;
    let scenario = Scenario::new(kind, "random")?;
    let node = scenario.node()?;
    let durable: Arc<Mutex<Durable>> = Arc::default();
    let growing: Arc<Mutex<Growing>> = Arc::default();
    for round in 0..rounds {
        let mount = node.mount(&scenario.address, "mnt", &[])?;
        if round > 0 {
            let known = lock(&durable)?;
            check_durable(&mount, &known).with_context(|| format!("round {round}"))?;
            lock(&growing)?.check(&mount).with_context(|| format!("round {round}"))?;
        }
        write_until_killed(&scenario, &node, mount, round, (&durable, &growing))?;
    }
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    let known = lock(&durable)?;
    ensure!(known.len() > rounds, "vacuous: only {} files were fsynced in {rounds} rounds", known.len());
    check_durable(&mount, &known)?;
    let grown = lock(&growing)?;
    ensure!(
        grown.lines > rounds && grown.version > rounds,
        "vacuous: {} lines, {} versions",
        grown.lines,
        grown.version
    );
    grown.check(&mount)?;
    for round in 0..rounds {
        scenario.wait_complete(&node, &format!("round-{round}"))?;
    }
    scenario.bucket.check_references()?;
    mount.unmount(&node)
}

fn write_until_killed(
    scenario: &Scenario,
    node: &Node,
    mount: Mounted,
    round: usize,
    (durable, growing): (&Arc<Mutex<Durable>>, &Arc<Mutex<Growing>>),
) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let appender = {
        let (stop, growing, top) = (stop.clone(), growing.clone(), mount.dir().to_owned());
        thread::spawn(move || grow_until(&stop, &growing, &top))
    };
    let writers: Vec<thread::JoinHandle<Result<()>>> = (0..2)
        .map(|writer| {
            let (stop, durable, top) = (stop.clone(), durable.clone(), mount.dir().to_owned());
            thread::spawn(move || -> Result<()> {
                for index in 0.. {
                    let name = format!("r{round} w{writer} f{index}");
                    let content = name.repeat(1 + index * 37 % 3000).into_bytes();
                    let written = write_durable(&top.join(&name), &content);
                    // From here on a success may be one of the bare directory under the mount that was killed.
                    if stop.load(Ordering::Acquire) {
                        return Ok(());
                    }
                    // An error is the kill; before it, nothing may fail.
                    written?;
                    lock(&durable)?.insert(name, content);
                }
                Ok(())
            })
        })
        .collect();
    scenario.request_snapshot(node, &format!("round-{round}"))?;
    thread::sleep(Duration::from_millis(rand::rng().random_range(100..1500)));
    stop.store(true, Ordering::Release);
    mount.kill()?;
    for writer in writers.into_iter().chain([appender]) {
        writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
    }
    scenario.bucket.check_references()?;
    Ok(())
}

/// A log that grows by fsynced lines, and a file that is replaced by fsynced renames: how far each has come.
#[derive(Default)]
struct Growing {
    lines: usize,
    version: usize,
}

impl Growing {
    fn line(index: usize) -> String {
        format!("line {index} {}\n", "x".repeat(index * 31 % 700))
    }

    fn version(number: usize) -> String {
        format!("version {number} ").repeat(1 + number * 53 % 2000)
    }

    /// At least the fsynced lines, and nothing else behind them but later ones; the last version or the next.
    fn check(&self, mount: &Mounted) -> Result<()> {
        if self.lines == 0 || self.version == 0 {
            return Ok(());
        }
        let log = fs::read_to_string(mount.path("log"))?;
        let count = log.lines().count();
        ensure!(count >= self.lines, "{} lines were fsynced, there are {count}", self.lines);
        let expected: String = (0..=count).map(Self::line).collect();
        ensure!(expected.starts_with(&log), "the log has other lines than were written");
        let found = fs::read_to_string(mount.path("replaced"))?;
        let fits = [self.version, self.version + 1].iter().any(|number| found == Self::version(*number));
        ensure!(fits, "version {} was fsynced, there is {:.20}", self.version, found);
        Ok(())
    }
}

/// Appends and replaces until the kill; goes on where an earlier round may have got to.
fn grow_until(stop: &AtomicBool, growing: &Mutex<Growing>, top: &Path) -> Result<()> {
    let step = || -> Result<()> {
        let mut log = File::options().create(true).append(true).open(top.join("log"))?;
        let count = fs::read_to_string(top.join("log"))?.lines().count();
        log.write_all(Growing::line(count).as_bytes())?;
        log.sync_all()?;
        if stop.load(Ordering::Acquire) {
            return Ok(());
        }
        let version = {
            let mut growing = lock(growing)?;
            growing.lines = count + 1;
            growing.version + 1
        };
        write_durable(&top.join("replaced.new"), Growing::version(version).as_bytes())?;
        fs::rename(top.join("replaced.new"), top.join("replaced"))?;
        File::open(top)?.sync_all()?;
        if !stop.load(Ordering::Acquire) {
            lock(growing)?.version = version;
        }
        Ok(())
    };
    while !stop.load(Ordering::Acquire) {
        if let Err(error) = step() {
            // An error is the kill; before it, nothing may fail.
            return if stop.load(Ordering::Acquire) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

fn lock<T>(durable: &Mutex<T>) -> Result<std::sync::MutexGuard<'_, T>> {
    durable.lock().map_err(|_| anyhow::anyhow!("a writer panicked"))
}
