//! The program is replaced under a mount.

use crate::{Kept, wait_held};
use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::paths::cbfs_binary;
use cbfs_tests::scenario::Scenario;
use cbfs_tests::serial::serial;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Puts a program there as package managers do: whole, and in one step.
fn install(program: &Path, content: &[u8]) -> Result<()> {
    let new = program.with_extension("new");
    fs::write(&new, content)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    Ok(fs::rename(new, program)?)
}

#[test]
fn an_upgrade_keeps_the_mount_and_a_bad_one_is_taken_back() -> Result<()> {
    let _turn = serial()?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("cbfs");
    let image = fs::read(cbfs_binary()?)?;
    install(&program, &image)?;
    let scenario = Scenario::new(StoreKind::Directory, "upgrade")?;
    let mut node = scenario.node()?;
    node.set_program(&program);
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    let mut kept = Kept { mount, node, scenario };
    wait_held(&kept.node)?;
    let open = File::create_new(kept.mount.path("file"))?;
    open.write_all_at(b"before ", 0)?;
    let first = kept.mount.pid()?;

    install(&program, &image)?;
    let upgraded = kept.node.cbfs_long(&["upgrade", &kept.scenario.address, "--json"])?.success()?;
    let second = kept.mount.pid()?;
    ensure!(upgraded.number("previous_pid")? == u64::from(first) && upgraded.number("pid")? == u64::from(second));
    let running = fs::metadata(format!("/proc/{second}/exe"))?.ino();
    ensure!(running == fs::metadata(&program)?.ino(), "not the program that is on disk");
    open.write_all_at(b"behind", 7)?;
    ensure!(kept.status("restarts")? == 1 && kept.status("running")? == true);
    ensure!(kept.status("restart_reason")?.as_str().is_some_and(|why| why.contains("upgrade")));

    // What is there now cannot serve: the program of the holder comes back.
    install(&program, b"#!/bin/sh\nexit 70\n")?;
    kept.node.set_program(&cbfs_binary()?);
    kept.node.cbfs_long(&["upgrade", &kept.scenario.address])?.success()?;
    open.write_all_at(b"!", 13)?;
    ensure!(fs::read(kept.mount.path("file"))? == b"before behind!");
    let image_of = |pid: u32| fs::read_link(format!("/proc/{pid}/exe"));
    let (now, holder) = (image_of(kept.mount.pid()?)?, image_of(kept.mount.holder())?);
    ensure!(now == holder, "{} serves, not {}", now.display(), holder.display());
    install(&program, &image)?;
    kept.node.cbfs_long(&["upgrade", &kept.scenario.address])?.success()?;
    open.sync_all().context("fsync")?;
    kept.end()
}
