//! The FUSE adapter in front of a filesystem whose bytes are elsewhere.

#![allow(clippy::unwrap_used)]

mod fuse_common;

use cbfs_tests::nullfs::{Arrival, NullFs, RemoteFs, Scope};
use fuse_common::{TestMount, errno, eventually, mounted};
use kvfs::fuse::OpenMode;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

fn with_remote(scope: Scope, test: impl FnOnce(&TestMount, &RemoteFs, &NullFs)) {
    let inner = Arc::new(NullFs::default());
    let remote = Arc::new(RemoteFs::new(inner.clone(), scope));
    if let Some(mount) = mounted(remote.clone(), OpenMode::Stateless) {
        test(&mount, &remote, &inner);
    }
}

#[test]
fn every_operation_can_wait_for_a_fetch() {
    with_remote(Scope::Everything, |mount, remote, inner| {
        let data = (0..2_000_000_u32).map(|i| (i % 253) as u8).collect::<Vec<_>>();
        fs::create_dir(mount.at("d")).unwrap();
        fs::write(mount.at("d/f"), &data).unwrap();
        assert_eq!(fs::read(mount.at("d/f")).unwrap(), data);
        for number in 0..100 {
            File::create(mount.at(&format!("d/{number}"))).unwrap();
        }
        assert_eq!(fuse_common::names(&mount.at("d")).len(), 101);
        for entry in fs::read_dir(mount.at("d")).unwrap() {
            entry.unwrap().metadata().unwrap();
        }
        fs::rename(mount.at("d/0"), mount.at("zero")).unwrap();
        fs::hard_link(mount.at("zero"), mount.at("also")).unwrap();
        std::os::unix::fs::symlink("zero", mount.at("link")).unwrap();
        assert_eq!(fs::read_link(mount.at("link")).unwrap().as_os_str(), "zero");
        xattr::set(mount.at("zero"), "user.a", b"b").unwrap();
        assert_eq!(xattr::get(mount.at("also"), "user.a").unwrap().unwrap(), b"b");
        assert_eq!(fs::metadata(mount.at("also")).unwrap().nlink(), 2);
        let file = File::options().write(true).open(mount.at("zero")).unwrap();
        file.set_len(10).unwrap();
        file.sync_all().unwrap();
        rustix::fs::statvfs(mount.at("")).unwrap();
        fs::remove_file(mount.at("also")).unwrap();
        assert_eq!(errno(File::open(mount.at("none"))), libc::ENOENT);
        fs::remove_dir_all(mount.at("d")).unwrap();
        assert!(remote.fetches() > 300, "only {} fetches", remote.fetches());
        drop(file);
        assert!(eventually(|| inner.inodes() == 3));
    });
}

#[test]
fn local_work_goes_on_while_reads_wait() {
    const READERS: usize = 20;
    with_remote(Scope::Reads, |mount, remote, _inner| {
        for number in 0..READERS {
            fs::write(mount.at(&number.to_string()), b"far away").unwrap();
            let file = File::open(mount.at(&number.to_string())).unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        remote.set_arrival(Arrival::Waits);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS)
                .map(|number| scope.spawn(move || fs::read(mount.at(&number.to_string())).unwrap()))
                .collect();
            assert!(eventually(|| remote.waiting() == READERS as u64), "all wait side by side: {}", remote.waiting());
            fs::create_dir(mount.at("local")).unwrap();
            fs::write(mount.at("local/file"), b"near").unwrap();
            File::open(mount.at("local/file")).unwrap().sync_all().unwrap();
            assert_eq!(fuse_common::names(&mount.at("local")), ["file"]);
            remote.set_arrival(Arrival::Arrives);
            for reader in readers {
                assert_eq!(reader.join().unwrap(), b"far away");
            }
        });
    });
}

#[test]
fn a_fetch_that_fails_or_brings_nothing_is_an_error_and_not_a_hang() {
    with_remote(Scope::Reads, |mount, remote, _inner| {
        fs::write(mount.at("f"), b"far away").unwrap();
        let file = File::open(mount.at("f")).unwrap();
        let read = || {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, 0).map(|()| bytes)
        };
        remote.set_arrival(Arrival::Fails);
        assert_eq!(errno(read()), libc::EIO);
        remote.set_arrival(Arrival::Vanishes);
        let before = remote.fetches();
        assert_eq!(errno(read()), libc::EIO);
        assert_eq!((remote.fetches() - before) % 64, 0, "it tries again, but not for ever");
        assert!(remote.fetches() > before);
        remote.set_arrival(Arrival::Arrives);
        assert_eq!(read().unwrap(), *b"far away");
    });
}
