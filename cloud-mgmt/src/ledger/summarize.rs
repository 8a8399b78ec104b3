//! Writing summaries: now and then, by the master, before the record of a snapshot.

use super::append::Appender;
use super::codec;
use super::history::History;
use super::record::{Entry, Seq, SummaryEntry};
use super::summary;
use crate::store::PutOutcome;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

/// A summary is written after so many records.
pub const SUMMARY_EVERY_RECORDS: NonZeroU64 = NonZeroU64::new(256).unwrap();
/// When one could not be written, the next is tried after so many records.
const RETRY_AFTER_RECORDS: u64 = 16;

/// When to write the next one.
#[derive(Debug)]
pub(super) struct Pace {
    every: u64,
    /// No record below is to bring one.
    not_before: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { every: SUMMARY_EVERY_RECORDS.get(), not_before: AtomicU64::new(0) }
    }
}

impl Pace {
    pub(super) fn every(records: NonZeroU64) -> Self {
        Self { every: records.get(), ..Self::default() }
    }
}

impl Appender {
    /// Whether the next record should bring a new summary: a snapshot, so a master's.
    pub(super) fn is_summary_due(&self, history: &History, entry: &Entry) -> bool {
        let (pace, tail) = (self.pace(), history.tail_seq().0);
        if !matches!(entry, Entry::Snapshot(_)) || tail < pace.not_before.load(Ordering::Relaxed) {
            return false;
        }
        let newest = history.state().summary.as_ref().filter(|newest| !self.ledger().distrusts(newest));
        tail.saturating_sub(newest.map_or(0, |newest| newest.upto_seq.0)) >= pace.every
    }

    /// Writes a summary of all records so far. What goes wrong is told and costs nothing: the record then names the one
    /// before.
    pub(super) async fn summarize(&self, history: &History) -> Option<SummaryEntry> {
        let upto_seq = history.tail_seq();
        let object = self.ledger().name().summary_object(upto_seq.0, self.fresh_op());
        match self.write_summary(history, upto_seq, &object).await {
            Ok(entry) => Some(entry),
            Err(reason) => {
                tracing::warn!(object, reason, "no summary of the ledger was written");
                let pace = self.pace();
                pace.not_before.store(upto_seq.0 + RETRY_AFTER_RECORDS.min(pace.every), Ordering::Relaxed);
                None
            }
        }
    }

    async fn write_summary(&self, history: &History, upto_seq: Seq, object: &str) -> Result<SummaryEntry, String> {
        let stored = summary::encode(history)?;
        let (size, hash) = (stored.len() as u64, codec::hash(&stored));
        match self.ledger().store().put_if_absent(object, stored).await {
            Ok(PutOutcome::Created) => Ok(SummaryEntry { upto_seq, object: object.to_owned(), size, hash }),
            // Of a lost answer nothing is known, and nothing needs to be: the name is not used again.
            Ok(PutOutcome::Taken) => Err("its name is taken".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}
