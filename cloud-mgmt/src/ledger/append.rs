//! Appending one record (rules 1 to 4).

use super::codec;
use super::error::LedgerError;
use super::history::History;
use super::intent::{Intent, IntentStore, Persisted};
use super::read::Ledger;
use super::record::{Entry, LEDGER_FORMAT, LedgerRecord, Seq, State, SummaryEntry};
use super::rules;
use super::summarize::Pace;
use super::writer::{Stamps, SystemStamps, Writer};
use crate::store::{PutOutcome, StoreError, StoreErrorKind};
use bytes::Bytes;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use uuid::Uuid;

/// How often the identical bytes are sent within one call.
const SENDS_MAX: u32 = 4;
/// Pause before they are sent again, milliseconds, times the number of sends so far.
const RESEND_PAUSE_MS: u64 = 20;
/// How often others may be faster within one call.
const ROUNDS_MAX: u32 = 1_000;

/// A record that is known to be in the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Its position.
    pub seq: Seq,
    /// The record.
    pub record: Arc<LedgerRecord>,
}

/// What to do on a history.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Append this.
    Append(Entry),
    /// An earlier attempt did it: this record.
    Done(Seq),
}

/// What became of an intent.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// There was none.
    Nothing,
    /// It was applied.
    Applied(Applied),
    /// Another record has its place: it never was and never will be applied.
    Lost {
        /// The op of the intent.
        op: Uuid,
    },
}

/// Appends records on behalf of one writer, one at a time.
///
/// A call may be cancelled at any await: the intent stays and the next call resolves it first.
#[derive(Debug)]
pub struct Appender {
    ledger: Ledger,
    intents: Arc<dyn IntentStore>,
    writer: Writer,
    stamps: Arc<dyn Stamps>,
    pace: Pace,
    /// Held while a record is in flight; the last op of this process life that is known to be applied.
    in_flight: Mutex<Option<Uuid>>,
}

enum Sent {
    Applied(Applied),
    Lost,
}

impl Appender {
    /// An appender; `intents` belongs to this filesystem's ledger and to this appender alone.
    pub fn new(ledger: Ledger, intents: Arc<dyn IntentStore>, writer: Writer) -> Self {
        Self::with_stamps(ledger, intents, writer, Arc::new(SystemStamps))
    }

    /// The same with another clock and other randomness.
    pub fn with_stamps(ledger: Ledger, intents: Arc<dyn IntentStore>, writer: Writer, stamps: Arc<dyn Stamps>) -> Self {
        Self { ledger, intents, writer, stamps, pace: Pace::default(), in_flight: Mutex::new(None) }
    }

    /// The same with a summary after every so many records; see [`SUMMARY_EVERY_RECORDS`](super::SUMMARY_EVERY_RECORDS).
    #[must_use]
    pub fn summarizing_every(self, records: NonZeroU64) -> Self {
        Self { pace: Pace::every(records), ..self }
    }

    /// The ledger that it appends to.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// In whose name.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    pub(super) fn fresh_op(&self) -> Uuid {
        self.stamps.fresh_op()
    }

    /// Reads to the tail, lets `decide` look at it, appends what it says. Whenever somebody else was faster, `decide` is
    /// asked anew on the new tail. An older intent is resolved first. On [`LedgerError::Unknown`] the intent stays:
    /// call [`Appender::resolve`] or append again later.
    pub async fn append(
        &self,
        mut decide: impl FnMut(&History) -> Result<Decision, LedgerError> + Send,
    ) -> Result<Applied, LedgerError> {
        let mut last_op = self.in_flight.lock().await;
        self.resolve_pending(&mut last_op).await?;
        let mut may_summarize = true;
        for _ in 0..ROUNDS_MAX {
            let history = self.ledger.history().await?;
            self.refuse_strangers(&history, *last_op)?;
            let entry = match decide(&history)? {
                Decision::Append(entry) => entry,
                Decision::Done(seq) => {
                    return Ok(Applied { seq, record: Arc::new(self.ledger.read(seq).await?) });
                }
            };
            let mut summary = None;
            if may_summarize && self.is_summary_due(&history, &entry) {
                may_summarize = false;
                summary = self.summarize(&history).await;
            }
            let intent = self.intent(&history, entry, summary)?;
            // Or the record could not be added to it without a copy.
            drop(history);
            let persisted = Persisted::persist(self.intents.as_ref(), intent).await?;
            if let Sent::Applied(applied) = self.send(persisted, &mut last_op).await? {
                return Ok(applied);
            }
        }
        Err(LedgerError::Contended { rounds: ROUNDS_MAX })
    }

    /// Finds out what became of the intent that an earlier call, or an earlier life of this node, left behind.
    pub async fn resolve(&self) -> Result<Resolution, LedgerError> {
        let mut last_op = self.in_flight.lock().await;
        self.resolve_pending(&mut last_op).await
    }

    async fn resolve_pending(&self, last_op: &mut Option<Uuid>) -> Result<Resolution, LedgerError> {
        let Some(persisted) = Persisted::load(self.intents.as_ref()).await? else { return Ok(Resolution::Nothing) };
        let op = persisted.intent().op;
        if persisted.intent().fs != self.ledger.name().id {
            return Err(LedgerError::Invalid { reason: format!("the intent {op} belongs to another filesystem") });
        }
        Ok(match self.send(persisted, last_op).await? {
            Sent::Applied(applied) => Resolution::Applied(applied),
            Sent::Lost => Resolution::Lost { op },
        })
    }

    /// The next record, checked by the rules that its readers will apply.
    fn intent(&self, history: &History, entry: Entry, summary: Option<SummaryEntry>) -> Result<Intent, LedgerError> {
        let mut record = LedgerRecord {
            format: LEDGER_FORMAT,
            fs: self.ledger.name().id,
            seq: history.tail_seq().next(),
            prev_hash: history.tail_hash().to_owned(),
            op: self.stamps.fresh_op(),
            node: self.writer.node,
            incarnation: self.writer.incarnation,
            time: self.stamps.now(),
            state: State { summary, ..State::default() },
            entry,
        };
        record.state = rules::next_state(history.state(), &record);
        rules::check(history, &record).map_err(|reason| LedgerError::Invalid { reason })?;
        Ok(Intent { fs: record.fs, seq: record.seq, op: record.op, bytes: codec::encode(&record)? })
    }

    /// A writer stops at what it does not understand, and at the traces of its own copy (rule 11).
    fn refuse_strangers(&self, history: &History, last_op: Option<Uuid>) -> Result<(), LedgerError> {
        let object = |seq: Seq| self.ledger.name().ledger_object(seq.0);
        if let Some(seq) = history.unknown() {
            return Err(LedgerError::UnknownKind { object: object(seq) });
        }
        match history.authors.get(&self.writer.incarnation) {
            Some((seq, op)) if Some(*op) != last_op => Err(LedgerError::Cloned { object: object(*seq) }),
            _ => Ok(()),
        }
    }

    /// Sends until the outcome is known or the tries are used up. Takes a persisted intent: nothing else can be sent.
    async fn send(&self, persisted: Persisted, last_op: &mut Option<Uuid>) -> Result<Sent, LedgerError> {
        let intent = persisted.intent();
        let object = self.ledger.name().ledger_object(intent.seq.0);
        let unknown = |cause| LedgerError::Unknown { seq: intent.seq, op: intent.op, cause };
        let mut cause = StoreError::new(StoreErrorKind::Unavailable, "put", &object, "not sent");
        for sends in 1..=SENDS_MAX {
            fail::fail_point!("ledger::before_put");
            let answer = self.ledger.store().put_if_absent(&object, intent.bytes.clone()).await;
            fail::fail_point!("ledger::after_put");
            if matches!(answer, Ok(PutOutcome::Created)) {
                return self.finish(intent, last_op).await;
            }
            // Anything but a clean success says nothing: only what is there counts (rule 3).
            match self.ledger.fetch(intent.seq).await.map_err(unknown)? {
                Some(found) if found == intent.bytes => return self.finish(intent, last_op).await,
                Some(found) => return self.give_up(intent, &found).await,
                None => {}
            }
            cause = match answer {
                Err(error) => error,
                Ok(_) => StoreError::new(StoreErrorKind::Unavailable, "put", &object, "taken, and yet not there"),
            };
            if matches!(cause.kind(), StoreErrorKind::Denied | StoreErrorKind::NoSpace) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(RESEND_PAUSE_MS * u64::from(sends))).await;
        }
        Err(unknown(cause))
    }

    /// The record is there (I4).
    async fn finish(&self, intent: &Intent, last_op: &mut Option<Uuid>) -> Result<Sent, LedgerError> {
        let record = Arc::new(codec::decode(self.ledger.name(), intent.seq, &intent.bytes)?);
        if record.incarnation == self.writer.incarnation {
            *last_op = Some(intent.op);
        }
        self.intents.clear().await?;
        self.ledger.learn(intent.seq, &intent.bytes).await?;
        self.ledger.hint(intent.seq, self.stamps.now()).await;
        Ok(Sent::Applied(Applied { seq: intent.seq, record }))
    }

    /// The place is seen taken: only now may the intent be dropped (rule 4).
    async fn give_up(&self, intent: &Intent, found: &Bytes) -> Result<Sent, LedgerError> {
        let other = codec::decode(self.ledger.name(), intent.seq, found)?;
        if other.op == intent.op {
            let reason = format!("has the op {} and not its bytes", intent.op);
            return Err(LedgerError::Corrupt { object: self.ledger.name().ledger_object(intent.seq.0), reason });
        }
        self.intents.clear().await?;
        Ok(Sent::Lost)
    }
}
