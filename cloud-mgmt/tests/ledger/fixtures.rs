//! A ledger of format 1 with a record of each kind, committed: it must be readable for ever.
//!
//! `CBFS_TEST_BLESS=1` writes the files anew; that is right only before a format is released.

use crate::world::{fs, pack, snapshot};
use cloud_mgmt::ledger::{Appender, Ledger, MemoryIntents, Seq, Stamps, Writer};
use cloud_mgmt::store::MemoryStore;
use cloud_mgmt::store::ObjectStore;
use jiff::Timestamp;
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

fn file(seq: u64) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ledger-1");
    folder.join(format!("{seq:016x}.json"))
}

async fn write_each_kind(bucket: &MemoryStore) {
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
