//! What POSIX and Linux say of names, directories, owners, times and attributes, on a real mount of the program.
//!
//! With ACLs: `acls`.
//!
//! `CBFS_LINKS` (links of a file, and subdirectories), `CBFS_ENTRIES` (of a large directory) and `CBFS_ACL_STEPS` make it
//! longer.

mod acls;

use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::differential::{Identity, User};
use cbfs_tests::paths::count_from_env;
use cbfs_tests::scenario::{Mount, Scenario};
use cbfs_tests::serial::serial;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, RenameFlags, StatxFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags,
    chownat, lsetxattr, mkdirat, mknodat, openat, renameat_with, statx, utimensat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const ALICE: User = User::Plain(1000);
const BOB: User = User::Plain(1001);

/// A mount whose root everybody may use.
fn mounted(tag: &str) -> Result<(Scenario, Mount)> {
    let scenario = Scenario::new(StoreKind::Directory, tag)?;
    let mount = Mount::new(&scenario.bucket, &scenario.address, &[])?;
    fs::set_permissions(mount.mounted.dir(), Permissions::from_mode(0o777))?;
    // The way to it is the test's own: plain users have to get through.
    let home = mount.mounted.dir().parent().context("no parent")?;
    fs::set_permissions(home, Permissions::from_mode(0o755))?;
    Ok((scenario, mount))
}

/// Runs `call` as `user` on this thread.
fn as_user<T>(user: User, call: impl FnOnce() -> T) -> Result<T> {
    let _identity = Identity::assume(user)?;
    Ok(call())
}

fn code(result: std::io::Result<()>) -> Option<Errno> {
    result.err().and_then(|error| Errno::from_io_error(&error))
}

/// Asked alone, as stat(1) does: the kernel must not answer with a mode that it keeps beside fresher times.
fn mode_of(path: &Path) -> Result<u32> {
    let shown = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MODE)?;
    Ok(u32::from(shown.stx_mode) & 0o7777)
}

fn chmod(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[test]
fn renames_with_every_flag_across_directories() -> Result<()> {
    let _turn = serial()?;
    let (scenario, mount) = mounted("rename")?;
    let at = |name: &str| mount.mounted.path(name);
    fs::create_dir_all(at("a/deep/deeper"))?;
    fs::create_dir(at("b"))?;
    fs::write(at("a/file"), "A")?;
    fs::write(at("b/file"), "B")?;
    let rename = |from: &str, to: &str, flags| renameat_with(CWD, at(from), CWD, at(to), flags);
    ensure!(rename("a/file", "b/file", RenameFlags::NOREPLACE) == Err(Errno::EXIST), "NOREPLACE on a name");
    rename("a/file", "b/file", RenameFlags::EXCHANGE)?;
    ensure!(fs::read(at("a/file"))? == b"B" && fs::read(at("b/file"))? == b"A", "EXCHANGE of files");
    // A directory and a file change places: both parents count their subdirectories anew.
    rename("a/deep", "b/file", RenameFlags::EXCHANGE)?;
    ensure!(fs::read(at("a/deep"))? == b"A" && at("b/file/deeper").is_dir(), "EXCHANGE of a directory and a file");
    let links = |name: &str| fs::metadata(at(name)).map(|meta| meta.nlink());
    ensure!((links("a")?, links("b")?) == (2, 3), "links {:?} {:?}", links("a"), links("b"));
    ensure!(fs::canonicalize(at("b/file/deeper/.."))? == fs::canonicalize(at("b/file"))?, "the way up");
    ensure!(rename("b", "b/file/deeper/x", RenameFlags::empty()) == Err(Errno::INVAL), "into itself");
    ensure!(rename("b/file/deeper", "b", RenameFlags::EXCHANGE) == Err(Errno::INVAL), "with its ancestor");
    ensure!(rename("a/file", "none", RenameFlags::EXCHANGE) == Err(Errno::NOENT), "with nothing");
    let whiteout = rename("a/file", "a/other", RenameFlags::WHITEOUT);
    ensure!(whiteout == Err(Errno::INVAL), "WHITEOUT: {whiteout:?}");
    let both = rename("a/file", "a/other", RenameFlags::EXCHANGE | RenameFlags::NOREPLACE);
    ensure!(both == Err(Errno::INVAL), "both flags: {both:?}");
    // Hard links in two directories are one file, whichever goes first, and renaming one onto the other does nothing.
    fs::hard_link(at("a/file"), at("b/link"))?;
    rename("a/file", "b/link", RenameFlags::empty())?;
    ensure!(links("a/file")? == 2, "two names of one file stay");
    fs::remove_file(at("a/file"))?;
    let ino = fs::metadata(at("b/link"))?.ino();
    let mount = mount.killed(&scenario)?;
    let link = fs::metadata(mount.mounted.path("b/link"))?;
    ensure!((link.ino(), link.nlink()) == (ino, 1), "the other name after kill -9");
    mount.unmount()
}

#[test]
fn sticky_and_setgid_directories_and_what_clears_suid() -> Result<()> {
    let _turn = serial()?;
    let (_scenario, mount) = mounted("modes")?;
    let at = |name: &str| mount.mounted.path(name);
    fs::create_dir(at("sticky"))?;
    chmod(&at("sticky"), 0o1777)?;
    as_user(ALICE, || fs::write(at("sticky/hers"), "x"))??;
    as_user(ALICE, || chmod(&at("sticky/hers"), 0o666))??;
    ensure!(as_user(BOB, || code(fs::remove_file(at("sticky/hers"))))? == Some(Errno::PERM), "bob may not remove");
    let move_it = || code(fs::rename(at("sticky/hers"), at("sticky/his")));
    ensure!(as_user(BOB, move_it)? == Some(Errno::PERM), "bob may not rename");
    as_user(BOB, || fs::write(at("sticky/hers"), "bob may write"))??;

    fs::create_dir(at("group"))?;
    chownat(CWD, at("group"), None, Some(Gid::from_raw(4242)), AtFlags::empty())?;
    chmod(&at("group"), 0o2777)?;
    as_user(ALICE, || fs::create_dir(at("group/dir")).and_then(|()| fs::write(at("group/file"), "")))??;
    let (dir, file) = (fs::metadata(at("group/dir"))?, fs::metadata(at("group/file"))?);
    ensure!((dir.gid(), dir.mode() & 0o2000) == (4242, 0o2000), "a directory inherits group and bit");
    ensure!((file.gid(), file.mode() & 0o2000) == (4242, 0), "a file inherits the group alone");
    // Alice is not in the group: chmod does not let her set the bit.
    as_user(ALICE, || chmod(&at("group/file"), 0o2755))??;
    ensure!(mode_of(&at("group/file"))? == 0o755, "sgid of a foreign group");

    let fresh = |name: &str, mode: u32| -> Result<PathBuf> {
        fs::write(at(name), "12345678")?;
        chownat(CWD, at(name), Some(Uid::from_raw(1000)), Some(Gid::from_raw(1000)), AtFlags::empty())?;
        chmod(&at(name), mode)?;
        Ok(at(name))
    };
    let append = |path: &Path| OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(b"x"));
    let path = fresh("written", 0o6777)?;
    as_user(BOB, || append(&path))??;
    ensure!(mode_of(&path)? == 0o777, "a write by somebody else");
    let path = fresh("own", 0o6777)?;
    as_user(ALICE, || append(&path))??;
    ensure!(mode_of(&path)? == 0o777, "a write by the owner");
    let path = fresh("truncated", 0o6777)?;
    as_user(BOB, || OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(3)))??;
    ensure!(mode_of(&path)? == 0o777, "a truncation");
    let path = fresh("emptied", 0o6777)?;
    as_user(BOB, || File::create(&path).map(drop))??;
    ensure!(mode_of(&path)? == 0o777, "O_TRUNC");
    let path = fresh("root", 0o6777)?;
    append(&path)?;
    ensure!(mode_of(&path)? == 0o6777, "root keeps it");
    let path = fresh("chowned", 0o6777)?;
    chownat(CWD, &path, Some(Uid::from_raw(7)), None, AtFlags::empty())?;
    ensure!(mode_of(&path)? == 0o777, "chown, by root too");
    let path = fresh("group not executing", 0o2767)?;
    chownat(CWD, &path, None, Some(Gid::from_raw(7)), AtFlags::empty())?;
    ensure!(mode_of(&path)? == 0o2767, "sgid without the group's x is no privilege");
    // chown(-1, -1) takes them too, by the owner; a stranger who may not write changes nothing.
    let nobody = |path: &Path| chownat(CWD, path, None, None, AtFlags::empty());
    let path = fresh("chowned to nobody", 0o4755)?;
    as_user(BOB, || nobody(&path))?.ok();
    ensure!(mode_of(&path)? == 0o4755, "a stranger took suid away");
    as_user(ALICE, || nobody(&path))??;
    ensure!(mode_of(&path)? == 0o755, "chown(-1, -1) by the owner");
    // chown takes them from everything but directories.
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o644), 0)?;
    for (name, kept) in [("fifo", 0o755), ("group/dir", 0o6755)] {
        chmod(&at(name), 0o6755)?;
        chownat(CWD, at(name), Some(Uid::from_raw(9)), None, AtFlags::empty())?;
        ensure!(mode_of(&at(name))? == kept, "{name}: {:o}", mode_of(&at(name))?);
    }
    mount.unmount()
}

#[test]
fn times_to_the_nanosecond_with_omit_and_now_and_who_may_set_them() -> Result<()> {
    let _turn = serial()?;
    let (scenario, mount) = mounted("times")?;
    let path = mount.mounted.path("file");
    as_user(ALICE, || fs::write(&path, "x"))??;
    chmod(&path, 0o666)?;
    let set = |atime: (i64, i64), mtime: (i64, i64)| {
        let time = |(tv_sec, tv_nsec): (i64, i64)| Timespec { tv_sec, tv_nsec };
        let both = Timestamps { last_access: time(atime), last_modification: time(mtime) };
        utimensat(CWD, &path, &both, AtFlags::empty())
    };
    let times = || fs::metadata(&path).map(|m| ((m.atime(), m.atime_nsec()), (m.mtime(), m.mtime_nsec())));
    let (omit, now) = ((0, UTIME_OMIT), (0, UTIME_NOW));
    let (first, second) = ((-1, 999_999_999), (1_000_000_000, 123_456_789));
    set(first, second)?;
    ensure!(times()? == (first, second), "{:?}", times());
    set(omit, first)?;
    ensure!(times()? == (first, first), "atime omitted: {:?}", times());
    set(second, omit)?;
    ensure!(times()? == (second, first), "mtime omitted: {:?}", times());
    let changed = fs::metadata(&path)?;
    set(omit, omit)?;
    let same = fs::metadata(&path)?;
    ensure!((same.ctime(), same.ctime_nsec()) == (changed.ctime(), changed.ctime_nsec()), "both omitted: no change");
    set(now, omit)?;
    ensure!(times()?.0.0 > 1_600_000_000 && times()?.1 == first, "{:?}", times());
    // Whoever may write may set both to now, and nothing else.
    as_user(BOB, || set(now, now))??;
    ensure!(as_user(BOB, || set(first, first))? == Err(Errno::PERM), "bob sets a time");
    ensure!(as_user(BOB, || set(now, omit))? == Err(Errno::PERM), "bob sets one to now");
    set(first, second)?;
    let mount = mount.killed(&scenario)?;
    ensure!(times()? == (first, second), "after kill -9: {:?}", times());
    mount.unmount()
}

#[test]
fn names_of_255_bytes_and_paths_of_4095() -> Result<()> {
    let _turn = serial()?;
    let (scenario, mount) = mounted("names")?;
    let root = mount.mounted.dir().to_owned();
    let longest = "n".repeat(255);
    fs::write(root.join("f".repeat(255)), "x")?;
    ensure!(code(fs::write(root.join("n".repeat(256)), "x")) == Some(Errno::NAMETOOLONG), "256 bytes");
    symlink("t".repeat(4095), root.join("link"))?;
    ensure!(code(symlink("t".repeat(4096), root.join("longer"))) == Some(Errno::NAMETOOLONG), "a target of 4096 bytes");
    // Down step by step, to a place whose path from the root of the mount is longer than any one call may name.
    let mut dir = openat(CWD, &root, rustix::fs::OFlags::DIRECTORY, Mode::empty())?;
    for _ in 0..20 {
        mkdirat(&dir, longest.as_str(), Mode::from_raw_mode(0o755))?;
        dir = openat(&dir, longest.as_str(), rustix::fs::OFlags::DIRECTORY, Mode::empty())?;
    }
    mkdirat(&dir, "bottom", Mode::from_raw_mode(0o755))?;
    drop(dir);
    // A path of exactly PATH_MAX - 1 bytes is taken, one more is not.
    let path = |bytes: usize| {
        let mut text = root.display().to_string();
        while text.len() + 256 < bytes {
            text = format!("{text}/{longest}");
        }
        let rest = bytes - text.len();
        text + &"/".repeat(rest - 1) + "."
    };
    ensure!(path(4095).len() == 4095 && fs::metadata(path(4095)).is_ok(), "4095 bytes");
    ensure!(code(fs::metadata(path(4096)).map(drop)) == Some(Errno::NAMETOOLONG), "4096 bytes");
    let mount = mount.killed(&scenario)?;
    ensure!(fs::metadata(path(4095)).is_ok(), "after kill -9");
    ensure!(fs::read_link(root.join("link"))?.as_os_str().len() == 4095, "the long target");
    fs::remove_dir_all(root.join(&longest)).context("removing the deep tree")?;
    mount.unmount()
}

#[test]
fn exclusive_creation_has_one_winner() -> Result<()> {
    const RACERS: usize = 8;
    let _turn = serial()?;
    let (_scenario, mount) = mounted("excl")?;
    for round in 0..50 {
        let path = mount.mounted.path(&format!("lock {round}"));
        let won: usize = thread::scope(|scope| {
            let all: Vec<_> = (0..RACERS).map(|_| scope.spawn(|| File::create_new(&path).is_ok())).collect();
            all.into_iter().map(|one| usize::from(one.join().unwrap_or(false))).sum()
        });
        ensure!(won == 1, "round {round}: {won} winners");
    }
    symlink("nowhere", mount.mounted.path("dangling"))?;
    let through = File::create_new(mount.mounted.path("dangling")).map(drop);
    ensure!(code(through) == Some(Errno::EXIST), "O_EXCL does not follow");
    mount.unmount()
}

#[test]
fn extended_attributes_by_namespace_and_caller() -> Result<()> {
    let _turn = serial()?;
    let (scenario, mount) = mounted("xattrs")?;
    let (file, link) = (mount.mounted.path("file"), mount.mounted.path("link"));
    as_user(ALICE, || fs::write(&file, "x"))??;
    symlink("file", &link)?;
    let set = |path: &Path, name: &str| lsetxattr(path, name, b"value", XattrFlags::empty());
    as_user(ALICE, || set(&file, "user.hers"))??;
    ensure!(as_user(BOB, || set(&file, "user.his"))? == Err(Errno::ACCESS), "bob may not write");
    ensure!(as_user(ALICE, || set(&file, "trusted.hers"))? == Err(Errno::PERM), "trusted needs root");
    let list = |path: &Path| -> Result<Vec<String>> {
        let mut names: Vec<_> = xattr::list(path)?.map(|name| name.display().to_string()).collect();
        names.sort();
        Ok(names)
    };
    set(&file, "trusted.root")?;
    set(&file, "security.test")?;
    set(&link, "trusted.link")?;
    ensure!(set(&link, "user.link") == Err(Errno::PERM), "user attributes are for files and directories");
    ensure!(set(&file, "nonsense") == Err(Errno::OPNOTSUPP), "no namespace");
    for acl in ["system.posix_acl_access", "system.posix_acl_default", "system.other"] {
        ensure!(set(&file, acl) == Err(Errno::OPNOTSUPP), "{acl}");
    }
    let all = ["security.test", "trusted.root", "user.hers"];
    ensure!(list(&file)? == all && list(&link)? == ["trusted.link"], "{:?} {:?}", list(&file), list(&link));
    ensure!(as_user(ALICE, || list(&file))?? == ["security.test", "user.hers"], "trusted names are not shown to her");
    let large = vec![7; 64 << 10];
    lsetxattr(&file, "user.large", &large, XattrFlags::empty())?;
    ensure!(
        lsetxattr(&file, "user.larger", &[large.as_slice(), b"x"].concat(), XattrFlags::empty()).is_err(),
        "64 KiB"
    );
    let mount = mount.killed(&scenario)?;
    ensure!(xattr::get(&file, "user.large")?.as_deref() == Some(&large[..]), "the large one after kill -9");
    ensure!(list(&link)? == ["trusted.link"], "that of the link after kill -9");
    mount.unmount()
}

#[test]
fn many_links_and_many_subdirectories() -> Result<()> {
    let count = count_from_env("CBFS_LINKS", 33_000)?;
    let _turn = serial()?;
    let (scenario, mount) = mounted("links")?;
    let root = mount.mounted.dir().to_owned();
    let at = |name: &str| root.join(name);
    fs::write(at("file"), "x")?;
    fs::create_dir(at("links"))?;
    fs::create_dir(at("dirs"))?;
    for number in 1..count {
        fs::hard_link(at("file"), at(&format!("links/{number}"))).with_context(|| format!("link {number}"))?;
        fs::create_dir(at(&format!("dirs/{number}"))).with_context(|| format!("directory {number}"))?;
    }
    let links = |name: &str| fs::metadata(at(name)).map(|meta| meta.nlink());
    ensure!(
        (links("file")?, links("dirs")?) == (count as u64, count as u64 + 1),
        "{:?} {:?}",
        links("file"),
        links("dirs")
    );
    let mount = mount.killed(&scenario)?;
    ensure!((links("file")?, links("dirs")?) == (count as u64, count as u64 + 1), "after kill -9");
    ensure!(fs::read_dir(at("dirs"))?.count() == count - 1, "every directory is listed");
    mount.unmount()
}

#[test]
fn a_large_directory_lists_each_lasting_entry_once_while_others_come_and_go() -> Result<()> {
    let count = count_from_env("CBFS_ENTRIES", 20_000)?;
    let _turn = serial()?;
    let (scenario, mount) = mounted("large")?;
    let dir = mount.mounted.path("dir");
    fs::create_dir(&dir)?;
    for number in 0..count {
        File::create(dir.join(format!("lasting {number:07}")))?;
    }
    let done = AtomicBool::new(false);
    let churn = |from: usize| -> Result<usize> {
        let mut changes = 0;
        for number in (from..).step_by(7).take_while(|_| !done.load(Ordering::Relaxed)) {
            // Before, between and behind the others, in the order of names and of time.
            let names = ["a", "lasting ", "z"].map(|start| dir.join(format!("{start}{:07} {from}", number % count)));
            for name in &names {
                File::create(name)?;
            }
            fs::rename(&names[0], &names[2])?;
            for name in &names[1..] {
                fs::remove_file(name)?;
            }
            changes += 6;
        }
        Ok(changes)
    };
    let (listed, changes) = thread::scope(|scope| -> Result<(Vec<Vec<String>>, usize)> {
        let churners: Vec<_> = (1..3).map(|from| scope.spawn(move || churn(from))).collect();
        let listed = (0..5).map(|_| names(&dir)).collect::<Result<Vec<_>>>();
        done.store(true, Ordering::Relaxed);
        let mut changes = 0;
        for one in churners {
            changes += one.join().unwrap_or_else(|_| anyhow::bail!("a thread died"))?;
        }
        Ok((listed?, changes))
    })?;
    ensure!(changes > 0, "nothing came and went");
    let lasting = |names: &[String]| names.iter().filter(|name| name.len() == 15).cloned().collect::<Vec<_>>();
    let all: Vec<String> = (0..count).map(|number| format!("lasting {number:07}")).collect();
    for names in &listed {
        let mut once = lasting(names);
        once.sort();
        ensure!(once == all, "{} lasting entries instead of {count}", once.len());
        ensure!(names.iter().collect::<BTreeSet<_>>().len() == names.len(), "a name was listed twice");
    }
    let mount = mount.killed(&scenario)?;
    ensure!(names(&dir)? == all, "after kill -9");
    mount.unmount()
}

fn names(dir: &Path) -> Result<Vec<String>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().display().to_string())).collect()
}

#[test]
fn inode_numbers_are_the_same_after_restarts_and_on_other_nodes() -> Result<()> {
    let _turn = serial()?;
    let (scenario, mount) = mounted("inodes")?;
    let fill = |dir: &Path| -> Result<()> {
        fs::create_dir_all(dir.join("a/b/c"))?;
        for number in 0..40 {
            fs::write(dir.join(format!("a/b/{number}")), "x")?;
        }
        Ok(symlink("a", dir.join("link"))?)
    };
    let numbers = |dir: &Path| -> Result<BTreeMap<PathBuf, u64>> {
        let walk = walkdir::WalkDir::new(dir).into_iter();
        walk.map(|entry| {
            let entry = entry?;
            Ok((entry.path().strip_prefix(dir)?.to_owned(), fs::symlink_metadata(entry.path())?.ino()))
        })
        .collect()
    };
    fill(mount.mounted.dir())?;
    let before = numbers(mount.mounted.dir())?;
    let mount = mount.killed(&scenario)?;
    ensure!(numbers(mount.mounted.dir())? == before, "after kill -9");
    // A number is not given again, even when its file is gone.
    fs::remove_file(mount.mounted.path("a/b/0"))?;
    let Mount { mounted, node } = mount;
    mounted.unmount(&node)?;
    let mounted = node.mount(&scenario.address, "mnt", &[])?;
    fs::write(mounted.path("new"), "x")?;
    ensure!(!before.values().any(|ino| Some(*ino) == fs::metadata(mounted.path("new")).ok().map(|m| m.ino())), "again");
    scenario.snapshot(&node, "numbers")?;
    let slave = Mount::new(&scenario.bucket, &scenario.at("numbers"), &[])?;
    ensure!(numbers(slave.mounted.dir())? == numbers(mounted.dir())?, "on another node");
    slave.unmount()?;
    mounted.unmount(&node)
}
