//! Why an agent did not do it.

use crate::collect::{CollectError, CollectErrorKind};
use crate::proxy::{ProxyError, ProxyErrorKind};
use crate::run::{RunError, RunErrorKind};
use crate::status::SnapshotState;
use cloud_mgmt::config::ConfigError;
use cloud_mgmt::ledger::{LedgerError, LedgerErrorKind};
use cloud_mgmt::store::{StoreError, StoreErrorKind};
use kvfs::FsError;
use kvfs::base::BaseError;
use kvfs::engine::SnapshotRefusal;
use uuid::Uuid;

/// What the caller can do about it. Decides exit code and HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request makes no sense.
    InvalidInput,
    /// No such filesystem or snapshot.
    NotFound,
    /// There is one of that name already.
    Exists,
    /// The epoch is not the latest, or somebody else holds it.
    EpochMismatch,
    /// Somebody else took over.
    Deposed,
    /// Nothing can be written here.
    ReadOnly,
    /// No permission.
    Denied,
    /// The store did not answer in time.
    Unavailable,
    /// The disk, the proxy or the store is full.
    NoSpace,
    /// Wrong bytes.
    Corrupt,
    /// Written by a newer version.
    TooNew,
    /// Not possible here.
    Unsupported,
    /// Deleted for good.
    Gone,
    /// Something else must end first.
    Busy,
    /// A fault of the program.
    Bug,
}

/// A refusal or failure of an agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The filesystem.
    #[error("local filesystem: {0}")]
    Fs(#[from] FsError),
    /// The base snapshot.
    #[error("snapshot: {0}")]
    Base(#[from] BaseError),
    /// Collecting.
    #[error("collecting: {0}")]
    Collect(#[from] CollectError),
    /// The proxy.
    #[error("proxy: {0}")]
    Proxy(#[from] ProxyError),
    /// A run.
    #[error("index run: {0}")]
    Run(#[from] RunError),
    /// The filesystem's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A snapshot that was not taken.
    #[error(transparent)]
    Refused(#[from] SnapshotRefusal),
    /// The mount is of a kind that cannot do it.
    #[error("{what}")]
    Role {
        /// What cannot be done, and why.
        what: String,
        /// What helps.
        hint: Option<String>,
    },
    /// No snapshot of that id or name, or none at all.
    #[error("{fs} has no {what}")]
    NoSnapshot {
        /// The filesystem.
        fs: String,
        /// What was looked for.
        what: String,
    },
    /// A name that is taken.
    #[error("{fs} already has a snapshot named {name:?}")]
    NameTaken {
        /// The filesystem.
        fs: String,
        /// The name.
        name: String,
    },
    /// A name that no snapshot can have.
    #[error("{name:?} cannot name a snapshot: {what}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Another node is master.
    #[error("epoch {epoch} of {fs} is held by {holder}")]
    Held {
        /// The filesystem.
        fs: String,
        /// The newest epoch.
        epoch: u32,
        /// Who holds it.
        holder: String,
    },
    /// The store did not answer within the time that a person waits.
    #[error("{what}: no answer within {seconds} s; it may still happen")]
    TimedOut {
        /// What was asked.
        what: String,
        /// The limit.
        seconds: u64,
    },
    /// An idempotency key that was used for another request.
    #[error("the key {key} belongs to snapshot {snapshot}, {}", named(name.as_deref()))]
    KeyTaken {
        /// The key.
        key: Uuid,
        /// What it was used for.
        snapshot: Uuid,
        /// Its name.
        name: Option<String>,
    },
    /// A snapshot that cannot be cancelled any more.
    #[error("snapshot {snapshot} is {}: it cannot be cancelled", ended(*state))]
    Ended {
        /// As it was asked for.
        snapshot: String,
        /// What became of it.
        state: SnapshotState,
    },
    /// Snapshots that were not published wait for one that is.
    #[error("{count} snapshots in a row were cancelled or failed: the next one must be published")]
    TooManyGivenUp {
        /// How many.
        count: usize,
    },
    /// Somebody wants the snapshot cancelled: work on it ends.
    #[error("cancelled")]
    Cancelled,
    /// The agent is being closed.
    #[error("the daemon is stopping")]
    Stopping,
    /// The store has less of the ledger than this node has seen.
    #[error(
        "the ledger of {fs} ends at record {found}, and this node has seen record {seen}: is this the right store?"
    )]
    LedgerWentBack {
        /// The filesystem.
        fs: String,
        /// The last record that was seen.
        seen: u64,
        /// The last record there is.
        found: u64,
    },
    /// Something that was staged is neither in the proxy nor in the bucket: the snapshot is packed anew.
    #[error("{0} is neither in the proxy nor in the bucket")]
    StagedLost(String),
    /// A thread of the agent ended by a panic.
    #[error("internal failure: {0}")]
    Internal(String),
}

impl AgentError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Ledger(error) => ledger_kind(error.kind()),
            Self::Store(error) => store_kind(error.kind()),
            Self::Fs(error) | Self::Refused(SnapshotRefusal::Fs(error)) => fs_kind(error),
            Self::Base(error) => base_kind(error),
            Self::Collect(error) => match error.kind() {
                CollectErrorKind::NoSpace => ErrorKind::NoSpace,
                CollectErrorKind::Unavailable | CollectErrorKind::Io => ErrorKind::Unavailable,
                CollectErrorKind::Corrupt => ErrorKind::Corrupt,
            },
            Self::Proxy(error) => match error.kind() {
                ProxyErrorKind::NoSpace => ErrorKind::NoSpace,
                ProxyErrorKind::Invalid => ErrorKind::Bug,
                ProxyErrorKind::Io => ErrorKind::Unavailable,
            },
            Self::Run(error) => match error.kind() {
                RunErrorKind::NoSpace => ErrorKind::NoSpace,
                RunErrorKind::Io => ErrorKind::Unavailable,
                RunErrorKind::TooNew => ErrorKind::TooNew,
                RunErrorKind::Corrupt | RunErrorKind::Invalid => ErrorKind::Corrupt,
            },
            Self::Config(ConfigError::Malformed { .. }) => ErrorKind::Corrupt,
            Self::Config(_) => ErrorKind::TooNew,
            Self::Refused(SnapshotRefusal::QueueFull(_))
            | Self::Stopping
            | Self::Cancelled
            | Self::TooManyGivenUp { .. } => ErrorKind::Busy,
            Self::Role { .. } => ErrorKind::ReadOnly,
            Self::NoSnapshot { .. } => ErrorKind::NotFound,
            Self::NameTaken { .. } | Self::KeyTaken { .. } => ErrorKind::Exists,
            Self::BadName { .. } | Self::Ended { .. } => ErrorKind::InvalidInput,
            Self::Held { .. } => ErrorKind::EpochMismatch,
            Self::TimedOut { .. } | Self::StagedLost(_) => ErrorKind::Unavailable,
            Self::LedgerWentBack { .. } => ErrorKind::Corrupt,
            Self::Internal(_) => ErrorKind::Bug,
        }
    }

    /// The command that helps.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Ledger(error) => error.hint(),
            Self::Role { hint, .. } => hint.clone(),
            Self::NoSnapshot { fs, .. } => Some(format!("cbfs show {fs} lists its snapshots")),
            Self::Held { fs, epoch, .. } => {
                Some(format!("mount {fs}@latest read-only, then: cbfs promote {fs} --epoch {epoch}"))
            }
            Self::Refused(SnapshotRefusal::QueueFull(_)) | Self::TooManyGivenUp { .. } => {
                Some("wait for one of them: cbfs snapshot list".into())
            }
            Self::TimedOut { .. } => Some("cbfs status".into()),
            _ => None,
        }
    }

    /// Whether it says something of the store, and not of this machine.
    pub fn is_of_store(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Ledger(_) | Self::TimedOut { .. })
    }

    /// Whether the same may work later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind(), ErrorKind::Unavailable | ErrorKind::NoSpace | ErrorKind::Denied | ErrorKind::Busy)
            || matches!(self, Self::Ledger(error) if error.is_unknown())
            // Whatever a store says, and whatever it holds now, nothing of ours is given up for it.
            || matches!(self, Self::Store(_) | Self::Ledger(LedgerError::Store(_)) | Self::LedgerWentBack { .. })
            || matches!(self, Self::Ledger(error) if error.kind() == LedgerErrorKind::TooNew)
    }
}

fn named(name: Option<&str>) -> String {
    name.map_or_else(|| "which has no name".to_owned(), |name| format!("which is named {name:?}"))
}

fn ended(state: SnapshotState) -> &'static str {
    match state {
        SnapshotState::Complete => "complete",
        SnapshotState::Failed => "failed",
        SnapshotState::Cancelled => "cancelled",
        _ => "not at its end",
    }
}

fn ledger_kind(kind: LedgerErrorKind) -> ErrorKind {
    match kind {
        LedgerErrorKind::NotFound => ErrorKind::NotFound,
        LedgerErrorKind::Exists | LedgerErrorKind::Ambiguous => ErrorKind::Exists,
        LedgerErrorKind::EpochMismatch => ErrorKind::EpochMismatch,
        LedgerErrorKind::Deposed => ErrorKind::Deposed,
        LedgerErrorKind::Deleted | LedgerErrorKind::Gone => ErrorKind::Gone,
        LedgerErrorKind::Condemned | LedgerErrorKind::InUse => ErrorKind::Busy,
        LedgerErrorKind::Corrupt => ErrorKind::Corrupt,
        LedgerErrorKind::TooNew => ErrorKind::TooNew,
        LedgerErrorKind::Unavailable | LedgerErrorKind::Local => ErrorKind::Unavailable,
        LedgerErrorKind::Denied => ErrorKind::Denied,
        LedgerErrorKind::NoSpace => ErrorKind::NoSpace,
        LedgerErrorKind::Invalid => ErrorKind::InvalidInput,
        LedgerErrorKind::Unsupported => ErrorKind::Unsupported,
    }
}

fn store_kind(kind: StoreErrorKind) -> ErrorKind {
    match kind {
        StoreErrorKind::NotFound | StoreErrorKind::NoBucket => ErrorKind::NotFound,
        StoreErrorKind::Denied => ErrorKind::Denied,
        StoreErrorKind::Unavailable => ErrorKind::Unavailable,
        StoreErrorKind::NoSpace => ErrorKind::NoSpace,
        StoreErrorKind::Corrupt => ErrorKind::Corrupt,
        StoreErrorKind::Invalid => ErrorKind::InvalidInput,
        StoreErrorKind::Unsupported => ErrorKind::Unsupported,
    }
}

fn fs_kind(error: &FsError) -> ErrorKind {
    match error {
        FsError::NotFound => ErrorKind::NotFound,
        FsError::Exists => ErrorKind::Exists,
        FsError::ReadOnly => ErrorKind::ReadOnly,
        FsError::NoSpace => ErrorKind::NoSpace,
        FsError::Corrupt(_) => ErrorKind::Corrupt,
        FsError::Busy => ErrorKind::Busy,
        FsError::Stale => ErrorKind::Gone,
        FsError::Unsupported => ErrorKind::Unsupported,
        FsError::NotResident(_) | FsError::Io(_) => ErrorKind::Unavailable,
        _ => ErrorKind::InvalidInput,
    }
}

pub(crate) fn base_kind(error: &BaseError) -> ErrorKind {
    match error {
        BaseError::NotResident(_) | BaseError::Unavailable(_) => ErrorKind::Unavailable,
        BaseError::Corrupt(_) => ErrorKind::Corrupt,
        BaseError::Gone(_) => ErrorKind::Gone,
    }
}
