//! Why a command on the bucket did not do it.

use crate::config::ConfigError;
use crate::ledger::{LedgerError, LedgerErrorKind};
use crate::names::{FsName, TagError};
use crate::store::StoreError;
use std::fmt::Write as _;

/// A refusal or failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AdminError {
    /// No filesystem has this name.
    #[error("{store} has no filesystem {text}")]
    NotFound {
        /// The store's URL.
        store: String,
        /// What was looked for.
        text: String,
    },
    /// The name fits several.
    #[error("{text} is ambiguous in {store}:{}", listing(candidates))]
    Ambiguous {
        /// The store's URL.
        store: String,
        /// What was looked for.
        text: String,
        /// All that fit, sorted.
        candidates: Vec<FsName>,
    },
    /// The tag is in use.
    #[error("{store} has a filesystem {tag} already:{}", listing(candidates))]
    Exists {
        /// The store's URL.
        store: String,
        /// The tag.
        tag: String,
        /// Who has it, sorted.
        candidates: Vec<FsName>,
    },
    /// Not a name at all.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// It is not known whether the filesystem was created.
    #[error("it is not known whether {name} was created: {cause}")]
    CreateUnknown {
        /// The name it would have.
        name: FsName,
        /// The last answer.
        cause: StoreError,
    },
    /// A config that this version must not use.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The ledger refused or failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A call that changes nothing failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AdminError {
    /// What the caller can do about it.
    pub fn kind(&self) -> LedgerErrorKind {
        match self {
            Self::NotFound { .. } => LedgerErrorKind::NotFound,
            Self::Ambiguous { .. } => LedgerErrorKind::Ambiguous,
            Self::Exists { .. } => LedgerErrorKind::Exists,
            Self::Tag(_) => LedgerErrorKind::Invalid,
            Self::CreateUnknown { cause, .. } | Self::Store(cause) => cause.kind().into(),
            Self::Config(ConfigError::Malformed { .. }) => LedgerErrorKind::Corrupt,
            Self::Config(ConfigError::TooNew { .. } | ConfigError::UnknownFeature { .. }) => LedgerErrorKind::TooNew,
            Self::Ledger(error) => error.kind(),
        }
    }

    /// The command that helps.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { store, .. } => Some(format!("cbfs list {store}")),
            Self::Ambiguous { .. } => Some("use the whole name, or the UUID".into()),
            Self::CreateUnknown { .. } => Some("cbfs list tells whether it is there".into()),
            Self::Config(ConfigError::TooNew { .. } | ConfigError::UnknownFeature { .. }) => {
                Some("upgrade cbfs on this node".into())
            }
            Self::Ledger(error) => error.hint(),
            Self::Exists { .. } | Self::Tag(_) | Self::Config(_) | Self::Store(_) => None,
        }
    }
}

fn listing(names: &[FsName]) -> String {
    names.iter().fold(String::new(), |mut text, name| {
        // Writing to a String cannot fail.
        let _ = write!(text, " {name}");
        text
    })
}
