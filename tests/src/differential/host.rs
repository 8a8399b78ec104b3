//! The host's side: a directory of its own under the options of a CBFS mount.

use crate::paths::cache_dir;
use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use std::path::Path;
use tempfile::TempDir;

/// A directory of the host with `nosuid`, `nodev`, `noatime`; gone when it is dropped.
#[derive(Debug)]
pub struct HostSide {
    dir: TempDir,
}

impl HostSide {
    /// An empty one, on the filesystem that the sources are on: ext4 or XFS.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("host-").tempdir_in(cache_dir()?)?;
        mount_bind(dir.path(), dir.path()).context("bind mount")?;
        let side = Self { dir };
        let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
        mount_remount(side.path(), flags, "").context("options of a bind mount")?;
        Ok(side)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for HostSide {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; the directory stays then.
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}
