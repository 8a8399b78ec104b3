//! `kill -9` of the real daemon in each state of a snapshot and at each crash point: after a restart the snapshot
//! completes, nothing that was fsynced is lost, and no reference in the bucket dangles.

use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::manifest::{Compare, Manifest};
use cbfs_tests::node::{Mounted, Node};
use cbfs_tests::on_both_stores;
use cbfs_tests::paths::count_from_env;
use cbfs_tests::process::wait_until;
use cbfs_tests::scenario::{Mount, Scenario, write_durable};
use cbfs_tests::serial::serial;
use rand::Rng;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

on_both_stores!(killed_in_each_snapshot_state, crashed_at_each_point, killed_at_random);

/// Points of the way of a snapshot; each is reached while the snapshot is in one state.
const SNAPSHOT_POINTS: [&str; 9] = [
    "toa::snapshot::queued",
    "toa::snapshot::collected",
    "toa::snapshot::packing",
    "toa::snapshot::staged",
    "toa::snapshot::uploading",
    "toa::snapshot::object_uploaded",
    "toa::snapshot::before_ledger",
    "toa::snapshot::after_ledger",
    "toa::snapshot::before_complete",
];

/// Points between two effects, with how often they are passed before the request at the least (the ledger is written at
/// every mount too), and whether the snapshot can be complete when the process stands there.
const CRASH_POINTS: [(&str, u32, Stands); 7] = [
    ("kvfs::checkpoint::before_commit", 0, Stands::BeforeComplete),
    // From the commit on the layer is sealed: it may be shipped before the next one is made.
    ("kvfs::checkpoint::after_commit", 0, Stands::Anywhere),
    ("kvfs::layer::before_rename", 0, Stands::Anywhere),
    ("kvfs::publish::before_swap", 0, Stands::Anywhere),
    ("ledger::before_put", 1, Stands::BeforeComplete),
    ("ledger::after_put", 1, Stands::BeforeComplete),
    ("collect::pack_staged", 0, Stands::BeforeComplete),
];

/// Where a point lies on the way of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// The snapshot cannot be complete.
    BeforeComplete,
    /// It may be.
    Anywhere,
}

/// What was fsynced before, by path; never empty when it is checked.
type Durable = BTreeMap<String, Vec<u8>>;

fn write_some(mount: &Mounted, round: &str) -> Result<Durable> {
    let mut written = Durable::new();
    let dir = format!("round {round}");
    fs::create_dir(mount.path(&dir))?;
    File::open(mount.dir())?.sync_all()?;
    for (index, size) in [0, 1, 1000, 5000, 70_000, 1_500_000].into_iter().enumerate() {
        let name = format!("{dir}/file {index}");
        let content: Vec<u8> = (0..size).map(|at| (at * 7 + index + round.len()) as u8).collect();
        write_durable(&mount.path(&name), &content)?;
        written.insert(name, content);
    }
    Ok(written)
}

fn check_durable(mount: &Mounted, durable: &Durable) -> Result<()> {
    ensure!(!durable.is_empty(), "vacuous: nothing was fsynced");
    for (name, content) in durable {
        let found = fs::read(mount.path(name)).with_context(|| format!("{name} was fsynced"))?;
        ensure!(&found == content, "{name} was fsynced and has other bytes now");
    }
    Ok(())
}

/// The daemon sleeps at `point` for ever, is killed there, and comes back without the sleep.
fn killed_in_each_snapshot_state(kind: StoreKind) -> Result<()> {
    let _turn = serial()?;
    let scenario = Scenario::new(kind, "crash")?;
    let mut node = scenario.node()?;
    let mut durable = Durable::new();
    let mut states = Vec::new();
    for (round, point) in SNAPSHOT_POINTS.iter().enumerate() {
        let name = format!("snap-{round}");
        let seen = killed_at(&scenario, &mut node, point, &name, &mut durable).with_context(|| (*point).to_owned())?;
        states.push(seen);
    }
    for state in ["queued", "collected", "packing", "staged", "uploading"] {
        ensure!(states.iter().any(|seen| seen == state), "never killed in state {state}: {states:?}");
    }
    Ok(())
}

fn killed_at(scenario: &Scenario, node: &mut Node, point: &str, name: &str, durable: &mut Durable) -> Result<String> {
    node.set_env("FAILPOINTS", &format!("{point}=sleep(600000)"));
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    durable.extend(write_some(&mount, name)?);
    scenario.request_snapshot(node, name)?;
    // What comes after the request is not in the snapshot, and must be there after the crash too.
    durable.extend(write_some(&mount, &format!("{name} after"))?);
    let state = state_where_it_stops(scenario, node, name)?;
    ensure!(state != "complete", "the point was never reached: the snapshot is complete");
    mount.kill()?;
    scenario.bucket.check_references().context("right after the kill")?;

    node.remove_env("FAILPOINTS");
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    check_durable(&mount, durable)?;
    scenario.wait_complete(node, name)?;
    ensure!(scenario.bucket.check_references()? > 0, "nothing is referenced");
    check_durable(&mount, durable)?;
    let slave = Mount::new(&scenario.bucket, &scenario.at(name), &[])?;
    let in_snapshot: Durable =
        durable.iter().filter(|(path, _)| !path.starts_with(&format!("round {name} after/"))).map(own).collect();
    check_durable(&slave.mounted, &in_snapshot).context("in the snapshot")?;
    ensure!(!slave.mounted.path(&format!("round {name} after")).exists(), "later changes are in the snapshot");
    slave.unmount()?;
    mount.unmount(node)?;
    Ok(state)
}

fn own((path, content): (&String, &Vec<u8>)) -> (String, Vec<u8>) {
    (path.clone(), content.clone())
}

/// The state that a snapshot stays in for a while.
fn state_where_it_stops(scenario: &Scenario, node: &Node, name: &str) -> Result<String> {
    let mut last = String::new();
    let mut same = 0;
    wait_until("the snapshot stops at the point", Duration::from_secs(60), || {
        let now = scenario.snapshot_status(node, name)?.state;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        Ok(same >= 20)
    })?;
    Ok(last)
}

/// Parts that were sent before a kill cost money and no listing shows them: the next start gives them up.
#[test]
fn killed_between_two_parts_of_an_upload() -> Result<()> {
    let _turn = serial()?;
    let scenario = Scenario::new(StoreKind::S3, "parts")?;
    let mut node = scenario.node()?;
    node.set_env("FAILPOINTS", "s3::part_sent=sleep(600000)");
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    // Bytes that do not shrink: a pack that is sent in parts.
    let mut state = 1_u64;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(24 << 20)
    .collect();
    write_durable(&mount.path("large"), &content)?;
    scenario.request_snapshot(&node, "large")?;
    wait_until("parts are sent", Duration::from_secs(60), || Ok(!scenario.bucket.unfinished()?.is_empty()))?;
    mount.kill()?;
    ensure!(!scenario.bucket.unfinished()?.is_empty(), "nothing was left by the kill");

    node.remove_env("FAILPOINTS");
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    scenario.wait_complete(&node, "large")?;
    let left = scenario.bucket.unfinished()?;
    ensure!(left.is_empty(), "parts are left of {left:?}");
    let slave = Mount::new(&scenario.bucket, &scenario.at("large"), &[])?;
    ensure!(fs::read(slave.mounted.path("large"))? == content, "other bytes in the snapshot");
    slave.unmount()?;
    mount.unmount(&node)
}

/// The daemon stands between two effects and is killed there.
fn crashed_at_each_point(kind: StoreKind) -> Result<()> {
    let _turn = serial()?;
    let scenario = Scenario::new(kind, "points")?;
    let mut node = scenario.node()?;
    // First use without faults: these points are about a filesystem in use.
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    let mut durable = write_some(&mount, "base")?;
    scenario.snapshot(&node, "base")?;
    mount.unmount(&node)?;
    for (round, (point, skip, stands)) in CRASH_POINTS.into_iter().enumerate() {
        let name = format!("snap-{round}");
        let action = if skip == 0 { "sleep(600000)".to_owned() } else { format!("{skip}*off->sleep(600000)") };
        node.set_env("FAILPOINTS", &format!("{point}={action}"));
        crashed_at(&scenario, &mut node, stands, &name, &mut durable).with_context(|| point.to_owned())?;
    }
    Ok(())
}

fn crashed_at(scenario: &Scenario, node: &mut Node, stands: Stands, name: &str, durable: &mut Durable) -> Result<()> {
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    durable.extend(write_some(&mount, name)?);
    // The request itself may be what stops at the point: then it is unknown, and asked again later.
    let mut request = node.spawn(&["snapshot", "create", &scenario.address, "--name", name, "--json"])?;
    thread::sleep(Duration::from_secs(3));
    let complete = scenario.snapshot_status(node, name).is_ok_and(|snapshot| snapshot.state == "complete");
    ensure!(!complete || stands == Stands::Anywhere, "the point was never reached: the snapshot is complete");
    mount.kill()?;
    request.kill().ok();
    request.wait()?;
    scenario.bucket.check_references().context("right after the kill")?;

    node.remove_env("FAILPOINTS");
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    check_durable(&mount, durable)?;
    if scenario.snapshot_status(node, name).is_err() {
        scenario.request_snapshot(node, name)?;
    }
    scenario.wait_complete(node, name)?;
    ensure!(scenario.bucket.check_references()? > 0, "nothing is referenced");
    let expected = Manifest::scan(mount.dir())?;
    let slave = Mount::new(&scenario.bucket, &scenario.at(name), &[])?;
    expected.must_equal(&Manifest::scan(slave.mounted.dir())?, Compare::Exact)?;
    slave.unmount()?;
    mount.unmount(node)
}

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
