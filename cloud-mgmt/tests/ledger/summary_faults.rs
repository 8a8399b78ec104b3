//! Summaries that cannot be written or used: they cost requests, nothing else.

use crate::summary::named;
use crate::world::{Node, damage, fs, history_error, pack, records, snapshot};
use bytes::Bytes;
use cloud_mgmt::ledger::{Appender, Ledger, LedgerErrorKind, MemoryIntents, Seq, SummaryEntry, SummaryFault, Writer};
use cloud_mgmt::store::{
    Call, FaultMoment, FaultPlan, MemoryStore, ObjectStore, Observed, Observer, StoreError, StoreErrorKind,
};
use std::num::NonZeroU64;
use std::sync::Arc;
use uuid::Uuid;

fn every(records: u64) -> NonZeroU64 {
    NonZeroU64::new(records).unwrap()
}

async fn publish(master: &Appender, ids: std::ops::RangeInclusive<u32>) {
    for id in ids {
        master.publish_snapshot(&snapshot(id, (id > 1).then(|| id - 1), 1)).await.unwrap();
    }
}

/// 61 records with one summary, of the first 41.
async fn long_ledger() -> (MemoryStore, Node, SummaryEntry) {
    let bucket = MemoryStore::new();
    let node = Node::new(&bucket, 1);
    let master = node.start().summarizing_every(every(40));
    master.claim_first_epoch().await.unwrap();
    publish(&master, 1..=60).await;
    let summary = named(&bucket, Seq(61)).await.pop().unwrap();
    assert_eq!(summary.upto_seq, Seq(40));
    (bucket, node, summary)
}

fn unpacked(stored: &[u8]) -> serde_json::Value {
    serde_json::from_slice(&zstd::bulk::decompress(stored, 1 << 20).unwrap()).unwrap()
}

/// Puts another summary in the place of the one that the ledger names, and makes the ledger name it: all from that record
/// on is written anew.
async fn replace(bucket: &MemoryStore, summary: &SummaryEntry, bytes: Vec<u8>) -> SummaryEntry {
    let hash = |bytes: &[u8]| format!("b3:{}", blake3::hash(bytes).to_hex());
    let changed = SummaryEntry { size: bytes.len() as u64, hash: hash(&bytes), ..summary.clone() };
    bucket.put(&summary.object, bytes.into()).await.unwrap();
    let mut prev_hash = None;
    for seq in summary.upto_seq.0 + 1.. {
        let object = fs().ledger_object(seq);
        let Ok(record) = bucket.get(&object).await else { break };
        let mut record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        record["state"]["summary"] = serde_json::to_value(&changed).unwrap();
        if let Some(prev_hash) = prev_hash {
            record["prev_hash"] = prev_hash;
        }
        let record = serde_json::to_vec(&record).unwrap();
        prev_hash = Some(hash(&record).into());
        bucket.put(&object, record.into()).await.unwrap();
    }
    changed
}

/// A reader that had to read everything, and the master that writes a new summary because of it.
async fn check_read_without(bucket: &MemoryStore, node: &Node, what: &str) {
    let client = Arc::new(bucket.another_client());
    let history = Ledger::new(client.clone(), fs()).history().await.unwrap();
    assert_eq!((history.tail_seq(), history.snapshots().len()), (Seq(61), 60), "{what}");
    assert!(client.calls() > 61, "{what}: {} calls", client.calls());
    let master = node.start().summarizing_every(every(40));
    master.resume_epoch(1).await.unwrap();
    publish(&master, 61..=61).await;
    let newest = master.ledger().known().state().summary.clone().unwrap();
    assert_eq!(newest.upto_seq, Seq(62), "{what}");
    let client = Arc::new(bucket.another_client());
    assert_eq!(Ledger::new(client.clone(), fs()).history().await.unwrap(), master.ledger().known(), "{what}");
    assert!(client.calls() < 55, "{what}: {} calls", client.calls());
}

#[tokio::test]
async fn a_summary_that_cannot_be_used_costs_requests_only() {
    type Break = fn(&mut serde_json::Value);
    let changes: [(&str, Break); 12] = [
        ("program reads version 1", |json| json["version"] = 2.into()),
        ("missing field", |json| drop(json.as_object_mut().unwrap().remove("authors"))),
        ("belongs to filesystem", |json| json["fs"] = Uuid::nil().to_string().into()),
        ("ends at record", |json| json["upto_seq"] = 39.into()),
        ("does not sum up the ledger", |json| json["tail_hash"] = "b3:00".into()),
        ("contradicts the sum", |json| json["state"]["properties_seq"] = 3.into()),
        ("not that of its last record", |json| json["holder"] = serde_json::Value::Null),
        ("not that of its last record", |json| drop(json["snapshots"].as_array_mut().unwrap().pop())),
        ("not that of its last record", |json| {
            json["deletion"] = serde_json::json!({"seq": 3, "time": "2027-01-15T08:00:00Z", "reason": ""});
        }),
        ("not in its order", |json| json["packs"].as_array_mut().unwrap().reverse()),
        ("behind its end", |json| json["packs"][0]["dead"] = 41.into()),
        // A lie that only a later record shows: its run is condemned.
        ("with it, ", |json| {
            let objects = [crate::world::run(50).object];
            json["condemned"] = serde_json::json!([{"seq": 9, "time": "2027-01-15T08:00:00Z", "objects": objects, "reason": "", "purged": null}]);
        }),
    ];
    for (words, change) in changes {
        let (bucket, node, summary) = long_ledger().await;
        let mut json = unpacked(&bucket.get(&summary.object).await.unwrap());
        change(&mut json);
        let bytes = zstd::bulk::compress(&serde_json::to_vec(&json).unwrap(), 3).unwrap();
        let changed = replace(&bucket, &summary, bytes).await;
        check_reason(&bucket, &changed, words).await;
        check_read_without(&bucket, &node, words).await;
    }
    let (bucket, node, summary) = long_ledger().await;
    let good = bucket.get(&summary.object).await.unwrap();
    for (words, bytes) in [("not match", good.slice(1..)), ("not match", Bytes::from(vec![0; good.len()]))] {
        bucket.put(&summary.object, bytes).await.unwrap();
        assert!(Ledger::new(Arc::new(bucket.another_client()), fs()).summary(&summary).await.is_err(), "{words}");
    }
    bucket.delete(&summary.object).await.unwrap();
    check_read_without(&bucket, &node, "missing").await;
    for (words, bytes) in [("exactly one frame", [&good[..], &good[..]].concat()), ("its length", b"{}".to_vec())] {
        let (bucket, node, summary) = long_ledger().await;
        let changed = replace(&bucket, &summary, bytes).await;
        check_reason(&bucket, &changed, words).await;
        check_read_without(&bucket, &node, words).await;
    }
}

/// What the summary itself, or the first audit, says is wrong.
async fn check_reason(bucket: &MemoryStore, summary: &SummaryEntry, words: &str) {
    let ledger = Ledger::of_records_alone(Arc::new(bucket.another_client()), fs());
    let fault = ledger.summary(summary).await.err().map_or_else(String::new, |fault| fault.to_string());
    let mut bad = Vec::new();
    ledger.audit(&mut bad).await.unwrap();
    if words == "with it, " {
        assert!(fault.is_empty() && bad[0].fault.to_string().contains("something else than the records"), "{bad:?}");
        return;
    }
    assert!(fault.contains(words), "{words}: {fault}");
    let of_another_version = words.contains("version");
    assert_eq!(bad.len(), usize::from(!of_another_version), "{words}: {bad:?}");
    assert!(bad.iter().all(|bad| bad.named_by == Seq(41) && bad.entry == *summary), "{bad:?}");
}

#[tokio::test]
async fn only_the_newest_summary_must_be_there() {
    let (bucket, node, summary) = long_ledger().await;
    bucket.delete(&summary.object).await.unwrap();
    let audit = async || {
        let mut bad = Vec::new();
        Ledger::of_records_alone(Arc::new(bucket.another_client()), fs()).audit(&mut bad).await.unwrap();
        bad
    };
    let bad = audit().await;
    assert!(matches!(bad[..], [ref bad] if matches!(bad.fault, SummaryFault::Missing)), "{bad:?}");
    let master = node.start().summarizing_every(every(1));
    master.resume_epoch(1).await.unwrap();
    publish(&master, 61..=61).await;
    assert!(audit().await.is_empty());
}

#[tokio::test]
async fn a_store_that_goes_away_is_an_error_and_not_a_reason_to_read_everything() {
    let (bucket, ..) = long_ledger().await;
    let client = Arc::new(bucket.another_client());
    Ledger::new(client.clone(), fs()).history().await.unwrap();
    for nth in 1..=client.calls() {
        for moment in [FaultMoment::Before, FaultMoment::Torn] {
            let client = Arc::new(bucket.another_client());
            client.set_faults(FaultPlan::nth(nth, moment));
            let ledger = Ledger::new(client.clone(), fs());
            match ledger.history().await {
                Ok(history) => assert_eq!(history.tail_seq(), Seq(61), "call {nth} {moment:?}"),
                Err(error) => assert!(
                    matches!(error.kind(), LedgerErrorKind::Unavailable | LedgerErrorKind::Corrupt),
                    "call {nth} {moment:?}: {error}"
                ),
            }
            assert_eq!(ledger.history().await.unwrap().tail_seq(), Seq(61), "call {nth} {moment:?}: again");
        }
    }
}

/// Refuses, or only forgets to answer, what is written below `ledger-summary`.
#[derive(Debug)]
struct NoSummaries(StoreErrorKind);

impl Observer for NoSummaries {
    fn call(&self, call: &Call<'_>) -> Result<(), StoreError> {
        match call {
            Call::PutIfAbsent(name, _) if name.contains("/ledger-summary/") => {
                Err(StoreError::new(self.0, "put", *name, "test"))
            }
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_snapshot_is_published_whether_or_not_its_summary_is() {
    for kind in [StoreErrorKind::Denied, StoreErrorKind::Unavailable, StoreErrorKind::NoSpace] {
        let bucket = MemoryStore::new();
        let client = Arc::new(bucket.another_client());
        let store = Observed::new(client.clone(), Arc::new(NoSummaries(kind)));
        let ledger = Ledger::new(Arc::new(store), fs());
        let master = Appender::new(ledger, Arc::new(MemoryIntents::default()), Writer::ephemeral());
        let master = master.summarizing_every(every(4));
        master.claim_first_epoch().await.unwrap();
        publish(&master, 1..=40).await;
        assert!(bucket.list(&fs().summary_prefix()).await.unwrap().is_empty());
        assert!(records(&bucket).await.iter().all(|record| record.state.summary.is_none()));
    }
    // With each call lost, before and after it was done: one record, with or without a summary.
    for moment in [FaultMoment::Before, FaultMoment::AfterApply, FaultMoment::Torn] {
        for nth in 1..=5 {
            let bucket = MemoryStore::new();
            let node = Node::new(&bucket, 1);
            let master = node.start().summarizing_every(every(3));
            master.claim_first_epoch().await.unwrap();
            publish(&master, 1..=2).await;
            node.store.set_faults(FaultPlan::nth(nth, moment));
            let entry = snapshot(3, Some(2), 1);
            if master.publish_snapshot(&entry).await.is_err() {
                master.publish_snapshot(&entry).await.unwrap();
            }
            node.store.set_faults(FaultPlan::none());
            publish(&master, 4..=8).await;
            let mut bad = Vec::new();
            let ledger = Ledger::of_records_alone(Arc::new(bucket.another_client()), fs());
            let history = ledger.audit(&mut bad).await.unwrap();
            assert!(bad.is_empty() && history.snapshots().len() == 8, "call {nth} {moment:?}: {bad:?}");
            assert!(history.state().summary.is_some(), "call {nth} {moment:?}");
        }
    }
}

#[tokio::test]
async fn a_summary_whose_record_came_too_late_is_not_named() {
    let bucket = MemoryStore::new();
    let (node, other) = (Node::new(&bucket, 1), Node::new(&bucket, 2));
    let master = node.start().summarizing_every(every(3));
    master.claim_first_epoch().await.unwrap();
    publish(&master, 1..=2).await;
    let other = other.start();
    // Clients on one thread take turns at each call: somewhere in between the other one is faster.
    for n in 3..=12 {
        let entry = snapshot(n, Some(n - 1), 1);
        let (object, turns) = (pack(1_000 + n).object, n % 5);
        let race = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            other.condemn(&[object], "orphan").await.unwrap();
        };
        let (published, ()) = tokio::join!(master.publish_snapshot(&entry), race);
        published.unwrap();
    }
    let written = bucket.list(&fs().summary_prefix()).await.unwrap().len();
    let mut bad = Vec::new();
    let history = Ledger::of_records_alone(Arc::new(bucket.another_client()), fs()).audit(&mut bad).await.unwrap();
    let named = named(&bucket, history.tail_seq()).await.len();
    assert!(bad.is_empty() && (1..written).contains(&named), "{named} of {written} named, {bad:?}");
}

#[tokio::test]
async fn a_version_that_knows_no_summaries_can_write_in_between() {
    let (bucket, node, summary) = long_ledger().await;
    // What it writes: the last record again, without the key.
    damage(&bucket, 61, |record| drop(record["state"].as_object_mut().unwrap().remove("summary"))).await;
    let client = Arc::new(bucket.another_client());
    let history = Ledger::new(client.clone(), fs()).history().await.unwrap();
    assert!(client.calls() > 61 && history.state().summary.as_ref() == Some(&summary));
    let master = node.start().summarizing_every(every(40));
    let applied = master.resume_epoch(1).await.unwrap();
    assert_eq!(applied.record.state.summary, Some(summary), "named again");
    let client = Arc::new(bucket.another_client());
    assert_eq!(Ledger::new(client.clone(), fs()).history().await.unwrap(), master.ledger().known());
    assert!(client.calls() < 75, "{} calls", client.calls());
}

#[tokio::test]
async fn a_summary_that_a_record_cannot_have_is_refused() {
    type Change = fn(&mut serde_json::Value);
    let cases: [(Change, &str); 6] = [
        (|summary| summary["upto_seq"] = 39.into(), "ends at record 39"),
        (|summary| summary["object"] = fs().ledger_object(40).into(), "is no summary of this ledger"),
        (|summary| summary["object"] = fs().summary_object(41, Uuid::nil()).into(), "is no summary of this ledger"),
        (|summary| summary["hash"] = "b3:00".into(), "cannot be"),
        (|summary| summary["size"] = 0.into(), "cannot be"),
        (|summary| summary["size"] = (17 << 20).into(), "cannot be"),
    ];
    for (change, words) in cases {
        let (bucket, ..) = long_ledger().await;
        damage(&bucket, 41, |record| change(&mut record["state"]["summary"])).await;
        let error = history_error(&bucket).await;
        assert!(error.kind() == LedgerErrorKind::Corrupt && error.to_string().contains(words), "{error}");
    }
    // The first record has nothing to sum up, and a summary cannot come back.
    let (bucket, _, summary) = long_ledger().await;
    damage(&bucket, 1, |record| record["state"]["summary"] = serde_json::to_value(&summary).unwrap()).await;
    assert_eq!(history_error(&bucket).await.kind(), LedgerErrorKind::Corrupt);
}
