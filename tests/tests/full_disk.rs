//! A full disk below the state directory: ENOSPC, no hang, nothing acknowledged is lost, also not by a kill; removing goes on,
//! and everything else with room again.

use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::node::{Mounted, Node};
use cbfs_tests::on_both_stores;
use cbfs_tests::process::{run_ok, wait_until};
use cbfs_tests::scenario::{Mount, Scenario, noise, write_durable};
use cbfs_tests::serial::serial;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
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

    /// Somebody else takes the rest, to the last byte.
    fn take_the_rest(&self) -> Result<()> {
        let mut other = File::options().append(true).create(true).open(self.other())?;
        while other.write(&[1; 4096]).is_ok() {}
        let left = rustix::fs::statvfs(self.dir.path())?.f_bavail;
        ensure!(left == 0, "vacuous: {left} blocks are left");
        Ok(())
    }

    fn other(&self) -> PathBuf {
        self.dir.path().join("somebody else's")
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

/// A filesystem whose state is on `disk`.
fn mounted(kind: StoreKind, tag: &str, disk: &SmallDisk) -> Result<(Scenario, Node, Mounted)> {
    let scenario = Scenario::new(kind, tag)?;
    let node = Node::at(&disk.dir.path().join("state"), &scenario.bucket)?;
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    Ok((scenario, node, mount))
}

fn a_full_disk_loses_nothing(kind: StoreKind) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "needs root to mount a small disk");
    let _turn = serial()?;
    // Declared before the node, so that it goes after the node's daemons.
    let disk = SmallDisk::new("256m")?;
    let (scenario, node, mount) = mounted(kind, "full", &disk)?;

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

/// A mount whose disk is full to the last byte. Take it apart in this order: the disk has to go after the daemons.
struct Full {
    scenario: Scenario,
    disk: SmallDisk,
    node: Node,
    durable: BTreeMap<String, Vec<u8>>,
    mount: Mounted,
}

impl Full {
    fn new(tag: &str, size: &str) -> Result<Self> {
        let disk = SmallDisk::new(size)?;
        let (scenario, node, mount) = mounted(StoreKind::Directory, tag, &disk)?;
        let mut durable = BTreeMap::new();
        fill(mount.dir(), &mut durable);
        disk.take_the_rest()?;
        Ok(Self { scenario, disk, node, durable, mount })
    }
}

/// Removes those files whose number in the order of names is `chosen`.
fn remove(mount: &Mounted, durable: &mut BTreeMap<String, Vec<u8>>, chosen: fn(usize) -> bool) -> Result<()> {
    let names: Vec<String> = durable.keys().cloned().collect();
    for name in names.into_iter().enumerate().filter(|(n, _)| chosen(*n)).map(|(_, name)| name) {
        fs::remove_file(mount.path(&name)).with_context(|| format!("remove {name}"))?;
        durable.remove(&name);
    }
    Ok(())
}

/// Nobody dies: the daemon that meets the full disk removes what it is asked to, and that makes room.
#[test]
fn removing_goes_on_where_not_one_byte_is_left() -> Result<()> {
    let _turn = serial()?;
    let Full { scenario: _scenario, disk: _disk, node, mut durable, mount } = Full::new("alive", "256m")?;
    // Longer than what is left of the journal's last page.
    for round in 0..200 {
        let (old, new) = if round % 2 == 0 { ("file 1", "moved") } else { ("moved", "file 1") };
        fs::rename(mount.path(old), mount.path(new)).with_context(|| format!("rename {round}"))?;
    }
    remove(&mount, &mut durable, |n| n >= 3)?;
    await_room(&mount, &mut durable)?;
    check(mount.dir(), &durable)?;
    mount.unmount(&node)
}

/// The daemon dies where not one byte is left: the next one serves, and the mount lives on.
#[test]
fn a_daemon_that_dies_on_a_full_disk_is_followed() -> Result<()> {
    let _turn = serial()?;
    let Full { scenario, disk, node, mut durable, mount } = Full::new("followed", "512m")?;

    for round in 0..3 {
        mount.kill_daemon()?;
        check(mount.dir(), &durable)
            .with_context(|| format!("after kill -9 number {round}: {}", mount.log().unwrap_or_default()))?;
        let refused = write_durable(&mount.path("more"), b"x").expect_err("a full disk takes a file");
        ensure!(errno_of(&refused) == Some(Errno::NOSPC.raw_os_error()), "{refused:#}, not ENOSPC");
        // Removing goes on, and what was removed before is not back.
        let name = durable.keys().next().context("no file is left")?.clone();
        fs::remove_file(mount.path(&name)).with_context(|| format!("remove {name}"))?;
        durable.remove(&name);
        disk.take_the_rest()?;
    }
    let status = node.cbfs(&["status", &scenario.address])?.success()?.stdout;
    ensure!(status.contains("the local disk is full"), "the status says nothing of it:\n{status}");

    fs::remove_file(disk.other())?;
    // Of every segment so much that moving the rest together is worth it.
    remove(&mount, &mut durable, |n| n % 3 > 0)?;
    await_room(&mount, &mut durable)?;
    check(mount.dir(), &durable).context("with room again")?;
    let status = node.cbfs(&["status", &scenario.address])?.success()?.stdout;
    ensure!(!status.contains("the local disk is full"), "the status still says so:\n{status}");
    mount.unmount(&node)
}

/// The mount is gone, too: a new one finds everything, and what is removed in it makes room enough.
#[test]
fn a_mount_on_a_full_disk_shows_everything_and_removing_makes_room() -> Result<()> {
    let _turn = serial()?;
    let Full { scenario, disk: _disk, node, mut durable, mount } = Full::new("removing", "256m")?;
    mount.kill()?;

    let mount = node.mount(&scenario.address, "mnt", &[])?;
    check(mount.dir(), &durable).context("on the full disk")?;
    let free = rustix::fs::statvfs(mount.dir())?.f_bavail;
    ensure!(free == 0, "df shows {free} free blocks where nothing is taken");
    remove(&mount, &mut durable, |n| n >= 3)?;
    await_room(&mount, &mut durable)?;
    check(mount.dir(), &durable).context("with room again")?;
    mount.unmount(&node)?;
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    check(mount.dir(), &durable).context("after another mount")?;
    mount.unmount(&node)
}

/// Where there never was room for the ballast it is not missed: what the disk has left can be written.
#[test]
fn a_disk_without_room_for_the_ballast_is_written_to_the_end() -> Result<()> {
    let _turn = serial()?;
    let disk = SmallDisk::new("256m")?;
    // The ballast has 16 MiB there, and asks for 20.
    File::create(disk.other())?.write_all(&vec![1; 240 << 20])?;
    let (_scenario, node, mount) = mounted(StoreKind::Directory, "tight", &disk)?;
    let mut durable = BTreeMap::new();
    let refused = fill(mount.dir(), &mut durable);
    ensure!(durable.len() > 3, "only {} files before the disk was full", durable.len());
    ensure!(refused == Some(Errno::NOSPC.raw_os_error()), "errno {refused:?}, not ENOSPC");
    check(mount.dir(), &durable)?;
    fs::remove_file(disk.other())?;
    await_room(&mount, &mut durable)?;
    mount.unmount(&node)
}

/// Waits until a file is taken again.
fn await_room(mount: &Mounted, durable: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let content = vec![3; 100_000];
    let taken = || Ok(write_durable(&mount.path("with room again"), &content).is_ok());
    wait_until("there is room", Duration::from_secs(60), taken)
        .with_context(|| format!("the daemon's log: {}", mount.log().unwrap_or_default()))?;
    durable.insert("with room again".into(), content);
    Ok(())
}

fn errno_of(error: &anyhow::Error) -> Option<i32> {
    error.root_cause().downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error)
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
                    return errno_of(&error);
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
