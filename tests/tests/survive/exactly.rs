//! What is sent again happens once, and what was begun goes on exactly where it was.

use crate::{Kept, LIMIT, wait_held};
use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::process::wait_until;
use cbfs_tests::proxy::Weather;
use cbfs_tests::scenario::Scenario;
use cbfs_tests::serial::serial;
use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir, RenameFlags, XattrFlags};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;

/// Does one operation; fails if it is done twice.
type Operation = fn(&Path) -> std::io::Result<()>;
/// That it was done.
type Check = fn(&Path) -> bool;

/// Session threads of a daemon: so many operations can stand at the same point.
const AT_ONCE: usize = 3;

const OPERATIONS: [(&str, Operation, Check); 12] = [
    ("mkdir", |d| fs::create_dir(d.join("new dir")), |d| d.join("new dir").is_dir()),
    ("create", |d| File::create_new(d.join("new file")).map(drop), |d| d.join("new file").is_file()),
    (
        "link",
        |d| fs::hard_link(d.join("file"), d.join("hard")),
        |d| fs::metadata(d.join("hard")).is_ok_and(|m| m.nlink() == 2),
    ),
    ("symlink", |d| std::os::unix::fs::symlink("x", d.join("soft")), |d| d.join("soft").is_symlink()),
    (
        "mknod",
        |d| Ok(rustix::fs::mknodat(CWD, d.join("fifo"), FileType::Fifo, Mode::RUSR, 0)?),
        |d| d.join("fifo").exists(),
    ),
    ("unlink", |d| fs::remove_file(d.join("file")), |d| !d.join("file").exists()),
    ("rmdir", |d| fs::remove_dir(d.join("dir")), |d| !d.join("dir").exists()),
    (
        "rename",
        |d| fs::rename(d.join("file"), d.join("moved")),
        |d| d.join("moved").exists() && !d.join("file").exists(),
    ),
    (
        "exchange",
        |d| Ok(rustix::fs::renameat_with(CWD, d.join("file"), CWD, d.join("dir"), RenameFlags::EXCHANGE)?),
        |d| d.join("file").is_dir() && d.join("dir").is_file(),
    ),
    (
        "noreplace",
        |d| Ok(rustix::fs::renameat_with(CWD, d.join("file"), CWD, d.join("moved"), RenameFlags::NOREPLACE)?),
        |d| d.join("moved").is_file(),
    ),
    (
        "setxattr",
        |d| Ok(rustix::fs::setxattr(d.join("file"), "user.new", b"x", XattrFlags::CREATE)?),
        |d| xattr::get(d.join("file"), "user.new").is_ok_and(|value| value.is_some()),
    ),
    (
        "removexattr",
        |d| Ok(rustix::fs::removexattr(d.join("file"), "user.old")?),
        |d| xattr::get(d.join("file"), "user.old").is_ok_and(|value| value.is_none()),
    ),
];

/// Committed and not answered: the daemon is killed there, and the next one answers without doing it again. In every
/// other round a checkpoint lies in between, after which the journal knows nothing of the operation any more.
#[test]
fn a_request_that_was_done_and_not_answered_is_answered_and_not_done_again() -> Result<()> {
    let _turn = serial()?;
    let mut scenario = Scenario::new(StoreKind::Directory, "once")?;
    let mut node = scenario.node()?;
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    for (name, _, _) in OPERATIONS {
        let dir = mount.path(name);
        fs::create_dir_all(dir.join("dir"))?;
        fs::write(dir.join("file"), name)?;
        xattr::set(dir.join("file"), "user.old", b"old")?;
    }
    mount.unmount(&node)?;
    node.set_env("FAILPOINTS", "fuse::before_answer=sleep(600000)");
    for (round, group) in OPERATIONS.chunks(AT_ONCE).enumerate() {
        let mount = node.mount(&scenario.address, "mnt", &[])?;
        let kept = Kept { mount, node, scenario };
        wait_held(&kept.node)?;
        let before = xid(&kept)?;
        let running: Vec<_> = group
            .iter()
            .map(|(name, operation, _)| {
                let (dir, operation) = (kept.mount.path(name), *operation);
                thread::spawn(move || operation(&dir))
            })
            .collect();
        wait_until("all of them are committed", LIMIT, || Ok(xid(&kept)? >= before + group.len() as u64))?;
        if round % 2 == 1 {
            kept.scenario.snapshot(&kept.node, &format!("round-{round}"))?;
        }
        ensure!(running.iter().all(|thread| !thread.is_finished()), "answered before the point");
        kept.mount.kill_daemon()?;
        wait_until("all of them are answered", LIMIT, || Ok(running.iter().all(thread::JoinHandle::is_finished)))?;
        for ((name, _, check), thread) in group.iter().zip(running) {
            let done = thread.join().map_err(|_| anyhow::anyhow!("{name} panicked"))?;
            done.with_context(|| {
                format!("{name}, done before the kill, in round {round}\n{}", kept.mount.log().unwrap_or_default())
            })?;
            ensure!(check(&kept.mount.path(name)), "{name} is not done, or done twice");
        }
        let mount;
        Kept { mount, node, scenario } = kept;
        mount.unmount(&node)?;
    }
    Ok(())
}

/// Reads some of a listing, then the daemon is replaced while the directory changes.
#[test]
fn a_listing_goes_on_exactly_where_it_was() -> Result<()> {
    let _turn = serial()?;
    const FILES: usize = 4000;
    let kept = Kept::new("listing")?;
    let dir = kept.mount.path("large");
    fs::create_dir(&dir)?;
    let name = |file: usize| format!("{file:05}{}", "x".repeat(file * 7 % 200));
    for file in 0..FILES {
        File::create(dir.join(name(file)))?;
    }
    let open = rustix::fs::open(&dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&open, &mut space);
    let mut seen = BTreeSet::new();
    let mut next = |upto: usize| -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        while found.len() < upto
            && let Some(entry) = entries.next()
        {
            let name = entry?.file_name().to_str()?.to_owned();
            if !name.starts_with('.') {
                ensure!(found.insert(name.clone()), "{name} is listed twice");
            }
        }
        Ok(found)
    };
    for _ in 0..3 {
        let some = next(FILES / 5)?;
        ensure!(some.is_disjoint(&seen), "listed again after a restart: {:?}", some.intersection(&seen).next());
        // As rm -r does: what was listed goes; the last one is where the listing stands.
        for name in &some {
            fs::remove_file(dir.join(name))?;
        }
        seen.extend(some);
        kept.mount.kill_daemon()?;
        File::create(dir.join("00000 behind"))?;
        fs::remove_file(dir.join("00000 behind"))?;
    }
    seen.extend(next(usize::MAX)?);
    let missing: Vec<_> = (0..FILES).map(name).filter(|name| !seen.contains(name)).collect();
    ensure!(missing.is_empty(), "{} files were skipped: {:?}", missing.len(), missing.first());
    drop(open);
    kept.end()
}

/// Unlinked files live until they are closed, over restarts, and then go.
#[test]
fn a_file_without_a_name_lives_until_it_is_closed_and_no_longer() -> Result<()> {
    let _turn = serial()?;
    let kept = Kept::new("orphans")?;
    let content = vec![7_u8; 3 << 20];
    let make = |name: &str| -> Result<(File, PathBuf)> {
        let path = kept.mount.path(name);
        fs::write(&path, &content)?;
        Ok((File::options().read(true).write(true).open(&path)?, path))
    };
    let ((before, path), (after, later)) = (make("unlinked before the kill")?, make("unlinked after it")?);
    fs::remove_file(path)?;
    kept.mount.kill_daemon()?;
    // The new daemon hands it out once more, so that its own count is not all there is.
    ensure!(fs::metadata(&later)?.len() == content.len() as u64);
    fs::remove_file(&later)?;
    kept.mount.kill_daemon()?;
    for file in [&before, &after] {
        drop_caches()?;
        let mut found = vec![0; content.len()];
        file.read_exact_at(&mut found, 0)?;
        ensure!(found == content, "other bytes in a file without a name");
        file.write_all_at(b"goes on", 0)?;
        file.sync_all()?;
        ensure!(file.metadata()?.nlink() == 0);
    }
    // Closed, they must go in this mount, not only with the next one. Each end is a record, if they do not come together.
    let records = xid(&kept)?;
    for (file, done) in [(before, records + 1), (after, records + 2)] {
        drop(file);
        wait_until("the closed file is purged", LIMIT, || Ok(xid(&kept)? >= done))?;
        ensure!(xid(&kept)? == done, "something else was written");
    }
    kept.end()
}

fn xid(kept: &Kept) -> Result<u64> {
    kept.status("xid")?.as_u64().context("no xid")
}

fn drop_caches() -> Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "1").context("dropping caches needs root")
}

/// A slave's open files and listings go on, too, and it stays on its snapshot although there is a newer one.
#[test]
fn a_slave_goes_on_with_its_snapshot() -> Result<()> {
    let _turn = serial()?;
    let master = Kept::new("slave")?;
    fs::write(master.mount.path("file"), "first")?;
    master.scenario.snapshot(&master.node, "first")?;
    let node = master.scenario.node()?;
    let mount = node.mount(&master.scenario.at("latest"), "slave", &[])?;
    wait_held(&node)?;
    let open = File::open(mount.path("file"))?;
    fs::write(master.mount.path("file"), "second")?;
    fs::write(master.mount.path("more"), "")?;
    master.scenario.snapshot(&master.node, "second")?;
    for _ in 0..2 {
        mount.kill_daemon()?;
        drop_caches()?;
        let mut found = [0; 5];
        open.read_exact_at(&mut found, 0)?;
        ensure!(&found == b"first", "the snapshot has changed under an open file");
        ensure!(fs::read(mount.path("file"))? == b"first" && !mount.path("more").exists(), "another snapshot");
    }
    mount.unmount(&node)?;
    master.end()
}

/// A master comes back without the bucket.
#[test]
fn a_master_comes_back_while_the_bucket_is_away() -> Result<()> {
    let _turn = serial()?;
    let kept = Kept::new("away")?;
    fs::write(kept.mount.path("file"), "content")?;
    kept.scenario.bucket.take_away(Weather::Refuse)?;
    kept.mount.kill_daemon()?;
    ensure!(fs::read(kept.mount.path("file"))? == b"content");
    fs::write(kept.mount.path("more"), "content")?;
    kept.scenario.bucket.bring_back()?;
    kept.end()
}

/// How far the kernel reads ahead is raised for a new mount; what somebody sets after that is theirs.
#[test]
fn a_later_daemon_leaves_the_read_ahead_of_the_mount_alone() -> Result<()> {
    let _turn = serial()?;
    let kept = Kept::new("ahead")?;
    fs::write(kept.mount.path("file"), "content")?;
    let device = fs::metadata(kept.mount.dir())?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    let is = |kib: &str| -> Result<()> {
        let now = fs::read_to_string(&setting).with_context(|| setting.clone())?;
        ensure!(now.trim() == kib, "{} KiB are read ahead, not {kib}", now.trim());
        Ok(())
    };
    is("8192")?;
    fs::write(&setting, "256")?;
    kept.mount.kill_daemon()?;
    ensure!(fs::read(kept.mount.path("file"))? == b"content");
    fs::write(kept.mount.path("more"), "content")?;
    is("256")?;
    kept.end()
}
