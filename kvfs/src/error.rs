//! What a filesystem operation can answer. The errno is born with the error.

use crate::base::{BaseError, Need};
use std::sync::Arc;

/// Result of a filesystem operation.
pub type FsResult<T> = Result<T, FsError>;

/// Why an operation failed; [`FsError::errno`] is what the application sees.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)] // each variant's message is its documentation
pub enum FsError {
    #[error("no such file or directory")]
    NotFound,
    #[error("file exists")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("directory not empty")]
    NotEmpty,
    #[error("name too long (255 bytes at most)")]
    NameTooLong,
    #[error("invalid argument")]
    Invalid,
    #[error("the filesystem is read-only")]
    ReadOnly,
    #[error("no space left")]
    NoSpace,
    #[error("no such attribute")]
    NoAttribute,
    #[error("result does not fit the buffer")]
    Range,
    #[error("file too large")]
    FileTooLarge,
    #[error("too many links")]
    TooManyLinks,
    #[error("value too large")]
    ValueTooLarge,
    #[error("operation not permitted")]
    NotPermitted,
    #[error("permission denied")]
    Denied,
    #[error("no such device or address")]
    NoSuchAddress,
    #[error("operation not supported")]
    Unsupported,
    #[error("the snapshot or the handle is gone")]
    Stale,
    #[error("busy")]
    Busy,
    /// Bytes that are not on this machine yet. Not an answer to an application: fetch `Need`, then try again.
    #[error("not resident: {0:?}")]
    NotResident(Need),
    /// The host, the store or a check of ours failed; the text says what, on which object.
    #[error("{0}")]
    Io(Arc<str>),
    /// Bytes that do not match their hash. Wrong bytes are never served.
    #[error("corrupt: {0}")]
    Corrupt(Arc<str>),
}

impl FsError {
    /// The errno for the application.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotFound => libc::ENOENT,
            Self::Exists => libc::EEXIST,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::NameTooLong => libc::ENAMETOOLONG,
            Self::Invalid => libc::EINVAL,
            Self::ReadOnly => libc::EROFS,
            Self::NoSpace => libc::ENOSPC,
            Self::NoAttribute => libc::ENODATA,
            Self::Range => libc::ERANGE,
            Self::FileTooLarge => libc::EFBIG,
            Self::TooManyLinks => libc::EMLINK,
            Self::ValueTooLarge => libc::E2BIG,
            Self::NotPermitted => libc::EPERM,
            Self::Denied => libc::EACCES,
            Self::NoSuchAddress => libc::ENXIO,
            Self::Unsupported => libc::EOPNOTSUPP,
            Self::Stale => libc::ESTALE,
            Self::Busy => libc::EBUSY,
            Self::NotResident(_) | Self::Io(_) | Self::Corrupt(_) => libc::EIO,
        }
    }

    /// A failure of the host or the store, in words.
    pub fn io(what: impl Into<String>) -> Self {
        Self::Io(what.into().into())
    }

    /// Bytes that do not match, in words.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt(what.into().into())
    }

    /// A failed call of the operating system on `object`; a full disk stays a full disk.
    pub fn os(object: &str, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace,
            _ => Self::io(format!("{object}: {error}")),
        }
    }
}

impl From<BaseError> for FsError {
    fn from(error: BaseError) -> Self {
        match error {
            BaseError::NotResident(need) => Self::NotResident(need),
            BaseError::Corrupt(what) => Self::Corrupt(what),
            BaseError::Unavailable(what) => Self::Io(what),
            BaseError::Gone(_) => Self::Stale,
        }
    }
}
