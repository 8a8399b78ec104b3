//! Why a pack cannot be written or a frame cannot be read.

use crate::tar::MemberError;
use kvfs::ids::PackNo;
use std::io;
use std::path::{Path, PathBuf};

/// Failure of a pack operation.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The host failed on the pack's file.
    #[error("pack file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// Stored bytes that are not the frame they should be (I6).
    #[error("pack {pack}, frame at byte {offset}: {what}")]
    Corrupt {
        /// The pack.
        pack: PackNo,
        /// Where the frame starts in the object.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A member that contradicts itself or its data.
    #[error("pack member: {0}")]
    Member(&'static str),
}

/// What a caller can do about a [`PackError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackErrorKind {
    /// The disk is full: free space, then begin the pack again.
    NoSpace,
    /// The host failed.
    Io,
    /// Wrong bytes: fetch again, never serve.
    Corrupt,
    /// The caller broke the rules of the writer.
    Misuse,
}

impl PackError {
    /// The kind.
    pub fn kind(&self) -> PackErrorKind {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => PackErrorKind::NoSpace,
            Self::Io { .. } => PackErrorKind::Io,
            Self::Corrupt { .. } => PackErrorKind::Corrupt,
            Self::Member(_) => PackErrorKind::Misuse,
        }
    }

    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }
}

impl From<MemberError> for PackError {
    fn from(error: MemberError) -> Self {
        Self::Member(error.0)
    }
}
