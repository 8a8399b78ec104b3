//! Ledgers of format 1 with a record of each kind, the second one with a summary, committed: they must be readable for ever.
//!
//! `CBFS_TEST_BLESS=1` writes the files anew; that is right only before a format is released.

use crate::world::{fs, pack, snapshot};
use cloud_mgmt::ledger::{Appender, Ledger, MemoryIntents, Seq, Stamps, SummaryEntry, Writer};
use cloud_mgmt::store::MemoryStore;
use cloud_mgmt::store::ObjectStore;
use jiff::Timestamp;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

const KINDS: [&str; 11] =
    ["epoch", "snapshot", "properties", "pin", "snapshot", "unpin", "drop", "condemn", "purge", "delete", "undelete"];

/// A clock that ticks once a look, and ids that count.
#[derive(Debug, Default)]
struct Counting(AtomicU64);

impl Stamps for Counting {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + self.0.fetch_add(1, Ordering::Relaxed) as i64).unwrap()
    }

    fn fresh_op(&self) -> Uuid {
        Uuid::from_u128(0x0b00 + u128::from(self.0.fetch_add(1, Ordering::Relaxed)))
    }
}

fn folder(ledger: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(ledger)
}

fn file(seq: u64) -> PathBuf {
    folder("ledger-1").join(format!("{seq:016x}.json"))
}

/// Of `object`, in the second ledger.
fn second(object: &str) -> PathBuf {
    folder("ledger-2").join(object.strip_prefix(&format!("{}/", fs())).unwrap().replace('/', "-"))
}

async fn write_each_kind(bucket: &MemoryStore) -> Appender {
    let ledger = Ledger::new(Arc::new(bucket.another_client()), fs());
    let writer = Writer { node: Uuid::from_u128(0xa), incarnation: Uuid::from_u128(0xb), host: "n1".into() };
    let intents = Arc::new(MemoryIntents::default());
    let node = Appender::with_stamps(ledger, intents, writer, Arc::new(Counting::default()));
    let mut first = snapshot(1, None, 1);
    first.name = Some("before the move".into());
    node.claim_first_epoch().await.unwrap();
    node.publish_snapshot(&first).await.unwrap();
    node.publish_properties(&[("snapshot.interval".to_owned(), "1h".to_owned())].into()).await.unwrap();
    node.pin(first.id, "year's end").await.unwrap();
    let mut second = snapshot(2, Some(1), 1);
    second.packs_dead = vec![pack(1).object];
    node.publish_snapshot(&second).await.unwrap();
    node.unpin(first.id).await.unwrap();
    node.drop_snapshot(first.id).await.unwrap();
    let condemned = node.condemn(&[pack(1).object], "dropped").await.unwrap()[0].seq;
    node.purge(condemned).await.unwrap();
    node.delete("no longer needed").await.unwrap();
    node.undelete().await.unwrap();
    node
}

#[tokio::test]
async fn the_committed_ledger_reads_and_is_what_is_written_today() {
    let written = MemoryStore::new();
    write_each_kind(&written).await;
    let bucket = MemoryStore::new();
    for seq in 1..=KINDS.len() as u64 {
        let bytes = written.get(&fs().ledger_object(seq)).await.unwrap();
        if std::env::var_os("CBFS_TEST_BLESS").is_some() {
            std::fs::create_dir_all(file(seq).parent().unwrap()).unwrap();
            std::fs::write(file(seq), &bytes).unwrap();
        }
        let committed = std::fs::read(file(seq)).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&committed), "record {seq}");
        bucket.put(&fs().ledger_object(seq), committed.into()).await.unwrap();
    }
    let ledger = Ledger::new(Arc::new(bucket), fs());
    let history = ledger.history().await.unwrap();
    assert_eq!(history.tail_seq(), Seq(KINDS.len() as u64));
    let kinds: Vec<_> = ledger.replay(Seq(1), history.tail_seq()).await.unwrap();
    assert_eq!(kinds.iter().map(|record| record.entry.kind()).collect::<Vec<_>>(), KINDS);
    assert_eq!(history.snapshots().len(), 1);
    assert_eq!(history.properties()["snapshot.interval"], "1h");
    assert_eq!(history.condemned()[&Seq(8)].purged, Some(Seq(9)));
    assert_eq!(history.holder().unwrap().host, "n1");
    assert!(history.deletion().is_none());
}

/// The records of the first ledger, then a snapshot that brings a summary of them, and one record more.
async fn write_summarized(bucket: &MemoryStore) -> SummaryEntry {
    let node = write_each_kind(bucket).await.summarizing_every(NonZeroU64::new(11).unwrap());
    let third = node.publish_snapshot(&snapshot(3, Some(2), 1)).await.unwrap();
    node.pin(snapshot(3, None, 1).id, "year's end").await.unwrap();
    third.record.state.summary.clone().unwrap()
}

fn unpacked(stored: &[u8]) -> String {
    String::from_utf8(zstd::bulk::decompress(stored, 1 << 20).unwrap()).unwrap()
}

#[tokio::test]
async fn the_committed_summary_reads_and_says_what_is_written_today() {
    let written = MemoryStore::new();
    let today = write_summarized(&written).await;
    let mut objects: Vec<_> = (1..=13).map(|seq| fs().ledger_object(seq)).collect();
    objects.push(today.object.clone());
    let bucket = MemoryStore::new();
    for object in &objects {
        if std::env::var_os("CBFS_TEST_BLESS").is_some() {
            std::fs::create_dir_all(folder("ledger-2")).unwrap();
            std::fs::write(second(object), written.get(object).await.unwrap()).unwrap();
        }
        bucket.put(object, std::fs::read(second(object)).unwrap().into()).await.unwrap();
    }
    // Another zstd may write other bytes of the same JSON.
    let (ours, theirs) = (written.get(&today.object).await.unwrap(), bucket.get(&today.object).await.unwrap());
    assert_eq!(unpacked(&ours), unpacked(&theirs));

    let ledger = Ledger::of_records_alone(Arc::new(bucket), fs());
    let mut bad = Vec::new();
    let history = ledger.audit(&mut bad).await.unwrap();
    assert!(bad.is_empty() && history.tail_seq() == Seq(13), "{bad:?}");
    let summary = history.state().summary.clone().unwrap();
    assert_eq!(summary.upto_seq, Seq(11));
    let told = ledger.summary(&summary).await.unwrap();
    assert_eq!((told.snapshots().len(), told.condemned()[&Seq(8)].purged), (1, Some(Seq(9))));
    assert_eq!((told.properties().len(), told.holder().unwrap().host.as_str()), (1, "n1"));
}
