//! Summaries of the ledger in the bucket of an agent.

use crate::node::{Bucket, Node};
use crate::tree::{self, Tree};
use cloud_mgmt::admin::{DeleteMode, delete};
use cloud_mgmt::ledger::{Appender, Entry, Ledger, MemoryIntents, Seq, SnapshotEntry, Writer};
use cloud_mgmt::store::MemoryStore;
use std::num::NonZeroU64;
use std::sync::Arc;
use toa::verify::{Problem, VerifyOptions};
use toa::{ErrorKind, SnapshotSelector, SnapshotState};
use uuid::Uuid;

/// A snapshot of an agent and, by the next master, 34 more in which nothing has changed: more records than a reader looks
/// at before it asks for a summary, and a summary for each fourth.
fn long() -> (Bucket, Tree) {
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let master = Node::master(&bucket);
    for n in 0..20_u64 {
        tree::write_file(master.fs().as_ref(), &format!("f{n}"), &tree::noise(n, 3_000));
    }
    master.agent().request_snapshot(Some("first".into()), None).unwrap();
    assert_eq!(master.finished("first"), SnapshotState::Complete);
    let tree = Tree::read(master.fs().as_ref());
    drop(master);
    let ledger = Ledger::new(bucket.store.clone(), bucket.name.clone());
    let next = Appender::new(ledger, Arc::new(MemoryIntents::default()), Writer::ephemeral());
    let next = next.summarizing_every(NonZeroU64::new(4).unwrap());
    bucket.runtime.block_on(next.promote(1)).unwrap();
    for n in 0..34 {
        let newest = (*next.ledger().known().newest_snapshot().unwrap().snapshot).clone();
        let (parent, name) = (Some(newest.id), Some(format!("same {n}")));
        let (packs_new, xid_from) = (vec![], newest.xid);
        let same = SnapshotEntry { id: Uuid::new_v4(), name, epoch: 2, parent, xid_from, packs_new, ..newest };
        bucket.runtime.block_on(next.publish_snapshot(&same)).unwrap();
    }
    (bucket, tree)
}

#[test]
fn a_summary_is_checked_kept_and_never_an_orphan() {
    let (bucket, tree) = long();
    let summaries = bucket.objects("/ledger-summary/");
    assert!(summaries.len() >= 8, "{summaries:?}");
    let (report, told) = bucket.verify(&VerifyOptions::default());
    assert!(report.is_sound() && report.unreferenced == 0, "{report:?} {told:?}");
    let newest = summaries.last().unwrap();
    let mount = |snapshot: SnapshotSelector| {
        let slave = Node::slave(&bucket, snapshot);
        let shown = Tree::read(slave.fs().as_ref());
        assert!(shown == tree, "{}", shown.difference(&tree));
    };
    mount(SnapshotSelector::Latest);

    let whole = bucket.get(newest);
    let check = |problem: Problem| {
        let (report, told) = bucket.verify(&VerifyOptions::default());
        let found: Vec<_> = told.findings.iter().map(|finding| (finding.problem, finding.object.as_ref())).collect();
        assert!(!report.is_sound() && found == [(problem, Some(newest))], "{found:?}");
        mount(SnapshotSelector::Named("same 3".into()));
    };
    let mut bad = whole.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    bucket.put(newest, bad);
    check(Problem::WrongBytes);
    bucket.put(newest, [&whole[..], b"more"].concat());
    check(Problem::WrongSize);
    bucket.delete(newest);
    check(Problem::Missing);
    bucket.put(newest, whole);
    // An older one has no readers any more.
    bucket.delete(&summaries[0]);
    assert!(bucket.verify(&VerifyOptions::default()).0.is_sound());

    let deleted = bucket.runtime.block_on(delete(&bucket.store, &bucket.name, DeleteMode::Really)).unwrap();
    assert!(deleted.objects > 0);
    assert_eq!(bucket.objects("/ledger-summary/"), summaries[1..], "a deletion leaves them");
    let read = |ledger: Ledger| bucket.runtime.block_on(ledger.history()).unwrap();
    let history = read(Ledger::new(bucket.store.clone(), bucket.name.clone()));
    assert_eq!(history, read(Ledger::of_records_alone(bucket.store.clone(), bucket.name.clone())));
    let mut condemned = history.condemned().values().flat_map(|condemnation| &condemnation.objects);
    assert!(condemned.all(|object| !summaries.contains(object)));
}

/// Which record a summary goes up to, for each record: it comes with the first snapshot that finds so many records since
/// the one before, and all later records name it.
fn check_times(bucket: &Bucket, every: u64) -> Vec<String> {
    let ledger = Ledger::of_records_alone(bucket.store.clone(), bucket.name.clone());
    let tail = bucket.runtime.block_on(ledger.history()).unwrap().tail_seq();
    let (mut upto, mut objects) = (0, Vec::new());
    for seq in 1..=tail.0 {
        let record = bucket.runtime.block_on(ledger.read(Seq(seq))).unwrap();
        let is_due = matches!(record.entry, Entry::Snapshot(_)) && seq - 1 - upto >= every;
        upto = if is_due { seq - 1 } else { upto };
        let named = record.state.summary;
        assert_eq!(named.as_ref().map_or(0, |named| named.upto_seq.0), upto, "record {seq}");
        objects.extend(named.filter(|_| is_due).map(|named| named.object));
    }
    objects
}

#[test]
fn an_agent_writes_summaries_and_others_open_by_them() {
    const EVERY: u64 = 8;
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let mut master =
        Node::master_with(&bucket, |setup| setup.options.summary_every_records = NonZeroU64::new(EVERY).unwrap());
    let mut trees = Vec::new();
    for n in 0..40 {
        tree::write_file(master.fs().as_ref(), &format!("f{}", n % 7), &tree::noise(n, 2_000));
        let name = format!("s{n}");
        master.agent().request_snapshot(Some(name.clone()), None).unwrap();
        trees.push(Tree::read(master.fs().as_ref()));
        if n % 9 == 5 {
            master = master.restarted();
        }
        // Others are asked for while one is on its way.
        if n % 3 != 1 {
            assert_eq!(master.finished(&name), SnapshotState::Complete);
        }
    }
    drop(master);
    let summaries = check_times(&bucket, EVERY);
    assert!(summaries.len() > 4, "{summaries:?}");
    let objects = bucket.objects("/ledger-summary/");
    assert!(summaries.iter().all(|summary| objects.contains(summary)), "{summaries:?} {objects:?}");
    bucket.check_references();
    let read = |ledger: Ledger| bucket.runtime.block_on(ledger.history()).unwrap();
    let history = read(Ledger::of_records_alone(bucket.store.clone(), bucket.name.clone()));
    assert_eq!(read(Ledger::new(bucket.store.clone(), bucket.name.clone())), history);

    // Behind the records that everybody reads first, those that are summed up are damaged: there is no other way.
    let upto = history.state().summary.as_ref().unwrap().upto_seq.0;
    assert!(upto > 33, "{upto}");
    for seq in 32..upto {
        bucket.put(&bucket.name.ledger_object(seq), &b"{}"[..]);
    }
    let by_records = Ledger::of_records_alone(bucket.store.clone(), bucket.name.clone());
    assert!(bucket.runtime.block_on(by_records.history()).is_err());
    for name in ["s0", "s20", "s39"] {
        let slave = Node::slave(&bucket, SnapshotSelector::Named(name.into()));
        let (shown, then) = (Tree::read(slave.fs().as_ref()), &trees[name[1..].parse::<usize>().unwrap()]);
        assert!(shown == *then, "{name}: {}", shown.difference(then));
    }
    let next = Node::slave(&bucket, SnapshotSelector::Latest);
    assert_eq!(next.promote(1).unwrap(), 2);
    tree::write_file(next.fs().as_ref(), "new", b"of the second reign");
    let name = Some("s39".to_owned());
    assert_eq!(next.agent().request_snapshot(name, None).unwrap_err().kind(), ErrorKind::Exists, "it knows all names");
    next.agent().request_snapshot(Some("new".into()), None).unwrap();
    assert_eq!(next.finished("new"), SnapshotState::Complete);
    let slave = Node::slave(&bucket, SnapshotSelector::Latest);
    assert!(Tree::read(slave.fs().as_ref()) == Tree::read(next.fs().as_ref()));
}
