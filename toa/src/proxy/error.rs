//! Why the proxy did not do it.

use std::path::{Path, PathBuf};

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyErrorKind {
    /// No room within the limit or on the disk: wait for uploads, then try again.
    NoSpace,
    /// The caller broke a rule (an object staged twice, a name that no file can have).
    Invalid,
    /// The local disk failed.
    Io,
}

/// A failure of the proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// What is pinned leaves no room.
    #[error("the proxy is full: {needed} bytes wanted, {free} of {max} can be freed")]
    Full {
        /// Bytes wanted.
        needed: u64,
        /// Bytes that eviction could give.
        free: u64,
        /// The limit.
        max: u64,
    },
    /// The disk below it leaves no room.
    #[error("the disk below {path} is full: {needed} bytes wanted, {free} are free", path = path.display())]
    Disk {
        /// The proxy.
        path: PathBuf,
        /// Bytes wanted.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// A name that no file can have.
    #[error("{0:?} cannot be the name of a cached object")]
    BadName(String),
    /// The object is staged already, or not staged at all.
    #[error("{0}: {1}")]
    State(String, &'static str),
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

impl ProxyError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ProxyErrorKind {
        match self {
            Self::Full { .. } | Self::Disk { .. } => ProxyErrorKind::NoSpace,
            Self::BadName(_) | Self::State(..) => ProxyErrorKind::Invalid,
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ProxyErrorKind::NoSpace,
                _ => ProxyErrorKind::Io,
            },
        }
    }

    /// Turns the system's answer into an error about `path`; for `map_err`.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}
