//! The mount survives its daemon: `kill -9` under programs that must see nothing of it, requests that are sent again,
//! an upgrade, and the cases in which the mount does end.

mod ends;
mod exactly;
mod moved;
mod programs;
mod upgrade;
mod workers;

use anyhow::Result;
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::node::{Mounted, Node};
use cbfs_tests::process::wait_until;
use cbfs_tests::scenario::Scenario;
use std::time::Duration;

/// A restart, an answer of the kernel: none takes that long.
const LIMIT: Duration = Duration::from_secs(60);

/// A filesystem that is mounted, and kept by its holder.
struct Kept {
    mount: Mounted,
    node: Node,
    scenario: Scenario,
}

impl Kept {
    fn new(tag: &str) -> Result<Self> {
        let scenario = Scenario::new(StoreKind::Directory, tag)?;
        let node = scenario.node()?;
        let mount = node.mount(&scenario.address, "mnt", &[])?;
        let kept = Self { mount, node, scenario };
        wait_held(&kept.node)?;
        Ok(kept)
    }

    fn status(&self, key: &str) -> Result<serde_json::Value> {
        self.node.cbfs(&["status", &self.scenario.address, "--json"])?.success()?.field(key)
    }

    /// A clean end that leaves nothing behind.
    fn end(self) -> Result<()> {
        let Self { mount, node, .. } = self;
        mount.unmount(&node)?;
        let left = cbfs_tests::process::processes_with(node.state_dir())?;
        anyhow::ensure!(left.is_empty(), "processes are left: {left:?}");
        Ok(())
    }
}

/// Waits until the holder has the only mount of `node`: until then the end of the daemon is the end of the mount.
fn wait_held(node: &Node) -> Result<()> {
    wait_until("the holder has the mount", LIMIT, || {
        Ok(node.cbfs(&["status", "--json"])?.success()?.field("holder").is_ok_and(|pid| pid.is_number()))
    })
}
