//! Why a command failed: one kind decides errno, exit code and HTTP status.

mod from;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// What went wrong, as far as a caller has to tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// A malformed address, argument or setting.
    InvalidInput,
    /// No such filesystem, snapshot, bucket or mount.
    NotFound,
    /// The name is taken, or means more than one thing.
    Exists,
    /// The epoch named is not the latest, or somebody else holds it.
    EpochMismatch,
    /// This node was master and is not any more.
    Deposed,
    /// Writing was asked of something read-only.
    ReadOnly,
    /// Credentials or permissions.
    Denied,
    /// The store gave no answer within the limits.
    Unavailable,
    /// A disk, a limit or a quota is full.
    NoSpace,
    /// The snapshot ended as failed.
    SnapshotFailed,
    /// Bytes that are not what they should be.
    Corrupt,
    /// Written by a newer version.
    TooNew,
    /// This version, kernel or store cannot do it.
    Unsupported,
    /// It was there and was deleted.
    Gone,
    /// In use, or holding data that exists nowhere else.
    Busy,
    /// A defect of this program.
    Bug,
}

/// What a kind means outside: one row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Name in JSON.
    pub name: &'static str,
    /// What an application sees on the mount.
    pub errno: &'static str,
    /// Exit code of the command.
    pub exit: u8,
    /// Status of the control API.
    pub http: u16,
}

impl FailureKind {
    /// Every kind, in the order of the table.
    #[cfg(test)]
    pub const ALL: [Self; 16] = [
        Self::InvalidInput,
        Self::NotFound,
        Self::Exists,
        Self::EpochMismatch,
        Self::Deposed,
        Self::ReadOnly,
        Self::Denied,
        Self::Unavailable,
        Self::NoSpace,
        Self::SnapshotFailed,
        Self::Corrupt,
        Self::TooNew,
        Self::Unsupported,
        Self::Gone,
        Self::Busy,
        Self::Bug,
    ];

    /// The one table.
    pub fn meaning(self) -> Meaning {
        let row = |name, errno, exit, http| Meaning { name, errno, exit, http };
        match self {
            Self::InvalidInput => row("invalid-input", "EINVAL", 2, 400),
            Self::NotFound => row("not-found", "ENOENT", 3, 404),
            Self::Exists => row("exists", "EEXIST", 4, 409),
            Self::EpochMismatch => row("epoch-mismatch", "EROFS", 5, 412),
            Self::Deposed => row("deposed", "EROFS", 5, 412),
            Self::ReadOnly => row("read-only", "EROFS", 5, 403),
            Self::Denied => row("denied", "EACCES", 6, 403),
            Self::Unavailable => row("unavailable", "EIO", 7, 503),
            Self::NoSpace => row("no-space", "ENOSPC", 8, 507),
            Self::SnapshotFailed => row("snapshot-failed", "-", 9, 200),
            Self::Corrupt => row("corrupt", "EIO", 10, 500),
            Self::TooNew => row("too-new", "EOPNOTSUPP", 11, 501),
            Self::Unsupported => row("unsupported", "EOPNOTSUPP", 11, 501),
            Self::Gone => row("gone", "ESTALE", 12, 410),
            Self::Busy => row("busy", "EBUSY", 13, 409),
            Self::Bug => row("bug", "EIO", 70, 500),
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.meaning().name)
    }
}

/// A failed command: its kind, what failed on which object, and the command that helps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// What failed on which object.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// Without a hint.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// A malformed argument.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(FailureKind::InvalidInput, message)
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(FailureKind::NotFound, message)
    }

    /// The same with a hint, unless it has one.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// A local file that could not be used.
    pub fn from_io(error: &std::io::Error, operation: &str, path: &std::path::Path) -> Self {
        use std::io::ErrorKind;
        let kind = match error.kind() {
            ErrorKind::NotFound => FailureKind::NotFound,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => FailureKind::Denied,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FailureKind::NoSpace,
            ErrorKind::AlreadyExists => FailureKind::Exists,
            ErrorKind::InvalidInput | ErrorKind::NotADirectory | ErrorKind::IsADirectory => FailureKind::InvalidInput,
            ErrorKind::ResourceBusy => FailureKind::Busy,
            _ => FailureKind::Bug,
        };
        Self::new(kind, format!("{operation} {}: {error}", path.display()))
    }
}
