//! The records.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// The ledger format that this version writes, and the newest that it reads.
pub const LEDGER_FORMAT: u32 = 1;
/// Limit of an encoded record, bytes.
pub const RECORD_BYTES_MAX: usize = 256 << 10;

/// Position in the ledger, from 1; 0 is "before the first record".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// The position that follows.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One ledger record. Unknown JSON keys are ignored; an unknown `kind` is skipped by readers that only look for others,
/// and stops a writer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerRecord {
    /// [`LEDGER_FORMAT`] of the writer.
    pub format: u32,
    /// The filesystem.
    pub fs: Uuid,
    /// Its position.
    pub seq: Seq,
    /// `b3:` and the BLAKE3 (64 hex digits) of the bytes of the record before; of the first record: `b3:` alone.
    pub prev_hash: String,
    /// Fresh for every append: makes the body unique, so that a lost answer can be told from a lost race.
    pub op: Uuid,
    /// The node that wrote it.
    pub node: Uuid,
    /// The process life that wrote it.
    pub incarnation: Uuid,
    /// When, by the writer's clock; for people only.
    pub time: Timestamp,
    /// Sum of everything up to and including this record.
    pub state: State,
    /// What it says.
    #[serde(flatten)]
    pub entry: Entry,
}

/// The sum of a ledger up to a record, so that a reader needs the tail alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The newest epoch; 0 = nobody yet.
    pub epoch: u32,
    /// Its record.
    pub epoch_seq: Seq,
    /// The node that holds it.
    pub master: Option<Uuid>,
    /// The process life that holds it.
    pub incarnation: Option<Uuid>,
    /// The newest snapshot record.
    pub snapshot_seq: Option<Seq>,
    /// The newest properties record.
    pub properties_seq: Option<Seq>,
    /// The delete record in force.
    pub deleted_seq: Option<Seq>,
    /// The newest summary of the records below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<SummaryEntry>,
}

/// All that the records up to one say, as one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryEntry {
    /// The last record that is summed up: the one before the first that names this summary.
    pub upto_seq: Seq,
    /// Object name, whole.
    pub object: String,
    /// Bytes.
    pub size: u64,
    /// `b3:` and the BLAKE3 (64 hex digits) of the object.
    pub hash: String,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Entry {
    /// A reign begins (or its master restarted: same epoch, new incarnation).
    Epoch {
        /// Its number.
        epoch: u32,
        /// The master's host name, for people.
        host: String,
    },
    /// A snapshot is official.
    Snapshot(Box<SnapshotEntry>),
    /// A snapshot is given up.
    Drop {
        /// Which.
        snapshot: Uuid,
    },
    /// A snapshot is kept whatever retention says.
    Pin {
        /// Which.
        snapshot: Uuid,
        /// Why, for people.
        reason: String,
    },
    /// The end of a pin.
    Unpin {
        /// Which.
        snapshot: Uuid,
    },
    /// New properties of the filesystem.
    Properties {
        /// All of them.
        values: BTreeMap<String, String>,
    },
    /// Objects that will be deleted after the grace time.
    Condemn {
        /// Exact names.
        objects: Vec<String>,
        /// Why, for people.
        reason: String,
    },
    /// Condemned objects are being deleted now.
    Purge {
        /// The condemn record.
        condemned: Seq,
    },
    /// The filesystem is deleted.
    Delete {
        /// Why, for people.
        reason: String,
    },
    /// The deletion is taken back, and with it every condemnation since.
    Undelete {},
    /// A kind that this version does not know. Never written.
    #[serde(other, skip_serializing)]
    Unknown,
}

impl Entry {
    /// The `kind` in the JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Epoch { .. } => "epoch",
            Self::Snapshot(_) => "snapshot",
            Self::Drop { .. } => "drop",
            Self::Pin { .. } => "pin",
            Self::Unpin { .. } => "unpin",
            Self::Properties { .. } => "properties",
            Self::Condemn { .. } => "condemn",
            Self::Purge { .. } => "purge",
            Self::Delete { .. } => "delete",
            Self::Undelete {} => "undelete",
            Self::Unknown => "unknown",
        }
    }
}

/// The manifest of a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotEntry {
    /// Its id, for ever.
    pub id: Uuid,
    /// A name that the user gave.
    pub name: Option<String>,
    /// `user` or `periodic`.
    pub snapshot_kind: String,
    /// The idempotency key of whoever asked for it: the same key gives this snapshot for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Uuid>,
    /// The epoch that made it.
    pub epoch: u32,
    /// The snapshot that it builds on: the newest one before it.
    pub parent: Option<Uuid>,
    /// The base's xid: the snapshot is the base plus the journal records `xid_from+1 ..= xid`.
    pub xid_from: u64,
    /// The last journal record in it.
    pub xid: u64,
    /// When it was asked for: the instant that it shows.
    pub requested: Timestamp,
    /// No inode in it has this number or a higher one.
    pub ino_end: u64,
    /// No pack in it has this number or a higher one.
    pub pack_end: u64,
    /// Inodes in it.
    pub inodes: u64,
    /// Sum of file sizes in it, bytes.
    pub bytes: u64,
    /// Bytes uploaded for it: packs, runs, listing.
    pub uploaded: u64,
    /// All its index runs, newest first; see [`SnapshotEntry::stacked_runs`].
    pub runs: Vec<RunEntry>,
    /// Packs that it added.
    pub packs_new: Vec<PackEntry>,
    /// Object names of packs that no file of it uses any more, and its parent did.
    pub packs_dead: Vec<String>,
    /// Object names of runs that it does not use any more, and its parent did.
    pub runs_dead: Vec<String>,
    /// Features that a reader must know.
    #[serde(default)]
    pub features: Vec<String>,
    /// Where its bytes are, for people without this program; see `docs/formats/listing.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<ListingEntry>,
}

impl SnapshotEntry {
    /// Names of the objects that stand in it: runs, new packs, listing. Older packs are in the manifests before it.
    pub fn objects(&self) -> impl Iterator<Item = &str> {
        self.runs_and_listing().chain(self.packs_new.iter().map(|pack| pack.object.as_str()))
    }

    /// Its runs, newest first, each with all its parts in key order.
    pub fn stacked_runs(&self) -> impl Iterator<Item = &[RunEntry]> {
        let continues = |before: &RunEntry, part: &RunEntry| {
            before.ino_from.zip(part.ino_from).is_some_and(|(before, from)| before < from)
        };
        self.runs.chunk_by(continues)
    }

    /// Names of the objects that live as long as this manifest is one that names them.
    pub(super) fn runs_and_listing(&self) -> impl Iterator<Item = &str> {
        let listing = self.listing.iter().map(|listing| listing.object.as_str());
        self.runs.iter().map(|run| run.object.as_str()).chain(listing)
    }
}

/// The portable listing of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListingEntry {
    /// Object name, whole.
    pub object: String,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the object, 64 hex digits.
    pub hash: String,
}

/// An index run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEntry {
    /// Object name, whole.
    pub object: String,
    /// Bytes.
    pub size: u64,
    /// BLAKE3-128 of the footer's root pointer area, 32 hex digits: the root of the run's hash tree (see the run format).
    pub root: String,
    /// Its records are newer than this xid …
    pub xid_from: u64,
    /// … and not newer than this one.
    pub xid: u64,
    /// Number of records.
    pub records: u64,
    /// Of a run that is split by key: this object is the part with the inodes from this one on, up to the next part; the
    /// parts of a run stand together, ascending from 0. Absent: the object is a whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ino_from: Option<u64>,
}

/// A pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackEntry {
    /// Its number.
    pub number: u64,
    /// Object name, whole.
    pub object: String,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the object, 64 hex digits.
    pub hash: String,
}
