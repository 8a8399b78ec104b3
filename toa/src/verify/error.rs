//! Why a verification could not be done. Damage is no error: it is what a verification finds.

use crate::error::{AgentError, ErrorKind};
use cloud_mgmt::config::ConfigError;
use cloud_mgmt::ledger::LedgerError;
use cloud_mgmt::store::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// A verification that ended before it could say anything of the whole.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The bucket did not answer, or holds what this version must not judge.
    #[error(transparent)]
    Bucket(#[from] AgentError),
    /// A temporary file failed.
    #[error("{operation} a temporary file in {dir}: {source}", dir = dir.display())]
    Scratch {
        /// What was tried.
        operation: &'static str,
        /// The folder of temporary files.
        dir: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The state file could not be used.
    #[error("{operation} {path}: {source}", path = path.display())]
    State {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The state file is of another verification, or none.
    #[error("{path} {what}", path = path.display())]
    ForeignState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl From<StoreError> for VerifyError {
    fn from(error: StoreError) -> Self {
        Self::Bucket(error.into())
    }
}

impl From<LedgerError> for VerifyError {
    fn from(error: LedgerError) -> Self {
        Self::Bucket(error.into())
    }
}

impl From<ConfigError> for VerifyError {
    fn from(error: ConfigError) -> Self {
        Self::Bucket(error.into())
    }
}

impl VerifyError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Bucket(error) => error.kind(),
            Self::Scratch { source, .. } | Self::State { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::WouldBlock => ErrorKind::Busy,
                _ => ErrorKind::Bug,
            },
            Self::ForeignState { .. } => ErrorKind::InvalidInput,
        }
    }

    /// What helps.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Bucket(error) => error.hint(),
            Self::Scratch { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("name a folder with more room in TMPDIR, or use --resume FILE on a larger disk".into())
            }
            Self::Scratch { .. } => Some("name another folder in TMPDIR".into()),
            Self::State { source, .. } if source.kind() == io::ErrorKind::WouldBlock => {
                Some("another verification is using it".into())
            }
            Self::State { .. } => None,
            Self::ForeignState { .. } => Some("name another file, or remove this one to begin anew".into()),
        }
    }

    pub(super) fn scratch(operation: &'static str, dir: &Path) -> impl FnOnce(io::Error) -> Self {
        let dir = dir.to_owned();
        move |source| Self::Scratch { operation, dir, source }
    }

    pub(super) fn state(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::State { operation, path, source }
    }
}
