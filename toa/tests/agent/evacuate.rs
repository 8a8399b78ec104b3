//! Half-dead packs are emptied and go, and whatever is done meanwhile, nothing changes that a file shows.

use crate::cases;
use crate::node::{Bucket, Node};
use crate::tree::{self, Tree};
use cloud_mgmt::ledger::SnapshotEntry;
use cloud_mgmt::store::MemoryStore;
use kvfs::fs::FileSystem;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use toa::{SnapshotSelector, SnapshotState};

const FILES: u64 = 8;
const FILE_BYTES: usize = 200_000;

/// A master that evacuates after every snapshot, and what each snapshot shows.
struct Emptied {
    bucket: Bucket,
    master: Node,
    shown: Vec<(String, Tree)>,
}

impl Emptied {
    fn new(differs: impl FnOnce(&mut toa::AgentSetup)) -> Self {
        let bucket = Bucket::new(Arc::new(MemoryStore::new()) as _);
        let master = Node::master_with(&bucket, |setup| {
            setup.options.evacuation_bytes_min = 1;
            differs(setup);
        });
        Self { bucket, master, shown: Vec::new() }
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        self.master.fs()
    }

    fn write(&self, files: impl IntoIterator<Item = u64>, seed: u64) {
        for file in files {
            tree::write_file(self.fs().as_ref(), &format!("f{file}"), &tree::noise(seed + file, FILE_BYTES));
        }
    }

    fn snapshot(&mut self, name: &str) {
        self.master.agent().request_snapshot(Some(name.into()), None).unwrap();
        self.shown.push((name.to_owned(), Tree::read(self.fs().as_ref())));
        assert_eq!(self.master.finished(name), SnapshotState::Complete);
    }

    /// Small snapshots, until one tells that the first pack of `name` is dead; `None`: none does.
    fn dead_after(&mut self, name: &str) -> Option<String> {
        let pack = self.packs(name).remove(0);
        // The layers that are kept as a cache must be gone first.
        for round in 0..10 {
            self.write([FILES + 1], 1000 + round);
            let name = format!("round {round}");
            self.snapshot(&name);
            if self.dead(&name).contains(&pack) {
                return Some(name);
            }
            std::thread::sleep(std::time::Duration::from_millis(60));
        }
        None
    }

    fn manifest(&self, name: &str) -> Arc<SnapshotEntry> {
        let history = self.bucket.history();
        let found = history.snapshots().into_iter().find(|s| s.snapshot.name.as_deref() == Some(name));
        found.unwrap().snapshot
    }

    /// The packs that a snapshot tells of as dead.
    fn dead(&self, name: &str) -> Vec<String> {
        self.manifest(name).packs_dead.clone()
    }

    fn packs(&self, name: &str) -> Vec<String> {
        self.manifest(name).packs_new.iter().map(|pack| pack.object.clone()).collect()
    }

    /// Every snapshot shows what it did, from the bucket alone, and every count in it is right.
    fn check(&self) {
        for (name, then) in &self.shown {
            let slave = Node::slave(&self.bucket, SnapshotSelector::Named(name.clone()));
            let now = Tree::read(slave.fs().as_ref());
            assert!(now == *then, "{name}: {}", now.difference(then));
        }
        self.bucket.check_references();
    }
}

#[test]
fn a_half_dead_pack_is_emptied_and_dead_then() {
    let mut node = Emptied::new(|_| {});
    node.write(0..FILES, 0);
    node.snapshot("a");
    node.write(0..FILES - 2, 100);
    node.snapshot("b");
    assert_eq!(node.dead("b"), Vec::<String>::new(), "two files are in it still");
    // What moves changes nothing that a file shows, no time either: compared for each snapshot.
    node.dead_after("a").expect("never emptied");
    node.check();
}

#[test]
fn more_than_half_in_use_is_left_where_it_is() {
    let mut node = Emptied::new(|_| {});
    node.write(0..FILES, 0);
    node.snapshot("a");
    node.write(0..FILES / 2 - 1, 100);
    assert_eq!(node.dead_after("a"), None);
    node.check();
}

#[test]
fn another_file_that_shares_the_bytes_keeps_the_pack_alive_until_it_is_found_too() {
    let mut node = Emptied::new(|_| {});
    node.write(0..FILES, 0);
    node.snapshot("a");
    node.write(0..FILES - 1, 100);
    node.snapshot("b");
    // Far from all inodes that the pack knows.
    for n in 0..100 {
        tree::write_file(node.fs().as_ref(), &format!("between {n}"), b"x");
    }
    tree::share(node.fs().as_ref(), &format!("f{}", FILES - 1), "copy", FILE_BYTES as u64);
    node.dead_after("a").expect("never emptied");
    node.check();
}

#[test]
fn whatever_is_written_while_packs_are_emptied_every_snapshot_shows_its_instant() {
    for seed in 0..cases(6) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut node = Emptied::new(|setup| setup.options.proxy_max_bytes = 24 << 20);
        for round in 0..12 {
            tree::random_changes(node.fs().as_ref(), &mut random, 40);
            node.snapshot(&format!("s{round}"));
            if random.random_range(0..4) == 0 {
                node.master = node.master.restarted();
            }
        }
        node.check();
    }
}
