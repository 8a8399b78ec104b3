//! Why collecting failed.

use crate::pack::{PackError, PackErrorKind};
use crate::proxy::{ProxyError, ProxyErrorKind};
use crate::run::{RunError, RunErrorKind};
use kvfs::FsError;
use kvfs::base::BaseError;
use kvfs::schema::ValueError;

/// Failure of collecting or merging. Nothing was published; it may be tried again from the start.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A pack could not be written.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The local layers could not be read.
    #[error("local changes: {0}")]
    Local(#[from] FsError),
    /// The base could not be read.
    #[error("base snapshot: {0}")]
    Base(#[from] BaseError),
    /// A record does not decode.
    #[error("record of inode {ino}: {source}")]
    Value {
        /// Its inode.
        ino: u64,
        /// Why.
        source: ValueError,
    },
    /// Records contradict each other.
    #[error("inconsistent records: {0}")]
    Inconsistent(String),
    /// The taker of packs or records failed.
    #[error("{what}: {source}")]
    Sink {
        /// What it was doing.
        what: String,
        /// What can be done about it.
        kind: CollectErrorKind,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a caller can do about a [`CollectError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectErrorKind {
    /// The disk is full: free space, then begin again.
    NoSpace,
    /// The store did not answer: begin again later.
    Unavailable,
    /// The host or a sink failed: begin again later.
    Io,
    /// Wrong bytes or records: trying again does not help.
    Corrupt,
}

impl CollectError {
    /// A failure of a sink.
    pub fn sink(
        what: impl Into<String>,
        kind: CollectErrorKind,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Sink { what: what.into(), kind, source: source.into() }
    }

    /// The proxy could not take it.
    pub fn of_proxy(what: impl Into<String>, source: ProxyError) -> Self {
        let kind = match source.kind() {
            ProxyErrorKind::NoSpace => CollectErrorKind::NoSpace,
            ProxyErrorKind::Io => CollectErrorKind::Io,
            ProxyErrorKind::Invalid => CollectErrorKind::Corrupt,
        };
        Self::sink(what, kind, source)
    }

    /// A run could not be written or read.
    pub fn of_run(what: impl Into<String>, source: RunError) -> Self {
        let kind = match source.kind() {
            RunErrorKind::NoSpace => CollectErrorKind::NoSpace,
            RunErrorKind::Io => CollectErrorKind::Io,
            RunErrorKind::Corrupt | RunErrorKind::TooNew | RunErrorKind::Invalid => CollectErrorKind::Corrupt,
        };
        Self::sink(what, kind, source)
    }

    /// The kind.
    pub fn kind(&self) -> CollectErrorKind {
        match self {
            Self::Pack(error) => match error.kind() {
                PackErrorKind::NoSpace => CollectErrorKind::NoSpace,
                PackErrorKind::Io => CollectErrorKind::Io,
                PackErrorKind::Corrupt | PackErrorKind::Misuse => CollectErrorKind::Corrupt,
            },
            Self::Local(FsError::NoSpace) => CollectErrorKind::NoSpace,
            Self::Local(FsError::Corrupt(_)) | Self::Value { .. } | Self::Inconsistent(_) => CollectErrorKind::Corrupt,
            Self::Base(BaseError::Corrupt(_)) => CollectErrorKind::Corrupt,
            Self::Base(_) => CollectErrorKind::Unavailable,
            Self::Sink { kind, .. } => *kind,
            Self::Local(_) => CollectErrorKind::Io,
        }
    }
}
