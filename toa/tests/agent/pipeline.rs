//! Several snapshots at once: the next one is packed on what the one before has staged, and whatever becomes of that one,
//! each shows its own instant, in the order of the journal.

use crate::cases;
use crate::node::{Bucket, Node};
use crate::tree::{self, Tree};
use cloud_mgmt::store::{FaultMoment, FaultPlan, MemoryStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use toa::{CancelReason, ErrorKind, FailureAction, FailurePolicy, KindPolicy, SnapshotSelector, SnapshotState};

/// A master whose snapshots do not get into the bucket, and what each of them shows.
struct Line {
    store: Arc<MemoryStore>,
    bucket: Bucket,
    master: Node,
    shown: BTreeMap<String, Tree>,
}

impl Line {
    fn new(differs: impl FnOnce(&mut toa::AgentSetup)) -> Self {
        let store = Arc::new(MemoryStore::new());
        let bucket = Bucket::new(Arc::clone(&store) as _);
        let master = Node::master_with(&bucket, differs);
        Self { store, bucket, master, shown: BTreeMap::new() }
    }

    /// One snapshot on its way and one staged behind it, each with files of its own and a change to the same one.
    fn two(differs: impl FnOnce(&mut toa::AgentSetup)) -> Self {
        let mut line = Self::new(differs);
        line.store.offline();
        line.snapshot("a", 1);
        line.until("a", SnapshotState::Uploading);
        line.snapshot("b", 2);
        line.until("b", SnapshotState::Staged);
        line
    }

    fn snapshot(&mut self, name: &str, seed: u64) {
        let fs = self.master.fs();
        tree::write_file(fs.as_ref(), name, &tree::noise(seed, 300_000));
        tree::write_file(fs.as_ref(), "shared", &tree::noise(seed + 100, 200_000));
        self.master.agent().request_snapshot(Some(name.into()), None).unwrap();
        self.shown.insert(name.to_owned(), Tree::read(fs.as_ref()));
    }

    fn state(&self, name: &str) -> SnapshotState {
        self.master.agent().snapshot(name).unwrap().state
    }

    fn until(&self, name: &str, state: SnapshotState) {
        self.master.until(|agent| agent.snapshot(name).unwrap().state == state);
    }

    /// All official snapshots, in the order of the ledger, which is that of their records in the journal. Each shows its
    /// instant, and all that they name is there.
    fn published(&self) -> Vec<String> {
        let history = self.bucket.history();
        let official = history.snapshots();
        let xids: Vec<u64> = official.iter().map(|published| published.snapshot.xid).collect();
        assert!(xids.is_sorted(), "{xids:?}");
        for published in &official {
            let name = published.snapshot.name.clone().unwrap();
            let slave = Node::slave(&self.bucket, SnapshotSelector::Named(published.snapshot.id.to_string()));
            let (now, then) = (Tree::read(slave.fs().as_ref()), &self.shown[&name]);
            assert!(now == *then, "{name}: {}", now.difference(then));
        }
        self.bucket.check_references();
        official.iter().filter_map(|published| published.snapshot.name.clone()).collect()
    }

    /// Nothing is left that waits to be sent.
    fn check_nothing_staged(&self) {
        let staged = || std::fs::read_dir(self.master.dir().join("proxy/staged")).unwrap().count();
        self.master.until(|_| staged() == 0);
    }
}

#[test]
fn the_next_snapshot_is_packed_while_the_one_before_is_on_its_way() {
    let mut line = Line::two(|_| {});
    line.snapshot("c", 3);
    line.until("c", SnapshotState::Collected);
    // Two on the local disk are enough: the third waits for the first to be published.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((line.state("a"), line.state("b")), (SnapshotState::Uploading, SnapshotState::Staged));
    assert_eq!(line.state("c"), SnapshotState::Collected);
    line.store.online();
    assert_eq!(line.master.finished("c"), SnapshotState::Complete);
    assert_eq!(line.published(), ["a", "b", "c"]);
    line.check_nothing_staged();
}

#[test]
fn two_staged_snapshots_survive_a_restart() {
    let mut line = Line::two(|_| {});
    line.master = line.master.restarted();
    assert_eq!(line.state("b"), SnapshotState::Staged);
    line.store.online();
    assert_eq!(line.master.finished("b"), SnapshotState::Complete);
    assert_eq!(line.published(), ["a", "b"]);
    assert_eq!(line.master.agent().snapshot("b").unwrap().attempts, 0, "was not packed twice");
    line.check_nothing_staged();
}

/// What was cut off from the journal, or comes from a version that did not read it.
#[test]
fn requests_that_are_not_read_from_the_journal_are_found_by_their_layers() {
    let mut line = Line::two(|_| {});
    line.master = line.master.with_lost_place();
    line.store.online();
    assert_eq!(line.master.finished("b"), SnapshotState::Complete);
    line.snapshot("c", 3);
    assert_eq!(line.master.finished("c"), SnapshotState::Complete);
    assert_eq!(line.published(), ["a", "b", "c"]);
    line.check_nothing_staged();
}

#[test]
fn a_journal_that_cannot_be_read_any_more_holds_up_no_snapshot() {
    let mut line = Line::two(|_| {});
    line.master = line.master.with_damaged_journal();
    line.store.online();
    assert_eq!(line.master.finished("b"), SnapshotState::Complete);
    line.snapshot("c", 3);
    assert_eq!(line.master.finished("c"), SnapshotState::Complete);
    assert_eq!(line.published(), ["a", "b", "c"]);
}

#[test]
fn what_was_packed_on_a_snapshot_that_is_cancelled_is_packed_anew() {
    let line = Line::two(|_| {});
    line.master.agent().cancel_snapshot("a").unwrap();
    line.until("a", SnapshotState::Cancelled);
    line.store.online();
    assert_eq!(line.master.finished("b"), SnapshotState::Complete);
    assert_eq!(line.published(), ["b"]);
    line.check_nothing_staged();
}

#[test]
fn a_superseded_snapshot_goes_with_the_one_that_was_packed_on_it() {
    let supersede = |setup: &mut toa::AgentSetup| {
        let user = KindPolicy { transient: FailureAction::Supersede, persistent: FailureAction::Supersede };
        setup.options.failure = FailurePolicy { user, ..FailurePolicy::default() };
    };
    let mut line = Line::new(supersede);
    line.store.offline();
    line.snapshot("a", 1);
    line.until("a", SnapshotState::Uploading);
    line.snapshot("b", 2);
    line.until("a", SnapshotState::Cancelled);
    let reason = line.master.agent().snapshot("a").unwrap().cancelled;
    assert!(matches!(reason, Some(CancelReason::Superseded { .. })), "{reason:?}");
    line.store.online();
    assert_eq!(line.master.finished("b"), SnapshotState::Complete);
    assert_eq!(line.published(), ["b"]);
    line.check_nothing_staged();
}

#[test]
fn what_was_packed_on_lost_bytes_is_packed_anew() {
    let line = Line::two(|_| {});
    let op = |name: &str| {
        let id = line.master.agent().snapshot(name).unwrap().xid;
        format!("{id:016x}")
    };
    let mut rotten = 0;
    for entry in std::fs::read_dir(line.master.dir().join("proxy/staged")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().contains(&op("a")) {
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            rotten += 1;
        }
    }
    assert!(rotten >= 2, "a pack and a run of the first snapshot");
    line.store.online();
    assert_eq!(line.master.finished("b"), SnapshotState::Complete);
    assert_eq!(line.published(), ["a", "b"]);
    line.check_nothing_staged();
}

#[test]
fn a_line_of_snapshots_through_outages_faults_restarts_and_cancelling() {
    for seed in 0..cases(8) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut line = Line::new(|setup| {
            setup.options.proxy_max_bytes = 24 << 20;
            setup.options.evacuation_bytes_min = 1;
        });
        let mut asked = Vec::new();
        for round in 0..10 {
            tree::random_changes(line.master.fs().as_ref(), &mut random, 40);
            let name = format!("s{round}");
            match line.master.agent().request_snapshot(Some(name.clone()), None) {
                Ok(_) => {
                    line.shown.insert(name.clone(), Tree::read(line.master.fs().as_ref()));
                    asked.push(name);
                }
                // Four wait already.
                Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "seed {seed}: {error}"),
            }
            match random.random_range(0..8) {
                0 | 1 => line.store.offline(),
                2 | 3 => line.store.online(),
                4 => line.master = line.master.restarted(),
                5 => {
                    let moments = [FaultMoment::Before, FaultMoment::AfterApply, FaultMoment::Torn];
                    let plan = FaultPlan::nth(random.random_range(1..12), moments[random.random_range(0..3)]);
                    line.store.set_faults(plan);
                }
                6 => {
                    let name = &asked[random.random_range(0..asked.len())];
                    // One that has ended is refused.
                    let _ = line.master.agent().cancel_snapshot(name);
                }
                _ => std::thread::sleep(Duration::from_millis(random.random_range(0..60))),
            }
        }
        line.store.set_faults(FaultPlan::none());
        line.store.online();
        line.master.until(|agent| agent.snapshots().unwrap().iter().all(|s| s.state.is_final()));
        let published = line.published();
        for name in &asked {
            let state = line.state(name);
            assert_eq!(published.contains(name), state == SnapshotState::Complete, "seed {seed}: {name} is {state:?}");
        }
        line.check_nothing_staged();
    }
}
