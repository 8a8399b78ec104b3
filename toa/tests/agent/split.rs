//! Index runs in many small parts.

use crate::cases;
use crate::node::{Bucket, Node};
use crate::tree::{self, Tree};
use cloud_mgmt::ledger::SnapshotEntry;
use cloud_mgmt::store::MemoryStore;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashSet;
use std::sync::Arc;
use toa::{AgentSetup, SnapshotSelector, SnapshotState};

fn parts_of(bytes: u64) -> impl FnOnce(&mut AgentSetup) {
    move |setup| setup.options.run_part_bytes = bytes
}

fn is_split(entry: &SnapshotEntry) -> bool {
    assert_eq!(
        entry.features.iter().any(|feature| feature == "split-runs"),
        entry.runs.iter().any(|run| run.ino_from.is_some())
    );
    entry.stacked_runs().any(|parts| parts.len() > 1)
}

#[test]
fn every_snapshot_of_split_runs_shows_its_instant_everywhere() {
    for seed in 0..cases(3) {
        let mut random = StdRng::seed_from_u64(seed);
        let bucket = Bucket::new(Arc::new(MemoryStore::new()));
        let mut master = Node::master_with(&bucket, parts_of(1));
        let mut history: Vec<(String, Tree)> = Vec::new();
        for round in 0..12 {
            tree::random_changes(master.fs().as_ref(), &mut random, 60);
            let name = format!("s{round}");
            master.agent().request_snapshot(Some(name.clone()), None).unwrap();
            history.push((name.clone(), Tree::read(master.fs().as_ref())));
            if round % 3 == 1 {
                master = master.restarted();
            }
            // Some are packed while the one before is on its way.
            if round % 4 != 1 {
                assert_eq!(master.finished(&name), SnapshotState::Complete);
            }
            let now = Tree::read(master.fs().as_ref());
            assert!(now == history[round].1, "seed {seed}, {name}: {}", now.difference(&history[round].1));
        }
        for (name, _) in &history {
            assert_eq!(master.finished(name), SnapshotState::Complete);
        }
        bucket.delete_unused();
        let published = bucket.history().snapshots();
        assert!(published.iter().filter(|published| is_split(&published.snapshot)).count() > 6, "few runs are split");
        for published in &published {
            assert!(published.snapshot.stacked_runs().count() <= toa::collect::RUNS_MAX);
        }
        for (name, then) in &history {
            let slave = Node::slave(&bucket, SnapshotSelector::Named(name.clone()));
            let now = Tree::read(slave.fs().as_ref());
            assert!(now == *then, "seed {seed}, {name}: {}", now.difference(then));
        }
        bucket.check_references();
    }
}

/// Objects of the oldest run.
fn bottom(entry: &SnapshotEntry) -> HashSet<String> {
    let parts = entry.stacked_runs().last().unwrap_or_default();
    parts.iter().map(|part| part.object.clone()).collect()
}

#[test]
fn a_merge_uploads_the_touched_parts_alone() {
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let mut master = Node::master_with(&bucket, parts_of(24 << 10));
    for n in 0..1_200 {
        tree::write_file(master.fs().as_ref(), &format!("f{n}"), &tree::noise(n, 200));
    }
    for round in 0..8_u64 {
        for n in 300..700 {
            tree::write_file(master.fs().as_ref(), &format!("f{n}"), &tree::noise(n + 10_000 * (round + 1), 200));
        }
        let name = format!("s{round}");
        master.agent().request_snapshot(Some(name.clone()), None).unwrap();
        assert_eq!(master.finished(&name), SnapshotState::Complete);
        if round % 3 == 2 {
            master = master.restarted();
        }
    }
    bucket.delete_unused();
    let published = bucket.history().snapshots();
    let mut kept_and_new = 0;
    for pair in published.windows(2) {
        let [before, after] = pair else { continue };
        assert!(is_split(&after.snapshot));
        let (before, after) = (bottom(&before.snapshot), bottom(&after.snapshot));
        if before != after {
            let stay = before.intersection(&after).count();
            assert!(stay * 2 >= before.len(), "{stay} of {} parts stay", before.len());
            kept_and_new += 1;
        }
    }
    assert!(kept_and_new > 1, "never merged with the oldest run");
    let then = Tree::read(master.fs().as_ref());
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert!(Tree::read(slave.fs().as_ref()) == then);
    let (tar, written, _) = bucket.export(SnapshotSelector::Latest);
    written.unwrap();
    let last = tree::noise(699 + 80_000, 200);
    assert!(tar.windows(200).any(|bytes| bytes == last), "the export lacks what was written last");
    bucket.check_references();
}
