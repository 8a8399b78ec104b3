//! Intents, lost answers, lost races.

use crate::world::{Node, damage, fs, is_snapshot, kinds, records, snapshot};
use bytes::Bytes;
use cloud_mgmt::ledger::{LedgerError, LedgerErrorKind, Resolution};
use cloud_mgmt::store::ObjectStore;
use cloud_mgmt::store::{FaultMoment, FaultPlan, MemoryStore};
use uuid::Uuid;

/// A process that dies while its record is in flight: the intent is on disk, the PUT never left.
async fn die_before_sending(node: &Node) {
    let process = node.start();
    process.ledger().history().await.unwrap();
    // The reads go through, the PUT and the look at it do not.
    node.store.set_faults(FaultPlan::nth(2, FaultMoment::Before));
    let promote = process.promote(1);
    tokio::pin!(promote);
    while node.intent().await.is_none() {
        tokio::select! {
            _ = &mut promote => panic!("it was to be cut short"),
            () = tokio::task::yield_now() => {}
        }
    }
    node.store.set_faults(FaultPlan::none());
}

#[tokio::test]
async fn an_intent_of_a_dead_process_is_finished_by_the_next_one() {
    let bucket = MemoryStore::new();
    Node::new(&bucket, 1).start().claim_first_epoch().await.unwrap();
    let node = Node::new(&bucket, 2);
    die_before_sending(&node).await;
    let intent = node.intent().await.unwrap();
    let Resolution::Applied(applied) = node.start().resolve().await.unwrap() else { panic!("not applied") };
    assert_eq!((applied.seq, applied.record.op), (intent.seq, intent.op));
    assert_eq!(bucket.get(&fs().ledger_object(intent.seq.0)).await.unwrap(), intent.bytes);
    assert_eq!(node.intent().await, None);
    assert_eq!(node.start().resolve().await.unwrap(), Resolution::Nothing);
}

#[tokio::test]
async fn an_intent_whose_place_is_taken_is_dropped_and_decided_anew() {
    let bucket = MemoryStore::new();
    Node::new(&bucket, 1).start().claim_first_epoch().await.unwrap();
    let (late, quick) = (Node::new(&bucket, 2), Node::new(&bucket, 3));
    die_before_sending(&late).await;
    quick.start().promote(1).await.unwrap();
    let op = late.intent().await.unwrap().op;
    let process = late.start();
    assert_eq!(process.resolve().await.unwrap(), Resolution::Lost { op });
    assert_eq!(process.promote(1).await.unwrap_err().kind(), LedgerErrorKind::EpochMismatch);
    assert_eq!(late.intent().await, None);
    assert_eq!(kinds(&bucket).await, ["epoch", "epoch"]);
}

#[tokio::test]
async fn without_the_bucket_the_outcome_is_unknown_and_stays_so() {
    let bucket = MemoryStore::new();
    let node = Node::new(&bucket, 1);
    let process = node.start();
    process.claim_first_epoch().await.unwrap();
    node.store.set_faults(FaultPlan::nth(2, FaultMoment::AfterApply));
    // The second call of the publication is its PUT: it is applied, then the line goes down.
    let snap = snapshot(1, None, 1);
    let publish = process.publish_snapshot(&snap);
    tokio::pin!(publish);
    while bucket.head(&fs().ledger_object(2)).await.is_err() {
        assert!(futures::poll!(&mut publish).is_pending());
    }
    node.store.offline();
    let error = publish.await.unwrap_err();
    assert!(error.is_unknown(), "{error}");
    assert_eq!(error.kind(), LedgerErrorKind::Unavailable);
    assert!(node.intent().await.is_some(), "an unknown outcome keeps its intent");
    assert!(process.resolve().await.unwrap_err().is_unknown());
    node.store.online();
    process.publish_snapshot(&snap).await.unwrap();
    assert_eq!(records(&bucket).await.iter().filter(|record| is_snapshot(record, 1)).count(), 1);
}

#[tokio::test]
async fn a_cancelled_append_is_resolved_by_the_next_call_of_the_same_process() {
    let bucket = MemoryStore::new();
    let node = Node::new(&bucket, 1);
    let process = node.start();
    process.claim_first_epoch().await.unwrap();
    let snap = snapshot(1, None, 1);
    for polls in 1..20 {
        let publish = process.publish_snapshot(&snap);
        tokio::pin!(publish);
        let mut left = polls;
        while left > 0 && futures::poll!(&mut publish).is_pending() {
            left -= 1;
        }
    }
    process.publish_snapshot(&snap).await.unwrap();
    assert_eq!(kinds(&bucket).await, ["epoch", "snapshot"]);
}

#[tokio::test]
async fn the_intent_of_another_filesystem_is_refused() {
    let bucket = MemoryStore::new();
    let node = Node::new(&bucket, 1);
    Node::new(&bucket, 9).start().claim_first_epoch().await.unwrap();
    die_before_sending(&node).await;
    let other = cloud_mgmt::names::FsName { id: Uuid::from_u128(99), ..fs() };
    let ledger = cloud_mgmt::ledger::Ledger::new(node.store.clone(), other);
    let process =
        cloud_mgmt::ledger::Appender::new(ledger, node.intents.clone(), cloud_mgmt::ledger::Writer::ephemeral());
    assert_eq!(process.resolve().await.unwrap_err().kind(), LedgerErrorKind::Invalid);
    assert!(node.intent().await.is_some());
}

#[tokio::test]
async fn a_copy_of_a_running_process_is_noticed() {
    let bucket = MemoryStore::new();
    let (node, copy) = (Node::new(&bucket, 1), Node::new(&bucket, 1));
    let life = Uuid::from_u128(42);
    let process = node.start_as(life);
    process.claim_first_epoch().await.unwrap();
    // The copy has the memory of the original, so it believes that it holds the epoch; it knows its record, too.
    let cloned = copy.start_as(life);
    let error = cloned.publish_snapshot(&snapshot(1, None, 1)).await.unwrap_err();
    assert!(matches!(error, LedgerError::Cloned { .. }), "{error}");
    assert_eq!(error.kind(), LedgerErrorKind::Deposed);
    process.publish_snapshot(&snapshot(1, None, 1)).await.unwrap();
}

#[tokio::test]
async fn a_writer_stops_at_a_kind_that_it_does_not_know_and_a_reader_goes_on() {
    let bucket = MemoryStore::new();
    let node = Node::new(&bucket, 1);
    let process = node.start();
    process.claim_first_epoch().await.unwrap();
    process.publish_snapshot(&snapshot(1, None, 1)).await.unwrap();
    process.pin(snapshot(1, None, 1).id, "for ever").await.unwrap();
    damage(&bucket, 3, |json| json["kind"] = "teleport".into()).await;
    let newcomer = Node::new(&bucket, 2).start();
    let history = newcomer.ledger().history().await.unwrap();
    assert_eq!(history.snapshots().len(), 1);
    assert_eq!(history.unknown().map(|seq| seq.0), Some(3));
    assert_eq!(newcomer.promote(1).await.unwrap_err().kind(), LedgerErrorKind::TooNew);
}

#[tokio::test]
async fn a_record_above_the_limit_is_refused_before_it_is_sent() {
    let bucket = MemoryStore::new();
    let node = Node::new(&bucket, 1);
    let process = node.start();
    process.claim_first_epoch().await.unwrap();
    let huge = [("key".to_owned(), "x".repeat(300 << 10))].into();
    let error = process.publish_properties(&huge).await.unwrap_err();
    assert!(matches!(error, LedgerError::TooLarge { kind: "properties", .. }), "{error}");
    assert_eq!(node.intent().await, None);
    assert_eq!(kinds(&bucket).await, ["epoch"]);
}

#[tokio::test]
async fn foreign_bytes_at_the_next_place_stop_a_writer() {
    let bucket = MemoryStore::new();
    let process = Node::new(&bucket, 1).start();
    process.claim_first_epoch().await.unwrap();
    bucket.put(&fs().ledger_object(2), Bytes::from_static(b"not json")).await.unwrap();
    assert_eq!(process.delete("test").await.unwrap_err().kind(), LedgerErrorKind::Corrupt);
}
