//! Readers: the tail, and the damage that they refuse.

use crate::world::{Node, damage, fs, history_error, pack, snapshot};
use bytes::Bytes;
use cloud_mgmt::ledger::{Ledger, LedgerError, LedgerErrorKind, Seq};
use cloud_mgmt::store::MemoryStore;
use cloud_mgmt::store::ObjectStore;
use proptest::prelude::*;
use std::sync::Arc;
use uuid::Uuid;

async fn long_ledger(records: u32) -> MemoryStore {
    let bucket = MemoryStore::new();
    let node = Node::new(&bucket, 1).start();
    for n in 0..records {
        node.condemn(&[pack(n).object], "orphan").await.unwrap();
    }
    bucket
}

/// epoch, snapshot, snapshot, epoch
async fn small_ledger() -> MemoryStore {
    let bucket = MemoryStore::new();
    let master = Node::new(&bucket, 1).start();
    master.claim_first_epoch().await.unwrap();
    master.publish_snapshot(&snapshot(1, None, 1)).await.unwrap();
    master.publish_snapshot(&snapshot(2, Some(1), 1)).await.unwrap();
    Node::new(&bucket, 2).start().promote(1).await.unwrap();
    bucket
}

fn reader(bucket: &MemoryStore) -> (Arc<MemoryStore>, Ledger) {
    let client = Arc::new(bucket.another_client());
    (client.clone(), Ledger::new(client, fs()))
}

#[tokio::test]
async fn the_tail_of_any_length_from_anywhere_with_few_requests() {
    assert!(reader(&MemoryStore::new()).1.tail(Seq(0)).await.unwrap().is_none());
    for length in [1, 2, 3, 7, 16, 40] {
        let bucket = long_ledger(length).await;
        for from in 0..=u64::from(length) {
            let (client, ledger) = reader(&bucket);
            let tail = ledger.tail(Seq(from)).await.unwrap().unwrap();
            assert_eq!(tail.record.seq, Seq(u64::from(length)));
            assert!(client.calls() <= 15, "{length} from {from}: {} calls", client.calls());
            assert_eq!(tail.hash, ledger.history().await.unwrap().tail_hash());
        }
    }
}

#[tokio::test]
async fn a_hint_that_lies_costs_nothing_but_requests() {
    let bucket = long_ledger(20).await;
    let hint = bucket.get(&fs().hint_object()).await.unwrap();
    assert!(String::from_utf8_lossy(&hint).contains("\"seq\":16"), "{hint:?}");
    for lie in [
        &b"rubbish"[..],
        b"{\"seq\":1000,\"time\":\"1970-01-01T00:00:00Z\"}",
        b"{\"seq\":3,\"time\":\"1970-01-01T00:00:00Z\"}",
    ] {
        bucket.put(&fs().hint_object(), Bytes::from_static(lie)).await.unwrap();
        assert_eq!(reader(&bucket).1.tail(Seq(0)).await.unwrap().unwrap().record.seq, Seq(20));
    }
}

#[tokio::test]
async fn a_follower_pays_one_request_when_nothing_is_new() {
    let bucket = long_ledger(40).await;
    let (client, ledger) = reader(&bucket);
    assert_eq!(ledger.history().await.unwrap().tail_seq(), Seq(40));
    let before = client.calls();
    ledger.history().await.unwrap();
    assert_eq!(client.calls() - before, 1);
}

#[tokio::test]
async fn a_ledger_that_goes_back_or_has_a_hole_is_refused() {
    let bucket = long_ledger(10).await;
    let (_, ledger) = reader(&bucket);
    ledger.history().await.unwrap();
    bucket.delete(&fs().ledger_object(10)).await.unwrap();
    assert_eq!(ledger.tail(Seq(0)).await.unwrap_err().kind(), LedgerErrorKind::Corrupt);
    bucket.delete(&fs().ledger_object(5)).await.unwrap();
    let error = history_error(&bucket).await;
    assert!(error.to_string().contains("0000000000000005.json is corrupt: was written and is gone"), "{error}");
}

#[tokio::test]
async fn each_broken_record_is_named_and_nothing_after_it_is_read() {
    type Change = fn(&mut serde_json::Value);
    let cases: [(u64, Change, &str); 12] = [
        (2, |j| j["prev_hash"] = "b3:00".into(), "hash chain"),
        (2, |j| j["fs"] = Uuid::nil().to_string().into(), "belongs to filesystem"),
        (2, |j| j["seq"] = 3.into(), "says that it is record 3"),
        (2, |j| j["op"] = Uuid::nil().to_string().into(), ""),
        (2, |j| j["format"] = 0.into(), "format 0"),
        (3, |j| j["node"] = Uuid::nil().to_string().into(), "does not hold epoch 1"),
        (3, |j| j["incarnation"] = Uuid::nil().to_string().into(), "does not hold epoch 1"),
        (3, |j| j["epoch"] = 2.into(), "a snapshot of epoch 2"),
        (3, |j| j["parent"] = serde_json::Value::Null, "parent"),
        (3, |j| j["id"] = snapshot(1, None, 1).id.to_string().into(), "there already"),
        (4, |j| j["epoch"] = 3.into(), "epoch 3 after epoch 1"),
        (4, |j| j["state"]["snapshot_seq"] = 2.into(), "contradicts"),
    ];
    for (seq, change, words) in cases {
        let bucket = small_ledger().await;
        damage(&bucket, seq, change).await;
        let (_, ledger) = reader(&bucket);
        let error = ledger.history().await.unwrap_err();
        // A changed op breaks nothing in its own record: the next one's hash tells.
        let at = if words.is_empty() { seq + 1 } else { seq };
        assert!(matches!(&error, LedgerError::Corrupt { object, .. } if *object == fs().ledger_object(at)), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(ledger.known().tail_seq(), Seq(at - 1), "stops before it");
        assert!(ledger.history().await.is_err(), "and stays there");
    }
}

#[tokio::test]
async fn reordered_records_are_refused() {
    let bucket = small_ledger().await;
    let (two, three) = (fs().ledger_object(2), fs().ledger_object(3));
    let (a, b) = (bucket.get(&two).await.unwrap(), bucket.get(&three).await.unwrap());
    bucket.put(&two, b).await.unwrap();
    bucket.put(&three, a).await.unwrap();
    assert_eq!(history_error(&bucket).await.kind(), LedgerErrorKind::Corrupt);
    assert_eq!(reader(&bucket).1.replay(Seq(2), Seq(3)).await.unwrap_err().kind(), LedgerErrorKind::Corrupt);
}

#[tokio::test]
async fn a_newer_format_is_too_new_whatever_else_it_says() {
    let bucket = small_ledger().await;
    let newer = Bytes::from_static(b"{\"format\":2,\"seq\":\"four\"}");
    bucket.put(&fs().ledger_object(4), newer).await.unwrap();
    let error = history_error(&bucket).await;
    assert!(matches!(error, LedgerError::TooNew { found: 2, .. }), "{error}");
    assert_eq!(reader(&bucket).1.tail(Seq(0)).await.unwrap_err().kind(), LedgerErrorKind::TooNew);
}

#[tokio::test]
async fn a_record_above_the_limit_is_refused() {
    let bucket = small_ledger().await;
    damage(&bucket, 4, |json| json["padding"] = "x".repeat(256 << 10).into()).await;
    assert_eq!(history_error(&bucket).await.kind(), LedgerErrorKind::Corrupt);
}

#[tokio::test]
async fn a_part_of_the_ledger_replays_by_itself() {
    let bucket = long_ledger(40).await;
    let (_, ledger) = reader(&bucket);
    let records = ledger.replay(Seq(7), Seq(33)).await.unwrap();
    assert_eq!(records.iter().map(|record| record.seq.0).collect::<Vec<_>>(), (7..=33).collect::<Vec<_>>());
    assert_eq!(ledger.replay(Seq(39), Seq(41)).await.unwrap_err().kind(), LedgerErrorKind::NotFound);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any change of any byte of any record that has one above it is noticed.
    #[test]
    fn no_changed_byte_goes_unnoticed(seq in 1u64..4, at in any::<prop::sample::Index>(), mask in 1u8..) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let bucket = small_ledger().await;
            let object = fs().ledger_object(seq);
            let mut bytes = bucket.get(&object).await.unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
            bucket.put(&object, bytes.into()).await.unwrap();
            let kind = history_error(&bucket).await.kind();
            assert!(matches!(kind, LedgerErrorKind::Corrupt | LedgerErrorKind::TooNew), "{kind:?}");
        });
    }
}
