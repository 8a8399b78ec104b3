//! Who reads the journal behind the engine: by name, from a durable offset.
//!
//! The journal keeps what a consumer has not read yet, up to a limit. Beyond that the consumer is cut off: the gap is in its
//! row before the first of the records goes, and the consumer goes on behind it, by what the layers know.

use super::Engine;
use crate::error::{FsError, FsResult};
use crate::ids::Xid;
use crate::journal::{Followed, Position};
use crate::node::{NodeChanges, NodeStore};
use crate::op::Record;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Rows of consumers, by name.
const CONSUMERS: &str = "consumer/";

/// A reader of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer {
    /// The first record that it has not consumed.
    pub next: Xid,
    /// The records that it was cut off from last, the first and the last of them.
    #[serde(default)]
    pub gap: Option<(Xid, Xid)>,
}

impl Consumer {
    /// One that wanted record `wanted`, and goes on at `next`.
    fn behind(wanted: Xid, next: Xid) -> Self {
        Self { next, gap: Some((wanted, Xid(next.0.saturating_sub(1)))) }
    }
}

/// A persisted record of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRecord {
    /// Its number.
    pub xid: Xid,
    /// What it says.
    pub record: Record,
    /// Its length in the journal, without the frame.
    pub bytes: u64,
}

/// All consumers, as in their rows.
#[derive(Debug)]
pub(super) struct Consumers(Mutex<BTreeMap<String, Consumer>>);

impl Consumers {
    pub fn load(node: &NodeStore) -> FsResult<Self> {
        let rows = node.list::<Consumer>(CONSUMERS)?;
        let named = rows.into_iter().map(|(row, consumer)| (row.trim_start_matches(CONSUMERS).to_owned(), consumer));
        Ok(Self(Mutex::new(named.collect())))
    }

    /// The first record that anybody wants.
    pub fn least(&self) -> Option<Xid> {
        self.0.lock().values().map(|consumer| consumer.next).min()
    }
}

fn row(name: &str) -> String {
    format!("{CONSUMERS}{name}")
}

impl Engine {
    /// The consumer `name`: where it was, or new and behind all records that are persisted now. If what it wants is gone, it
    /// goes on behind the gap.
    pub fn consumer(&self, name: &str) -> FsResult<Consumer> {
        let mut consumers = self.consumers.0.lock();
        let (first, end) = (self.journal.first(), self.journal.whole().next());
        let consumer = match consumers.get(name) {
            Some(known) if (first..=end).contains(&known.next) => return Ok(*known),
            Some(known) if known.next < first => Consumer::behind(known.next, first),
            // A journal never goes back behind what was persisted: this row is of another one.
            Some(_) | None => Consumer { next: end, gap: None },
        };
        self.node.persist_row(&row(name), &consumer)?;
        consumers.insert(name.to_owned(), consumer);
        self.journal.hold(consumers.values().map(|consumer| consumer.next).min());
        Ok(consumer)
    }

    /// Reads persisted records on from `position`, about `bytes_max` bytes of them.
    pub fn read_journal(&self, position: &mut Position, bytes_max: usize) -> FsResult<Followed<JournalRecord>> {
        Ok(match self.journal.follow(position, bytes_max)? {
            Followed::End => Followed::End,
            Followed::Released(first) => Followed::Released(first),
            Followed::Records(raw) => {
                let decoded = raw.into_iter().map(|(xid, body)| match postcard::from_bytes(&body) {
                    Ok(record) => Ok(JournalRecord { xid, record, bytes: body.len() as u64 }),
                    Err(_) => Err(FsError::corrupt(format!("journal record {xid}: does not decode"))),
                });
                Followed::Records(decoded.collect::<FsResult<Vec<_>>>()?)
            }
        })
    }

    /// Consumer `name` has done everything before record `next`: durable on return, together with `changes`. What nobody
    /// needs any more may be recycled from then on.
    pub fn consumed(&self, name: &str, next: Xid, changes: &mut NodeChanges) -> FsResult<()> {
        let mut consumers = self.consumers.0.lock();
        let gap = consumers.get(name).and_then(|known| known.gap);
        let consumer = Consumer { next, gap };
        changes.put(&row(name), &consumer)?;
        self.node.persist(changes)?;
        consumers.insert(name.to_owned(), consumer);
        self.journal.hold(consumers.values().map(|consumer| consumer.next).min());
        Ok(())
    }

    /// Records up to `applied` are in the layers: what no consumer within the limit waits for is recycled.
    pub(super) fn release_journal(&self, applied: Xid) -> FsResult<()> {
        let kept = self.journal.first_within(self.options.journal_max_bytes).min(applied.next());
        self.cut_off_before(kept)?;
        Ok(self.journal.release(applied)?)
    }

    /// Consumers that want older records than `kept` go on there; their gaps are durable on return.
    fn cut_off_before(&self, kept: Xid) -> FsResult<()> {
        let mut consumers = self.consumers.0.lock();
        let mut changes = NodeChanges::default();
        let mut cut = BTreeMap::new();
        for (name, consumer) in consumers.iter().filter(|(_, consumer)| consumer.next < kept) {
            tracing::warn!(consumer = name, from = %consumer.next, to = %kept, "a reader of the journal is cut off");
            let behind = Consumer::behind(consumer.next, kept);
            changes.put(&row(name), &behind)?;
            cut.insert(name.clone(), behind);
        }
        if cut.is_empty() {
            return Ok(());
        }
        self.node.persist(&changes)?;
        fail::fail_point!("kvfs::consumers::cut_off");
        consumers.extend(cut);
        self.journal.hold(consumers.values().map(|consumer| consumer.next).min());
        Ok(())
    }
}
