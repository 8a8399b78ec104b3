//! Why a run could not be written or read.

use std::path::{Path, PathBuf};

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunErrorKind {
    /// The bytes are not what was written: fetch them again.
    Corrupt,
    /// A sound run of a newer format: a newer program reads it.
    TooNew,
    /// The caller's records break the rules of a run.
    Invalid,
    /// The local disk is full.
    NoSpace,
    /// The local disk failed.
    Io,
}

/// A failure of a run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Bytes that do not match their hash or break the format; the text says which rule.
    #[error("index run: {0}")]
    Corrupt(&'static str),
    /// The run asks for a newer reader.
    #[error("index run of format {found}: this version reads up to {known}")]
    TooNew {
        /// The oldest reader that may read it.
        found: u16,
        /// This reader.
        known: u16,
    },
    /// A key that is not greater than the one before it.
    #[error("index run: keys must ascend strictly")]
    Order,
    /// A key or a value beyond the limits, bytes.
    #[error("index run: a record of {key} + {value} bytes is too large")]
    TooLarge {
        /// Length of the key.
        key: usize,
        /// Length of the value.
        value: usize,
    },
    /// A file operation failed.
    #[error("{operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl RunError {
    /// What the caller can do about it.
    pub fn kind(&self) -> RunErrorKind {
        match self {
            Self::Corrupt(_) => RunErrorKind::Corrupt,
            Self::TooNew { .. } => RunErrorKind::TooNew,
            Self::Order | Self::TooLarge { .. } => RunErrorKind::Invalid,
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => RunErrorKind::NoSpace,
            Self::Io { .. } => RunErrorKind::Io,
        }
    }

    /// Turns the system's answer into an error about `path`; for `map_err`.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}
