//! `kill -9` while a snapshot ends without being published: it stays ended, and its changes go with the next one.

use crate::{Durable, check_durable, write_some};
use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::node::{Mounted, Node};
use cbfs_tests::on_both_stores;
use cbfs_tests::process::wait_until;
use cbfs_tests::proxy::Weather;
use cbfs_tests::scenario::{Mount, SNAPSHOT_LIMIT, Scenario};
use cbfs_tests::serial::serial;
use serde_json::Value;
use std::ffi::OsStr;
use walkdir::WalkDir;

on_both_stores!(killed_while_a_snapshot_ends_unpublished);

/// How a snapshot comes to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Somebody cancels it.
    Cancelled,
    /// A newer one takes its place.
    Superseded,
    /// The same, and both are the timer's.
    SupersededByTimer,
}

impl Way {
    /// Settings of the mount.
    fn settings(self) -> [&'static str; 4] {
        let second = match self {
            Self::Cancelled | Self::Superseded => "failure.user_persistent=supersede",
            // To supersede is what it does when nobody says anything.
            Self::SupersededByTimer => "snapshot.interval=1s",
        };
        ["--set", "failure.persistent_after=1ms", "--set", second]
    }
}

/// Each way with the point where the daemon is killed.
const WAYS: [(Way, &str); 4] = [
    (Way::Cancelled, "toa::cancel::wished"),
    (Way::Cancelled, "toa::snapshot::cancelled"),
    (Way::Superseded, "toa::snapshot::cancelled"),
    // Not the point above: with the timer on, one that finds nothing changed after a mount is cancelled, too.
    (Way::SupersededByTimer, "toa::snapshot::superseded"),
];

fn killed_while_a_snapshot_ends_unpublished(kind: StoreKind) -> Result<()> {
    let _turn = serial()?;
    let scenario = Scenario::new(kind, "ended")?;
    let mut node = scenario.node()?;
    let mut durable = Durable::new();
    for (round, (way, point)) in WAYS.into_iter().enumerate() {
        killed_at(&scenario, &mut node, (way, point), round, &mut durable)
            .with_context(|| format!("{way:?} at {point}"))?;
    }
    Ok(())
}

fn killed_at(
    scenario: &Scenario,
    node: &mut Node,
    (way, point): (Way, &str),
    round: usize,
    durable: &mut Durable,
) -> Result<()> {
    let (old, new) = (format!("old-{round}"), format!("new-{round}"));
    node.set_env("FAILPOINTS", &format!("{point}=sleep(600000)"));
    let mount = node.mount(&scenario.address, "mnt", &way.settings())?;
    // What a master that nobody has confirmed publishes may be known to the ledger only.
    let confirmed = || Ok(node.cbfs(&["status", &scenario.address, "--json"])?.field("confirmed")? == true);
    wait_until("the ledger confirms the master", SNAPSHOT_LIMIT, confirmed)?;
    scenario.bucket.take_away(Weather::Refuse)?;
    durable.extend(write_some(&mount, &old)?);
    let mut command = None;
    let id = if way == Way::SupersededByTimer {
        superseded_by_timer(scenario, node, &mount, (&new, durable))?
    } else {
        scenario.request_snapshot(node, &old)?;
        // Packed, and it cannot be sent.
        wait_until("it is stuck", SNAPSHOT_LIMIT, || Ok(snapshots(scenario, node)?.iter().any(is_stuck)))?;
        ensure!(staged_files(node)? > 0, "nothing was packed");
        let id = last_id(scenario, node)?;
        if way == Way::Cancelled {
            command = Some(node.spawn(&["snapshot", "cancel", &scenario.address, &old])?);
        } else {
            durable.extend(write_some(&mount, &new)?);
            scenario.request_snapshot(node, &new)?;
        }
        mount.stands_at_failpoint()?;
        id
    };
    mount.kill()?;
    if let Some(mut command) = command {
        command.kill().ok();
        command.wait()?;
    }

    scenario.bucket.bring_back()?;
    node.remove_env("FAILPOINTS");
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    check_durable(&mount, durable)?;
    wait_until("it is cancelled", SNAPSHOT_LIMIT, || Ok(snapshot(scenario, node, &id)?["state"] == "cancelled"))?;
    let ended = snapshot(scenario, node, &id)?;
    match way {
        Way::Cancelled => {
            // Its name is free.
            let again = scenario.snapshot(node, &old)?;
            ensure!(again.id != id && again.state == "complete", "{again:?}");
        }
        Way::Superseded => {
            scenario.wait_complete(node, &new)?;
        }
        Way::SupersededByTimer => {
            let by = ended["cancelled"]["by"].as_str().context("it does not say by which one")?;
            scenario.wait_complete(node, by)?;
            let (later, earlier) = (snapshot(scenario, node, by)?["xid"].as_u64(), ended["xid"].as_u64());
            ensure!(later > earlier && earlier.is_some(), "{later:?} does not contain {earlier:?}");
            let slave = Mount::new(&scenario.bucket, &scenario.at(by), &[])?;
            ensure!(slave.mounted.path(&format!("round {old}")).exists(), "its changes are not in the next one");
            slave.unmount()?;
            // The timer may have taken that one before all of the second changes were there.
            scenario.snapshot(node, &new)?;
        }
    }
    let (kind, reason) = match way {
        Way::Cancelled => ("user", "user"),
        Way::Superseded => ("user", "superseded"),
        Way::SupersededByTimer => ("periodic", "superseded"),
    };
    ensure!(ended["kind"] == kind, "{ended}");
    ensure!(ended["state"] == "cancelled" && ended["cancelled"]["reason"] == reason, "{ended}");
    ensure!(scenario.bucket.ledger()?.iter().all(|record| record["id"] != id.as_str()), "{id} is in the ledger");
    let objects = scenario.bucket.names_with("/pack/")?.len() + scenario.bucket.names_with("/idx/")?.len();
    let used = scenario.bucket.check_references()?;
    ensure!(objects == used && used > 0, "{objects} objects, {used} of them are used");
    ensure!(staged_files(node)? == 0, "something of it is left in the proxy");
    let slave = Mount::new(&scenario.bucket, &scenario.at("latest"), &[])?;
    check_durable(&slave.mounted, durable).context("in the next snapshot")?;
    slave.unmount()?;
    mount.unmount(node)
}

/// The second changes come when a snapshot of the timer is stuck: it makes way for a later one, and the daemon stands there.
fn superseded_by_timer(
    scenario: &Scenario,
    node: &Node,
    mount: &Mounted,
    (new, durable): (&str, &mut Durable),
) -> Result<String> {
    // The timer may come between two of the first changes: then they are in two snapshots.
    let made_way = |s: &Value| s["kind"] == "periodic" && s["cancelled"]["reason"] == "superseded";
    let begun = |s: &Value| made_way(s) || is_stuck(s);
    wait_until("one is stuck", SNAPSHOT_LIMIT, || Ok(snapshots(scenario, node)?.iter().any(begun)))?;
    durable.extend(write_some(mount, new)?);
    mount.stands_at_failpoint()?;
    let all = snapshots(scenario, node)?;
    let superseded = all.iter().find(|s| made_way(s)).with_context(|| format!("none made way: {all:?}"))?;
    superseded["id"].as_str().map(str::to_owned).context("no id")
}

fn is_stuck(snapshot: &Value) -> bool {
    snapshot["state"] == "uploading" && !snapshot["problem"].is_null()
}

fn snapshots(scenario: &Scenario, node: &Node) -> Result<Vec<Value>> {
    let told = node.cbfs(&["snapshot", "list", &scenario.address, "--json"])?.success()?;
    Ok(told.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn snapshot(scenario: &Scenario, node: &Node, id: &str) -> Result<Value> {
    let all = snapshots(scenario, node)?;
    all.into_iter().find(|snapshot| snapshot["id"] == id).with_context(|| format!("{id} is forgotten"))
}

/// The one that is not at its end.
fn last_id(scenario: &Scenario, node: &Node) -> Result<String> {
    let all = snapshots(scenario, node)?;
    let open: Vec<&str> = all.iter().filter(|s| s["state"] == "uploading").filter_map(|s| s["id"].as_str()).collect();
    ensure!(open.len() == 1, "{all:?}");
    Ok(open.concat())
}

/// Files of objects that wait for their upload.
fn staged_files(node: &Node) -> Result<usize> {
    let mut files = 0;
    for entry in WalkDir::new(node.state_dir()) {
        let entry = entry?;
        let staged = entry.path().parent().and_then(|dir| dir.file_name()) == Some(OsStr::new("staged"));
        files += usize::from(entry.file_type().is_file() && staged);
    }
    Ok(files)
}
