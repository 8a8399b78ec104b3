//! Whether a directory may become a mount point; asked before the kernel is, so that refusals are clear.

use super::error::MountError;
use super::mountinfo::{self, MountEntry, mounted_at};
use super::{MountOptions, attach};
use std::io;
use std::path::{Path, PathBuf};

/// The canonical path of `mountpoint` if it is an existing, empty directory where nothing is mounted. The remains of a
/// dead daemon of the same filesystem are cleared away.
pub(super) fn check_mountpoint(mountpoint: &Path, options: &MountOptions) -> Result<PathBuf, MountError> {
    let path = std::fs::canonicalize(mountpoint).map_err(|error| refusal(mountpoint, error))?;
    if let Some(there) = mounted_at(&path)? {
        if !is_our_corpse(&there, options) {
            let source_name = format!("{}, {}", there.source.display(), there.fs_type);
            return Err(MountError::AlreadyMounted { path, source_name });
        }
        tracing::warn!(path = %path.display(), "clearing away the mount of a daemon that is gone");
        attach::detach(&path)?;
    }
    let attributes = std::fs::metadata(&path).map_err(|error| refusal(&path, error))?;
    if !attributes.is_dir() {
        return Err(MountError::NotDirectory(path));
    }
    let mut entries = std::fs::read_dir(&path).map_err(|error| refusal(&path, error))?;
    if entries.next().is_some() {
        return Err(MountError::NotEmpty(path));
    }
    Ok(path)
}

/// Only a mount with our own name is touched at all: asking a stranger's could hang.
fn is_our_corpse(there: &MountEntry, options: &MountOptions) -> bool {
    there.fs_type == format!("fuse.{}", MountOptions::SUBTYPE)
        && there.source == options.fsname.as_str()
        && mountinfo::is_dead(&there.path)
}

fn refusal(path: &Path, error: io::Error) -> MountError {
    match error.kind() {
        io::ErrorKind::NotFound => MountError::Missing(path.into()),
        io::ErrorKind::NotADirectory => MountError::NotDirectory(path.into()),
        _ => MountError::os(path.display().to_string(), error),
    }
}
