//! `kill -9` of the real daemon in each state of a snapshot and at each crash point: after a restart the snapshot
//! completes, nothing that was fsynced is lost, and no reference in the bucket dangles.

mod ended;

use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::manifest::{Compare, Manifest};
use cbfs_tests::node::{Mounted, Node};
use cbfs_tests::on_both_stores;
use cbfs_tests::process::wait_until;
use cbfs_tests::scenario::{Mount, Scenario, noise, write_durable};
use cbfs_tests::serial::serial;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::Duration;

mod random;

on_both_stores!(killed_in_each_snapshot_state, crashed_at_each_point);

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
const CRASH_POINTS: [(&str, u32, Stands); 9] = [
    ("kvfs::checkpoint::before_commit", 0, Stands::BeforeComplete),
    // From the commit on the layer is sealed: it may be shipped before the next one is made.
    ("kvfs::checkpoint::after_commit", 0, Stands::Anywhere),
    ("kvfs::layer::before_rename", 0, Stands::Anywhere),
    ("kvfs::publish::before_swap", 0, Stands::Anywhere),
    ("ledger::before_put", 1, Stands::BeforeComplete),
    ("ledger::after_put", 1, Stands::BeforeComplete),
    ("collect::pack_staged", 0, Stands::BeforeComplete),
    ("run::before_sync", 0, Stands::BeforeComplete),
    ("proxy::before_adopt", 0, Stands::BeforeComplete),
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
    mount.stands_at_failpoint()?;
    let state = scenario.snapshot_status(node, name)?.state;
    ensure!(state != "complete", "the snapshot is complete before the point");
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

/// Parts that were sent before a kill cost money and no listing shows them: the next start gives them up.
#[test]
fn killed_between_two_parts_of_an_upload() -> Result<()> {
    let _turn = serial()?;
    let scenario = Scenario::new(StoreKind::S3, "parts")?;
    let mut node = scenario.node()?;
    node.set_env("FAILPOINTS", "s3::part_sent=sleep(600000)");
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    // Bytes that do not shrink: a pack that is sent in parts.
    let content = noise(1, 24 << 20);
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
    mount.stands_at_failpoint()?;
    let complete = scenario.snapshot_status(node, name).is_ok_and(|snapshot| snapshot.state == "complete");
    ensure!(!complete || stands == Stands::Anywhere, "the snapshot is complete before the point");
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
