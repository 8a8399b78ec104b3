//! POSIX ACLs: random calls on a mount and on the host's filesystem, side by side, and what becomes of the tree after
//! `kill -9`, on a slave, and in an export.

mod draw;
mod side;

use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::differential::HostSide;
use cbfs_tests::paths::count_from_env;
use cbfs_tests::process::run_ok;
use cbfs_tests::scenario::{Mount, Scenario};
use cbfs_tests::serial::serial;
use draw::Draw;
use rustix::io::Errno;
use side::{Answer, Caller, Side, Tree};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// Steps before a mismatch that its message shows.
const SHOWN: usize = 8;
const EXTRACT_LIMIT: Duration = Duration::from_secs(60);

/// Steps from `seed` on both sides; what was tried, by call and answer.
fn compare(seed: u64, steps: usize, host: &Side, mount: &Side) -> Result<BTreeSet<(String, Answer)>> {
    let (mut draw, mut seen, mut before) = (Draw::new(seed), BTreeSet::new(), Vec::new());
    for number in 0..steps {
        let step = draw.step();
        let (wanted, got) = (host.perform(&step)?, mount.perform(&step)?);
        let history = || before[before.len().saturating_sub(SHOWN)..].join("\n");
        ensure!(
            wanted == got,
            "seed {seed}, step {number}, {step:?}\n  host:  {wanted:?}\n  mount: {got:?}\nbefore:\n{}",
            history()
        );
        before.push(format!("{number} {step:?} -> {wanted:?}"));
        let call = format!("{:?}", step.call);
        let name = call.split([' ', '{']).next().unwrap_or_default();
        let lost_sgid = if wanted.lost_sgid { " lost sgid" } else { "" };
        seen.insert((format!("{name}{lost_sgid}"), wanted.answer));
    }
    Ok(seen)
}

/// What must have happened for the comparison to mean something.
const MUST_HAPPEN: [(&str, Option<Errno>); 11] = [
    ("SetAcl", None),
    ("SetAcl", Some(Errno::INVAL)),
    ("SetAcl", Some(Errno::PERM)),
    ("SetAcl", Some(Errno::ACCESS)),
    ("SetAcl lost sgid", None),
    ("RemoveAcl", None),
    ("Chmod", None),
    ("Create", None),
    ("Mkdir", None),
    ("Open", None),
    ("Open", Some(Errno::ACCESS)),
];

#[test]
fn acls_are_what_they_are_on_the_host() -> Result<()> {
    let steps = count_from_env("CBFS_ACL_STEPS", 2_500)?;
    let _turn = serial()?;
    let scenario = Scenario::created(StoreKind::Directory, "acls", &["--acl"])?;
    let mount = Mount::new(&scenario.bucket, &scenario.address, &[])?;
    let shown = mount.node.cbfs(&["show", &scenario.address])?.success()?;
    ensure!(shown.stdout.contains("posix-acl"), "{shown}");
    let hosts = [HostSide::new()?, HostSide::new()?, HostSide::new()?];
    let mut seen = BTreeSet::new();
    for (round, host) in hosts.iter().take(2).enumerate() {
        seen.append(&mut compare_round(round, steps, host, &mount)?);
        // The next one is with a daemon that goes on with the connection: the kernel was asked by the first.
        mount.mounted.kill_daemon()?;
    }
    for (call, error) in MUST_HAPPEN {
        let wanted = (call.to_owned(), error.map_or(0, Errno::raw_os_error));
        ensure!(seen.contains(&wanted), "{wanted:?} never happened: {seen:?}");
    }
    let before = trees(&mount)?;
    let mount = mount.killed(&scenario)?;
    ensure!(before == trees(&mount)?, "after kill -9");

    scenario.snapshot(&mount.node, "all")?;
    check_export(&scenario, &mount, &before)?;
    let slave = Mount::new(&scenario.bucket, &scenario.at("latest"), &[])?;
    ensure!(before == trees(&slave)?, "on a slave");
    for (round, host) in hosts.iter().take(2).enumerate() {
        let (host, slave) = (Side::new(host.path())?, side(&slave, round)?);
        let (wanted, got) = (host.readable()?, slave.readable()?);
        ensure!(wanted == got, "who may read on a slave, round {round}\n  host:  {wanted:?}\n  slave: {got:?}");
    }
    slave.node.cbfs_long(&["promote", &scenario.address, "--epoch", "1"])?.success()?;
    compare_round(2, steps / 5, &hosts[2], &slave).context("on a slave that became master")?;
    ensure!(before == trees(&slave)?, "on a slave that became master");
    slave.unmount()?;
    mount.unmount()
}

/// Steps in a new directory on the mount and in `host`; what was tried.
fn compare_round(round: usize, steps: usize, host: &HostSide, mount: &Mount) -> Result<BTreeSet<(String, Answer)>> {
    let place = mount.mounted.path(&format!("round {round}"));
    fs::create_dir(&place)?;
    for root in [host.path(), &place] {
        fs::set_permissions(root, fs::Permissions::from_mode(0o777))?;
    }
    let (host, ours) = (Side::new(host.path())?, Side::new(&place)?);
    let seen = compare(round as u64, steps, &host, &ours)?;
    ensure!(host.tree()? == ours.tree()?, "round {round}: the trees");
    Ok(seen)
}

fn side(mount: &Mount, round: usize) -> Result<Side> {
    Side::new(&mount.mounted.path(&format!("round {round}")))
}

/// What the first two rounds have left.
fn trees(mount: &Mount) -> Result<[Tree; 2]> {
    Ok([side(mount, 0)?.tree()?, side(mount, 1)?.tree()?])
}

/// GNU tar makes the same trees of an export.
fn check_export(scenario: &Scenario, mount: &Mount, trees: &[Tree]) -> Result<()> {
    let extracted = HostSide::new()?;
    let tar = extracted.path().join("all.tar");
    let (tar, dir) = (tar.to_str().context("not UTF-8")?, extracted.path().to_str().context("not UTF-8")?);
    mount.node.cbfs(&["export", &scenario.at("all"), "--output", tar])?.success()?;
    run_ok("tar", &["--numeric-owner", "--acls", "-xpf", tar, "-C", dir], EXTRACT_LIMIT)?;
    for (round, tree) in trees.iter().enumerate() {
        let found = Side::new(&extracted.path().join(format!("round {round}")))?.tree()?;
        for (path, entry) in tree {
            ensure!(Some(entry) == found.get(path), "{path}: {entry:?}, extracted {:?}", found.get(path));
        }
        ensure!(tree.len() == found.len(), "more than was exported");
    }
    Ok(())
}

/// Beside chance: the one thing that ACLs are for, in words; and what the kernel must not have kept.
#[test]
fn a_named_user_may_read_until_the_acl_says_otherwise() -> Result<()> {
    let _turn = serial()?;
    let scenario = Scenario::created(StoreKind::Directory, "named", &["--acl"])?;
    let mount = Mount::new(&scenario.bucket, &scenario.address, &[])?;
    let dir = mount.mounted.dir();
    fs::write(dir.join("file"), "content")?;
    let side = Side::new(dir)?;
    let (alice, bob) = (Caller::plain(1000), Caller::plain(1001));
    let may = |who: &Caller| side.open(who, "file", false);
    side.set_acl(&Caller::root(), "file", "u::rw-,u:1000:r--,g::---,m::r--,o::---")?.map_err(anyhow::Error::from)?;
    ensure!(side.mode("file")? == 0o640, "the group's bits are the mask");
    ensure!((may(&alice)?, may(&bob)?) == (Ok(()), Err(Errno::ACCESS)), "alice alone");
    side.chmod(&Caller::root(), "file", 0o614)?.map_err(anyhow::Error::from)?;
    ensure!((may(&alice)?, may(&bob)?) == (Err(Errno::ACCESS), Ok(())), "the mask hides her entry; bob is another");
    side.set_acl(&Caller::root(), "file", "u::rw-,u:1001:---,g::r--,m::r--,o::r--")?.map_err(anyhow::Error::from)?;
    ensure!((may(&alice)?, may(&bob)?) == (Ok(()), Err(Errno::ACCESS)), "all but bob");
    mount.mounted.kill_daemon()?;
    ensure!((may(&alice)?, may(&bob)?) == (Ok(()), Err(Errno::ACCESS)), "after kill -9 of the daemon alone");
    let denied = side.set_acl(&alice, "file", "u::rw-,g::rw-,o::rw-")?;
    ensure!(denied == Err(Errno::PERM), "she is not the owner: {denied:?}");
    drop(side);
    mount.unmount()
}
