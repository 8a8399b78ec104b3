//! Why an export did not get to its end.

use crate::error::{AgentError, ErrorKind};
use crate::tar::MemberError;
use kvfs::base::BaseError;
use std::io;

/// A failed export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The snapshot cannot be opened.
    #[error(transparent)]
    Open(#[from] AgentError),
    /// An object of the bucket that a path needs.
    #[error("{}: {source}", path.escape_ascii())]
    Object {
        /// What needed it.
        path: Vec<u8>,
        /// What is wrong with it; names the object.
        source: BaseError,
    },
    /// Records of the index that contradict each other.
    #[error("{}: the index of the snapshot is wrong: {what}", path.escape_ascii())]
    Index {
        /// Where.
        path: Vec<u8>,
        /// How.
        what: String,
    },
    /// Something that tar cannot say.
    #[error("{}: {source}", path.escape_ascii())]
    Member {
        /// Where.
        path: Vec<u8>,
        /// What.
        source: MemberError,
    },
    /// The archive cannot be written.
    #[error("write the archive: {0}")]
    Output(#[source] io::Error),
    /// It was asked to end.
    #[error("the export was stopped")]
    Stopped,
}

impl ExportError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Open(error) => error.kind(),
            Self::Object { source, .. } => crate::error::base_kind(source),
            Self::Index { .. } => ErrorKind::Corrupt,
            Self::Member { .. } => ErrorKind::Bug,
            Self::Output(error) if error.kind() == io::ErrorKind::StorageFull => ErrorKind::NoSpace,
            Self::Output(_) => ErrorKind::Unavailable,
            Self::Stopped => ErrorKind::Busy,
        }
    }

    /// The command that helps.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Open(error) => error.hint(),
            Self::Object { .. } | Self::Index { .. } if self.kind() == ErrorKind::Corrupt => {
                Some("the tar is not complete; cbfs show lists other snapshots".into())
            }
            _ => None,
        }
    }

    /// Whether the reader of the archive has closed its end of the pipe.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(super) fn object(path: &[u8]) -> impl FnOnce(BaseError) -> Self + '_ {
        |source| Self::Object { path: path.to_vec(), source }
    }

    pub(super) fn index(path: &[u8], what: impl Into<String>) -> Self {
        Self::Index { path: path.to_vec(), what: what.into() }
    }
}
