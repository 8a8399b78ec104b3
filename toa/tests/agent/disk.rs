//! Faults of the local disk while a snapshot is taken: whole agents, and all their files, on a filesystem of the tests' own.
//! `CBFS_FAULT_STRIDE` says how many requests lie between two that are tried. Needs root and `/dev/fuse`.

#[allow(dead_code, unused_imports)] // losing power is for the tests of the engine
#[path = "../../../kvfs/tests/power/powerfs/mod.rs"]
mod powerfs;

use crate::node::{Bucket, Node};
use crate::tree::{self, Tree};
use cloud_mgmt::store::MemoryStore;
use kvfs::Ino;
use powerfs::{Calls, Effect, Fault, PowerFs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use toa::{SnapshotSelector, SnapshotState};

/// A snapshot that did not get on by then waits for the end of the fault.
const PATIENCE: Duration = Duration::from_millis(1500);

fn stride() -> u64 {
    std::env::var("CBFS_FAULT_STRIDE").ok().and_then(|n| n.parse().ok()).unwrap_or(5)
}

/// Requests `first`, `first` + stride … of the snapshot's fail, one in each run, until a run has met no fault. Answers how many
/// runs there were.
fn sweep(calls: Calls, errno: i32, effect: Effect) -> u64 {
    let mut runs = 0;
    for nth in (1..).step_by(stride() as usize) {
        if !one(Fault { calls, nth, times: 1, errno, effect }) {
            break;
        }
        runs += 1;
    }
    assert!(runs > 0, "vacuous: no request of that kind");
    runs
}

/// One snapshot; whether the fault struck.
fn one(fault: Fault) -> bool {
    let context = format!("{fault:?}");
    let power = PowerFs::mount().unwrap();
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let state = power.life().join("state");
    std::fs::create_dir(&state).unwrap();
    let mut master = Node::master_with(&bucket, |setup| setup.instance_dir = state);
    // One is published, so that the next one merges runs and has a base.
    tree::write_file(master.fs().as_ref(), "old", &tree::noise(1, 100_000));
    master.agent().request_snapshot(Some("before".into()), None).unwrap();
    assert_eq!(master.finished("before"), SnapshotState::Complete, "{context}");
    for n in 0..4 {
        tree::write_file(master.fs().as_ref(), &format!("f{n}"), &tree::noise(n, 60_000));
    }
    master.fs().sync(Ino::ROOT).unwrap();
    let expected = Tree::read(master.fs().as_ref());

    power.plan(fault);
    // Refused, or on its way, or unknown: then it is asked for again.
    let asked = master.agent().request_snapshot(Some("s".into()), None);
    let began = Instant::now();
    while asked.is_ok()
        && began.elapsed() < PATIENCE
        && master.agent().snapshot("s").is_ok_and(|status| !status.state.is_final())
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    let struck = power.heal() > 0;
    master = master.restarted_after_failure();
    if master.agent().snapshot("s").is_err() {
        assert!(asked.is_err(), "{context}: a snapshot that was promised is not known any more");
        master.agent().request_snapshot(Some("s".into()), None).unwrap();
    }
    assert_eq!(master.finished("s"), SnapshotState::Complete, "{context}");
    let slave = Node::slave(&bucket, SnapshotSelector::Named("s".into()));
    let shown = Tree::read(slave.fs().as_ref());
    assert!(shown == expected, "{context}: {}", shown.difference(&expected));
    bucket.check_references();
    let local = Tree::read(master.fs().as_ref());
    assert!(local == expected, "{context}, the master: {}", local.difference(&expected));
    struck
}

#[test]
fn a_write_to_the_disk_that_fails_delays_a_snapshot_and_loses_nothing() {
    sweep(Calls::Write, libc::EIO, Effect::Nothing);
    sweep(Calls::Write, libc::ENOSPC, Effect::Half);
}

#[test]
fn a_flush_of_the_disk_that_fails_delays_a_snapshot_and_loses_nothing() {
    sweep(Calls::Sync, libc::EIO, Effect::Nothing);
}

#[test]
fn a_name_on_the_disk_that_fails_delays_a_snapshot_and_loses_nothing() {
    sweep(Calls::Name, libc::EIO, Effect::Nothing);
    sweep(Calls::Name, libc::ENOSPC, Effect::Everything);
}
