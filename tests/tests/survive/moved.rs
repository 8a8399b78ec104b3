//! A promotion that moves a slave to a newer snapshot: what the kernel had from daemons that are gone is not shown any more.

use crate::{Kept, LIMIT, wait_held};
use anyhow::{Result, ensure};
use cbfs_tests::node::{Mounted, Node};
use cbfs_tests::process::wait_child;
use cbfs_tests::serial::serial;
use std::fs::{self, File};

/// Read once on the slave, so that the kernel has their bytes; of one size, so that only the bytes tell.
const FILES: [&str; 3] = ["early", "later", "last"];
/// Not there at first, and asked for.
const MISSING: &str = "missing at first";

/// A slave with everything in the kernel's caches, and a newer snapshot than its own.
fn slave_of_an_older_snapshot(master: &Kept, environment: &[(&str, &str)]) -> Result<(Node, Mounted)> {
    for name in FILES {
        fs::write(master.mount.path(name), "first")?;
    }
    master.scenario.snapshot(&master.node, "first")?;
    let mut node = master.scenario.node()?;
    for (name, value) in environment {
        node.set_env(name, value);
    }
    let slave = node.mount(&master.scenario.at("latest"), "slave", &[])?;
    wait_held(&node)?;
    for name in FILES {
        ensure!(fs::read(slave.path(name))? == b"first");
    }
    ensure!(!slave.path(MISSING).exists());
    for name in FILES {
        fs::write(master.mount.path(name), "other")?;
    }
    fs::write(master.mount.path(MISSING), "")?;
    master.scenario.snapshot(&master.node, "second")?;
    Ok((node, slave))
}

#[test]
fn a_promotion_voids_what_earlier_daemons_told() -> Result<()> {
    let _turn = serial()?;
    let master = Kept::new("moved")?;
    let (node, slave) = slave_of_an_older_snapshot(&master, &[])?;
    // The kernel drops what it cached of a file with its last name, unless it is open.
    let _held = FILES.iter().map(|name| File::open(slave.path(name))).collect::<std::io::Result<Vec<_>>>()?;
    slave.kill_daemon()?;
    node.cbfs(&["promote", &master.scenario.address, "--epoch", "1"])?.success()?;
    ensure!(fs::read(slave.path(FILES[0]))? == b"other", "bytes of the older snapshot");
    ensure!(slave.path(MISSING).exists(), "a name of the older snapshot");
    // What nobody has opened since is still from the first daemon.
    for name in &FILES[1..] {
        slave.kill_daemon()?;
        ensure!(fs::read(slave.path(name))? == b"other", "bytes of the older snapshot after the next daemon");
    }
    slave.unmount(&node)?;
    master.end()
}

#[test]
fn a_daemon_killed_in_its_promotion_leaves_no_older_snapshot_behind() -> Result<()> {
    let _turn = serial()?;
    let master = Kept::new("moving")?;
    let sleep = ("FAILPOINTS", "toa::promote::after_epoch=sleep(600000)");
    let (node, slave) = slave_of_an_older_snapshot(&master, &[sleep])?;
    let _held = FILES.iter().map(|name| File::open(slave.path(name))).collect::<std::io::Result<Vec<_>>>()?;
    let mut promote = node.spawn(&["promote", &master.scenario.address, "--epoch", "1"])?;
    slave.stands_at_failpoint()?;
    slave.kill_daemon()?;
    wait_child(&mut promote, LIMIT)?;
    for name in FILES {
        ensure!(fs::read(slave.path(name))? == b"other", "bytes of the older snapshot");
        slave.kill_daemon()?;
    }
    ensure!(slave.path(MISSING).exists(), "a name of the older snapshot");
    fs::write(slave.path("written"), "by the new master")?;
    slave.unmount(&node)?;
    master.end()
}
