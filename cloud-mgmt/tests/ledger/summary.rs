//! With a summary a reader comes to what the records say, refuses what they refuse, and asks little.

use crate::random::Random;
use crate::world::{Node, damage, fs, pack, run, snapshot};
use cloud_mgmt::admin::{DeletedFilter, create, list, show};
use cloud_mgmt::config::{FsParameters, ProbeReport};
use cloud_mgmt::ledger::{
    Appender, Entry, History, Ledger, LedgerError, LedgerRecord, MemoryIntents, SUMMARY_EVERY_RECORDS, Seq,
    SummaryEntry, Writer,
};
use cloud_mgmt::names::FsName;
use cloud_mgmt::store::{MemoryStore, ObjectStore};
use jiff::Timestamp;
use std::num::NonZeroU64;
use std::sync::Arc;
use uuid::Uuid;

/// Random histories; more by `CBFS_TEST_HISTORIES`.
fn histories() -> u64 {
    std::env::var("CBFS_TEST_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(24)
}

fn reader(bucket: &MemoryStore) -> (Arc<MemoryStore>, Ledger) {
    let client = Arc::new(bucket.another_client());
    (client.clone(), Ledger::new(client, fs()))
}

fn reader_of_all(bucket: &MemoryStore) -> Ledger {
    Ledger::of_records_alone(Arc::new(bucket.another_client()), fs())
}

/// The same answer with and without summaries; the refusal in words.
async fn both(bucket: &MemoryStore) -> Result<Arc<History>, String> {
    let (with, without) = (reader(bucket).1, reader_of_all(bucket));
    let (a, b) = (with.history().await, without.history().await);
    assert_eq!(with.known(), without.known());
    let words = |answer: Result<Arc<History>, LedgerError>| answer.map_err(|error| error.to_string());
    let (a, b) = (words(a), words(b));
    assert_eq!(a, b);
    a
}

/// Each summary that a record names first.
pub async fn named(bucket: &MemoryStore, upto: Seq) -> Vec<SummaryEntry> {
    let records = reader(bucket).1.replay(Seq(1), upto).await.unwrap();
    let mut named: Vec<_> = records.into_iter().filter_map(|record| record.state.summary).collect();
    named.dedup();
    named
}

#[tokio::test]
async fn what_a_summary_says_is_what_the_records_say() {
    for seed in 0..histories() {
        let every = [1, 3, 8, 20][seed as usize % 4];
        let mut random = Random::new(seed, every).await;
        random.grow(70).await;
        let history = both(&random.bucket).await.unwrap();
        let summaries = named(&random.bucket, history.tail_seq()).await;
        // Record by record into another bucket: what is known there at each summary.
        let (copied, source) = (MemoryStore::new(), &random.bucket);
        let follower = Ledger::of_records_alone(Arc::new(copied.another_client()), fs());
        let mut compared = summaries.iter().peekable();
        for seq in 1..=history.tail_seq().0 {
            let object = fs().ledger_object(seq);
            copied.put(&object, source.get(&object).await.unwrap()).await.unwrap();
            let known = follower.history().await.unwrap();
            if let Some(summary) = compared.next_if(|summary| summary.upto_seq == Seq(seq)) {
                assert_eq!(reader(source).1.summary(summary).await.unwrap(), *known, "seed {seed}, record {seq}");
            }
        }
        assert_eq!(compared.next(), None);
        let mut bad = Vec::new();
        assert_eq!(reader_of_all(source).audit(&mut bad).await.unwrap(), history);
        assert!(bad.is_empty(), "seed {seed}: {bad:?}");
        if every == 1 {
            assert!(summaries.len() > 3, "seed {seed}: {} summaries", summaries.len());
        }
    }
}

#[tokio::test]
async fn a_changed_record_is_refused_the_same_way() {
    type Change = fn(&mut serde_json::Value);
    let changes: [Change; 6] = [
        |record| record["prev_hash"] = "b3:00".into(),
        |record| record["seq"] = 7.into(),
        |record| record["format"] = 2.into(),
        |record| record["op"] = Uuid::nil().to_string().into(),
        |record| record["state"]["epoch"] = 77.into(),
        |record| record["state"]["summary"] = serde_json::json!({"upto_seq": 1, "object": "x", "size": 1, "hash": ""}),
    ];
    let mut refused = 0;
    for seed in 0..histories() {
        let mut random = Random::new(seed, 5).await;
        let tail = random.grow(60).await.tail_seq();
        let Some(newest) = named(&random.bucket, tail).await.pop() else { continue };
        let from = newest.upto_seq.0 + 1;
        // Also the last one that is summed up, and one of those that are read at the beginning.
        for seq in [from - 1, from + seed % (tail.0 - from + 1), tail.0, 2 + seed % 20] {
            let object = fs().ledger_object(seq);
            let before = random.bucket.get(&object).await.unwrap();
            damage(&random.bucket, seq, changes[(seed % 6) as usize]).await;
            refused += usize::from(both(&random.bucket).await.is_err());
            random.bucket.put(&object, before).await.unwrap();
        }
    }
    assert!(refused as u64 > histories(), "{refused} refusals");
}

/// Records that nobody may write, with a good place in the chain.
#[tokio::test]
async fn a_record_that_breaks_a_rule_is_refused_the_same_way() {
    let mut reasons = std::collections::BTreeSet::new();
    for seed in 0..histories() {
        let mut random = Random::new(seed, 4).await;
        let history = random.grow(50).await;
        let tail = history.tail().unwrap();
        let newest = history.newest_snapshot().unwrap().snapshot;
        let (id, epoch) = (newest.id.as_u128() as u32, history.state().epoch);
        let mut condemned = snapshot(9_000, Some(id), epoch);
        let objects = history.condemned().values().next().map(|condemnation| condemnation.objects.clone());
        condemned.packs_new[0].object = objects.unwrap_or_default().pop().unwrap_or_default();
        let kept = newest.runs[0].object.clone();
        let condemn = |object: String| Entry::Condemn { objects: vec![object], reason: String::new() };
        let snapshot = |entry| Entry::Snapshot(Box::new(entry));
        let entries = [
            Entry::Drop { snapshot: newest.id },
            Entry::Drop { snapshot: *history.pins().keys().next().unwrap_or(&newest.id) },
            Entry::Drop { snapshot: Uuid::from_u128(1 << 60) },
            Entry::Pin { snapshot: Uuid::from_u128(1 << 60), reason: String::new() },
            Entry::Unpin { snapshot: Uuid::from_u128(1 << 60) },
            condemn(kept),
            condemn(fs().ledger_object(1)),
            condemn(history.state().summary.clone().map(|summary| summary.object).unwrap_or_default()),
            Entry::Purge { condemned: history.condemned().keys().next().copied().unwrap_or(Seq(1)) },
            Entry::Purge { condemned: tail.record.seq },
            Entry::Undelete {},
            Entry::Epoch { epoch: epoch + 2, host: String::new() },
            Entry::Epoch { epoch, host: String::new() },
            snapshot(crate::world::snapshot(9_000, Some(8_999), epoch)),
            snapshot(crate::world::snapshot(id, Some(id), epoch)),
            snapshot(crate::world::snapshot(9_000, Some(id), epoch + 1)),
            snapshot(condemned),
        ];
        let holder = history.holder().unwrap();
        for entry in entries {
            let seq = tail.record.seq.next();
            let record = LedgerRecord {
                seq,
                prev_hash: tail.hash.clone(),
                node: holder.node,
                incarnation: holder.incarnation,
                state: history.state().clone(),
                entry,
                ..(*tail.record).clone()
            };
            random.bucket.put(&fs().ledger_object(seq.0), serde_json::to_vec(&record).unwrap().into()).await.unwrap();
            if let Err(reason) = both(&random.bucket).await {
                let words = reason.split("corrupt: ").nth(1).unwrap().to_owned();
                reasons.insert(words.chars().filter(|c| !c.is_ascii_digit()).take(24).collect::<String>());
            }
        }
    }
    assert!(reasons.len() >= 12, "{reasons:#?}");
}

fn probe() -> ProbeReport {
    ProbeReport { rounds: 1, racers: 1, checked: Timestamp::UNIX_EPOCH }
}

/// A master of a filesystem that `list` and `show` find.
async fn master(bucket: &MemoryStore) -> (FsName, Appender) {
    let store: Arc<dyn ObjectStore> = Arc::new(bucket.another_client());
    let config = create(&store, "long", FsParameters::default(), probe()).await.unwrap();
    let name = FsName { tag: "long".parse().unwrap(), id: config.id };
    let ledger = Ledger::new(store, name.clone());
    let master = Appender::new(ledger, Arc::new(MemoryIntents::default()), Writer::ephemeral());
    master.claim_first_epoch().await.unwrap();
    (name, master)
}

#[tokio::test]
async fn a_long_ledger_is_read_with_few_requests() {
    let bucket = MemoryStore::new();
    let (name, master) = master(&bucket).await;
    let mut parent = None;
    for n in 1..=1_000 {
        let entry = snapshot(n, parent, 1);
        let id = entry.id;
        master.publish_snapshot(&entry).await.unwrap();
        // As retention does it: a hundred stay.
        match n.checked_sub(100).filter(|old| *old > 0) {
            Some(old) => master.drop_snapshot(snapshot(old, None, 1).id).await.unwrap(),
            None => master.pin(id, "kept").await.and(Ok(master.unpin(id).await.unwrap())).unwrap(),
        };
        parent = Some(n);
    }
    let history = master.ledger().known();
    let tail = history.tail_seq().0;
    assert!(tail >= 2_000 && history.snapshots().len() == 100, "{tail} records");
    let since = tail - history.state().summary.as_ref().unwrap().upto_seq.0;
    assert!(since <= SUMMARY_EVERY_RECORDS.get(), "{since} records since the last summary");

    let asked = |client: &Arc<MemoryStore>| client.calls();
    let client = Arc::new(bucket.another_client());
    let store: Arc<dyn ObjectStore> = client.clone();
    assert_eq!(Ledger::new(store.clone(), name.clone()).history().await.unwrap(), history);
    let fresh = asked(&client);
    assert!(
        fresh <= since + 31 + 2 * u64::from(tail.ilog2()) + 8,
        "{fresh} requests, {since} records since the summary"
    );
    // The hint makes it cheaper, it is not needed.
    bucket.delete(&name.hint_object()).await.unwrap();
    assert_eq!(Ledger::new(store.clone(), name.clone()).history().await.unwrap(), history);
    let without_hint = asked(&client) - fresh;
    assert!(without_hint <= since + 31 + 2 * u64::from(tail.ilog2()) + 8, "{without_hint} requests without a hint");

    let before = asked(&client);
    let overview = show(&store, &name).await.unwrap();
    assert_eq!((overview.tail.0, overview.snapshots.len()), (tail, 100));
    let shown = asked(&client) - before;
    let before = asked(&client);
    assert_eq!(list(&store, DeletedFilter::Hide).await.unwrap()[0].tail.0, tail);
    let listed = asked(&client) - before;
    assert!(shown <= without_hint + 1 && listed <= 2 * u64::from(tail.ilog2()) + 8, "{shown}, {listed} requests");
    let before = asked(&client);
    Ledger::of_records_alone(store.clone(), name).history().await.unwrap();
    let all = asked(&client) - before;
    assert!(all > tail, "{all} requests read all {tail} records");
    println!(
        "{tail} records, {since} since the summary: {fresh} requests, {without_hint} without a hint, show {shown}, list {listed}, all {all}"
    );
}

#[tokio::test]
async fn a_summary_costs_one_request_and_no_record_copies_the_history() {
    let bucket = MemoryStore::new();
    let node = Node::new(&bucket, 1);
    let master = node.start().summarizing_every(NonZeroU64::new(10).unwrap());
    master.claim_first_epoch().await.unwrap();
    let place = Arc::as_ptr(&master.ledger().known());
    for n in 1..40_u32 {
        let before = node.store.calls();
        let hinted = u64::from(n) + 1;
        let parent = (n > 1).then(|| n - 1);
        let applied = master.publish_snapshot(&snapshot(n, parent, 1)).await.unwrap();
        let calls = node.store.calls() - before - u64::from(hinted.is_multiple_of(16));
        let brings =
            applied.record.state.summary.as_ref().is_some_and(|summary| summary.upto_seq.next() == applied.seq);
        assert_eq!(brings, n.is_multiple_of(10), "snapshot {n}");
        assert_eq!(calls, 2 + u64::from(brings), "snapshot {n}: a look, the record, and perhaps a summary");
        assert_eq!(Arc::as_ptr(&master.ledger().known()), place, "snapshot {n}");
    }
    // Only snapshots bring one.
    for n in 0..15 {
        master.condemn(&[pack(1_000 + n).object], "orphan").await.unwrap();
    }
    assert_eq!(master.ledger().known().state().summary.as_ref().unwrap().upto_seq, Seq(30));
    assert!(!master.ledger().known().retained().contains(run(1_000).object.as_str()));
}
