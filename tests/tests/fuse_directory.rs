//! Listings on a real mount while the directory changes.

#![allow(clippy::unwrap_used)]

mod fuse_common;

use cbfs_tests::nullfs::NullFs;
use fuse_common::{TestMount, mounted};
use kvfs::fuse::OpenMode;
use rustix::fs::{Mode, OFlags};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::DirEntryExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const FILES: usize = 5000;

fn with_files(test: impl FnOnce(&TestMount)) {
    if let Some(mount) = mounted(Arc::new(NullFs::default()), OpenMode::Stateless) {
        fs::create_dir(mount.at("d")).unwrap();
        for number in 0..FILES {
            File::create(mount.at(&name(number))).unwrap();
        }
        test(&mount);
    }
}

/// Some are longer than others, so that replies end at odd places.
fn name(number: usize) -> String {
    format!("d/{number:05}{}", "x".repeat(number * 7 % 200))
}

#[test]
fn a_large_directory_lists_every_entry_once_with_its_inode() {
    with_files(|mount| {
        let listed: Vec<_> = fs::read_dir(mount.at("d")).unwrap().map(Result::unwrap).collect();
        assert_eq!(listed.len(), FILES);
        let numbers: HashMap<_, _> = listed.iter().map(|entry| (entry.file_name(), entry.ino())).collect();
        assert_eq!(numbers.len(), FILES);
        for entry in listed.iter().step_by(97) {
            use std::os::unix::fs::MetadataExt;
            assert_eq!(entry.metadata().unwrap().ino(), entry.ino());
            assert!(entry.file_type().unwrap().is_file());
        }
    });
}

#[test]
fn removing_while_listing_skips_nothing_and_repeats_nothing() {
    with_files(|mount| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let creator = scope.spawn(|| {
                let mut made = 0;
                while !stop.load(Ordering::SeqCst) && made < FILES {
                    // Names before, between and behind those that are listed.
                    for prefix in ["!", "02500-", "~"] {
                        File::create(mount.at(&format!("d/{prefix}new{made}"))).unwrap();
                    }
                    made += 1;
                }
                made
            });
            let mut seen = BTreeSet::new();
            for entry in fs::read_dir(mount.at("d")).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(seen.insert(name.clone()), "{name} came twice");
                if !name.contains("new") {
                    fs::remove_file(mount.at("d").join(&name)).unwrap();
                }
            }
            stop.store(true, Ordering::SeqCst);
            assert!(creator.join().unwrap() > 0);
            assert_eq!(seen.iter().filter(|name| !name.contains("new")).count(), FILES);
        });
        assert!(fuse_common::names(&mount.at("d")).iter().all(|name| name.contains("new")), "one listing removed all");
        fs::remove_dir_all(mount.at("d")).unwrap();
        assert!(!mount.at("d").exists());
    });
}

#[test]
fn positions_keep_their_meaning() {
    with_files(|mount| {
        let open = || rustix::fs::open(mount.at("d"), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut dir = rustix::fs::Dir::new(open()).unwrap();
        let mut listed = Vec::new();
        while let Some(entry) = dir.read() {
            let entry = entry.unwrap();
            listed.push((entry.file_name().to_bytes().to_vec(), entry.offset()));
        }
        assert_eq!(listed.len(), FILES + 2);
        assert_eq!((&listed[0].0[..], &listed[1].0[..]), (&b"."[..], &b".."[..]));
        // Every third goes, so a count of entries would point elsewhere.
        for (gone, _) in listed.iter().skip(2).step_by(3) {
            fs::remove_file(mount.at("d").join(std::str::from_utf8(gone).unwrap())).unwrap();
        }
        for at in [0, 1, 2, 3, 700, 701, 702, FILES / 2, FILES - 3] {
            dir.seek(listed[at].1).unwrap();
            let next = dir.read().unwrap().unwrap();
            let expected = (at + 1..listed.len()).find(|index| *index < 2 || (index - 2) % 3 != 0).unwrap();
            assert_eq!(next.file_name().to_bytes(), listed[expected].0, "behind number {at}");
        }
        dir.rewind();
        let mut again = 0;
        while let Some(entry) = dir.read() {
            entry.unwrap();
            again += 1;
        }
        assert_eq!(again, FILES + 2 - FILES.div_ceil(3));
    });
}
