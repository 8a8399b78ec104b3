//! Nodes around one bucket.

use bytes::Bytes;
use cloud_mgmt::ledger::{
    Appender, Entry, Intent, IntentStore, Ledger, LedgerError, LedgerRecord, MemoryIntents, PackEntry, RunEntry, Seq,
    SnapshotEntry, Writer,
};
use cloud_mgmt::names::FsName;
use cloud_mgmt::store::MemoryStore;
use cloud_mgmt::store::ObjectStore;
use jiff::Timestamp;
use std::sync::Arc;
use uuid::Uuid;

pub fn fs() -> FsName {
    FsName { tag: "home".parse().unwrap(), id: Uuid::from_u128(0xf5) }
}

/// A node: its disk (the intent) and its line to the bucket outlive its processes.
pub struct Node {
    pub id: Uuid,
    pub store: Arc<MemoryStore>,
    pub intents: Arc<MemoryIntents>,
}

impl Node {
    pub fn new(bucket: &MemoryStore, id: u128) -> Self {
        let store = Arc::new(bucket.another_client());
        Self { id: Uuid::from_u128(id), store, intents: Arc::default() }
    }

    /// A new process: fresh incarnation, empty memory.
    pub fn start(&self) -> Appender {
        self.start_as(Uuid::new_v4())
    }

    pub fn start_as(&self, incarnation: Uuid) -> Appender {
        let ledger = Ledger::new(self.store.clone(), fs());
        let writer = Writer { node: self.id, incarnation, host: format!("host-{:x}", self.id.as_u128()) };
        Appender::new(ledger, self.intents.clone(), writer)
    }

    pub async fn intent(&self) -> Option<Intent> {
        self.intents.load().await.unwrap()
    }
}

pub fn run(n: u32) -> RunEntry {
    let object = fs().run_object(1, 1, Uuid::from_u128(1), n);
    RunEntry { object, size: 10, root: "00".repeat(16), xid_from: 0, xid: 1, records: 1, ino_from: None }
}

pub fn pack(n: u32) -> PackEntry {
    let object = fs().pack_object(1, 1, Uuid::from_u128(1), n);
    PackEntry { number: u64::from(n), object, size: 100, hash: "00".repeat(32) }
}

/// A snapshot with a run and a pack of its own.
pub fn snapshot(id: u32, parent: Option<u32>, epoch: u32) -> SnapshotEntry {
    SnapshotEntry {
        id: Uuid::from_u128(u128::from(id)),
        name: None,
        snapshot_kind: "user".into(),
        key: None,
        epoch,
        parent: parent.map(|parent| Uuid::from_u128(u128::from(parent))),
        xid_from: u64::from(id) * 10,
        xid: u64::from(id) * 10 + 9,
        requested: Timestamp::UNIX_EPOCH,
        ino_end: 100,
        pack_end: u64::from(id) + 1,
        inodes: 3,
        bytes: 1_000,
        uploaded: 110,
        runs: vec![run(id)],
        packs_new: vec![pack(id)],
        packs_dead: vec![],
        runs_dead: vec![],
        features: vec![],
        listing: None,
    }
}

/// All records, read by a client without faults and verified by their rules.
pub async fn records(bucket: &MemoryStore) -> Vec<LedgerRecord> {
    let ledger = Ledger::new(Arc::new(bucket.another_client()), fs());
    let tail = ledger.history().await.unwrap().tail_seq();
    ledger.replay(Seq(1), tail).await.unwrap()
}

pub async fn kinds(bucket: &MemoryStore) -> Vec<&'static str> {
    records(bucket).await.iter().map(|record| record.entry.kind()).collect()
}

pub fn is_snapshot(record: &LedgerRecord, id: u32) -> bool {
    matches!(&record.entry, Entry::Snapshot(snapshot) if snapshot.id.as_u128() == u128::from(id))
}

/// Replaces the bytes of a record by what `change` makes of its JSON.
pub async fn damage(bucket: &MemoryStore, seq: u64, change: impl FnOnce(&mut serde_json::Value)) {
    let object = fs().ledger_object(seq);
    let mut value = serde_json::from_slice(&bucket.get(&object).await.unwrap()).unwrap();
    change(&mut value);
    bucket.put(&object, Bytes::from(serde_json::to_vec(&value).unwrap())).await.unwrap();
}

pub async fn history_error(bucket: &MemoryStore) -> LedgerError {
    Ledger::new(Arc::new(bucket.another_client()), fs()).history().await.unwrap_err()
}
