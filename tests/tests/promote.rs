//! Taking over: a mounted slave becomes the master, the old master finds itself deposed, and of two that try one wins.

use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::on_both_stores;
use cbfs_tests::paths::count_from_env;
use cbfs_tests::process::{wait_child, wait_until};
use cbfs_tests::scenario::{Mount, Scenario, check_read_only, write_durable};
use cbfs_tests::serial::serial;
use std::fs::{self, File};
use std::io::Read;
use std::time::Duration;

on_both_stores!(
    a_slave_takes_over,
    a_wrong_epoch_is_refused,
    killed_between_the_ledger_and_the_reign,
    of_two_promoters_one_wins,
);

/// Exit code: deposed, wrong epoch, read-only.
const NOT_MASTER: i32 = 5;

fn a_slave_takes_over(kind: StoreKind) -> Result<()> {
    let scenario = Scenario::new(kind, "reign")?;
    let mut old = Mount::new(&scenario.bucket, &scenario.address, &[])?;
    write_durable(&old.mounted.path("published"), b"in the snapshot")?;
    scenario.snapshot(&old.node, "base")?;
    write_durable(&old.mounted.path("kept"), b"never uploaded")?;

    let slave = Mount::new(&scenario.bucket, &scenario.at("latest"), &[])?;
    check_read_only(slave.mounted.dir())?;
    let mut held_open = File::open(slave.mounted.path("published"))?;
    let daemon = slave.mounted.pid()?;
    slave.node.cbfs(&["promote", &scenario.address, "--epoch", "1"])?.success()?;
    ensure!(slave.mounted.pid()? == daemon && !slave.mounted.log()?.contains("panicked"), "not the same daemon");
    let mut content = String::new();
    held_open.read_to_string(&mut content)?;
    ensure!(content == "in the snapshot", "an open file shows {content:?}");
    write_durable(&slave.mounted.path("new reign"), b"written by the new master")?;
    write_durable(&slave.mounted.path("published"), b"changed by the new master")?;
    scenario.wait_status(&slave.node, "role", "master")?;
    let status = slave.node.cbfs(&["status", &scenario.address, "--json"])?.success()?;
    ensure!(status.number("epoch")? == 2, "{status}");
    scenario.snapshot(&slave.node, "of the new reign")?;

    // The running old master finds out by itself, keeps its changes, and writes nothing more.
    scenario.wait_status(&old.node, "role", "deposed")?;
    check_read_only(old.mounted.dir())?;
    ensure!(fs::read(old.mounted.path("kept"))? == b"never uploaded", "the branch changed");
    let refused = old.node.cbfs(&["snapshot", "create", &scenario.address, "--name", "late", "--json"])?;
    refused.refused(NOT_MASTER, &["epoch 2"])?;
    old.mounted.kill()?;
    old.mounted = old.node.mount(&scenario.address, "mnt", &[])?;
    check_read_only(old.mounted.dir()).context("after a restart")?;
    ensure!(fs::read(old.mounted.path("kept"))? == b"never uploaded", "the branch is lost");
    ensure!(!old.mounted.path("new reign").exists(), "reigns are mixed");

    let reader = Mount::new(&scenario.bucket, &scenario.address, &["--read-only"])?;
    ensure!(fs::read(reader.mounted.path("new reign"))? == b"written by the new master", "not published");
    ensure!(!reader.mounted.path("kept").exists(), "a deposed master published");
    reader.unmount()?;
    old.unmount()?;
    // The promoted node is the master of record now: it comes back as such.
    let Mount { mounted, node } = slave;
    mounted.unmount(&node)?;
    let mounted = node.mount(&scenario.address, "mnt", &[])?;
    write_durable(&mounted.path("after restart"), b"still the master")?;
    mounted.unmount(&node)
}

fn a_wrong_epoch_is_refused(kind: StoreKind) -> Result<()> {
    let scenario = Scenario::new(kind, "wrong")?;
    let master = scenario.node()?;
    let mount = master.mount(&scenario.address, "mnt", &[])?;
    write_durable(&mount.path("file"), b"content")?;
    scenario.snapshot(&master, "base")?;
    let slave = Mount::new(&scenario.bucket, &scenario.at("latest"), &[])?;
    let holder = scenario.bucket.ledger()?.iter().find(|record| record["kind"] == "epoch").cloned();
    let holder = holder.context("no epoch record")?;
    let host = holder["host"].as_str().context("no host in the epoch record")?.to_owned();
    for wrong in ["0", "2", "7"] {
        let outcome = slave.node.cbfs(&["promote", &scenario.address, "--epoch", wrong])?;
        let outcome = outcome.refused(NOT_MASTER, &["epoch 1", &host])?;
        ensure!(
            outcome.stderr.lines().any(|line| line.starts_with("hint: ") && line.contains("--epoch 1")),
            "{outcome}"
        );
    }
    check_read_only(slave.mounted.dir())?;
    write_durable(&mount.path("still"), b"the master")?;
    slave.unmount()?;
    mount.unmount(&master)
}

/// The ledger has the new master, its own disk knows nothing of it yet: the next mount goes on from there.
fn killed_between_the_ledger_and_the_reign(kind: StoreKind) -> Result<()> {
    let scenario = Scenario::new(kind, "between")?;
    let old = Mount::new(&scenario.bucket, &scenario.address, &[])?;
    write_durable(&old.mounted.path("file"), b"in the snapshot")?;
    scenario.snapshot(&old.node, "base")?;
    let mut node = scenario.node()?;
    node.set_env("FAILPOINTS", "toa::promote::after_epoch=sleep(600000)");
    let mount = node.mount(&scenario.at("latest"), "mnt", &[])?;
    let mut promote = node.spawn(&["promote", &scenario.address, "--epoch", "1"])?;
    mount.stands_at_failpoint()?;
    mount.kill()?;
    promote.kill().ok();
    promote.wait()?;
    scenario.wait_status(&old.node, "role", "deposed")?;

    node.remove_env("FAILPOINTS");
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    ensure!(fs::read(mount.path("file"))? == b"in the snapshot", "its base is another");
    write_durable(&mount.path("new reign"), b"written by the new master")?;
    let status = node.cbfs(&["status", &scenario.address, "--json"])?.success()?;
    ensure!(status.text("role")? == "master" && status.number("epoch")? == 2, "{status}");
    scenario.snapshot(&node, "of the new reign")?;
    let slave = Mount::new(&scenario.bucket, &scenario.at("latest"), &[])?;
    ensure!(fs::read(slave.mounted.path("new reign"))? == b"written by the new master", "not published");
    slave.unmount()?;
    mount.unmount(&node)?;
    old.unmount()
}

/// Two mounted slaves promote the same epoch at once, again and again: the loser meets a fresh slave in the next round.
/// `CBFS_PROMOTE_ROUNDS` says how often.
fn of_two_promoters_one_wins(kind: StoreKind) -> Result<()> {
    let _turn = serial()?;
    let rounds = count_from_env("CBFS_PROMOTE_ROUNDS", 200)?;
    let scenario = Scenario::new(kind, "race")?;
    let master = Mount::new(&scenario.bucket, &scenario.address, &[])?;
    write_durable(&master.mounted.path("file"), b"content")?;
    scenario.snapshot(&master.node, "base")?;
    drop(master);
    let mut left = Mount::new(&scenario.bucket, &scenario.at("latest"), &[])?;
    for round in 1..=rounds {
        let right = Mount::new(&scenario.bucket, &scenario.at("latest"), &[])?;
        let winner_is_left = race(&scenario, &left, &right, round).with_context(|| format!("round {round}"))?;
        if winner_is_left {
            left = right;
        }
    }
    let epochs: Vec<u64> = scenario
        .bucket
        .ledger()?
        .iter()
        .filter(|record| record["kind"] == "epoch")
        .filter_map(|record| record["epoch"].as_u64())
        .collect();
    let expected: Vec<u64> = (1..=rounds as u64 + 1).collect();
    ensure!(epochs == expected, "epochs in the ledger: {epochs:?}");
    Ok(())
}

/// One round; whether the left one won.
fn race(scenario: &Scenario, left: &Mount, right: &Mount, epoch: usize) -> Result<bool> {
    let epoch = epoch.to_string();
    let args = ["promote", &scenario.address, "--epoch", &epoch];
    let mut children = [left.node.spawn(&args)?, right.node.spawn(&args)?];
    let mut codes = Vec::new();
    for child in &mut children {
        let status = wait_child(child, Duration::from_secs(30))?.context("promote hangs")?;
        codes.push(status.code());
    }
    let mut words = String::new();
    for child in &mut children {
        child.stderr.take().context("no stderr")?.read_to_string(&mut words)?;
    }
    let winner = codes.iter().position(|code| *code == Some(0));
    ensure!(
        codes.contains(&Some(0)) && codes.contains(&Some(NOT_MASTER)),
        "not one winner and one loser: exit codes {codes:?}\n{words}"
    );
    let (winner, loser) = if winner == Some(0) { (left, right) } else { (right, left) };
    write_durable(&winner.mounted.path("mark"), epoch.as_bytes()).context("the winner writes")?;
    let write = File::create(loser.mounted.path("mark"));
    ensure!(write.is_err(), "the loser writes too");
    wait_until("the loser still reads", Duration::from_secs(5), || {
        Ok(fs::read(loser.mounted.path("file"))? == b"content")
    })?;
    Ok(std::ptr::eq(winner, left))
}
