//! What is measured.

use crate::bucket::Bucket;
use crate::node::{Mounted, Node, is_mounted};
use crate::nullfs::NullFs;
use crate::process::{run_ok, wait_child, wait_until};
use anyhow::{Context, Result, bail};
use kvfs::fuse::{MountOptions, OpenMode, mount};
use rustix::mount::{UnmountFlags, unmount};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const MOUNT_LIMIT: Duration = Duration::from_secs(30);

/// A directory that is measured, with how its caches are dropped.
#[derive(Debug)]
pub struct Target {
    name: &'static str,
    dir: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Host,
    Null(NullMount),
    Cbfs(Box<Instance>),
}

/// Goes away with its process, also when a measurement fails.
#[derive(Debug)]
struct NullMount {
    dir: PathBuf,
    child: Child,
}

impl Drop for NullMount {
    fn drop(&mut self) {
        // The process ends with its mount; nobody is left to hear of a failure.
        let _ = unmount(&self.dir, UnmountFlags::DETACH);
        let _ = wait_child(&mut self.child, MOUNT_LIMIT);
    }
}

#[derive(Debug)]
struct Instance {
    /// `None` only between an unmount and the mount that follows it.
    mounted: Option<Mounted>,
    node: Node,
    address: String,
}

impl Target {
    /// The filesystem of `below`.
    pub fn host(below: &Path) -> Result<Self> {
        Ok(Self { name: "host", dir: fresh(below, "host")?, kind: Kind::Host })
    }

    /// A FUSE filesystem that keeps everything in memory, in a process of its own.
    pub fn null(below: &Path) -> Result<Self> {
        let dir = fresh(below, "null")?;
        let mut command = Command::new(env::current_exe()?);
        let child =
            command.arg("null").arg(&dir).stdin(Stdio::null()).spawn().context("cannot start the null mount")?;
        let null = NullMount { dir: dir.clone(), child };
        wait_until("the null filesystem is mounted", MOUNT_LIMIT, || is_mounted(&dir))?;
        Ok(Self { name: "null FUSE", dir, kind: Kind::Null(null) })
    }

    /// CBFS, its state on the filesystem of `below`.
    pub fn cbfs(below: &Path, bucket: &Bucket) -> Result<Self> {
        let node = Node::at(&fresh(below, "state")?, bucket)?;
        let address = format!("{}#bench", bucket.url());
        node.cbfs_long(&["create", &address])?.success()?;
        let mounted = node.mount(&address, "mnt", &[])?;
        let dir = mounted.dir().to_owned();
        Ok(Self { name: "CBFS", dir, kind: Kind::Cbfs(Box::new(Instance { mounted: Some(mounted), node, address })) })
    }

    /// Its name in the table.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The directory of a round.
    pub fn place(&self, round: usize) -> Result<PathBuf> {
        let place = self.dir.join(format!("round-{round}"));
        fs::create_dir_all(&place)?;
        Ok(place)
    }

    /// Removes what a round left.
    pub fn clear(&self, round: usize) -> Result<()> {
        fs::remove_dir_all(self.place(round)?).context("cannot clear")
    }

    /// Makes everything durable and drops caches: the kernel's, and those of the daemon by starting it anew.
    pub fn forget_caches(&mut self) -> Result<()> {
        run_ok("sync", &[], Duration::from_secs(300))?;
        if let Kind::Cbfs(instance) = &mut self.kind {
            instance.remount()?;
        }
        fs::write("/proc/sys/vm/drop_caches", "3").context("dropping caches needs root")
    }

    /// Unmounts.
    pub fn end(self) -> Result<()> {
        match self.kind {
            Kind::Host => Ok(()),
            Kind::Null(null) => {
                drop(null);
                Ok(())
            }
            Kind::Cbfs(instance) => match *instance {
                Instance { mounted: Some(mounted), node, .. } => mounted.unmount(&node),
                Instance { mounted: None, .. } => bail!("not mounted"),
            },
        }
    }
}

impl Instance {
    fn remount(&mut self) -> Result<()> {
        self.mounted.take().context("not mounted")?.unmount(&self.node)?;
        self.mounted = Some(self.node.mount(&self.address, "mnt", &[])?);
        Ok(())
    }
}

/// Serves a filesystem in memory at `dir` until it is unmounted.
pub fn serve_null(dir: &Path) -> Result<()> {
    let mounted = mount(Arc::new(NullFs::default()), dir, MountOptions::new("null", OpenMode::Stateless))?;
    mounted.wait()?;
    Ok(())
}

fn fresh(below: &Path, name: &str) -> Result<PathBuf> {
    let dir = below.join(name);
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}
