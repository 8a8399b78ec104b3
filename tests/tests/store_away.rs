//! A bucket that is away: everything local goes on, commands say so in time, and the snapshot completes when it is back.

use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::node::Node;
use cbfs_tests::on_both_stores;
use cbfs_tests::process::{run, wait_until};
use cbfs_tests::proxy::Weather;
use cbfs_tests::scenario::{Mount, Scenario, write_durable};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

on_both_stores!(
    a_master_goes_on_when_the_store_refuses,
    a_master_goes_on_when_the_store_hangs,
    a_slave_answers_with_eio_and_recovers,
    a_bad_network_costs_time_only,
    a_stuck_snapshot_is_told_cancelled_and_asked_for_again,
    the_timer_takes_snapshots,
);

/// Exit code: store unavailable.
const UNAVAILABLE: i32 = 7;
/// Exit code: not found, which is all that can be said of a directory that is not mounted.
const NOT_FOUND: i32 = 3;

fn a_master_goes_on_when_the_store_refuses(kind: StoreKind) -> Result<()> {
    a_master_goes_on(kind, Weather::Refuse)
}

fn a_master_goes_on_when_the_store_hangs(kind: StoreKind) -> Result<()> {
    a_master_goes_on(kind, Weather::Hang)
}

fn a_master_goes_on(kind: StoreKind, weather: Weather) -> Result<()> {
    let scenario = Scenario::new(kind, "away")?;
    let node = scenario.node()?;
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    write_durable(&mount.path("before"), &vec![1; 300_000])?;
    scenario.snapshot(&node, "base")?;

    scenario.bucket.take_away(weather)?;
    write_durable(&mount.path("during"), b"written without a bucket")?;
    ensure!(fs::read(mount.path("before"))? == vec![1; 300_000], "a local read");
    fs::rename(mount.path("before"), mount.path("renamed"))?;
    fs::create_dir(mount.path("dir"))?;
    File::options().write(true).open(mount.path("renamed"))?.write_all_at(b"22", 1000)?;
    File::open(mount.path("renamed"))?.sync_all()?;
    let queued = scenario.request_snapshot(&node, "while away")?;
    ensure!(queued.state != "complete" && queued.state != "failed", "{queued:?}");
    scenario.request_snapshot(&node, "queued behind it")?;
    commands_answer(kind, &scenario, &node)?;
    // A master of record restarts without the bucket.
    mount.unmount(&node)?;
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    ensure!(fs::read(mount.path("during"))? == b"written without a bucket", "lost in a restart");
    write_durable(&mount.path("after restart"), b"goes on")?;
    let waiting = scenario.snapshot_status(&node, "while away")?;
    ensure!(waiting.state != "complete" && waiting.state != "failed", "{waiting:?}");

    scenario.bucket.bring_back()?;
    for name in ["while away", "queued behind it"] {
        scenario.wait_complete(&node, name)?;
    }
    let slave = Mount::new(&scenario.bucket, &scenario.at("while away"), &[])?;
    ensure!(fs::read(slave.mounted.path("during"))? == b"written without a bucket", "not in the snapshot");
    ensure!(fs::read(slave.mounted.path("renamed"))?[1000..1003] == *b"22\x01", "an overwrite is lost");
    ensure!(!slave.mounted.path("after restart").exists(), "later than the request");
    slave.unmount()?;
    scenario.bucket.check_references()?;
    mount.unmount(&node)
}

/// [`Node::cbfs`] fails when an answer takes longer than 10 s.
fn commands_answer(kind: StoreKind, scenario: &Scenario, node: &Node) -> Result<()> {
    let store = scenario.bucket.url();
    let other = format!("{store}#other");
    let mut needs_store =
        vec![vec!["list", &store], vec!["show", &scenario.address], vec!["delete", "--dry-run", &scenario.address]];
    if kind == StoreKind::S3 {
        // A directory that is not there is made by `create`: that is its first use.
        needs_store.push(vec!["create", &other]);
    }
    for args in needs_store {
        let outcome = node.cbfs(&args)?;
        ensure!([Some(UNAVAILABLE), Some(NOT_FOUND)].contains(&outcome.code), "{outcome}");
        ensure!(outcome.stderr.starts_with("error: ") || outcome.stderr.contains("\nerror: "), "{outcome}");
    }
    let local: [&[&str]; 3] = [
        &["status", &scenario.address, "--json"],
        &["snapshot", "list", &scenario.address, "--json"],
        &["snapshot", "status", &scenario.address, "while away", "--json"],
    ];
    for args in local {
        node.cbfs(args)?.success()?;
    }
    let stranger = scenario.node()?;
    let dir = stranger.mount_point("nowhere")?;
    let dir = dir.to_str().context("not UTF-8")?;
    let outcome = stranger.cbfs(&["mount", &scenario.at("latest"), dir])?;
    ensure!([Some(UNAVAILABLE), Some(NOT_FOUND)].contains(&outcome.code), "{outcome}");
    Ok(())
}

fn a_slave_answers_with_eio_and_recovers(kind: StoreKind) -> Result<()> {
    let scenario = Scenario::new(kind, "reader")?;
    let master = Mount::new(&scenario.bucket, &scenario.address, &[])?;
    let content: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    write_durable(&master.mounted.path("large"), &content)?;
    write_durable(&master.mounted.path("small"), b"small")?;
    scenario.snapshot(&master.node, "base")?;
    master.unmount()?;
    for weather in [Weather::Refuse, Weather::Hang] {
        // A new node has nothing local.
        let slave = Mount::new(&scenario.bucket, &scenario.at("base"), &[])?;
        scenario.bucket.take_away(weather)?;
        let large = slave.mounted.path("large");
        let read = run(Command::new("cat").arg(&large), Duration::from_secs(120)).context("a read that hangs")?;
        ensure!(read.code != Some(0), "{weather:?}: read 3 MB without a bucket");
        ensure!(read.stderr.contains("Input/output error"), "{weather:?}: {}", read.stderr);
        scenario.bucket.bring_back()?;
        ensure!(fs::read(&large).context("after it is back")? == content, "other bytes");
        slave.unmount()?;
    }
    Ok(())
}

fn a_stuck_snapshot_is_told_cancelled_and_asked_for_again(kind: StoreKind) -> Result<()> {
    let scenario = Scenario::new(kind, "stuck")?;
    let node = scenario.node()?;
    let told = node.state_dir().with_extension("told");
    let command = format!("alert.command=echo $CBFS_ALERT_KIND $CBFS_ALERT_NAME >>{}", told.display());
    let refused = node.cbfs(&["create", &format!("{}#evil", scenario.bucket.url()), "--set", &command])?;
    ensure!(refused.code == Some(2), "the bucket must not decide what nodes run: {refused}");
    let options = ["--set", &command, "--set", "failure.persistent_after=1s"];
    let mount = node.mount(&scenario.address, "mnt", &options)?;
    write_durable(&mount.path("first"), b"1")?;
    scenario.snapshot(&node, "base")?;
    scenario.bucket.take_away(Weather::Refuse)?;
    write_durable(&mount.path("second"), b"2")?;
    scenario.request_snapshot(&node, "stuck")?;
    let heard = |line: &str| fs::read_to_string(&told).is_ok_and(|text| text.lines().any(|told| told == line));
    wait_until("the alert", Duration::from_secs(60), || Ok(heard("snapshot-stuck stuck")))?;
    let waiting = scenario.snapshot_status(&node, "stuck")?;
    ensure!(waiting.state != "failed" && waiting.state != "complete", "{waiting:?}");
    node.cbfs(&["snapshot", "cancel", &scenario.address, "stuck"])?.success()?;
    // A script that lost the answer asks again with the same key.
    let key = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    let again = ["snapshot", &scenario.address, "--name", "stuck", "--key", key, "--json"];
    let first = node.cbfs(&again)?.success()?;
    let id = |text: &str| serde_json::from_str::<serde_json::Value>(text).map(|json| json["id"].clone());
    ensure!(id(&first.stdout)? == id(&node.cbfs(&again)?.success()?.stdout)?, "another snapshot for the same key");
    scenario.bucket.bring_back()?;
    scenario.wait_complete(&node, "stuck")?;
    let late = node.cbfs(&["snapshot", "cancel", &scenario.address, "stuck"])?;
    ensure!(late.code == Some(2) && late.stderr.contains("complete"), "{late}");
    let slave = Mount::new(&scenario.bucket, &scenario.at("stuck"), &[])?;
    ensure!(fs::read(slave.mounted.path("second"))? == b"2", "what the cancelled one had is lost");
    slave.unmount()?;
    mount.unmount(&node)
}

fn the_timer_takes_snapshots(kind: StoreKind) -> Result<()> {
    let scenario = Scenario::new(kind, "timer")?;
    let node = scenario.node()?;
    let mount = node.mount(&scenario.address, "mnt", &["--set", "snapshot.interval=1s"])?;
    write_durable(&mount.path("file"), b"1")?;
    let list = || -> Result<Vec<serde_json::Value>> {
        let outcome = node.cbfs(&["snapshot", "list", &scenario.address, "--json"])?.success()?;
        Ok(outcome.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    };
    let is_shown = || -> Result<bool> {
        if !list()?.iter().any(|s| s["kind"] == "periodic" && s["state"] == "complete") {
            return Ok(false);
        }
        let slave = Mount::new(&scenario.bucket, &scenario.at("latest"), &[])?;
        let shown = slave.mounted.path("file").exists();
        slave.unmount()?;
        Ok(shown)
    };
    wait_until("a periodic snapshot has the file", Duration::from_secs(60), is_shown)?;
    let before = list()?.len();
    std::thread::sleep(Duration::from_secs(3));
    ensure!(list()?.len() == before, "nothing had changed");
    mount.unmount(&node)
}

fn a_bad_network_costs_time_only(kind: StoreKind) -> Result<()> {
    let scenario = Scenario::new(kind, "network")?;
    let Some(proxy) = scenario.bucket.proxy() else {
        // A directory has no network; what it can do is in the other tests.
        return Ok(());
    };
    let node = scenario.node()?;
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    let content: Vec<u8> = (0..5_000_000_u32).map(|i| (i.wrapping_mul(2_246_822_519) >> 24) as u8).collect();
    for (name, weather) in
        [("slow", Weather::Slow(Duration::from_millis(20))), ("cut", Weather::Cut { after_bytes: 300_000 })]
    {
        proxy.set(weather);
        write_durable(&mount.path(name), &content)?;
        scenario.snapshot(&node, name).with_context(|| format!("{weather:?}"))?;
        let slave = Mount::new(&scenario.bucket, &scenario.at(name), &[])?;
        ensure!(fs::read(slave.mounted.path(name))? == content, "{weather:?}: other bytes");
        slave.unmount()?;
    }
    proxy.set(Weather::Fine);
    mount.unmount(&node)
}
