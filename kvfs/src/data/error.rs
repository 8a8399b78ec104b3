//! What can go wrong with data segments.

use crate::error::FsError;
use crate::ids::SegmentNo;
use crate::schema::BlobRef;
use crate::segment::flush::Poisoned;
use crate::segment::{FailureKind, is_no_space};
use std::io;

/// Why bytes cannot be written or read; [`DataError::kind`] says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The disk or the limit of the store is full. Nothing was written.
    #[error("no space left for file data")]
    NoSpace,
    /// The host failed before anything was acknowledged.
    #[error("file data: {doing}: {source}")]
    Io {
        /// The step.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// See [`Poisoned`].
    #[error("file data: {0}")]
    Poisoned(#[from] Poisoned),
    /// The segment is not there.
    #[error("file data: segment {0} is missing")]
    Missing(SegmentNo),
    /// The bytes are not those that were written.
    #[error("file data: {} bytes at {} of segment {} do not match their checksum", .0.len, .0.offset, .0.segment)]
    Corrupt(BlobRef),
    /// A blob larger than [`super::BLOB_BYTES_MAX`].
    #[error("file data: a blob of {0} bytes is too large")]
    TooLarge(usize),
    /// A read beyond the blob.
    #[error("file data: a read of {bytes} bytes at {within} is beyond the blob ({len} bytes)")]
    Beyond {
        /// First byte asked for.
        within: u32,
        /// Bytes asked for.
        bytes: usize,
        /// The length of the blob.
        len: u32,
    },
}

impl DataError {
    /// What it asks of the caller.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NoSpace => FailureKind::NoSpace,
            Self::Io { .. } => FailureKind::Io,
            Self::Poisoned(_) => FailureKind::Poisoned,
            Self::Missing(_) | Self::Corrupt(_) => FailureKind::Corrupt,
            Self::TooLarge(_) | Self::Beyond { .. } => FailureKind::Invalid,
        }
    }

    /// Turns a failed step into an error; a full disk stays a full disk.
    pub(super) fn from_io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| if is_no_space(&source) { Self::NoSpace } else { Self::Io { doing, source } }
    }
}

impl From<DataError> for FsError {
    fn from(error: DataError) -> Self {
        match error.kind() {
            FailureKind::NoSpace => Self::NoSpace,
            FailureKind::Corrupt => Self::corrupt(error.to_string()),
            FailureKind::Invalid => Self::Invalid,
            FailureKind::Io | FailureKind::Poisoned => Self::io(error.to_string()),
        }
    }
}
