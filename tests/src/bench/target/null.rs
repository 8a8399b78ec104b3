//! The yardstick of FUSE itself.

use crate::bench::processes::Processes;
use crate::node::is_mounted;
use crate::nullfs::NullFs;
use crate::process::{wait_child, wait_until};
use anyhow::{Context, Result};
use kvfs::fuse::{MountOptions, OpenMode, mount};
use rustix::mount::{UnmountFlags, unmount};
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const MOUNT_LIMIT: Duration = Duration::from_secs(30);

/// A filesystem in memory, served by a process of its own. Goes away with this value, also when a measurement fails.
#[derive(Debug)]
pub(super) struct NullMount {
    dir: PathBuf,
    child: Child,
}

impl NullMount {
    pub(super) fn at(dir: &Path) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        let child = command.arg("null").arg(dir).stdin(Stdio::null()).spawn().context("cannot start the null mount")?;
        let null = Self { dir: dir.to_owned(), child };
        wait_until("the null filesystem is mounted", MOUNT_LIMIT, || is_mounted(dir))?;
        Ok(null)
    }

    pub(super) fn processes(&self) -> Processes {
        Processes::naming(&self.dir)
    }
}

impl Drop for NullMount {
    fn drop(&mut self) {
        // The process ends with its mount; nobody is left to hear of a failure.
        let _ = unmount(&self.dir, UnmountFlags::DETACH);
        if !matches!(wait_child(&mut self.child, MOUNT_LIMIT), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Serves a filesystem in memory at `dir` until it is unmounted.
pub fn serve_null(dir: &Path) -> Result<()> {
    let mounted = mount(Arc::new(NullFs::default()), dir, MountOptions::new("null", OpenMode::Stateless))?;
    mounted.wait()?;
    Ok(())
}
