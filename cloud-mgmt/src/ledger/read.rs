//! Reading the ledger.

use super::codec;
use super::error::LedgerError;
use super::history::{History, Published, Tail};
use super::record::{LedgerRecord, Seq, SummaryEntry};
use crate::names::FsName;
use crate::store::{ObjectStore, StoreError};
use bytes::Bytes;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Requests in flight while a history is read.
pub(super) const GETS_IN_FLIGHT: usize = 16;
/// After so many records from the first one on, a reader looks for a summary of the others.
const READ_BEFORE_SKIPPING: u64 = 31;
/// The hint is written after every so many records.
const HINT_EVERY_RECORDS: u64 = 16;

/// The ledger of one filesystem. Clones share what they have read, so each record is fetched once.
#[derive(Clone, Debug)]
pub struct Ledger {
    store: Arc<dyn ObjectStore>,
    name: FsName,
    known: Arc<Known>,
    summaries: Summaries,
}

/// Whether a long ledger is read by its newest summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Summaries {
    Used,
    Ignored,
}

/// What was read so far.
#[derive(Debug)]
struct Known {
    /// Held while records are fetched: each is fetched once.
    reading: tokio::sync::Mutex<()>,
    /// Never held while anything waits.
    history: Mutex<Arc<History>>,
    /// The summary that could not be used.
    distrusted: Mutex<Option<SummaryEntry>>,
}

impl Known {
    /// Whoever keeps no answer of [`Ledger::history`] for long saves a copy of all of it here.
    fn apply(&self, seq: Seq, bytes: &Bytes) -> Result<(), LedgerError> {
        Arc::make_mut(&mut self.lock()).apply(seq, bytes).map(drop)
    }

    fn lock(&self) -> MutexGuard<'_, Arc<History>> {
        // A record is applied whole or not at all, so a panic leaves nothing half done.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hint object: best effort, nothing depends on it.
#[derive(Debug, Serialize, Deserialize)]
struct Hint {
    seq: Seq,
    time: jiff::Timestamp,
}

impl Ledger {
    /// The ledger of `name`; does nothing yet.
    pub fn new(store: Arc<dyn ObjectStore>, name: FsName) -> Self {
        Self::with(store, name, Summaries::Used)
    }

    /// The same for whoever wants to see every record: no summary stands for any of them.
    pub fn of_records_alone(store: Arc<dyn ObjectStore>, name: FsName) -> Self {
        Self::with(store, name, Summaries::Ignored)
    }

    fn with(store: Arc<dyn ObjectStore>, name: FsName, summaries: Summaries) -> Self {
        let history = Mutex::new(Arc::new(History::new(name.clone())));
        let known = Known { reading: tokio::sync::Mutex::new(()), history, distrusted: Mutex::new(None) };
        Self { store, name, known: Arc::new(known), summaries }
    }

    /// The filesystem.
    pub fn name(&self) -> &FsName {
        &self.name
    }

    /// Where it is.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// One record, checked by itself (format, size, filesystem, position), not against its neighbours.
    pub async fn read(&self, seq: Seq) -> Result<LedgerRecord, LedgerError> {
        let object = self.name.ledger_object(seq.0);
        let bytes = self.fetch(seq).await?.ok_or(LedgerError::NoRecord { object })?;
        codec::decode(&self.name, seq, &bytes)
    }

    /// The last record, found with a number of requests that grows with the logarithm of its position (rule 14); `None`
    /// in an empty ledger. `from` is a record that the caller has seen (0: none): if it is gone, somebody tampers with
    /// the ledger and the answer is [`LedgerError::Corrupt`]. Its `state` sums up the ledger; who appends or needs the
    /// list of snapshots asks for the [`History`].
    pub async fn tail(&self, from: Seq) -> Result<Option<Tail>, LedgerError> {
        let last = self.find_tail(from).await?;
        if last == Seq(0) {
            return Ok(None);
        }
        let bytes = self.fetch(last).await?.ok_or_else(|| self.vanished(last))?;
        let record = Arc::new(codec::decode(&self.name, last, &bytes)?);
        Ok(Some(Tail { record, hash: codec::hash(&bytes) }))
    }

    /// The records `from ..= to`, verified one by one and as a chain, from the record before them on.
    pub async fn replay(&self, from: Seq, to: Seq) -> Result<Vec<LedgerRecord>, LedgerError> {
        let from = from.max(Seq(1));
        let mut prev_hash = match from.0 - 1 {
            0 => codec::NO_HASH.to_owned(),
            before => codec::hash(&self.fetch_existing(Seq(before)).await?),
        };
        let mut bodies = stream::iter((from.0..=to.0).map(Seq))
            .map(|seq| async move { Ok::<_, LedgerError>((seq, self.fetch_existing(seq).await?)) })
            .buffered(GETS_IN_FLIGHT);
        let mut records = Vec::new();
        while let Some((seq, bytes)) = bodies.try_next().await? {
            let record = codec::decode(&self.name, seq, &bytes)?;
            if record.prev_hash != prev_hash {
                let reason = "does not continue the record before it: the hash chain is broken".into();
                return Err(LedgerError::Corrupt { object: self.name.ledger_object(seq.0), reason });
            }
            prev_hash = codec::hash(&bytes);
            records.push(record);
        }
        Ok(records)
    }

    /// Reads and verifies everything that is new and returns the sum of all records. Costs one request when there is
    /// nothing new. At the first record that breaks a rule it stops with [`LedgerError::Corrupt`]: never skipped. Of a long
    /// ledger the first look takes the newest summary for the records before it; what is known already grows by records alone.
    pub async fn history(&self) -> Result<Arc<History>, LedgerError> {
        let _turn = self.take_turn().await;
        let mut may_skip = self.summaries == Summaries::Used && self.known().tail().is_none();
        let mut window = 1;
        loop {
            let first = self.known.lock().tail_seq().next();
            let bodies = self.fetch_window(first, window).await?;
            for (seq, bytes) in (first.0..).map(Seq).zip(&bodies) {
                self.known.apply(seq, bytes)?;
            }
            if bodies.len() < window {
                return Ok(self.known());
            }
            window = (window * 2).min(GETS_IN_FLIGHT);
            if may_skip && self.known().tail_seq().0 >= READ_BEFORE_SKIPPING {
                may_skip = false;
                let before = self.known().tail_seq();
                self.skip_ahead().await?;
                // There is little behind the end that was just found.
                window = if self.known().tail_seq() > before { 1 } else { window };
            }
        }
    }

    /// Held while records are fetched.
    pub(super) async fn take_turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.known.reading.lock().await
    }

    /// Takes in the next record.
    pub(super) fn apply(&self, seq: Seq, bytes: &Bytes) -> Result<(), LedgerError> {
        self.known.apply(seq, bytes)
    }

    /// Everything that is known from now on.
    pub(super) fn replace(&self, history: History) {
        *self.known.lock() = Arc::new(history);
    }

    /// Remembers that a summary cannot be used, so that a master writes another one.
    pub(super) fn distrust(&self, entry: &SummaryEntry) {
        *self.known.distrusted.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry.clone());
    }

    /// Whether a summary could not be used.
    pub(super) fn distrusts(&self, entry: &SummaryEntry) -> bool {
        self.known.distrusted.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(entry)
    }

    /// Live snapshots, oldest first.
    pub async fn snapshots(&self) -> Result<Vec<Published>, LedgerError> {
        Ok(self.history().await?.snapshots())
    }

    /// What was read last, without any request and without waiting for one.
    pub fn known(&self) -> Arc<History> {
        Arc::clone(&self.known.lock())
    }

    /// Takes in a record that this node is known to have written, which saves reading it.
    pub(super) async fn learn(&self, seq: Seq, bytes: &Bytes) -> Result<(), LedgerError> {
        let _turn = self.known.reading.lock().await;
        let follows = self.known.lock().tail_seq().next() == seq;
        if follows { self.known.apply(seq, bytes) } else { Ok(()) }
    }

    /// Tells later readers where to start, now and then, best effort.
    pub(super) async fn hint(&self, seq: Seq, time: jiff::Timestamp) {
        if !seq.0.is_multiple_of(HINT_EVERY_RECORDS) {
            return;
        }
        let Ok(body) = serde_json::to_vec(&Hint { seq, time }) else { return };
        if let Err(error) = self.store.put(&self.name.hint_object(), body.into()).await {
            tracing::debug!(%error, "ledger hint not written");
        }
    }

    /// The bytes at `seq`, `None` when it is free.
    pub(super) async fn fetch(&self, seq: Seq) -> Result<Option<Bytes>, StoreError> {
        match self.store.get(&self.name.ledger_object(seq.0)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn fetch_existing(&self, seq: Seq) -> Result<Bytes, LedgerError> {
        let object = self.name.ledger_object(seq.0);
        self.fetch(seq).await?.ok_or(LedgerError::NoRecord { object })
    }

    /// Up to `count` records from `first` on, as far as they follow each other.
    pub(super) async fn fetch_window(&self, first: Seq, count: usize) -> Result<Vec<Bytes>, LedgerError> {
        let seqs = (first.0..).take(count).map(Seq);
        let mut answers = try_join_all(seqs.map(|seq| self.fetch(seq))).await?;
        // A free position below a taken one: the writers were between our two looks, or a record was deleted.
        while let Some(gap) = gap(&answers) {
            let seq = Seq(first.0 + gap as u64);
            let again = self.fetch(seq).await?.ok_or_else(|| self.vanished(seq))?;
            if let Some(answer) = answers.get_mut(gap) {
                *answer = Some(again);
            }
        }
        Ok(answers.into_iter().map_while(|answer| answer).collect())
    }

    async fn exists(&self, seq: Seq) -> Result<bool, LedgerError> {
        match self.store.head(&self.name.ledger_object(seq.0)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The highest taken position: gallop, then bisect. Records are gapless and never deleted, so one look at a
    /// position tells about all others on its side.
    async fn find_tail(&self, from: Seq) -> Result<Seq, LedgerError> {
        let mut taken = from.max(self.known.lock().tail_seq()).0;
        if taken > 0 && !self.exists(Seq(taken)).await? {
            return Err(self.vanished(Seq(taken)));
        }
        let hint = self.read_hint().await.map_or(0, |seq| seq.0);
        if hint > taken && self.exists(Seq(hint)).await? {
            taken = hint;
        }
        let mut step = 1;
        let mut free = loop {
            let probe = taken.saturating_add(step);
            if !self.exists(Seq(probe)).await? {
                break probe;
            }
            taken = probe;
            step = step.saturating_mul(2);
        };
        while free - taken > 1 {
            let middle = taken + (free - taken) / 2;
            if self.exists(Seq(middle)).await? {
                taken = middle;
            } else {
                free = middle;
            }
        }
        Ok(Seq(taken))
    }

    /// A hint that lies can cost requests, never the truth: only what is there is believed.
    async fn read_hint(&self) -> Option<Seq> {
        let bytes = self.store.get(&self.name.hint_object()).await.ok()?;
        let hint: Hint = serde_json::from_slice(&bytes).ok()?;
        (hint.seq.0 < u64::MAX / 2).then_some(hint.seq)
    }

    fn vanished(&self, seq: Seq) -> LedgerError {
        LedgerError::Corrupt { object: self.name.ledger_object(seq.0), reason: "was written and is gone".into() }
    }
}

/// The first free position that has a taken one above it.
fn gap<T>(answers: &[Option<T>]) -> Option<usize> {
    let free = answers.iter().position(Option::is_none)?;
    answers.iter().skip(free).any(Option::is_some).then_some(free)
}
