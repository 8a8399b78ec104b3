//! What can go wrong with a journal.

use crate::error::FsError;
use crate::ids::{Epoch, Xid};
use crate::segment::flush::Poisoned;
use crate::segment::{FailureKind, is_no_space};
use std::io;
use uuid::Uuid;

/// Why a journal cannot do what was asked; [`JournalError::kind`] says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk is full. The journal is as it was.
    #[error("no space left for the journal")]
    NoSpace,
    /// The host failed before anything was acknowledged.
    #[error("journal: {doing}: {source}")]
    Io {
        /// The step.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// See [`Poisoned`].
    #[error("journal: {0}")]
    Poisoned(#[from] Poisoned),
    /// Records between the applied state and the journal's first one are missing.
    #[error("journal: it begins with xid {first}, but the state ends with xid {applied}: records are missing")]
    Gap {
        /// Where the state ends.
        applied: Xid,
        /// The first record there is.
        first: Xid,
    },
    /// A record that had been flushed does not read back.
    #[error("journal: record {bad} is damaged, although everything up to xid {persisted} had been flushed")]
    Corrupt {
        /// The record.
        bad: Xid,
        /// What had been flushed.
        persisted: Xid,
    },
    /// A segment whose header is damaged or of another version of this format.
    #[error("journal: the header of segment {0} is damaged or of another version")]
    Header(u64),
    /// A segment of another filesystem or epoch lies in the directory.
    #[error("journal: segment {number} belongs to filesystem {fs}, epoch {epoch}")]
    Foreign {
        /// The segment.
        number: u64,
        /// Its filesystem.
        fs: Uuid,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A record that does not fit a segment.
    #[error("journal: a record of {bytes} bytes is too large ({max} at most)")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// [`super::Replay::finish`] with an xid that was not replayed.
    #[error("journal: cannot go on behind xid {last}: the replay is between {applied} and {end}")]
    NotReplayed {
        /// The wish.
        last: Xid,
        /// The lowest possible.
        applied: Xid,
        /// The highest possible.
        end: Xid,
    },
}

impl JournalError {
    /// What it asks of the caller.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NoSpace => FailureKind::NoSpace,
            Self::Io { .. } => FailureKind::Io,
            Self::Poisoned(_) => FailureKind::Poisoned,
            Self::Gap { .. } | Self::Corrupt { .. } | Self::Header(_) | Self::Foreign { .. } => FailureKind::Corrupt,
            Self::TooLarge { .. } | Self::NotReplayed { .. } => FailureKind::Invalid,
        }
    }

    /// Turns a failed step into an error; a full disk stays a full disk.
    pub(super) fn from_io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| if is_no_space(&source) { Self::NoSpace } else { Self::Io { doing, source } }
    }
}

impl From<JournalError> for FsError {
    fn from(error: JournalError) -> Self {
        match error.kind() {
            FailureKind::NoSpace => Self::NoSpace,
            FailureKind::Corrupt => Self::corrupt(error.to_string()),
            FailureKind::Invalid => Self::ValueTooLarge,
            FailureKind::Io | FailureKind::Poisoned => Self::io(error.to_string()),
        }
    }
}
