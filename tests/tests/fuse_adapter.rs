//! The FUSE adapter on a real mount, in front of a filesystem in memory: files, names and attributes.

#![allow(clippy::unwrap_used)]

mod fuse_common;

use cbfs_tests::nullfs::NullFs;
use fuse_common::{TestMount, errno, eventually, mounted};
use kvfs::fuse::OpenMode;
use rustix::fs::{CWD, FallocateFlags, RenameFlags, SeekFrom, XattrFlags};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

/// The rest of the test if there is FUSE here.
fn with_mount(test: impl FnOnce(&TestMount, &NullFs)) {
    let fs = Arc::new(NullFs::default());
    if let Some(mount) = mounted(fs.clone(), OpenMode::Stateless) {
        test(&mount, &fs);
    }
}

fn renamed(mount: &TestMount, from: &str, to: &str, flags: RenameFlags) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(CWD, mount.at(from), CWD, mount.at(to), flags)?)
}

#[test]
fn bytes_come_back() {
    with_mount(|mount, fs| {
        let (path, data) = (mount.at("f"), (0..3_000_001_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>());
        fs::write(&path, &data).unwrap();
        assert_eq!(fs::read(&path).unwrap(), data);

        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"tail").unwrap();
        file.sync_all().unwrap();
        assert_eq!(fs.syncs(), 1);
        let mut end = [0; 5];
        File::open(&path).unwrap().read_exact_at(&mut end, 3_000_000).unwrap();
        assert_eq!(end, [data[3_000_000], b't', b'a', b'i', b'l']);

        let mut short = OpenOptions::new().read(true).write(true).truncate(true).open(&path).unwrap();
        assert_eq!(short.metadata().unwrap().len(), 0, "O_TRUNC");
        short.write_all(b"abc").unwrap();
        short.rewind().unwrap();
        let mut text = String::new();
        short.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        drop(short);
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert_eq!(File::open(&path).unwrap().read_at(&mut [0; 8], 100).unwrap(), 0, "beyond the end");
        File::open(mount.at("")).unwrap().sync_all().unwrap();
        assert_eq!(fs.syncs(), 2, "a directory can be synced");
    });
}

#[test]
fn names_of_255_bytes_and_no_more() {
    with_mount(|mount, _fs| {
        let (longest, longer) = ("n".repeat(255), "n".repeat(256));
        fs::write(mount.at(&longest), b"x").unwrap();
        assert_eq!(fs::read(mount.at(&longest)).unwrap(), b"x");
        assert_eq!(fuse_common::names(&mount.at("")), [longest.as_str()]);
        let too_long = mount.at(&longer);
        assert_eq!(errno(fs::write(&too_long, b"x")), libc::ENAMETOOLONG);
        assert_eq!(errno(fs::metadata(&too_long)), libc::ENAMETOOLONG);
        assert_eq!(errno(fs::create_dir(&too_long)), libc::ENAMETOOLONG);
        assert_eq!(errno(fs::rename(mount.at(&longest), &too_long)), libc::ENAMETOOLONG);
        assert_eq!(errno(fs::hard_link(mount.at(&longest), &too_long)), libc::ENAMETOOLONG);

        let odd = mount.at("").join(std::ffi::OsStr::from_bytes(b"\xff\xfe\n\x01 \\"));
        fs::create_dir(&odd).unwrap();
        let listed: Vec<_> = fs::read_dir(mount.at("")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(listed.contains(&odd));
    });
}

#[test]
fn renames_of_every_kind() {
    with_mount(|mount, _fs| {
        fs::write(mount.at("a"), b"A").unwrap();
        fs::write(mount.at("b"), b"B").unwrap();
        assert_eq!(errno(renamed(mount, "a", "b", RenameFlags::NOREPLACE)), libc::EEXIST);
        renamed(mount, "a", "b", RenameFlags::EXCHANGE).unwrap();
        assert_eq!((fs::read(mount.at("a")).unwrap(), fs::read(mount.at("b")).unwrap()), (b"B".into(), b"A".into()));
        assert_eq!(errno(renamed(mount, "a", "none", RenameFlags::EXCHANGE)), libc::ENOENT);
        assert_eq!(errno(renamed(mount, "a", "c", RenameFlags::WHITEOUT)), libc::EINVAL);
        renamed(mount, "a", "c", RenameFlags::NOREPLACE).unwrap();
        fs::rename(mount.at("c"), mount.at("b")).unwrap();
        assert_eq!(fs::read(mount.at("b")).unwrap(), b"B");
        assert_eq!(fuse_common::names(&mount.at("")), ["b"]);

        fs::create_dir_all(mount.at("d/e")).unwrap();
        fs::create_dir(mount.at("full")).unwrap();
        fs::write(mount.at("full/x"), b"").unwrap();
        assert_eq!(errno(fs::rename(mount.at("d"), mount.at("full"))), libc::ENOTEMPTY);
        assert_eq!(errno(fs::rename(mount.at("d"), mount.at("d/e/f"))), libc::EINVAL);
        assert_eq!(errno(fs::rename(mount.at("d"), mount.at("b"))), libc::ENOTDIR);
        assert_eq!(errno(fs::rename(mount.at("b"), mount.at("d"))), libc::EISDIR);
        fs::rename(mount.at("d/e"), mount.at("moved")).unwrap();
        assert_eq!(fs::metadata(mount.at("d")).unwrap().nlink(), 2, "the parent's links are fresh, not from a cache");
        assert_eq!(fs::metadata(mount.at("moved/..")).unwrap().ino(), fs::metadata(mount.at("")).unwrap().ino());
    });
}

#[test]
fn links_symlinks_and_special_files() {
    with_mount(|mount, _fs| {
        fs::write(mount.at("a"), b"same").unwrap();
        fs::hard_link(mount.at("a"), mount.at("b")).unwrap();
        let (a, b) = (fs::metadata(mount.at("a")).unwrap(), fs::metadata(mount.at("b")).unwrap());
        assert_eq!((a.ino(), a.nlink(), b.nlink()), (b.ino(), 2, 2));
        fs::remove_file(mount.at("a")).unwrap();
        assert_eq!(fs::metadata(mount.at("b")).unwrap().nlink(), 1);
        std::os::unix::fs::symlink("b", mount.at("s")).unwrap();
        assert_eq!(fs::read(mount.at("s")).unwrap(), b"same");
        assert_eq!(fs::read_link(mount.at("s")).unwrap().as_os_str(), "b");
        assert_eq!(errno(fs::read_link(mount.at("b"))), libc::EINVAL);
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(CWD, mount.at("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(fs::metadata(mount.at("pipe")).unwrap().file_type().is_fifo());
        std::os::unix::net::UnixListener::bind(mount.at("socket")).unwrap();
        assert!(fs::metadata(mount.at("socket")).unwrap().file_type().is_socket());
        if rustix::process::geteuid().is_root() {
            let device = rustix::fs::makedev(300, 70_000);
            rustix::fs::mknodat(CWD, mount.at("dev"), rustix::fs::FileType::CharacterDevice, mode, device).unwrap();
            let made = fs::metadata(mount.at("dev")).unwrap();
            assert!(made.file_type().is_char_device());
            assert_eq!(made.rdev(), device);
            assert_eq!(errno(File::open(mount.at("dev"))), libc::EACCES, "nodev");
        }
    });
}

#[test]
fn extended_attributes() {
    with_mount(|mount, _fs| {
        let path = mount.at("f");
        fs::write(&path, b"").unwrap();
        let set = |name: &str, flags| rustix::fs::setxattr(&path, name, b"value", flags).map_err(io::Error::from);
        set("user.a", XattrFlags::CREATE).unwrap();
        assert_eq!(errno(set("user.a", XattrFlags::CREATE)), libc::EEXIST);
        assert_eq!(errno(set("user.b", XattrFlags::REPLACE)), libc::ENODATA);
        assert_eq!(errno(set("system.posix_acl_access", XattrFlags::empty())), libc::EOPNOTSUPP);
        set("user.b", XattrFlags::empty()).unwrap();
        assert_eq!(xattr::get(&path, "user.a").unwrap().unwrap(), b"value");
        let mut listed: Vec<_> = xattr::list(&path).unwrap().collect();
        listed.sort();
        assert_eq!(listed, ["user.a", "user.b"]);
        let mut small = [0_u8; 2];
        assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut small[..]), Err(rustix::io::Errno::RANGE));
        assert_eq!(rustix::fs::listxattr(&path, &mut small[..]), Err(rustix::io::Errno::RANGE));
        xattr::remove(&path, "user.a").unwrap();
        assert_eq!(xattr::get(&path, "user.a").unwrap(), None);
        assert_eq!(errno(xattr::remove(&path, "user.a")), libc::ENODATA);
        let large = vec![7_u8; 60_000];
        xattr::set(&path, "user.large", &large).unwrap();
        assert_eq!(xattr::get(&path, "user.large").unwrap().unwrap(), large);
    });
}

#[test]
fn holes_and_allocation() {
    with_mount(|mount, _fs| {
        const MIB: u64 = 1 << 20;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(mount.at("f")).unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(file.metadata().unwrap().blocks(), 0);
        file.write_all_at(&vec![9; 1 << 20], 8 * MIB).unwrap();
        assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(0)).unwrap(), 8 * MIB);
        assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(8 * MIB)).unwrap(), 9 * MIB);
        assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(9 * MIB)), Err(rustix::io::Errno::NXIO));
        assert_eq!(rustix::fs::seek(&file, SeekFrom::End(0)).unwrap(), 1 << 40);
        file.set_len(9 * MIB).unwrap();

        let allocate = |flags, offset, len| rustix::fs::fallocate(&file, flags, offset, len).map_err(io::Error::from);
        allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 8 * MIB, MIB / 2).unwrap();
        assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(0)).unwrap(), 8 * MIB + MIB / 2);
        let mut read = [1; 16];
        file.read_exact_at(&mut read, 8 * MIB + MIB / 2 - 8).unwrap();
        assert_eq!(read, [0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9], "the page cache knows of the hole");
        allocate(FallocateFlags::KEEP_SIZE, 20 * MIB, MIB).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 9 * MIB);
        allocate(FallocateFlags::empty(), 9 * MIB, MIB).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 10 * MIB);
        allocate(FallocateFlags::ZERO_RANGE, 9 * MIB - 1, 2 * MIB).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 11 * MIB - 1);
        file.read_exact_at(&mut read[..2], 9 * MIB - 2).unwrap();
        assert_eq!(read[..2], [9, 0]);
        assert_eq!(errno(allocate(FallocateFlags::COLLAPSE_RANGE, 0, MIB)), libc::EOPNOTSUPP);
        assert_eq!(errno(allocate(FallocateFlags::INSERT_RANGE, 0, MIB)), libc::EOPNOTSUPP);

        let copy = File::create(mount.at("copy")).unwrap();
        let (mut from, mut to) = (8 * MIB + MIB / 2, 0);
        let copied = rustix::fs::copy_file_range(&file, Some(&mut from), &copy, Some(&mut to), 4096).unwrap();
        assert_eq!(copied, 4096, "one request");
        assert_eq!(fs::read(mount.at("copy")).unwrap(), [9; 4096]);
    });
}

#[test]
fn times_to_the_nanosecond_on_both_sides_of_1970() {
    with_mount(|mount, _fs| {
        let path = mount.at("f");
        fs::write(&path, b"").unwrap();
        for (secs, nanos) in
            [(-1, 999_999_999), (-2, 300_000_000), (-5_000_000_000, 1), (-7, 0), (0, 5), (9_999_999_999, 123)]
        {
            let (atime, mtime) =
                (filetime::FileTime::from_unix_time(secs, nanos), filetime::FileTime::from_unix_time(secs - 1, nanos));
            filetime::set_file_times(&path, atime, mtime).unwrap();
            let shown = fs::metadata(&path).unwrap();
            assert_eq!((shown.atime(), shown.atime_nsec()), (secs, i64::from(nanos)));
            assert_eq!((shown.mtime(), shown.mtime_nsec()), (secs - 1, i64::from(nanos)));
        }
        let before = fs::metadata(&path).unwrap();
        File::open(&path).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!((after.atime(), after.atime_nsec()), (before.atime(), before.atime_nsec()), "UTIME_OMIT");
        assert!(after.mtime() > 1_600_000_000 && after.mtime_nsec() >= 0);
    });
}

#[test]
fn the_smallest_and_largest_times_do_no_harm() {
    with_mount(|mount, _fs| {
        let file = File::create(mount.at("f")).unwrap();
        for tv_sec in [i64::MIN, i64::MIN + 1, i64::MAX] {
            let time = rustix::fs::Timespec { tv_sec, tv_nsec: 500_000_000 };
            for _ in 0..4 {
                let both = rustix::fs::Timestamps { last_access: time, last_modification: time };
                rustix::fs::futimens(&file, &both).unwrap();
            }
            assert_eq!(file.metadata().unwrap().mtime(), tv_sec);
        }
    });
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    with_mount(|mount, fs| {
        let path = mount.at("f");
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(errno(fs::metadata(&path)), libc::ENOENT);
        file.write_all(b"still here").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), file.metadata().unwrap().nlink()), ("still here", 0));
        assert_eq!(fs.inodes(), 2);
        drop(file);
        assert!(eventually(|| fs.inodes() == 1), "the inode goes when the kernel forgets it");
    });
}

#[test]
fn errors_are_those_of_posix() {
    with_mount(|mount, _fs| {
        fs::write(mount.at("f"), b"").unwrap();
        fs::create_dir_all(mount.at("d/e")).unwrap();
        assert_eq!(errno(File::open(mount.at("f/x"))), libc::ENOTDIR);
        assert_eq!(errno(fs::remove_dir(mount.at("f"))), libc::ENOTDIR);
        assert_eq!(errno(fs::remove_dir(mount.at("d"))), libc::ENOTEMPTY);
        assert_eq!(errno(rustix::fs::unlink(mount.at("d")).map_err(io::Error::from)), libc::EISDIR);
        assert_eq!(errno(File::create(mount.at("d"))), libc::EISDIR);
        assert_eq!(errno(File::create_new(mount.at("f"))), libc::EEXIST);
        assert_eq!(errno(fs::create_dir(mount.at("f"))), libc::EEXIST);
        assert_eq!(errno(fs::hard_link(mount.at("d"), mount.at("l"))), libc::EPERM);
        assert_eq!(errno(File::open(mount.at("none"))), libc::ENOENT);
        let stats = rustix::fs::statvfs(mount.at("")).unwrap();
        assert_eq!((stats.f_namemax, stats.f_blocks * stats.f_frsize), (255, 1 << 40));
        assert_eq!(stats.f_bavail * stats.f_frsize, 1 << 39);
        assert_eq!(stats.f_files - stats.f_ffree, 4);
    });
}

#[test]
fn suid_and_capabilities_go_with_a_write_by_somebody_else() {
    with_mount(|mount, _fs| {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let mode = |name: &str| fs::metadata(mount.at(name)).unwrap().mode() & 0o7777;
        let make = |name: &str| {
            fs::write(mount.at(name), b"12345678").unwrap();
            fs::set_permissions(mount.at(name), fs::Permissions::from_mode(0o6777)).unwrap();
            assert_eq!(mode(name), 0o6777);
        };
        let as_nobody = |script: &str| {
            let status =
                Command::new("/bin/sh").arg("-c").arg(script).uid(65534).gid(65534).current_dir(mount.at("")).status();
            assert!(status.unwrap().success(), "{script}");
        };
        make("appended");
        as_nobody("echo x >> appended");
        assert_eq!(mode("appended"), 0o777);
        make("emptied");
        as_nobody(": > emptied");
        assert_eq!(mode("emptied"), 0o777);
        make("by-root");
        fs::write(mount.at("by-root"), b"x").unwrap();
        assert_eq!(mode("by-root"), 0o6777, "as with CAP_FSETID");
        std::os::unix::fs::chown(mount.at("by-root"), Some(7), None).unwrap();
        assert_eq!(mode("by-root"), 0o777);

        fs::write(mount.at("secret"), b"x").unwrap();
        fs::set_permissions(mount.at("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        as_nobody("! cat secret 2>&1");
        as_nobody("! touch new 2>&1");
        fs::set_permissions(mount.at(""), fs::Permissions::from_mode(0o1777)).unwrap();
        as_nobody("umask 027; touch new; mkdir dir; ! rm -f secret 2>&1");
        assert_eq!((mode("new"), mode("dir")), (0o640, 0o750));
        assert_eq!(fs::metadata(mount.at("new")).unwrap().uid(), 65534);
    });
}

#[test]
#[allow(clippy::print_stderr)]
fn a_shared_mapping_writes_and_sees_writes() {
    const SCRIPT: &str = "
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
m = mmap.mmap(fd, 1 << 20)
m[:4] = b'head'
m[-4:] = b'tail'
m.flush()
os.pwrite(fd, b'mid', 5000)
assert m[5000:5003] == b'mid'
assert os.pread(fd, 4, 0) == b'head'
m.close()
";
    with_mount(|mount, _fs| {
        let Ok(output) = Command::new("python3").arg("-c").arg(SCRIPT).arg(mount.at("f")).output() else {
            return eprintln!("skipped: no python3 to map a file");
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let bytes = fs::read(mount.at("f")).unwrap();
        assert_eq!(
            (&bytes[..4], &bytes[5000..5003], &bytes[(1 << 20) - 4..]),
            (&b"head"[..], &b"mid"[..], &b"tail"[..])
        );
    });
}
