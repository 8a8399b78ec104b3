//! The model's processes as real appenders on a bucket in memory.

use crate::record::{Put, Said, Snap};
use crate::trace::{Fate, Found, Step};
use crate::world::{Disk, Process, SLOTS, World};
use bytes::Bytes;
use cloud_mgmt::ledger::{
    Appender, Applied, Entry, IntentStore, Ledger, LedgerError, LedgerRecord, MemoryIntents, Reign, Resolution, Seq,
    SnapshotEntry, Writer,
};
use cloud_mgmt::names::FsName;
use cloud_mgmt::store::{Call, MemoryStore, ObjectStore, Observed, Observer, PutOutcome, StoreError, StoreErrorKind};
use jiff::Timestamp;
use serde_json::json;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// On the line to the bucket conditional writes stay under way until the walk lets them land. The writer gets no
/// answer that says anything: "denied" is the one after which it does not try again by itself.
#[derive(Debug, Default)]
struct UnderWay {
    requests: Mutex<Vec<(String, Bytes)>>,
}

impl UnderWay {
    fn requests(&self) -> MutexGuard<'_, Vec<(String, Bytes)>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for UnderWay {
    fn call(&self, call: &Call<'_>) -> Result<(), StoreError> {
        let Call::PutIfAbsent(name, body) = call else { return Ok(()) };
        let mut requests = self.requests();
        if !requests.iter().any(|(_, under_way)| under_way == *body) {
            requests.push(((*name).to_owned(), (*body).clone()));
        }
        Err(StoreError::new(StoreErrorKind::Denied, "put", *name, "under way"))
    }
}

/// Everything that is real.
pub struct Real {
    bucket: Arc<MemoryStore>,
    under_way: Arc<UnderWay>,
    intents: [Arc<MemoryIntents>; SLOTS],
    processes: [Option<Appender>; SLOTS],
}

fn fs() -> FsName {
    FsName { tag: "model".parse().expect("a tag"), id: Uuid::from_u128(0xf5) }
}

fn id(kind: u128, n: u8) -> Uuid {
    Uuid::from_u128(kind << 64 | u128::from(n))
}

fn node(n: u8) -> Uuid {
    id(1, n)
}

fn incarnation(life: u8) -> Uuid {
    id(2, life)
}

fn snapshot_id(n: u8) -> Uuid {
    id(3, n)
}

fn pack(objects: u8) -> String {
    fs().pack_object(1, 1, id(4, objects), 0)
}

/// By its JSON: the model does not care for what else a manifest may hold.
fn entry(snap: Snap, disk: &Disk) -> SnapshotEntry {
    let parent = (disk.base.id > 0).then(|| snapshot_id(disk.base.id));
    let run = fs().run_object(1, 1, id(4, snap.objects), 0);
    let (number, hash) = (snap.objects, "00".repeat(32));
    let manifest = json!({
        "id": snapshot_id(snap.id), "snapshot_kind": "user", "epoch": disk.epoch, "parent": parent,
        "xid_from": 0, "xid": snap.id, "requested": Timestamp::UNIX_EPOCH, "ino_end": 2, "pack_end": number + 1,
        "inodes": 1, "bytes": 0, "uploaded": 1,
        "runs": [{"object": run, "size": 1, "root": "00".repeat(16), "xid_from": 0, "xid": 1, "records": 1}],
        "packs_new": [{"number": number, "object": pack(snap.objects), "size": 1, "hash": hash}],
        "packs_dead": [], "runs_dead": [],
    });
    serde_json::from_value(manifest).expect("a manifest")
}

/// Whether a real record says what the model's says.
fn says(record: &LedgerRecord, said: Said) -> bool {
    match (&record.entry, said) {
        (Entry::Epoch { epoch, .. }, Said::Epoch { number, node: of, life }) => {
            (*epoch, record.node, record.incarnation) == (u32::from(number), node(of), incarnation(life))
        }
        (Entry::Snapshot(real), Said::Snapshot { snap, parent, life, epoch, .. }) => {
            let parent = (parent > 0).then(|| snapshot_id(parent));
            (real.id, real.parent, real.epoch) == (snapshot_id(snap.id), parent, u32::from(epoch))
                && is_attempt(real, snap)
                && record.incarnation == incarnation(life)
        }
        (Entry::Condemn { objects, .. }, Said::Condemn { objects: said }) => *objects == [pack(said)],
        (Entry::Purge { condemned }, Said::Purge { place }) => *condemned == Seq(u64::from(place) + 1),
        (Entry::Delete { .. }, Said::Delete) | (Entry::Undelete {}, Said::Undelete) => true,
        _ => false,
    }
}

fn is_attempt(real: &SnapshotEntry, snap: Snap) -> bool {
    real.packs_new.iter().map(|new| new.object.as_str()).eq([pack(snap.objects)])
}

impl Real {
    /// Node 0 is master of epoch 1.
    pub async fn new(world: &World) -> Self {
        let mut real = Self {
            bucket: Arc::new(MemoryStore::new()),
            under_way: Arc::default(),
            intents: std::array::from_fn(|_| Arc::default()),
            processes: [None, None, None],
        };
        for (slot, process) in world.processes.iter().enumerate().filter(|(_, process)| process.life > 0) {
            real.start(slot, process, world);
        }
        let first = Said::Epoch { number: 1, node: 0, life: 1 };
        assert!(real.process(0).claim_first_epoch().await.is_err_and(|error| error.is_unknown()));
        real.land(Put::new(crate::record::Sequence::Ledger, 0, first)).await.expect("the first record");
        assert!(matches!(real.process(0).resolve().await, Ok(Resolution::Applied(_))));
        real
    }

    fn appender(&self, intents: Arc<MemoryIntents>, writer: Writer) -> Appender {
        let line = Observed::new(self.bucket.clone(), self.under_way.clone());
        Appender::new(Ledger::new(Arc::new(line), fs()), intents, writer)
    }

    fn start(&mut self, slot: usize, process: &Process, world: &World) {
        let node = node(world.disks[slot].node);
        let writer = Writer { node, incarnation: incarnation(process.life), host: String::new() };
        self.processes[slot] = Some(self.appender(self.intents[slot].clone(), writer));
    }

    fn process(&self, slot: usize) -> &Appender {
        self.processes[slot].as_ref().expect("a running process")
    }

    /// Does a step and tells its verdict, or where the two differ.
    pub async fn step(&mut self, world: &World, step: Step, after: &World) -> Result<&'static str, String> {
        let disk = |slot: usize| world.disks[slot];
        match step {
            Step::Reads { slot, fate, .. } => self.read(slot, fate, after).await,
            Step::Sends { slot, put } => self.send(slot, put, &disk(slot)).await,
            Step::FindsItself { slot, official } => {
                match self.process(slot).publish_snapshot(&entry(disk(slot).job, &disk(slot))).await {
                    Ok(Applied { record, .. }) => match &record.entry {
                        Entry::Snapshot(real) if is_attempt(real, official) => Ok("official already"),
                        other => Err(format!("{other:?} is official")),
                    },
                    other => Err(format!("{other:?}")),
                }
            }
            Step::FindsStranger { slot, .. } => {
                match self.process(slot).publish_snapshot(&entry(disk(slot).job, &disk(slot))).await {
                    Err(LedgerError::UnexpectedParent { .. }) => Ok("unexpected parent"),
                    other => Err(format!("{other:?}")),
                }
            }
            Step::FindsCondemned { slot, .. } => {
                match self.process(slot).publish_snapshot(&entry(disk(slot).job, &disk(slot))).await {
                    Err(LedgerError::Condemned { .. }) => Ok("condemned object"),
                    other => Err(format!("{other:?}")),
                }
            }
            Step::Looks { slot, put, found } => match (self.process(slot).resolve().await, found) {
                (Ok(Resolution::Applied(applied)), Found::Own) if applied.seq.0 == put.place() as u64 + 1 => {
                    Ok("applied")
                }
                (Ok(Resolution::Lost { .. }), Found::Another) => Ok("lost"),
                (other, _) => Err(format!("{other:?}")),
            },
            Step::Restarts { slot, .. } => {
                self.start(slot, &after.processes[slot], after);
                Ok("restarted")
            }
            Step::Doubles { slot, .. } => {
                let twin = SLOTS - 1;
                if let Some(intent) = self.intents[slot].load().await.map_err(|e| e.to_string())? {
                    self.intents[twin].persist(&intent).await.map_err(|e| e.to_string())?;
                }
                self.start(twin, &after.processes[twin], after);
                Ok("doubled")
            }
            Step::Lands { put, .. } => {
                self.land(put).await?;
                self.compare(after).await
            }
            Step::Commands { put } => self.command(put).await,
            Step::Asks { .. } | Step::Uploads { .. } | Step::Deletes { .. } | Step::Dooms { .. } => Ok("nothing"),
        }
    }

    async fn read(&self, slot: usize, fate: Fate, after: &World) -> Result<&'static str, String> {
        let reign = self.process(slot).check_reign().await.map_err(|error| error.to_string())?;
        let process = after.processes[slot];
        let master = process.confirmed && after.disks[slot].epoch > 0;
        match (reign, fate) {
            (Reign::Mine { .. }, Fate::GoesOn) => Ok("reigns"),
            (Reign::Deposed { .. }, _) if !master => Ok("deposed"),
            (Reign::Deleted(_), _) if after.history().is_deleted() => Ok("deleted"),
            (other, _) => Err(format!("{other:?}, {process:?}")),
        }
    }

    async fn send(&self, slot: usize, put: Put, disk: &Disk) -> Result<&'static str, String> {
        let process = self.process(slot);
        let (answer, verdict) = match put.record().said() {
            Some(Said::Epoch { number, .. }) if disk.epoch > 0 => {
                (process.resume_epoch(u32::from(number)).await, "resume")
            }
            Some(Said::Epoch { number, .. }) => (process.promote(u32::from(number) - 1).await, "promote"),
            _ => (process.publish_snapshot(&entry(disk.job, disk)).await, "publish"),
        };
        self.expect_under_way(answer.map(|_| ()), put)?;
        Ok(verdict)
    }

    async fn command(&self, put: Put) -> Result<&'static str, String> {
        let command = self.appender(Arc::default(), Writer::ephemeral());
        let (answer, verdict) = match put.record().said() {
            Some(Said::Condemn { objects }) => {
                (command.condemn(&[pack(objects)], "model").await.map(|_| ()), "condemn")
            }
            Some(Said::Purge { place }) => (command.purge(Seq(u64::from(place) + 1)).await.map(|_| ()), "purge"),
            Some(Said::Delete) => (command.delete("model").await.map(|_| ()), "delete"),
            _ => (command.undelete().await.map(|_| ()), "undelete"),
        };
        self.expect_under_way(answer, put)?;
        Ok(verdict)
    }

    /// The outcome is unknown, and the request is the model's.
    fn expect_under_way(&self, answer: Result<(), LedgerError>, put: Put) -> Result<(), String> {
        match answer {
            Err(error) if error.is_unknown() => self.find(put).map(|_| ()),
            other => Err(format!("{other:?} in place of an unknown outcome")),
        }
    }

    fn find(&self, put: Put) -> Result<(String, Bytes), String> {
        let object = fs().ledger_object(put.place() as u64 + 1);
        let said = put.record().said().ok_or("an empty request")?;
        let requests = self.under_way.requests();
        let fits = |(name, body): &&(String, Bytes)| {
            *name == object && serde_json::from_slice(body).is_ok_and(|record| says(&record, said))
        };
        requests.iter().find(fits).cloned().ok_or(format!("{put} is not under way: {requests:?}"))
    }

    async fn land(&self, put: Put) -> Result<(), String> {
        let (object, body) = self.find(put)?;
        match self.bucket.put_if_absent(&object, body).await {
            Ok(PutOutcome::Created) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    /// Readers take all in that is official in the model, and it says the same.
    async fn compare(&self, world: &World) -> Result<&'static str, String> {
        let ledger = Ledger::new(self.bucket.clone(), fs());
        let tail = ledger.history().await.map_err(|error| error.to_string())?.tail_seq();
        let records = ledger.replay(Seq(1), tail).await.map_err(|error| error.to_string())?;
        let official: Vec<Said> = world.official().iter().filter_map(|record| record.said()).collect();
        let same =
            official.len() == records.len() && records.iter().zip(&official).all(|(real, said)| says(real, *said));
        if same { Ok("landed") } else { Err(format!("{records:?} in place of {official:?}")) }
    }
}
