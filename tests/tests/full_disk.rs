//! A full disk below the state directory: ENOSPC, no hang, nothing acknowledged is lost, and it goes on with room again.

use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::node::Node;
use cbfs_tests::on_both_stores;
use cbfs_tests::process::run_ok;
use cbfs_tests::scenario::{Mount, Scenario, noise, write_durable};
use cbfs_tests::serial::serial;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

on_both_stores!(a_full_disk_loses_nothing);

/// A small disk of its own (in memory), for a state directory.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn new(size: &str) -> Result<Self> {
        let disk = Self { dir: tempfile::Builder::new().prefix("cbfs-disk-").tempdir()? };
        let options = format!("size={size}");
        run_ok("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", disk.text()?], Duration::from_secs(10))?;
        Ok(disk)
    }

    fn grow(&self, size: &str) -> Result<()> {
        let options = format!("remount,size={size}");
        run_ok("mount", &["-o", &options, self.text()?], Duration::from_secs(10)).map(drop)
    }

    fn text(&self) -> Result<&str> {
        self.dir.path().to_str().context("not UTF-8")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure.
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}

fn a_full_disk_loses_nothing(kind: StoreKind) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "needs root to mount a small disk");
    let _turn = serial()?;
    let scenario = Scenario::new(kind, "full")?;
    // Declared before the node, so that it goes after the node's daemons.
    let disk = SmallDisk::new("256m")?;
    let node = Node::at(&disk.dir.path().join("state"), &scenario.bucket)?;
    let mount = node.mount(&scenario.address, "mnt", &[])?;

    let mut durable = BTreeMap::new();
    let refused = fill(mount.dir(), &mut durable);
    ensure!(durable.len() > 5, "vacuous: only {} files before the disk was full", durable.len());
    ensure!(refused == Some(Errno::NOSPC.raw_os_error()), "errno {refused:?}, not ENOSPC");
    check(mount.dir(), &durable).context("on the full disk")?;
    node.cbfs(&["status", &scenario.address, "--json"])?.success()?;

    mount.kill()?;
    disk.grow("1g")?;
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    check(mount.dir(), &durable).context("after kill -9 and growing the disk")?;
    write_durable(&mount.path("with room again"), &vec![3; 100_000])?;
    durable.insert("with room again".into(), vec![3; 100_000]);
    scenario.snapshot(&node, "whole")?;
    let slave = Mount::new(&scenario.bucket, &scenario.at("whole"), &[])?;
    check(slave.mounted.dir(), &durable).context("in the snapshot")?;
    slave.unmount()?;
    mount.unmount(&node)
}

/// Writes incompressible files until one is refused three times; the errno of the last refusal.
fn fill(dir: &Path, durable: &mut BTreeMap<String, Vec<u8>>) -> Option<i32> {
    let mut refusals = 0;
    for index in 0..2000 {
        let content = noise(index, if index % 4 == 0 { 3_000_000 } else { 9_000 });
        let name = format!("file {index}");
        match write_durable(&dir.join(&name), &content) {
            Ok(()) => drop(durable.insert(name, content)),
            Err(error) => {
                refusals += 1;
                if refusals == 3 {
                    let cause = error.root_cause().downcast_ref::<std::io::Error>();
                    return cause.and_then(std::io::Error::raw_os_error);
                }
            }
        }
    }
    None
}

fn check(dir: &Path, durable: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    for (name, content) in durable {
        let found = fs::read(dir.join(name)).with_context(|| format!("{name} was fsynced"))?;
        ensure!(&found == content, "{name} was fsynced and has other bytes now");
    }
    Ok(())
}
