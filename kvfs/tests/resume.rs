//! What an engine knows of the requests of the process before it, and of the files that are still open there.

#![allow(clippy::unwrap_used)]

mod common;

use common::{instance, make};
use kvfs::Ino;
use kvfs::data::DataOptions;
use kvfs::engine::{EngineOptions, Opening};
use kvfs::fs::{Caller, FileSystem, Fs, NewNode};
use kvfs::op::{Privileges, SnapshotKind, SnapshotRequest};
use kvfs::request::{Lane, RequestId, Requested, WorkingFor};
use kvfs::schema::{FileKind, Time};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
const CONNECTION: u32 = 77;
const SAME: Opening = Opening::Resumed { connection: CONNECTION };

fn open(dir: &Path, opening: Opening) -> Fs {
    let checkpoint_interval = Duration::from_secs(3600);
    common::open(dir, opening, EngineOptions { checkpoint_interval, ..EngineOptions::default() })
}

/// As after `kill -9`.
fn kill(fs: Fs) {
    fs.engine().unwrap().halt();
}

fn id(unique: u64) -> RequestId {
    RequestId { connection: CONNECTION, unique }
}

/// Works for a request as thread `thread` of process life `life`.
fn request(unique: u64, life: u32, thread: u32) -> WorkingFor {
    WorkingFor::begin(Requested { id: id(unique), lane: Lane { life, thread } })
}

fn snapshot(fs: &Fs) {
    let (id, requested) = (Uuid::new_v4(), Time::default());
    let request = SnapshotRequest { id, name: None, kind: SnapshotKind::User, key: None, requested };
    fs.engine().unwrap().take_snapshot(request, &BTreeSet::new()).unwrap();
    fs.engine().unwrap().checkpoint().unwrap();
}

/// The ways by which a record leaves the journal.
fn journal(_: &Fs) {}
fn checkpoint(fs: &Fs) {
    fs.engine().unwrap().checkpoint().unwrap();
}
fn two_checkpoints(fs: &Fs) {
    checkpoint(fs);
    make(fs, &format!("something else {}", Uuid::new_v4()));
    checkpoint(fs);
}

#[test]
fn the_last_request_of_each_thread_is_known_to_the_next_process_however_its_record_is_kept() {
    for (between, what) in
        [(journal as fn(&Fs), "journal"), (checkpoint, "checkpoint"), (two_checkpoints, "two"), (snapshot, "snapshot")]
    {
        let dir = instance();
        let fs = open(dir.path(), Opening::Fresh);
        let answered = {
            let _for = request(2, 0, 0);
            make(&fs, "answered")
        };
        let made = {
            let _for = request(4, 0, 0);
            make(&fs, "made")
        };
        {
            let _for = request(6, 0, 1);
            fs.unlink(Ino::ROOT, b"answered").unwrap();
        }
        // A thread that works for nobody: recovery must not take it for one of them.
        make(&fs, "by itself");
        between(&fs);
        kill(fs);

        // Recovered twice: the second recovery has only the first one's checkpoint.
        for life in 1..3 {
            let fs = open(dir.path(), SAME);
            assert_eq!(fs.done_request(id(4)).unwrap().ino, Some(made), "{what}, life {life}");
            assert_eq!(fs.done_request(id(6)).unwrap().ino, None, "{what}, life {life}");
            assert_eq!(fs.done_request(id(2)), None, "{what}: {answered} was answered before 4 was read");
            assert_eq!(fs.done_request(id(8)), None);
            assert_eq!(fs.done_request(RequestId { connection: 1, unique: 4 }), None);
            between(&fs);
            kill(fs);
        }
        let fs = open(dir.path(), Opening::Resumed { connection: CONNECTION + 1 });
        assert_eq!(fs.done_request(id(4)), None, "{what}: another mount has requests of its own");
        kill(fs);
        assert_eq!(open(dir.path(), Opening::Fresh).done_request(id(4)), None, "{what}: nobody asks any more");
    }
}

#[test]
fn what_an_operation_did_not_do_is_not_remembered() {
    let dir = instance();
    let fs = open(dir.path(), Opening::Fresh);
    make(&fs, "there");
    {
        let _for = request(2, 0, 0);
        let node = NewNode { kind: FileKind::Directory, mode: 0o755, umask: 0, rdev: 0, target: &[] };
        fs.make(CALLER, Ino::ROOT, b"there", &node).unwrap_err();
    }
    assert_eq!(fs.done_request(id(2)), None);
    kill(fs);
    assert_eq!(open(dir.path(), SAME).done_request(id(2)), None);
}

#[test]
fn lives_that_are_over_are_forgotten_when_nobody_can_ask_for_them() {
    let dir = instance();
    let fs = open(dir.path(), Opening::Fresh);
    {
        let _for = request(2, 0, 0);
        make(&fs, "first");
    }
    kill(fs);
    let fs = open(dir.path(), SAME);
    {
        let _for = request(4, 1, 0);
        make(&fs, "second");
    }
    assert!(fs.done_request(id(2)).is_some() && fs.done_request(id(4)).is_some(), "lanes of two lives are two");
    fs.forget_requests_before(1);
    assert_eq!(fs.done_request(id(2)), None);
    checkpoint(&fs);
    kill(fs);
    let fs = open(dir.path(), SAME);
    assert_eq!(fs.done_request(id(2)), None);
    assert!(fs.done_request(id(4)).is_some());
}

#[test]
fn files_without_names_stay_for_the_mount_that_goes_on_and_go_with_a_new_one() {
    let dir = instance();
    let fs = open(dir.path(), Opening::Fresh);
    let ino = make(&fs, "file");
    fs.write(ino, 0, b"content", Privileges::Keep).unwrap();
    fs.unlink(Ino::ROOT, b"file").unwrap();
    kill(fs);
    for _ in 0..2 {
        let fs = open(dir.path(), SAME);
        assert_eq!(fs.orphans(), [ino]);
        assert_eq!(&fs.read(ino, 0, 100).unwrap()[..], b"content");
        checkpoint(&fs);
        kill(fs);
    }
    let fs = open(dir.path(), SAME);
    fs.forgotten(ino);
    checkpoint(&fs);
    assert!(fs.orphans().is_empty());
    fs.attributes(ino).unwrap_err();
    let other = make(&fs, "other");
    fs.unlink(Ino::ROOT, b"other").unwrap();
    kill(fs);
    let fs = open(dir.path(), Opening::Fresh);
    assert!(fs.orphans().is_empty());
    fs.attributes(other).unwrap_err();
}

/// Makes files, removes their names and lets go of them.
fn come_and_go(fs: &Fs, files: usize) -> Vec<Ino> {
    let names: Vec<_> = (0..files).map(|n| format!("f{n}")).collect();
    let inos: Vec<_> = names.iter().map(|name| make(fs, name)).collect();
    for (name, ino) in names.iter().zip(&inos) {
        fs.unlink(Ino::ROOT, name.as_bytes()).unwrap();
        fs.forgotten(*ino);
    }
    inos
}

#[test]
fn files_that_nobody_holds_are_purged_many_in_one_record() {
    let dir = instance();
    let fs = open(dir.path(), Opening::Fresh);
    let before = fs.engine().unwrap().last_xid().0;
    let inos = come_and_go(&fs, 1000);
    checkpoint(&fs);
    let records = fs.engine().unwrap().last_xid().0 - before;
    // 1000 for making, 1000 for names, 16 for the groups; a moment of rest purges a smaller one.
    assert!((2016..2500).contains(&records), "{records}");
    assert!(fs.orphans().is_empty());
    assert!(inos.iter().all(|ino| fs.attributes(*ino).is_err()));
    assert_eq!(fs.stats().unwrap().inodes, 1);
}

#[test]
fn files_that_wait_to_be_purged_when_the_process_is_killed_are_purged_by_the_next() {
    let dir = instance();
    let fs = open(dir.path(), Opening::Fresh);
    let inos = come_and_go(&fs, 100);
    kill(fs);
    // The first group was purged, in a record that is applied again; of the others, some perhaps.
    let fs = open(dir.path(), SAME);
    assert!(fs.orphans().iter().all(|ino| inos[64..].contains(ino)), "{:?}", fs.orphans());
    assert!(inos[..64].iter().all(|ino| fs.attributes(*ino).is_err()));
    kill(fs);
    let fs = open(dir.path(), Opening::Fresh);
    assert!(fs.orphans().is_empty());
    assert!(inos.iter().all(|ino| fs.attributes(*ino).is_err()));
}

#[test]
fn a_moment_of_rest_is_enough_to_purge() {
    let dir = instance();
    let fs = open(dir.path(), Opening::Fresh);
    come_and_go(&fs, 1);
    while !fs.orphans().is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn room_of_files_that_wait_to_be_purged_is_room() {
    let dir = instance();
    let max = 1 << 20;
    let data = DataOptions { segment_bytes: 128 << 10, spares: 0, max_bytes: Some(max) };
    let checkpoint_interval = Duration::from_secs(3600);
    let fs = common::open(
        dir.path(),
        Opening::Fresh,
        EngineOptions { checkpoint_interval, data, ballast_bytes: 0, ..EngineOptions::default() },
    );
    let chunk = vec![7; 64 << 10];
    for round in 0..2 {
        let name = format!("file {round}");
        let ino = make(&fs, &name);
        // All but one segment: the one that is being written stays.
        for n in 0..(max - (256 << 10)) / chunk.len() as u64 {
            fs.write(ino, n * chunk.len() as u64, &chunk, Privileges::Keep).unwrap();
        }
        fs.unlink(Ino::ROOT, name.as_bytes()).unwrap();
        fs.forgotten(ino);
    }
}
