//! Reading a long ledger: the newest summary, and the records after it.

use super::codec;
use super::error::LedgerError;
use super::history::{History, Tail};
use super::read::{GETS_IN_FLIGHT, Ledger};
use super::record::{Seq, SummaryEntry};
use super::summary::{self, SummaryFault, malformed};
use crate::store::{StoreError, StoreErrorKind};
use std::sync::Arc;

impl From<StoreError> for SummaryFault {
    fn from(error: StoreError) -> Self {
        match error.kind() {
            StoreErrorKind::NotFound => Self::Missing,
            StoreErrorKind::Corrupt => Self::Damaged { reason: error.to_string() },
            _ => Self::Store(error),
        }
    }
}

impl SummaryFault {
    /// A ledger that cannot be read with a summary is perhaps readable without; one that is not read is neither.
    fn of_records(error: LedgerError) -> Self {
        match error {
            LedgerError::Store(error) => Self::Store(error),
            error => malformed(format!("with it, {error}")),
        }
    }

    /// Whether there is no use in asking the store for something else.
    fn is_of_the_line(&self) -> bool {
        matches!(self, Self::Store(error) if matches!(error.kind(), StoreErrorKind::Unavailable | StoreErrorKind::NoBucket))
    }
}

impl Ledger {
    /// The history that a summary tells, up to its last record, which is read too: its hash and its sum must fit.
    pub async fn summary(&self, entry: &SummaryEntry) -> Result<History, SummaryFault> {
        let (fs, upto) = (self.name(), entry.upto_seq);
        if !fs.is_summary_upto(upto.0, &entry.object) || entry.size > summary::SUMMARY_BYTES_MAX {
            return Err(malformed(format!("{} of {} bytes is no summary", entry.object, entry.size)));
        }
        let stored = self.store().get_range(&entry.object, 0..entry.size).await?;
        let (mut history, tail_hash) = summary::decode(fs, entry, &stored)?;
        drop(stored);
        let bytes = self.fetch(upto).await.map_err(SummaryFault::Store)?;
        let bytes = bytes.ok_or_else(|| malformed(format!("its last record {upto} is not there")))?;
        if codec::hash(&bytes) != tail_hash {
            return Err(malformed(format!("it does not sum up the ledger that has this record {upto}")));
        }
        let record = Arc::new(codec::decode(fs, upto, &bytes).map_err(SummaryFault::of_records)?);
        // An older version's record names no summary, and the one before it stays the newest.
        let mut sum = record.state.clone();
        sum.summary = sum.summary.or_else(|| history.state.summary.clone());
        if sum != history.state {
            return Err(malformed(format!("it contradicts the sum of record {upto}")));
        }
        history.tail = Some(Tail { record, hash: tail_hash });
        Ok(history)
    }

    /// Goes from the first records to near the end, if the end names a summary that can be used. Whatever is wrong with it
    /// costs reading all records, nothing else.
    pub(super) async fn skip_ahead(&self) -> Result<(), LedgerError> {
        let known = self.known().tail_seq();
        let tail = match self.tail(known).await {
            Ok(Some(tail)) => tail,
            Err(LedgerError::Store(error)) => return Err(error.into()),
            // Whoever reads on meets it in its place.
            Ok(None) | Err(_) => return Ok(()),
        };
        let Some(entry) = tail.record.state.summary.as_ref().filter(|entry| entry.upto_seq > known) else {
            return Ok(());
        };
        match self.read_by(entry, &tail).await {
            Ok(history) => {
                self.replace(history);
                Ok(())
            }
            Err(SummaryFault::Store(error)) if SummaryFault::Store(error.clone()).is_of_the_line() => Err(error.into()),
            Err(fault) => {
                let object = &entry.object;
                tracing::warn!(object, %fault, "a summary of the ledger cannot be used: all records are read instead");
                self.distrust(entry);
                Ok(())
            }
        }
    }

    /// A summary, and all records after it up to the end that named it.
    async fn read_by(&self, entry: &SummaryEntry, tail: &Tail) -> Result<History, SummaryFault> {
        let end = tail.record.seq;
        if entry.upto_seq >= end {
            return Err(malformed(format!("record {end} names it and is summed up in it")));
        }
        let mut history = self.summary(entry).await?;
        while history.tail_seq() < end {
            let first = history.tail_seq().next();
            let count = GETS_IN_FLIGHT.min((end.0 - first.0 + 1) as usize);
            let bodies = self.fetch_window(first, count).await.map_err(SummaryFault::of_records)?;
            if bodies.is_empty() {
                return Err(malformed(format!("record {first} is not there")));
            }
            for (seq, bytes) in (first.0..).map(Seq).zip(&bodies) {
                history.apply(seq, bytes).map_err(SummaryFault::of_records)?;
            }
        }
        if history.tail_hash() != tail.hash {
            return Err(malformed(format!("record {end} was another one a moment ago")));
        }
        Ok(history)
    }
}
