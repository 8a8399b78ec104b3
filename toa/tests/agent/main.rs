//! Whole agents against a bucket in memory: snapshots, slaves, restarts, faults, promotion. `CBFS_TEST_CASES` sets the
//! number of random histories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on ends

mod disk;
mod evacuate;
mod export;
mod jobs;
mod node;
mod pipeline;
mod split;
mod tree;
mod untar;
mod verify;

use cloud_mgmt::store::{FaultMoment, FaultPlan, MemoryStore};
use kvfs::fs::Access;
use node::{Bucket, Node};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use toa::{ErrorKind, Role, SnapshotSelector, SnapshotState};
use tree::Tree;

fn cases(default: u64) -> u64 {
    std::env::var("CBFS_TEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn every_snapshot_shows_its_instant_everywhere() {
    for seed in 0..cases(6) {
        let mut random = StdRng::seed_from_u64(seed);
        let bucket = Bucket::new(Arc::new(MemoryStore::new()));
        let mut master = Node::master(&bucket);
        let mut history: Vec<(String, Tree)> = Vec::new();
        for round in 0..9 {
            tree::random_changes(master.fs().as_ref(), &mut random, 60);
            let name = format!("s{round}");
            master.agent().request_snapshot(Some(name.clone()), None).unwrap();
            history.push((name.clone(), Tree::read(master.fs().as_ref())));
            if round % 3 == 1 {
                master = master.restarted();
            }
            assert_eq!(master.finished(&name), SnapshotState::Complete);
            assert_eq!(Tree::read(master.fs().as_ref()), history[round].1, "seed {seed}: the master after publishing");
        }
        for (name, then) in &history {
            let slave = Node::slave(&bucket, SnapshotSelector::Named(name.clone()));
            let now = Tree::read(slave.fs().as_ref());
            assert!(now == *then, "seed {seed}, {name}: {}", now.difference(then));
            assert_eq!(slave.fs().access(), Access::ReadOnly);
        }
        bucket.check_references();
    }
}

#[test]
fn a_small_change_uploads_little_and_runs_stay_few() {
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let master = Node::master(&bucket);
    for n in 0..400 {
        tree::write_file(master.fs().as_ref(), &format!("f{n}"), &tree::noise(n, 20_000));
    }
    master.agent().request_snapshot(Some("full".into()), None).unwrap();
    assert_eq!(master.finished("full"), SnapshotState::Complete);
    let full = master.agent().snapshot("full").unwrap().uploaded;
    for n in 0..12 {
        tree::write_file(master.fs().as_ref(), &format!("f{n}"), &tree::noise(n + 1000, 20_000));
        let name = format!("small{n}");
        master.agent().request_snapshot(Some(name.clone()), None).unwrap();
        assert_eq!(master.finished(&name), SnapshotState::Complete);
        let small = master.agent().snapshot(&name).unwrap().uploaded;
        assert!(small * 20 < full, "{small} of {full} bytes for one file of 400");
    }
    let newest = bucket.history().newest_snapshot().unwrap().snapshot;
    assert!(newest.runs.len() <= toa::collect::RUNS_MAX, "{} runs", newest.runs.len());
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert!(Tree::read(slave.fs().as_ref()) == Tree::read(master.fs().as_ref()));
}

#[test]
fn a_fault_at_any_call_delays_a_snapshot_and_loses_nothing() {
    for moment in [FaultMoment::Before, FaultMoment::AfterApply, FaultMoment::Torn] {
        for n in 1.. {
            let store = Arc::new(MemoryStore::new());
            let bucket = Bucket::new(Arc::clone(&store) as _);
            let master = Node::master(&bucket);
            let mut random = StdRng::seed_from_u64(n);
            tree::random_changes(master.fs().as_ref(), &mut random, 40);
            let before = store.calls();
            store.set_faults(FaultPlan::nth(n, moment));
            master.agent().request_snapshot(Some("s".into()), None).unwrap();
            assert_eq!(master.finished("s"), SnapshotState::Complete, "{moment:?} at call {n}");
            store.set_faults(FaultPlan::none());
            let slave = Node::slave(&bucket, SnapshotSelector::Latest);
            assert!(Tree::read(slave.fs().as_ref()) == Tree::read(master.fs().as_ref()), "{moment:?} at call {n}");
            bucket.check_references();
            if store.calls() - before < n {
                break;
            }
        }
    }
}

#[test]
fn a_snapshot_larger_than_the_proxy_is_sent_piece_by_piece() {
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let master = Node::master_with(&bucket, |setup| setup.options.proxy_max_bytes = 16 << 20);
    for n in 0..40 {
        tree::write_file(master.fs().as_ref(), &format!("f{n}"), &tree::noise(n, 1_500_000));
    }
    master.agent().request_snapshot(Some("large".into()), None).unwrap();
    master.until(|agent| {
        let status = agent.snapshot("large").unwrap();
        status.state == SnapshotState::Packing && status.bytes_done > 0
    });
    assert_eq!(master.finished("large"), SnapshotState::Complete);
    assert!(master.agent().snapshot("large").unwrap().uploaded > 3 * (16 << 20), "larger than the proxy");
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert!(Tree::read(slave.fs().as_ref()) == Tree::read(master.fs().as_ref()));
    bucket.check_references();
}

/// A disk of 24 MiB, in memory.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        let mut mount = std::process::Command::new("mount");
        let done = mount.args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(disk.0.path()).status().unwrap();
        assert!(done.success(), "needs root to mount a small disk");
        disk
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure.
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn on_a_full_disk_packing_waits_until_something_has_left_and_goes_on() {
    let disk = SmallDisk::new();
    let store = Arc::new(MemoryStore::new());
    let bucket = Bucket::new(Arc::clone(&store) as _);
    let master = Node::master_with(&bucket, |setup| {
        std::os::unix::fs::symlink(disk.0.path(), setup.instance_dir.join("proxy")).unwrap();
        // Packs of 4 MiB; the limit itself is far away.
        setup.options.proxy_max_bytes = 32 << 20;
    });
    for n in 0..40 {
        tree::write_file(master.fs().as_ref(), &format!("f{n}"), &tree::noise(n, 900_000));
    }
    store.offline();
    master.agent().request_snapshot(Some("large".into()), None).unwrap();
    let staged = || std::fs::read_dir(disk.0.path().join("staged")).map_or(0, Iterator::count);
    master.until(|_| staged() >= 3);
    std::thread::sleep(std::time::Duration::from_millis(700));
    let status = master.agent().snapshot("large").unwrap();
    assert_eq!((status.state, status.attempts), (SnapshotState::Packing, 0), "it waits: {status:?}");
    tree::write_file(master.fs().as_ref(), "meanwhile", b"applications go on");
    store.online();
    assert_eq!(master.finished("large"), SnapshotState::Complete);
    let status = master.agent().snapshot("large").unwrap();
    assert!(status.attempts == 0 && status.uploaded > 30 << 20, "packed once, larger than the disk: {status:?}");
    bucket.check_references();
}

#[test]
fn without_the_bucket_everything_local_goes_on() {
    let store = Arc::new(MemoryStore::new());
    let bucket = Bucket::new(Arc::clone(&store) as _);
    let mut master = Node::master(&bucket);
    tree::write_file(master.fs().as_ref(), "before", b"1");
    master.agent().request_snapshot(Some("one".into()), None).unwrap();
    assert_eq!(master.finished("one"), SnapshotState::Complete);
    store.offline();
    tree::write_file(master.fs().as_ref(), "during", b"2");
    master.agent().request_snapshot(Some("two".into()), None).unwrap();
    master.fs().sync(kvfs::Ino::ROOT).unwrap();
    // A master of record restarts without the bucket, and does not count as confirmed.
    master = master.restarted();
    assert_eq!(tree::read_file(master.fs().as_ref(), "before"), b"1");
    assert_eq!(tree::read_file(master.fs().as_ref(), "during"), b"2");
    assert!(!master.agent().status().confirmed);
    assert_eq!(master.fs().access(), Access::ReadWrite);
    tree::write_file(master.fs().as_ref(), "after", b"3");
    assert_ne!(master.agent().snapshot("two").unwrap().state, SnapshotState::Complete);
    store.online();
    assert_eq!(master.finished("two"), SnapshotState::Complete);
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert_eq!(tree::read_file(slave.fs().as_ref(), "during"), b"2");
    assert!(!Tree::read(slave.fs().as_ref()).has("after"), "written after the snapshot");
}

/// The copy packs and uploads the same snapshot once more, under an op of its own, and finds it official: with the objects
/// of the first attempt, and of those alone.
#[test]
fn a_node_from_a_backup_builds_on_what_is_official_and_not_on_its_own_attempt() {
    let store = Arc::new(MemoryStore::new());
    let bucket = Bucket::new(Arc::clone(&store) as _);
    let mut master = Node::master(&bucket);
    tree::write_file(master.fs().as_ref(), "before", b"1");
    master.agent().request_snapshot(Some("one".into()), None).unwrap();
    assert_eq!(master.finished("one"), SnapshotState::Complete);
    store.offline();
    tree::write_file(master.fs().as_ref(), "shared", &tree::noise(1, 200_000));
    master.agent().request_snapshot(Some("two".into()), None).unwrap();
    master.until(|agent| agent.snapshot("two").unwrap().state != SnapshotState::Queued);
    let (original, backup) = master.backed_up();
    store.online();
    assert_eq!(original.finished("two"), SnapshotState::Complete);
    drop(original);
    master = backup.started();
    assert_eq!(master.finished("two"), SnapshotState::Complete);
    tree::write_file(master.fs().as_ref(), "after", &tree::noise(2, 200_000));
    master.agent().request_snapshot(Some("three".into()), None).unwrap();
    assert_eq!(master.finished("three"), SnapshotState::Complete);
    bucket.delete_unused();
    bucket.check_references();
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert!(Tree::read(slave.fs().as_ref()) == Tree::read(master.fs().as_ref()));
}

#[test]
fn promotion_moves_the_reign_and_the_old_master_keeps_its_changes() {
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let mut old = Node::master(&bucket);
    tree::write_file(old.fs().as_ref(), "shared", b"from the first reign");
    old.agent().request_snapshot(Some("base".into()), None).unwrap();
    assert_eq!(old.finished("base"), SnapshotState::Complete);
    tree::write_file(old.fs().as_ref(), "unpublished", b"kept");
    let new = Node::slave(&bucket, SnapshotSelector::Latest);
    let fs = new.fs();
    assert_eq!(fs.access(), Access::ReadOnly);
    let refused = new.promote(7).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::EpochMismatch);
    assert!(refused.to_string().contains("epoch 1"), "{refused}");
    assert_eq!(new.promote(1).unwrap(), 2);
    // The same filesystem, without a new mount.
    assert_eq!(fs.access(), Access::ReadWrite);
    assert_eq!(tree::read_file(fs.as_ref(), "shared"), b"from the first reign");
    tree::write_file(fs.as_ref(), "second", b"reign");
    new.agent().request_snapshot(Some("second".into()), None).unwrap();
    assert_eq!(new.finished("second"), SnapshotState::Complete);
    // The old master finds out, live or when it comes back.
    old.agent().request_snapshot(Some("too late".into()), None).ok();
    old = old.restarted();
    old.until(|agent| agent.status().role == Role::Deposed);
    assert_eq!(old.fs().access(), Access::ReadOnly);
    assert_eq!(tree::read_file(old.fs().as_ref(), "unpublished"), b"kept");
    let late = old.agent().request_snapshot(None, None).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::ReadOnly);
    old = old.restarted();
    assert_eq!(old.agent().status().role, Role::Deposed, "over restarts too");
    assert_eq!(tree::read_file(old.fs().as_ref(), "unpublished"), b"kept");
    // The new master restarts as one.
    drop(fs);
    let new = new.restarted();
    assert_eq!(tree::read_file(new.fs().as_ref(), "second"), b"reign");
    tree::write_file(new.fs().as_ref(), "third", b"after a restart");
    new.agent().request_snapshot(Some("third".into()), None).unwrap();
    assert_eq!(new.finished("third"), SnapshotState::Complete);
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert!(Tree::read(slave.fs().as_ref()) == Tree::read(new.fs().as_ref()));
    bucket.check_references();
}

#[test]
fn names_keys_and_foreign_reigns_are_refused_clearly() {
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let master = Node::master(&bucket);
    let none = Node::try_slave(&bucket, SnapshotSelector::Latest).err().unwrap();
    assert_eq!(none.kind(), ErrorKind::NotFound, "{none}");
    let key = Some(uuid::Uuid::new_v4());
    let first = master.agent().request_snapshot(Some("a".into()), key).unwrap();
    assert_eq!(master.agent().request_snapshot(Some("a".into()), key).unwrap().id, first.id);
    let taken = master.agent().request_snapshot(Some("a".into()), None).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Exists);
    for bad in ["", "latest", "a@b", "a/b"] {
        let error = master.agent().request_snapshot(Some(bad.into()), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad:?}");
    }
    assert_eq!(master.finished("a"), SnapshotState::Complete);
    let other = Node::try_master(&bucket).err().unwrap();
    assert_eq!(other.kind(), ErrorKind::EpochMismatch);
    assert!(other.to_string().contains("host-"), "names the holder: {other}");
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert_eq!(slave.agent().request_snapshot(None, None).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(master.promote(1).unwrap_err().kind(), ErrorKind::ReadOnly);
}
