//! Reading every record, and checking the summaries against them.

use super::codec;
use super::error::LedgerError;
use super::history::History;
use super::read::{GETS_IN_FLIGHT, Ledger};
use super::record::{Seq, SummaryEntry};
use super::summary::SummaryFault;
use bytes::Bytes;
use std::sync::Arc;

/// What is wrong with a summary.
#[derive(Clone, Debug)]
pub struct BadSummary {
    /// Which.
    pub entry: SummaryEntry,
    /// The first record that names it.
    pub named_by: Seq,
    /// What is wrong.
    pub fault: SummaryFault,
}

impl Ledger {
    /// Like [`Ledger::history`], from the first record on and without the help of summaries: each of those is compared with
    /// what the records before it say, and what is wrong goes into `bad`. One that is not there is wrong only if no
    /// newer one was named since.
    pub async fn audit(&self, bad: &mut Vec<BadSummary>) -> Result<Arc<History>, LedgerError> {
        let _turn = self.take_turn().await;
        let mut missing = None;
        let read = self.audit_records(bad, &mut missing).await;
        bad.extend(missing);
        read?;
        Ok(self.known())
    }

    async fn audit_records(
        &self,
        bad: &mut Vec<BadSummary>,
        missing: &mut Option<BadSummary>,
    ) -> Result<(), LedgerError> {
        loop {
            let first = self.known().tail_seq().next();
            let bodies = self.fetch_window(first, GETS_IN_FLIGHT).await?;
            for (seq, bytes) in (first.0..).map(Seq).zip(&bodies) {
                let named = self.new_summary(seq, bytes)?;
                let checked = match &named {
                    None => None,
                    Some(entry) => self.compare(entry).await?,
                };
                self.apply(seq, bytes)?;
                let Some(entry) = named else { continue };
                let found = checked.map(|fault| BadSummary { entry, named_by: seq, fault });
                *missing = None;
                match found {
                    Some(found) if matches!(found.fault, SummaryFault::Missing) => *missing = Some(found),
                    other => bad.extend(other),
                }
            }
            if bodies.len() < GETS_IN_FLIGHT {
                return Ok(());
            }
        }
    }

    /// The summary that the next record names first.
    fn new_summary(&self, seq: Seq, bytes: &Bytes) -> Result<Option<SummaryEntry>, LedgerError> {
        let summary = codec::decode(self.name(), seq, bytes)?.state.summary;
        Ok(summary.filter(|summary| self.known().state.summary.as_ref() != Some(summary)))
    }

    /// A summary of all that is known.
    async fn compare(&self, entry: &SummaryEntry) -> Result<Option<SummaryFault>, LedgerError> {
        let told = match self.summary(entry).await {
            Ok(told) => told,
            Err(SummaryFault::Store(error)) => return Err(error.into()),
            // It was not made for this program.
            Err(SummaryFault::Version { .. }) => return Ok(None),
            Err(fault) => return Ok(Some(fault)),
        };
        let same = told == *self.known();
        Ok((!same).then(|| SummaryFault::Malformed { reason: "it says something else than the records".into() }))
    }
}
