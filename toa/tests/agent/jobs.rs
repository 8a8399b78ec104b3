//! Snapshots as jobs: cancelled, superseded, given up, taken by the timer; and what people hear of it.

use crate::node::{Bucket, Node};
use crate::tree::{self, Tree};
use cloud_mgmt::store::{Call, FaultMoment, FaultPlan, MemoryStore, Observed, Observer, StoreError, StoreErrorKind};
use kvfs::Ino;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use toa::{
    Alert, AlertKind, Alerts, CancelReason, ErrorKind, FailureAction, FailureClass, FailurePolicy, KindPolicy, Role,
    SnapshotKind, SnapshotSelector, SnapshotState,
};
use uuid::Uuid;

/// Keeps what people were told.
#[derive(Default)]
struct Told(Mutex<Vec<Alert>>);

impl Alerts for Told {
    fn raise(&self, alert: Alert) {
        self.0.lock().push(alert);
    }
}

impl Told {
    fn kinds(&self) -> Vec<AlertKind> {
        self.0.lock().iter().map(|alert| alert.kind).collect()
    }
}

fn memory() -> (Arc<MemoryStore>, Bucket) {
    let store = Arc::new(MemoryStore::new());
    let bucket = Bucket::new(Arc::clone(&store) as _);
    (store, bucket)
}

/// Everything is persistent at once, and users' snapshots end like this.
fn policy(persistent: FailureAction) -> FailurePolicy {
    let user = KindPolicy { transient: FailureAction::Retry, persistent };
    FailurePolicy { user, persistent_after: Duration::ZERO, ..FailurePolicy::default() }
}

fn ask(node: &Node, name: &str) -> Uuid {
    node.agent().request_snapshot(Some(name.into()), None).unwrap().id
}

fn until_state(node: &Node, name: &str, state: SnapshotState) {
    node.until(|agent| agent.snapshot(name).unwrap().state == state);
}

#[test]
fn a_cancelled_snapshot_is_never_published_and_its_changes_go_with_the_next() {
    let (store, bucket) = memory();
    let master = Node::master(&bucket);
    tree::write_file(master.fs().as_ref(), "first", b"1");
    store.offline();
    ask(&master, "a");
    master.until(|agent| agent.snapshot("a").unwrap().problem.is_some());
    let cancelled = master.agent().cancel_snapshot("a").unwrap();
    assert!(cancelled.cancelling || cancelled.state == SnapshotState::Cancelled);
    // The store is away: nothing of the ledger's is needed, because no record was ever begun.
    until_state(&master, "a", SnapshotState::Cancelled);
    let status = master.agent().snapshot("a").unwrap();
    assert_eq!((status.cancelled, status.cancelling), (Some(CancelReason::User), false));
    assert_eq!(master.agent().cancel_snapshot("a").unwrap().id, status.id, "once more is no error");
    store.online();
    tree::write_file(master.fs().as_ref(), "second", b"2");
    // The name is free again.
    let again = ask(&master, "a");
    assert_eq!(master.finished("a"), SnapshotState::Complete);
    let late = master.agent().cancel_snapshot(&again.to_string()).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::InvalidInput, "{late}");
    assert!(late.to_string().contains("complete"), "{late}");
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert!(Tree::read(slave.fs().as_ref()) == Tree::read(master.fs().as_ref()));
    assert_eq!(bucket.history().snapshots().len(), 1);
    bucket.check_references();
}

/// Whatever call fails and however: a snapshot that is cancelled is in the ledger if and only if it is told as complete.
#[test]
fn cancelling_with_a_fault_at_any_call_never_contradicts_the_ledger() {
    let (mut cancelled, mut complete) = (0, 0);
    for moment in [FaultMoment::Before, FaultMoment::AfterApply] {
        for n in 1..12 {
            let (store, bucket) = memory();
            let mut master = Node::master(&bucket);
            tree::write_file(master.fs().as_ref(), "f", &tree::noise(n, 50_000));
            store.set_faults(FaultPlan::nth(n, moment));
            let id = ask(&master, "s");
            if n % 2 == 0 {
                master.until(|agent| agent.snapshot("s").unwrap().state != SnapshotState::Queued);
            }
            let wish = master.agent().cancel_snapshot("s");
            if n % 3 == 0 {
                master = master.restarted();
            }
            master.until(|agent| agent.snapshot(&id.to_string()).unwrap().state.is_final());
            store.set_faults(FaultPlan::none());
            let state = master.agent().snapshot(&id.to_string()).unwrap().state;
            assert!(wish.is_ok() || state == SnapshotState::Complete);
            let official = bucket.history().snapshot(id).is_some();
            assert_eq!(official, state == SnapshotState::Complete, "{moment:?} at call {n}: {state:?}");
            if official {
                complete += 1;
            } else {
                cancelled += 1;
            }
            store.set_faults(FaultPlan::none());
            ask(&master, "next");
            assert_eq!(master.finished("next"), SnapshotState::Complete);
            let slave = Node::slave(&bucket, SnapshotSelector::Latest);
            assert!(Tree::read(slave.fs().as_ref()) == Tree::read(master.fs().as_ref()), "{moment:?} at call {n}");
            bucket.check_references();
        }
    }
    assert!(cancelled > 0, "{complete} of them were complete: nothing was ever cancelled");
}

#[test]
fn a_wish_that_needs_the_ledger_outlives_a_restart_and_waits_for_it() {
    let (store, bucket) = memory();
    let mut master = Node::master(&bucket);
    tree::write_file(master.fs().as_ref(), "f", b"1");
    store.offline();
    ask(&master, "a");
    until_state(&master, "a", SnapshotState::Uploading);
    // After a restart nobody knows whether the last life got its record into the ledger.
    master = master.restarted();
    assert!(master.agent().cancel_snapshot("a").unwrap().cancelling);
    master = master.restarted();
    assert!(master.agent().snapshot("a").unwrap().cancelling);
    store.online();
    until_state(&master, "a", SnapshotState::Cancelled);
    assert!(bucket.history().snapshots().is_empty());
}

/// Refuses to take objects.
#[derive(Debug, Default)]
struct Full(AtomicBool);

impl Observer for Full {
    fn call(&self, call: &Call<'_>) -> Result<(), StoreError> {
        match call {
            Call::PutFile(name) if self.0.load(Ordering::SeqCst) => {
                Err(StoreError::new(StoreErrorKind::Unavailable, "put", *name, "full"))
            }
            _ => Ok(()),
        }
    }
}

/// The rows of the copy are older than the record in the ledger: what is official is not cancelled any more.
#[test]
fn a_node_from_a_backup_does_not_cancel_what_is_official() {
    let full = Arc::new(Full::default());
    let bucket = Bucket::new(Arc::new(Observed::new(Arc::new(MemoryStore::new()), Arc::clone(&full))));
    let mut master = Node::master(&bucket);
    tree::write_file(master.fs().as_ref(), "f", &tree::noise(1, 50_000));
    full.0.store(true, Ordering::SeqCst);
    let id = ask(&master, "s");
    master.until(|agent| agent.snapshot("s").unwrap().problem.is_some());
    let (original, backup) = master.backed_up();
    full.0.store(false, Ordering::SeqCst);
    assert_eq!(original.finished("s"), SnapshotState::Complete);
    drop(original);
    // The copy has read the ledger, and cannot send its own attempt.
    full.0.store(true, Ordering::SeqCst);
    master = backup.started();
    master.until(|agent| agent.status().confirmed && agent.snapshot("s").unwrap().problem.is_some());
    master.agent().cancel_snapshot("s").unwrap();
    let attempts = master.agent().snapshot("s").unwrap().attempts;
    master.until(|agent| {
        let now = agent.snapshot("s").unwrap();
        now.state.is_final() || now.attempts > attempts
    });
    full.0.store(false, Ordering::SeqCst);
    assert_eq!(master.finished("s"), SnapshotState::Complete);
    let status = master.agent().snapshot("s").unwrap();
    assert_eq!((status.cancelled, status.cancelling), (None, false));
    assert!(bucket.history().snapshot(id).is_some());
    tree::write_file(master.fs().as_ref(), "g", b"2");
    ask(&master, "next");
    assert_eq!(master.finished("next"), SnapshotState::Complete);
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert!(Tree::read(slave.fs().as_ref()) == Tree::read(master.fs().as_ref()));
    bucket.check_references();
}

#[test]
fn so_many_may_end_unpublished_and_then_one_must_be_published() {
    let (store, bucket) = memory();
    let master = Node::master(&bucket);
    store.offline();
    let mut refused = None;
    for n in 0..40 {
        let name = format!("s{n}");
        tree::write_file(master.fs().as_ref(), &name, b"x");
        ask(&master, &name);
        match master.agent().cancel_snapshot(&name) {
            Ok(_) => until_state(&master, &name, SnapshotState::Cancelled),
            Err(error) => {
                refused = Some((name, error));
                break;
            }
        }
    }
    let (name, error) = refused.expect("a limit");
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    store.online();
    assert_eq!(master.finished(&name), SnapshotState::Complete);
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert!(Tree::read(slave.fs().as_ref()) == Tree::read(master.fs().as_ref()));
    // Room again.
    store.offline();
    ask(&master, "last");
    master.agent().cancel_snapshot("last").unwrap();
    until_state(&master, "last", SnapshotState::Cancelled);
}

#[test]
fn a_lasting_failure_is_told_once_and_so_is_its_end() {
    let (store, bucket) = memory();
    let told = Arc::new(Told::default());
    let master = Node::master_with(&bucket, |setup| {
        setup.options.failure = policy(FailureAction::Retry);
        setup.alerts = Arc::clone(&told) as _;
    });
    tree::write_file(master.fs().as_ref(), "f", b"1");
    store.offline();
    ask(&master, "s");
    master.until(|agent| agent.snapshot("s").unwrap().attempts >= 3);
    let status = master.agent().snapshot("s").unwrap();
    assert_eq!(status.failure, Some(FailureClass::Persistent));
    assert!(status.failing_since.is_some());
    store.online();
    assert_eq!(master.finished("s"), SnapshotState::Complete);
    assert_eq!(told.kinds(), [AlertKind::SnapshotStuck, AlertKind::SnapshotRecovered]);
    assert_eq!(master.agent().snapshot("s").unwrap().failing_since, None);
}

#[test]
fn a_snapshot_that_is_given_up_fails_and_the_next_one_has_its_changes() {
    let (store, bucket) = memory();
    let told = Arc::new(Told::default());
    let master = Node::master_with(&bucket, |setup| {
        setup.options.failure = policy(FailureAction::GiveUp);
        setup.alerts = Arc::clone(&told) as _;
    });
    tree::write_file(master.fs().as_ref(), "f", b"1");
    store.offline();
    ask(&master, "s");
    until_state(&master, "s", SnapshotState::Failed);
    let status = master.agent().snapshot("s").unwrap();
    assert!(status.problem.is_some());
    master.until(|_| told.kinds() == [AlertKind::SnapshotFailed]);
    store.online();
    ask(&master, "next");
    assert_eq!(master.finished("next"), SnapshotState::Complete);
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert!(Tree::read(slave.fs().as_ref()) == Tree::read(master.fs().as_ref()));
}

#[test]
fn a_superseded_snapshot_makes_way_for_a_newer_one() {
    let (store, bucket) = memory();
    let told = Arc::new(Told::default());
    let master = Node::master_with(&bucket, |setup| {
        setup.options.failure = policy(FailureAction::Supersede);
        setup.alerts = Arc::clone(&told) as _;
    });
    tree::write_file(master.fs().as_ref(), "f", b"1");
    store.offline();
    ask(&master, "old");
    master.until(|agent| agent.snapshot("old").unwrap().attempts >= 2);
    assert_ne!(master.agent().snapshot("old").unwrap().state, SnapshotState::Cancelled, "there is no other one");
    tree::write_file(master.fs().as_ref(), "g", b"2");
    let new = ask(&master, "new");
    until_state(&master, "old", SnapshotState::Cancelled);
    assert_eq!(master.agent().snapshot("old").unwrap().cancelled, Some(CancelReason::Superseded { by: new }));
    master.until(|_| told.kinds().contains(&AlertKind::SnapshotSuperseded));
    store.online();
    assert_eq!(master.finished("new"), SnapshotState::Complete);
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert!(Tree::read(slave.fs().as_ref()) == Tree::read(master.fs().as_ref()));
    assert_eq!(bucket.history().snapshots().len(), 1);
}

#[test]
fn the_timer_takes_snapshots_of_changes_and_of_nothing_else() {
    let (_store, bucket) = memory();
    let master = Node::master_with(&bucket, |setup| setup.options.snapshot_interval = Some(Duration::from_millis(50)));
    let fs = master.fs();
    let newest = || bucket.history().newest_snapshot().map(|published| published.snapshot);
    let published = |xid: u64| {
        master.until(|agent| {
            newest().is_some_and(|newest| newest.xid > xid)
                && agent.snapshots().unwrap().iter().all(|s| s.state.is_final())
        });
    };
    tree::write_file(fs.as_ref(), "f", b"1");
    published(master.agent().status().xid - 1);
    let first = newest().unwrap();
    assert_eq!((first.snapshot_kind.as_str(), first.name.as_ref()), ("periodic", None));
    assert_eq!(master.agent().snapshot(&first.id.to_string()).unwrap().kind, SnapshotKind::Periodic);
    // Several intervals in which nothing happens leave no trace.
    let records = bucket.history().tail_seq();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(bucket.history().tail_seq(), records);
    let ino = fs.lookup(Ino::ROOT, b"f").unwrap().ino;
    fs.unlink(Ino::ROOT, b"f").unwrap();
    published(first.xid);
    // The end of an unlinked file changes nothing that a snapshot shows.
    let records = bucket.history().tail_seq();
    fs.forgotten(ino);
    master.until(|agent| agent.snapshots().unwrap().iter().any(|s| s.cancelled == Some(CancelReason::Unchanged)));
    assert_eq!(bucket.history().tail_seq(), records);
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert!(Tree::read(slave.fs().as_ref()) == Tree::read(fs.as_ref()));
}

#[test]
fn what_the_local_disk_changed_after_packing_is_packed_anew() {
    let (store, bucket) = memory();
    let master = Node::master(&bucket);
    tree::write_file(master.fs().as_ref(), "f", &tree::noise(1, 300_000));
    store.offline();
    ask(&master, "s");
    until_state(&master, "s", SnapshotState::Uploading);
    let mut rotten = 0;
    for entry in std::fs::read_dir(master.dir().join("proxy/staged")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        rotten += 1;
    }
    assert!(rotten >= 2, "a pack and a run");
    store.online();
    assert_eq!(master.finished("s"), SnapshotState::Complete);
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert!(Tree::read(slave.fs().as_ref()) == Tree::read(master.fs().as_ref()));
}

#[test]
fn a_key_gives_the_same_snapshot_for_ever_also_to_the_next_master() {
    let (_store, bucket) = memory();
    let old = Node::master(&bucket);
    let key = Some(Uuid::new_v4());
    tree::write_file(old.fs().as_ref(), "f", b"1");
    let first = old.agent().request_snapshot(Some("a".into()), key).unwrap();
    assert_eq!(old.finished("a"), SnapshotState::Complete);
    let other = old.agent().request_snapshot(Some("b".into()), key).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Exists, "{other}");
    let new = Node::slave(&bucket, SnapshotSelector::Latest);
    new.promote(1).unwrap();
    new.until(|agent| agent.status().role == Role::Master);
    assert_eq!(new.agent().request_snapshot(Some("a".into()), key).unwrap().id, first.id);
}

#[test]
fn a_small_snapshot_and_an_idle_filesystem_ask_little_of_the_store() {
    let (store, bucket) = memory();
    let interval = Duration::from_millis(200);
    let master = Node::master_with(&bucket, |setup| setup.options.check_interval = interval);
    tree::write_file(master.fs().as_ref(), "f", b"1");
    ask(&master, "first");
    assert_eq!(master.finished("first"), SnapshotState::Complete);
    let mut least = u64::MAX;
    for n in 0..5 {
        tree::write_file(master.fs().as_ref(), "f", &tree::noise(n, 20_000));
        let before = store.calls();
        ask(&master, &format!("s{n}"));
        assert_eq!(master.finished(&format!("s{n}")), SnapshotState::Complete);
        least = least.min(store.calls() - before);
    }
    // The regular look at the ledger may fall into one of them.
    assert!(least <= 6, "{least} requests for a small snapshot");
    let (before, began) = (store.calls(), std::time::Instant::now());
    std::thread::sleep(interval * 10);
    let looks = began.elapsed().as_millis() / (2 * interval).as_millis();
    assert!(u128::from(store.calls() - before) <= looks + 1, "an idle filesystem asks half as often");
}
