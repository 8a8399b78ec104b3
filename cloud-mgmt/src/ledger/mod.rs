//! The ledger: the one agreement in the bucket.
//!
//! `<TAG>-<UUID>/ledger/<seq>.json`, written once, seq from 1 without gaps, each with the hash of the one before.

pub mod record;

pub use record::{Entry, LedgerRecord, PackEntry, RunEntry, Seq, SnapshotEntry, State};
