//! Why a filesystem could not be mounted or unmounted.

use std::io;
use std::path::PathBuf;

/// Why mounting or unmounting failed; the text names the object and, where there is one, the cure.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each variant's message is its documentation
pub enum MountError {
    #[error("{}: the mount point does not exist", .0.display())]
    Missing(PathBuf),
    #[error("{}: the mount point is not a directory", .0.display())]
    NotDirectory(PathBuf),
    #[error("{}: the mount point is not empty", .0.display())]
    NotEmpty(PathBuf),
    #[error("{}: something is mounted here already ({source_name})", .path.display())]
    AlreadyMounted { path: PathBuf, source_name: String },
    #[error("/dev/fuse does not exist: load the kernel module fuse, or give the container the device")]
    NoDevice,
    #[error("/dev/fuse: permission denied, and no fusermount3 to ask")]
    NotPermitted,
    #[error("fusermount3 is not installed (package fuse3): only root can mount without it")]
    NoHelper,
    #[error("fusermount3: {0}")]
    Helper(String),
    #[error("{what}: {source}")]
    Os { what: String, source: io::Error },
}

/// What to do about a [`MountError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MountErrorKind {
    /// Choose another directory, or make this one.
    Missing,
    /// Choose a directory.
    NotDirectory,
    /// Choose an empty directory.
    NotEmpty,
    /// Unmount what is there first.
    AlreadyMounted,
    /// This machine offers no FUSE to this user: device or helper is missing or forbidden.
    Unavailable,
    /// A call of the operating system failed.
    System,
}

impl MountError {
    /// What to do about it.
    pub fn kind(&self) -> MountErrorKind {
        match self {
            Self::Missing(_) => MountErrorKind::Missing,
            Self::NotDirectory(_) => MountErrorKind::NotDirectory,
            Self::NotEmpty(_) => MountErrorKind::NotEmpty,
            Self::AlreadyMounted { .. } => MountErrorKind::AlreadyMounted,
            Self::NoDevice | Self::NotPermitted | Self::NoHelper => MountErrorKind::Unavailable,
            Self::Helper(_) | Self::Os { .. } => MountErrorKind::System,
        }
    }

    pub(super) fn os(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Os { what: what.into(), source: source.into() }
    }
}
