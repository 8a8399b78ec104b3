//! All that the records up to one say, as one object: to bytes, from bytes.

use super::codec;
use super::history::{Condemnation, Deletion, History, Holder, Life, Published};
use super::record::{Seq, State, SummaryEntry};
use crate::names::FsName;
use crate::store::StoreError;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// The only version that this program reads. Whatever changes what records add to the sum raises it: a program that does
/// not know a new part of a record cannot sum it up.
pub const SUMMARY_VERSION: u32 = 1;
/// Limit of a summary, bytes.
pub const SUMMARY_BYTES_MAX: u64 = 8 << 20;
/// Limit of its JSON, bytes.
pub const SUMMARY_JSON_BYTES_MAX: usize = 32 << 20;

/// Of the JSON, which repeats itself.
const ZSTD_LEVEL: i32 = 3;

/// Why a summary cannot be used. Nothing is lost: all records are there to be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SummaryFault {
    /// There is no such object.
    #[error("it is not there")]
    Missing,
    /// Its bytes are not those that were written.
    #[error("{reason}")]
    Damaged {
        /// How they differ.
        reason: String,
    },
    /// Its bytes are those that were written, and break the format or contradict the records.
    #[error("{reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Written by a program that knows more or less of records.
    #[error("it has version {found}; this program reads version {SUMMARY_VERSION} alone")]
    Version {
        /// Its version.
        found: u32,
    },
    /// It could not be read.
    #[error(transparent)]
    Store(StoreError),
}

pub(super) fn malformed(reason: impl ToString) -> SummaryFault {
    SummaryFault::Malformed { reason: reason.to_string() }
}

#[derive(Serialize, Deserialize)]
struct Pack {
    object: String,
    born: Seq,
    dead: Option<Seq>,
}

#[derive(Serialize, Deserialize)]
struct Condemned {
    seq: Seq,
    #[serde(flatten)]
    condemnation: Condemnation,
}

#[derive(Serialize, Deserialize)]
struct Author {
    incarnation: Uuid,
    seq: Seq,
    op: Uuid,
}

/// The JSON; lists ascend by their first field.
#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    fs: Uuid,
    upto_seq: Seq,
    tail_hash: String,
    state: State,
    holder: Option<Holder>,
    snapshots: Vec<Published>,
    pins: BTreeMap<Uuid, String>,
    packs: Vec<Pack>,
    runs: Vec<String>,
    listings: Vec<String>,
    condemned: Vec<Condemned>,
    properties: BTreeMap<String, String>,
    deletion: Option<Deletion>,
    authors: Vec<Author>,
}

/// All that another version promises to keep.
#[derive(Deserialize)]
struct Envelope {
    version: u32,
}

impl From<&History> for Content {
    fn from(history: &History) -> Self {
        let pack = |(object, life): (&String, &Life)| Pack { object: object.clone(), born: life.born, dead: life.dead };
        let condemned =
            |(seq, condemnation): (&Seq, &Condemnation)| Condemned { seq: *seq, condemnation: condemnation.clone() };
        let author =
            |(incarnation, (seq, op)): (&Uuid, &(Seq, Uuid))| Author { incarnation: *incarnation, seq: *seq, op: *op };
        let mut packs: Vec<_> = history.packs.iter().map(pack).collect();
        packs.sort_unstable_by(|a, b| a.object.cmp(&b.object));
        let mut authors: Vec<_> = history.authors.iter().map(author).collect();
        authors.sort_unstable_by_key(|author| author.incarnation);
        Self {
            version: SUMMARY_VERSION,
            fs: history.fs.id,
            upto_seq: history.tail_seq(),
            tail_hash: history.tail_hash().to_owned(),
            state: history.state.clone(),
            holder: history.holder.clone(),
            snapshots: history.snapshots(),
            pins: history.pins.clone(),
            packs,
            runs: history.runs.iter().cloned().collect(),
            listings: history.listings.iter().cloned().collect(),
            condemned: history.condemned.iter().map(condemned).collect(),
            properties: history.properties.clone(),
            deletion: history.deletion.clone(),
            authors,
        }
    }
}

/// A summary of a history, or why there is none.
pub(super) fn encode(history: &History) -> Result<Bytes, String> {
    if let Some(seq) = history.unknown {
        return Err(format!("record {seq} is of a kind that this version does not know"));
    }
    let json = serde_json::to_vec(&Content::from(history)).map_err(|error| error.to_string())?;
    if json.len() > SUMMARY_JSON_BYTES_MAX {
        return Err(format!("{} bytes of JSON are above the limit of {SUMMARY_JSON_BYTES_MAX}", json.len()));
    }
    let stored = zstd::bulk::compress(&json, ZSTD_LEVEL).map_err(|error| error.to_string())?;
    match stored.len() as u64 {
        ..=SUMMARY_BYTES_MAX => Ok(stored.into()),
        size => Err(format!("{size} bytes are above the limit of {SUMMARY_BYTES_MAX}")),
    }
}

/// What a summary says, but for the last record; and that one's hash. Decompressed only when the hash is right.
pub(super) fn decode(fs: &FsName, entry: &SummaryEntry, stored: &[u8]) -> Result<(History, String), SummaryFault> {
    if stored.len() as u64 != entry.size || codec::hash(stored) != entry.hash {
        return Err(SummaryFault::Damaged { reason: "its bytes do not match their hash".into() });
    }
    let json = decompress(stored)?;
    let Envelope { version } = serde_json::from_slice(&json).map_err(malformed)?;
    if version != SUMMARY_VERSION {
        return Err(SummaryFault::Version { found: version });
    }
    let content: Content = serde_json::from_slice(&json).map_err(malformed)?;
    drop(json);
    if content.fs != fs.id {
        return Err(malformed(format!("it belongs to filesystem {}", content.fs)));
    }
    if content.upto_seq != entry.upto_seq {
        return Err(malformed(format!("it ends at record {}, not {}", content.upto_seq, entry.upto_seq)));
    }
    content.check().map_err(malformed)?;
    let tail_hash = content.tail_hash.clone();
    Ok((content.into_history(fs), tail_hash))
}

fn decompress(stored: &[u8]) -> Result<Vec<u8>, SummaryFault> {
    let length = zstd::zstd_safe::get_frame_content_size(stored).ok().flatten();
    let Some(length) = length.filter(|length| *length <= SUMMARY_JSON_BYTES_MAX as u64) else {
        return Err(malformed("it does not tell its length, or is above the limit"));
    };
    if zstd::zstd_safe::find_frame_compressed_size(stored) != Ok(stored.len()) {
        return Err(malformed("it is not exactly one frame"));
    }
    zstd::bulk::decompress(stored, length as usize).map_err(|_| malformed("it does not decompress"))
}

/// Whether each is more than the one before it.
fn ascend<T: Ord>(items: impl Iterator<Item = T> + Clone) -> bool {
    items.clone().zip(items.skip(1)).all(|(before, after)| before < after)
}

impl Content {
    /// What no ledger says. That it is this ledger's sum is checked where the records are read.
    fn check(&self) -> Result<(), String> {
        let Self { state, snapshots, packs, runs, listings, condemned, authors, .. } = self;
        let sorted = ascend(snapshots.iter().map(|published| published.seq))
            && ascend(packs.iter().map(|pack| pack.object.as_str()))
            && ascend(runs.iter())
            && ascend(listings.iter())
            && ascend(condemned.iter().map(|condemned| condemned.seq))
            && ascend(authors.iter().map(|author| author.incarnation));
        if !sorted {
            return Err("a list is not in its order".into());
        }
        let purged = condemned.iter().filter_map(|condemned| condemned.condemnation.purged);
        let lives = packs.iter().flat_map(|pack| [pack.born, pack.dead.unwrap_or_default()]);
        let last = |seqs: Option<Seq>| seqs.unwrap_or_default();
        let places = [
            last(snapshots.last().map(|published| published.seq)),
            last(condemned.last().map(|condemned| condemned.seq)),
            last(purged.max()),
            last(lives.max()),
            last(authors.iter().map(|author| author.seq).max()),
        ];
        if places.iter().any(|seq| *seq > self.upto_seq) {
            return Err("it names a record behind its end".into());
        }
        let holder = self.holder.as_ref();
        let reign = holder.map(|holder| (holder.epoch, holder.seq, Some(holder.node), Some(holder.incarnation)));
        if reign.unwrap_or_default() != (state.epoch, state.epoch_seq, state.master, state.incarnation) {
            return Err("its master is not that of its last record".into());
        }
        if snapshots.last().map(|newest| newest.seq) != state.snapshot_seq {
            return Err("its newest snapshot is not that of its last record".into());
        }
        if self.deletion.as_ref().map(|deletion| deletion.seq) != state.deleted_seq {
            return Err("its deletion is not that of its last record".into());
        }
        Ok(())
    }

    fn into_history(self, fs: &FsName) -> History {
        let mut condemned_objects = HashMap::new();
        for Condemned { seq, condemnation } in &self.condemned {
            for object in &condemnation.objects {
                condemned_objects.entry(object.clone()).or_insert(*seq);
            }
        }
        let life = |pack: Pack| (pack.object, Life { born: pack.born, dead: pack.dead });
        History {
            fs: fs.clone(),
            tail: None,
            state: self.state,
            holder: self.holder,
            snapshots: self.snapshots.into_iter().map(|published| (published.seq, published.snapshot)).collect(),
            pins: self.pins,
            packs: self.packs.into_iter().map(life).collect(),
            runs: self.runs.into_iter().collect::<BTreeSet<_>>(),
            listings: self.listings.into_iter().collect(),
            condemned: self.condemned.into_iter().map(|condemned| (condemned.seq, condemned.condemnation)).collect(),
            condemned_objects,
            properties: self.properties,
            deletion: self.deletion,
            authors: self.authors.into_iter().map(|author| (author.incarnation, (author.seq, author.op))).collect(),
            unknown: None,
        }
    }
}
