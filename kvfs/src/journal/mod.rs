//! The journal: the change log of one master, on local disk.
//!
//! Records are opaque here; each has an xid, consecutive from 1. [`Journal::append`] acknowledges into the page cache
//! (survives `kill -9`), [`Journal::flush`] makes durable (I1). After any crash [`Replay`] yields a prefix of what was
//! appended that holds everything that was flushed. The bytes are drawn in docs/formats/journal.md.

mod error;
mod follow;
#[cfg(test)]
mod follow_tests;
mod log;
mod record;
mod replay;
#[cfg(test)]
mod tests;

pub use error::JournalError;
pub use follow::{Followed, Position, RawRecord};
pub use log::Journal;
pub use replay::Replay;

use crate::ids::Epoch;
use uuid::Uuid;

/// Whose journal it is. Segments of another filesystem or epoch are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalIdentity {
    /// The filesystem.
    pub fs: Uuid,
    /// The reign that these records belong to.
    pub epoch: Epoch,
}

/// Sizes of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalOptions {
    /// Bytes of a segment file, header included; at least 8 KiB.
    pub segment_bytes: u64,
    /// Segments prepared in the background; up to four times as many released ones are kept.
    pub spares: usize,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, spares: 2 }
    }
}
