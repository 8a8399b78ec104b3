//! What a verified ledger says, from its first record to one of its records.

use super::codec::NO_HASH;
use super::record::{LedgerRecord, Seq, SnapshotEntry, State};
use crate::names::FsName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// The last record that a reader has seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Tail {
    /// The record.
    pub record: Arc<LedgerRecord>,
    /// `b3:` and the hash of its bytes: the `prev_hash` of the next one.
    pub hash: String,
}

/// Who holds the newest epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The epoch.
    pub epoch: u32,
    /// Its newest record.
    pub seq: Seq,
    /// The master.
    pub node: Uuid,
    /// Its process life.
    pub incarnation: Uuid,
    /// Its host name, for people.
    pub host: String,
    /// When the epoch began, by the master's clock.
    pub since: Timestamp,
}

/// A snapshot with the record that made it official.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// The record.
    pub seq: Seq,
    /// The manifest.
    pub snapshot: Arc<SnapshotEntry>,
}

/// A delete record in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// The record.
    pub seq: Seq,
    /// When, by the writer's clock.
    pub time: Timestamp,
    /// Why, for people.
    pub reason: String,
}

/// A condemn record in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condemnation {
    /// When, by the writer's clock: the grace time counts from here.
    pub time: Timestamp,
    /// Exact names.
    pub objects: Vec<String>,
    /// Why, for people.
    pub reason: String,
    /// The purge record: deletion has begun and cannot be taken back.
    pub purged: Option<Seq>,
}

/// From which snapshot record to which one (exclusive) a pack is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) born: Seq,
    pub(super) dead: Option<Seq>,
}

/// The ledger's content up to its tail; grows only by records that passed all checks.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    pub(super) fs: FsName,
    pub(super) tail: Option<Tail>,
    pub(super) state: State,
    pub(super) holder: Option<Holder>,
    pub(super) snapshots: BTreeMap<Seq, Arc<SnapshotEntry>>,
    pub(super) pins: BTreeMap<Uuid, String>,
    pub(super) packs: HashMap<String, Life>,
    pub(super) runs: BTreeSet<String>,
    pub(super) listings: BTreeSet<String>,
    pub(super) condemned: BTreeMap<Seq, Condemnation>,
    pub(super) condemned_objects: HashMap<String, Seq>,
    pub(super) properties: BTreeMap<String, String>,
    pub(super) deletion: Option<Deletion>,
    /// The newest record of each process life.
    pub(super) authors: HashMap<Uuid, (Seq, Uuid)>,
    pub(super) unknown: Option<Seq>,
}

impl History {
    /// The history of an empty ledger.
    pub(super) fn new(fs: FsName) -> Self {
        Self {
            fs,
            tail: None,
            state: State::default(),
            holder: None,
            snapshots: BTreeMap::new(),
            pins: BTreeMap::new(),
            packs: HashMap::new(),
            runs: BTreeSet::new(),
            listings: BTreeSet::new(),
            condemned: BTreeMap::new(),
            condemned_objects: HashMap::new(),
            properties: BTreeMap::new(),
            deletion: None,
            authors: HashMap::new(),
            unknown: None,
        }
    }

    /// The filesystem.
    pub fn fs(&self) -> &FsName {
        &self.fs
    }

    /// The last record; `None` in an empty ledger.
    pub fn tail(&self) -> Option<&Tail> {
        self.tail.as_ref()
    }

    /// The last record's position; 0 in an empty ledger.
    pub fn tail_seq(&self) -> Seq {
        self.tail.as_ref().map_or(Seq(0), |tail| tail.record.seq)
    }

    /// The `prev_hash` of the next record.
    pub fn tail_hash(&self) -> &str {
        self.tail.as_ref().map_or(NO_HASH, |tail| &tail.hash)
    }

    /// The sum of all records.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Who holds the newest epoch.
    pub fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// Live snapshots (not dropped), oldest first.
    pub fn snapshots(&self) -> Vec<Published> {
        let published =
            |(seq, snapshot): (&Seq, &Arc<SnapshotEntry>)| Published { seq: *seq, snapshot: snapshot.clone() };
        self.snapshots.iter().map(published).collect()
    }

    /// The newest snapshot: the base of whoever reigns next. Never dropped.
    pub fn newest_snapshot(&self) -> Option<Published> {
        let (seq, snapshot) = self.snapshots.last_key_value()?;
        Some(Published { seq: *seq, snapshot: snapshot.clone() })
    }

    /// A live snapshot.
    pub fn snapshot(&self, id: Uuid) -> Option<Published> {
        let (seq, snapshot) = self.snapshots.iter().find(|(_, snapshot)| snapshot.id == id)?;
        Some(Published { seq: *seq, snapshot: snapshot.clone() })
    }

    /// Pinned snapshots and why.
    pub fn pins(&self) -> &BTreeMap<Uuid, String> {
        &self.pins
    }

    /// The newest properties.
    pub fn properties(&self) -> &BTreeMap<String, String> {
        &self.properties
    }

    /// The delete record in force.
    pub fn deletion(&self) -> Option<&Deletion> {
        self.deletion.as_ref()
    }

    /// Condemn records in force, by position.
    pub fn condemned(&self) -> &BTreeMap<Seq, Condemnation> {
        &self.condemned
    }

    /// The condemn record in force that names `object`.
    pub fn condemned_by(&self, object: &str) -> Option<Seq> {
        self.condemned_objects.get(object).copied()
    }

    /// The first record of a kind that this version does not know.
    pub fn unknown(&self) -> Option<Seq> {
        self.unknown
    }

    /// Names of all packs, runs and listings that a live snapshot uses; of a deleted filesystem the last snapshot's runs alone,
    /// which stay for ever.
    pub fn retained(&self) -> HashSet<&str> {
        if self.deletion.is_some() {
            let last = self.snapshots.last_key_value();
            return last.into_iter().flat_map(|(_, snapshot)| &snapshot.runs).map(|run| run.object.as_str()).collect();
        }
        let own = self.snapshots.values().flat_map(|snapshot| snapshot.runs_and_listing());
        let packs = self.packs.iter().filter(|(_, life)| self.lives(life)).map(|(object, _)| object.as_str());
        own.chain(packs).collect()
    }

    /// Packs, runs and listings that were official once, that no live snapshot uses and nobody has condemned yet; sorted. What
    /// never was official is found by listing the bucket.
    pub fn unreferenced(&self) -> Vec<String> {
        let retained = self.retained();
        let free = |object: &&String| !retained.contains(object.as_str()) && self.condemned_by(object).is_none();
        let mut objects: Vec<_> =
            self.packs.keys().chain(&self.runs).chain(&self.listings).filter(free).cloned().collect();
        objects.sort_unstable();
        objects
    }

    /// Every pack that was official once and is not purged: its name, the snapshot record that brought it, and the one
    /// from which on it is not used any more. A snapshot S uses it when born ≤ S < dead.
    pub fn packs(&self) -> impl Iterator<Item = (&str, Seq, Option<Seq>)> {
        self.packs.iter().map(|(object, life)| (object.as_str(), life.born, life.dead))
    }

    /// A pack is used by the snapshots S with born ≤ S < dead.
    fn lives(&self, life: &Life) -> bool {
        let end = life.dead.unwrap_or(Seq(u64::MAX));
        life.born < end && self.snapshots.range(life.born..end).next().is_some()
    }
}
