//! The ledger: the one agreement in the bucket.
//!
//! `<TAG>-<UUID>/ledger/<seq>.json`, written once, seq from 1 without gaps, each with the hash of the one before.
//! [`Ledger`] reads and verifies, [`Appender`] writes; `docs/formats/ledger.md` has the numbered rules that the comments
//! here name.

pub mod append;
pub mod audit;
mod codec;
mod decide;
pub mod error;
mod fold;
pub mod history;
pub mod intent;
pub mod operations;
pub mod read;
pub mod record;
mod rules;
mod skip;
mod summarize;
pub mod summary;
pub mod writer;

pub use append::{Appender, Applied, Decision, Resolution};
pub use audit::BadSummary;
pub use error::{LedgerError, LedgerErrorKind};
pub use history::{Condemnation, Deletion, History, Holder, Published, Tail};
pub use intent::{Intent, IntentError, IntentStore, MemoryIntents};
pub use operations::Reign;
pub use read::Ledger;
pub use record::{Entry, LedgerRecord, ListingEntry, PackEntry, RunEntry, Seq, SnapshotEntry, State, SummaryEntry};
pub use summarize::SUMMARY_EVERY_RECORDS;
pub use summary::SummaryFault;
pub use writer::{Stamps, SystemStamps, Writer};
