//! The product.

use crate::bench::processes::Processes;
use crate::bucket::{Bucket, StoreKind};
use crate::node::{Mounted, Node};
use crate::process::{Outcome, is_alive, processes_with, signal, wait_until};
use anyhow::{Context, Result, ensure};
use cloud_mgmt::store::Requests;
use rustix::fs::statvfs;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const MOUNT_NAME: &str = "mnt";
const POLL: Duration = Duration::from_millis(100);

/// Whether a mount outlives its daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A holder keeps it and starts another daemon.
    Yes,
    /// It ends with its daemon.
    No,
}

/// A filesystem of its own in a bucket of its own, mounted.
#[derive(Debug)]
pub struct Filesystem {
    /// `None` only between an unmount and the mount that follows it, and after [`Self::restart`].
    mounted: Option<Mounted>,
    dir: PathBuf,
    node: Node,
    address: String,
    /// `<TAG>-<UUID>`
    name: String,
    bucket: Arc<Bucket>,
}

impl Filesystem {
    /// Its state in `state`, the bucket a directory on the same disk.
    pub fn new(state: &Path) -> Result<Self> {
        Self::on(state, &Arc::new(Bucket::new(StoreKind::Directory)?), "bench")
    }

    /// Its state in `state`; named `tag` in a bucket that it shares.
    pub fn on(state: &Path, bucket: &Arc<Bucket>, tag: &str) -> Result<Self> {
        let mut node = Node::at(state, bucket)?;
        // Tests are in a hurry to look at the ledger; a product is not.
        node.remove_env("CBFS_CHECK_INTERVAL");
        let address = format!("{}#{tag}", bucket.url());
        let name = node.cbfs_long(&["create", &address, "--json"])?.success()?.text("name")?;
        let mounted = node.mount(&address, MOUNT_NAME, &[])?;
        let dir = mounted.dir().to_owned();
        Ok(Self { mounted: Some(mounted), dir, node, address, name, bucket: Arc::clone(bucket) })
    }

    /// The mount point.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The daemon and its helpers.
    pub fn processes(&self) -> Processes {
        Processes::naming(self.node.state_dir())
    }

    /// Ends the daemon in good order and starts it again.
    pub fn remount(&mut self) -> Result<()> {
        self.mounted.take().context("not mounted")?.unmount(&self.node)?;
        self.mounted = Some(self.node.mount(&self.address, MOUNT_NAME, &[])?);
        Ok(())
    }

    /// Ends everything that serves the mount with SIGKILL, helpers that would start a new daemon too.
    pub fn kill(&mut self) -> Result<()> {
        ensure!(!processes_with(self.node.state_dir())?.is_empty(), "no daemon to kill");
        wait_until("the daemon is gone", Duration::from_secs(10), || {
            // Our own child stays as a zombie until it is waited for.
            let alive = processes_with(self.node.state_dir())?.into_iter().filter(|pid| is_alive(*pid));
            let alive: Vec<u32> = alive.collect();
            alive.iter().try_for_each(|pid| signal(*pid, Signal::KILL))?;
            Ok(alive.is_empty())
        })?;
        // The last thread of a process ends a little after it, and with it the connection to the kernel. The kernel never
        // answers this question from memory.
        wait_until("the mount is dead", Duration::from_secs(10), || Ok(statvfs(&self.dir).is_err()))?;
        self.mounted.take().map_or(Ok(()), Mounted::kill)
    }

    /// Ends the daemon alone with SIGKILL; whether somebody keeps the mount meanwhile. If not, nothing is killed.
    pub fn kill_daemon(&self) -> Result<Held> {
        let status = self.status()?;
        if status.field("holder")?.is_null() {
            return Ok(Held::No);
        }
        signal(status.number("pid")? as u32, Signal::KILL)?;
        Ok(Held::Yes)
    }

    /// `cbfs mount` after [`Self::kill`], as a person types it; it comes back when the mount serves.
    pub fn restart(&mut self) -> Result<()> {
        self.node.mount_detached(&self.address, MOUNT_NAME, &[])?.success()?;
        Ok(())
    }

    fn status(&self) -> Result<Outcome> {
        self.node.cbfs(&["status", &self.address, "--json"])?.success()
    }

    /// Changes that no checkpoint has taken yet.
    pub fn pending(&self) -> Result<u64> {
        let status = self.status()?;
        Ok(status.number("xid")?.saturating_sub(status.number("persisted_xid")?))
    }

    /// What the daemon has asked the store since it started.
    pub fn requests(&self) -> Result<Requests> {
        Ok(serde_json::from_value(self.status()?.field("requests")?)?)
    }

    /// Bytes of all its objects in the bucket.
    pub fn stored_bytes(&self) -> Result<u64> {
        self.bucket.bytes_with(&self.name)
    }

    /// Waits until nothing is left to be done in the background, or until `limit` is over.
    pub fn settle(&self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < limit && self.pending()? > 0 {
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Takes a snapshot and waits until it is in the bucket.
    pub fn publish(&self, name: &str) -> Result<()> {
        let args = ["snapshot", "create", &self.address, "--name", name, "--wait"];
        self.node.cbfs_long(&args)?.success()?;
        Ok(())
    }

    /// Asks for a snapshot; the answer comes when it has been cut.
    pub fn request_snapshot(&self, name: &str) -> Result<Outcome> {
        self.node.cbfs(&["snapshot", "create", &self.address, "--name", name])
    }

    /// Waits until a snapshot is in the bucket.
    pub fn wait_published(&self, name: &str) -> Result<()> {
        self.node.cbfs_long(&["snapshot", "status", &self.address, name, "--wait"])?.success()?;
        Ok(())
    }

    /// Unmounts.
    pub fn end(self) -> Result<()> {
        let Self { mounted, node, dir, .. } = self;
        if let Some(mounted) = mounted {
            return mounted.unmount(&node);
        }
        node.cbfs_long(&["unmount", dir.to_str().context("a path that is not UTF-8")?])?.success()?;
        Ok(())
    }
}
