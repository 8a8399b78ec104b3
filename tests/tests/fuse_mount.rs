//! Mounting and unmounting, and what the kernel is told in between.

#![allow(clippy::unwrap_used)]

mod fuse_common;

use cbfs_tests::nullfs::NullFs;
use fuse_common::{errno, fresh_dir, mounted};
use kvfs::fs::api::{Access, Caller, FileSystem, NewNode};
use kvfs::fuse::{Mount, MountError, MountErrorKind, MountOptions, OpenMode, Unmounted, mount};
use kvfs::op::Privileges;
use kvfs::schema::FileKind;
use kvfs::{FsResult, Ino};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Says that this process is the plain user, and where to mount.
const PLAIN_USER_DIR: &str = "CBFS_TEST_PLAIN_USER_DIR";
const NOBODY: u32 = 65534;

fn try_mount(path: &Path) -> Result<Mount, MountError> {
    mount(Arc::new(NullFs::default()), path, MountOptions::new("cbfs:TEST", OpenMode::Stateless))
}

fn refusal(path: &Path) -> MountErrorKind {
    try_mount(path).unwrap_err().kind()
}

fn make_file(fs: &NullFs, name: &[u8], data: &[u8]) -> FsResult<Ino> {
    let node = NewNode { kind: FileKind::Regular, mode: 0o644, umask: 0, rdev: 0, target: &[] };
    let made = fs.make(Caller { uid: 0, gid: 0 }, Ino::ROOT, name, &node)?;
    fs.write(made.ino, 0, data, Privileges::Keep)?;
    Ok(made.ino)
}

#[test]
fn a_bad_mount_point_is_refused_with_its_reason() {
    let dir = fresh_dir();
    assert_eq!(refusal(&dir.path().join("none")), MountErrorKind::Missing);
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert_eq!(refusal(&file), MountErrorKind::NotDirectory);
    assert_eq!(refusal(&file.join("below")), MountErrorKind::NotDirectory);
    assert_eq!(refusal(dir.path()), MountErrorKind::NotEmpty);
    assert_eq!(refusal(Path::new("/proc")), MountErrorKind::AlreadyMounted);
    let Some(first) = mounted(Arc::new(NullFs::default()), OpenMode::Stateless) else { return };
    let error = try_mount(&first.at("")).unwrap_err();
    assert_eq!(error.kind(), MountErrorKind::AlreadyMounted);
    assert!(error.to_string().contains("cbfs:TEST, fuse.cbfs"), "{error}");
    fs::write(first.at("f"), b"the first is none the worse").unwrap();
}

#[test]
fn it_shows_its_name_and_safe_options_whatever_the_name() {
    let dir = fresh_dir();
    let named = dir.path().join("a b\\c");
    fs::create_dir(&named).unwrap();
    let options = MountOptions::new("cbfs:a,suid b", OpenMode::Stateless);
    let mount = match mount(Arc::new(NullFs::default()), &named, options) {
        Err(error) if error.kind() == MountErrorKind::Unavailable => return,
        other => other.unwrap(),
    };
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains("a\\040b\\134c")).unwrap();
    assert!(line.contains("- fuse.cbfs cbfs:a,suid\\040b "), "{line}");
    for option in ["nosuid", "nodev", "noatime", "default_permissions"] {
        assert!(line.contains(option), "{option}: {line}");
    }
    assert_eq!(mount.path(), named.canonicalize().unwrap());
    assert_eq!(mount.unmount().unwrap(), Unmounted::Clean);
    assert_eq!(fs::read_dir(&named).unwrap().count(), 0);
}

#[test]
fn unmounting_ends_the_session_and_releases_the_filesystem() {
    let fs = Arc::new(NullFs::default());
    let Some(test) = mounted(fs.clone(), OpenMode::Stateless) else { return };
    fs::write(test.at("f"), b"").unwrap();
    assert_eq!(test.mount.unmount().unwrap(), Unmounted::Clean);
    test.mount.wait().unwrap();
    assert!(!test.at("f").exists());
    assert_eq!(test.mount.unmount().unwrap(), Unmounted::Clean, "once more does no harm");
    let again = try_mount(&test.at("")).unwrap();
    assert_eq!(test.mount.unmount().unwrap(), Unmounted::Clean);
    fs::write(test.at("g"), b"").unwrap();
    assert!(test.at("g").exists(), "the old mount does not touch the new one");
    drop(again);
    assert!(!test.at("g").exists(), "dropping unmounts");
    drop(test);
    assert!(fuse_common::eventually(|| Arc::strong_count(&fs) == 1), "nobody holds the filesystem");
}

#[test]
fn a_busy_mount_leaves_its_place_and_lives_until_the_last_user_goes() {
    let fs = Arc::new(NullFs::default());
    let Some(test) = mounted(fs.clone(), OpenMode::Stateless) else { return };
    fs::write(test.at("f"), b"content").unwrap();
    let mut file = OpenOptions::new().read(true).append(true).open(test.at("f")).unwrap();
    assert_eq!(test.mount.unmount().unwrap(), Unmounted::Busy);
    assert!(!test.at("f").exists());
    file.write_all(b" and more").unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    file.read_at(&mut [0; 4], 0).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 16);
    drop(file);
    test.mount.wait().unwrap();
}

#[test]
fn orphans_go_when_the_connection_does() {
    let fs = Arc::new(NullFs::default());
    let Some(test) = mounted(fs.clone(), OpenMode::Stateless) else { return };
    let file = File::create(test.at("f")).unwrap();
    fs::remove_file(test.at("f")).unwrap();
    assert_eq!(fs.inodes(), 2);
    assert_eq!(test.mount.unmount().unwrap(), Unmounted::Busy);
    drop(file);
    test.mount.wait().unwrap();
    assert_eq!(fs.inodes(), 1);
}

#[test]
fn an_unmount_by_somebody_else_ends_the_wait() {
    let Some(test) = mounted(Arc::new(NullFs::default()), OpenMode::Stateless) else { return };
    let tool = if rustix::process::geteuid().is_root() { "umount" } else { "fusermount3" };
    let status = Command::new(tool).args((tool == "fusermount3").then_some("-u")).arg(test.mount.path()).status();
    assert!(status.unwrap().success());
    test.mount.wait().unwrap();
}

#[test]
fn the_remains_of_a_dead_daemon_are_cleared_away() {
    let Some(test) = mounted(Arc::new(NullFs::default()), OpenMode::Stateless) else { return };
    let minor = rustix::fs::minor(fs::metadata(test.at("")).unwrap().dev());
    let Ok(mut abort) = OpenOptions::new().write(true).open(format!("/sys/fs/fuse/connections/{minor}/abort")) else {
        return; // fusectl is not mounted here
    };
    abort.write_all(b"1").unwrap();
    assert!(fuse_common::eventually(|| fs::metadata(test.at("")).is_err()));
    assert_eq!(errno(fs::metadata(test.at(""))), libc::ENOTCONN);
    let other = mount(Arc::new(NullFs::default()), &test.at(""), MountOptions::new("cbfs:OTHER", OpenMode::Stateless));
    assert_eq!(other.unwrap_err().kind(), MountErrorKind::AlreadyMounted, "only our own dead are buried");
    let revived = try_mount(&test.at("")).unwrap();
    fs::write(test.at("f"), b"alive").unwrap();
    assert_eq!(revived.unmount().unwrap(), Unmounted::Clean);
}

#[test]
fn a_slave_refuses_writers_at_once_and_becomes_a_master_without_remounting() {
    let fs = Arc::new(NullFs::default());
    make_file(&fs, b"f", b"published").unwrap();
    fs.set_access(Access::ReadOnly);
    let Some(test) = mounted(fs.clone(), OpenMode::Answered) else { return };
    assert_eq!(fs::read(test.at("f")).unwrap(), b"published");
    assert_eq!(errno(OpenOptions::new().write(true).open(test.at("f"))), libc::EROFS);
    assert_eq!(errno(OpenOptions::new().append(true).open(test.at("f"))), libc::EROFS);
    assert_eq!(errno(File::create(test.at("new"))), libc::EROFS);
    assert_eq!(errno(fs::create_dir(test.at("d"))), libc::EROFS);
    assert_eq!(errno(fs::remove_file(test.at("f"))), libc::EROFS);
    fs.set_access(Access::ReadWrite);
    test.mount.invalidator().all().unwrap();
    fs::write(test.at("new"), b"mine").unwrap();
    OpenOptions::new().append(true).open(test.at("f")).unwrap().write_all(b" and more").unwrap();
    assert_eq!(fs::read(test.at("f")).unwrap(), b"published and more");
}

#[test]
fn what_changes_behind_the_kernel_shows_when_it_is_told() {
    let fs = Arc::new(NullFs::default());
    let ino = make_file(&fs, b"f", b"old").unwrap();
    let Some(test) = mounted(fs.clone(), OpenMode::Stateless) else { return };
    let kernel = test.mount.invalidator();
    let appears = |name: &str| test.at(name).exists();
    assert!(!appears("a") && !appears("b"));
    assert_eq!(fs::read(test.at("f")).unwrap(), b"old");

    make_file(&fs, b"a", b"").unwrap();
    make_file(&fs, b"b", b"").unwrap();
    fs.write(ino, 0, b"newer", Privileges::Keep).unwrap();
    assert!(!appears("a"), "the kernel remembers that there is nothing");
    assert!(fs::read(test.at("f")).unwrap().starts_with(b"old"), "the kernel has its own copy of the bytes");

    kernel.entry(Ino::ROOT, b"a").unwrap();
    assert!(appears("a") && !appears("b"));
    kernel.inode(ino).unwrap();
    assert_eq!(fs::read(test.at("f")).unwrap(), b"newer");

    fs.write(ino, 0, b"newest", Privileges::Keep).unwrap();
    fs.unlink(Ino::ROOT, b"a").unwrap();
    let kept = File::open(test.at("f")).unwrap();
    kernel.all().unwrap();
    assert_eq!(fs::read(test.at("f")).unwrap(), b"newest");
    assert_eq!(kept.metadata().unwrap().len(), 6);
    // Names need a kernel that can void them all at once.
    if supports_epochs() {
        assert!(appears("b") && !appears("a"));
    }
    kernel.entry(Ino::ROOT, b"never asked for").unwrap();
    kernel.inode(Ino(1 << 50)).unwrap();
}

fn supports_epochs() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(16))
}

#[test]
#[allow(clippy::print_stderr)]
fn a_plain_user_mounts_with_the_helper() {
    if !rustix::process::geteuid().is_root() {
        return; // then every other test has shown it
    }
    let dir = fresh_dir();
    let place = dir.path().join("mnt");
    fs::create_dir(&place).unwrap();
    std::os::unix::fs::chown(&place, Some(NOBODY), Some(NOBODY)).unwrap();
    let program = dir.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    // In a mount namespace of its own, with a device that everybody may open: this machine's stays as it is.
    let script = "mknod fuse c 10 229 && chmod 666 fuse && mount --bind fuse /dev/fuse
        cd / && exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(&program)
        .args(["--exact", "in_the_process_of_a_plain_user", "--nocapture"])
        .env(PLAIN_USER_DIR, &place)
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    if !said.contains("plain user: mounted") {
        eprintln!("skipped: {said}");
    }
}

#[test]
#[allow(clippy::print_stderr)]
fn in_the_process_of_a_plain_user() {
    let Some(place) = std::env::var_os(PLAIN_USER_DIR) else { return };
    let place = Path::new(&place);
    let mount = match try_mount(place) {
        Ok(mount) => mount,
        Err(error @ MountError::Helper(_)) if error.to_string().contains("/dev/fuse") => {
            return eprintln!("{error}");
        }
        Err(error) if error.kind() == MountErrorKind::Unavailable => return eprintln!("{error}"),
        Err(error) => panic!("{error}"),
    };
    eprintln!("plain user: mounted");
    fs::set_permissions(place, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap_err();
    assert_eq!(errno(fs::write(place.join("f"), b"x")), libc::EACCES, "the root belongs to root");
    let busy = File::open(place).unwrap();
    assert_eq!(mount.unmount().unwrap(), Unmounted::Busy);
    drop(busy);
    mount.wait().unwrap();
    let again = try_mount(place).unwrap();
    assert_eq!(again.unmount().unwrap(), Unmounted::Clean);
}
