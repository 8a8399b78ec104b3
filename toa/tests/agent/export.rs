//! Exports against what a slave shows of the same snapshot.

use crate::cases;
use crate::node::{Bucket, Node, Stop};
use crate::tree::{self, noise, read_file};
use crate::untar::{check, read};
use bytes::Bytes;
use cloud_mgmt::store::{Call, FaultMoment, FaultPlan, MemoryStore, Observed, Observer, StoreError};
use kvfs::Ino;
use kvfs::fs::{Caller, FileSystem, NewNode};
use kvfs::op::{AllocateMode, AttributeChange, CopyRange, Privileges, RenameMode, XattrMode};
use kvfs::schema::{FileKind, Time};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeSet;
use std::io::Write;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::Arc;
use toa::{ErrorKind, SnapshotSelector, SnapshotState};

const KEEP: Privileges = Privileges::Keep;

fn make(fs: &dyn FileSystem, parent: Ino, name: &[u8], kind: FileKind, (rdev, target): (u32, &[u8])) -> Ino {
    let caller = Caller { uid: 70_000, gid: 3_000_000 };
    fs.make(caller, parent, name, &NewNode { kind, mode: 0o4751, umask: 0, rdev, target }).unwrap().ino
}

fn file(fs: &dyn FileSystem, parent: Ino, name: &[u8], bytes: &[u8]) -> Ino {
    let ino = make(fs, parent, name, FileKind::Regular, (0, b""));
    for (n, piece) in bytes.chunks(1 << 20).enumerate() {
        fs.write(ino, n as u64 * (1 << 20), piece, KEEP).unwrap();
    }
    ino
}

fn change(fs: &dyn FileSystem, ino: Ino, change: AttributeChange) {
    fs.set_attributes(ino, &change, KEEP).unwrap();
}

fn resize(fs: &dyn FileSystem, ino: Ino, size: u64) {
    change(fs, ino, AttributeChange { size: Some(size), ..AttributeChange::default() });
}

fn copy(fs: &dyn FileSystem, from: (Ino, u64), to: (Ino, u64), len: u64) {
    let range = CopyRange { from: from.0, from_offset: from.1, to: to.0, to_offset: to.1, len };
    assert_eq!(fs.copy_range(&range, KEEP).unwrap(), len);
}

fn snapshot(master: &Node, name: &str) {
    master.agent().request_snapshot(Some(name.into()), None).unwrap();
    assert_eq!(master.finished(name), SnapshotState::Complete);
}

/// The tar of a snapshot, which must be what a slave shows.
fn checked(bucket: &Bucket, name: &str) -> Vec<u8> {
    let (tar, written, heard) = bucket.export(SnapshotSelector::Named(name.into()));
    let summary = written.unwrap();
    let slave = Node::slave(bucket, SnapshotSelector::Named(name.into()));
    check(&tar, slave.fs().as_ref());
    assert_eq!((summary.bytes, summary.members), (tar.len() as u64, read(&tar).len() as u64));
    assert_eq!(
        heard.bytes,
        bucket.history().snapshots().iter().find(|s| s.snapshot.name.as_deref() == Some(name)).unwrap().snapshot.bytes,
        "progress ends where it should"
    );
    tar
}

/// Of each kind at least one, and names of each kind.
fn everything(fs: &dyn FileSystem) {
    let dir = make(fs, Ino::ROOT, b"dir", FileKind::Directory, (0, b""));
    let deep = make(fs, dir, &[b'd'; 255], FileKind::Directory, (0, b""));
    for name in [&b"line\nbreak"[..], b"\xff\xfe", b"-rf", b" ", "ünï".as_bytes(), b"...", &[b'x'; 255]] {
        file(fs, deep, name, name);
    }
    let linked = file(fs, dir, b"z first by inode", &noise(1, 50_000));
    fs.link(linked, deep, b"second").unwrap();
    fs.link(linked, Ino::ROOT, b"a third").unwrap();
    fs.set_xattr(linked, b"user.=%odd", &[0, 255, 10], XattrMode::Set).unwrap();
    fs.set_xattr(linked, b"user.empty", b"", XattrMode::Set).unwrap();
    fs.set_xattr(dir, b"trusted.long", &noise(2, 60_000), XattrMode::Set).unwrap();
    let soft = make(fs, dir, b"soft", FileKind::Symlink, (0, &b"t/".repeat(2000)));
    fs.link(soft, deep, b"soft again").unwrap();
    make(fs, dir, b"pipe", FileKind::Fifo, (0, b""));
    let socket = make(fs, dir, b"socket", FileKind::Socket, (0, b""));
    fs.link(socket, dir, b"socket again").unwrap();
    // Linux's 32 bits: 12 of the major number around 8 and 12 of the minor one.
    make(fs, dir, b"char", FileKind::CharDevice, (0x0123_4567, b""));
    make(fs, dir, b"block", FileKind::BlockDevice, (0xfff8_00ff, b""));
    for (name, secs, nanos) in
        [("old", -2, 500_000_000), ("oldest", -9_000_000_000, 1), ("late", 20_000_000_000, 999_999_999)]
    {
        let ino = file(fs, deep, name.as_bytes(), b"");
        let mtime = Some(Time { secs, nanos });
        change(fs, ino, AttributeChange { mtime, mode: Some(0o7777), ..AttributeChange::default() });
    }
    let sparse = file(fs, dir, b"sparse", b"");
    fs.write(sparse, 3_000_001, &noise(3, 5_000), KEEP).unwrap();
    fs.write(sparse, 40, b"inline", KEEP).unwrap();
    resize(fs, sparse, 9_999_999);
    resize(fs, file(fs, dir, b"hole", b""), 7_000_000);
    fs.write(file(fs, dir, b"hole and end", b""), 2_500_000, b"end", KEEP).unwrap();
    file(fs, dir, b"exactly a window", &noise(4, 1 << 20));
    file(fs, dir, b"several windows", &noise(5, 3_333_333));
}

#[test]
fn every_kind_of_member_is_exported() {
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let master = Node::master(&bucket);
    everything(master.fs().as_ref());
    snapshot(&master, "one");
    let tar = checked(&bucket, "one");
    let (again, written, heard) = bucket.export(SnapshotSelector::Latest);
    assert!(again == tar, "the same snapshot gives the same bytes");
    assert_eq!(written.unwrap().skipped, 2);
    assert_eq!(heard.skipped.len(), 2, "both names of the socket: {:?}", heard.skipped);
    // A file with holes costs what it holds.
    assert!(tar.len() < 7 << 20, "{} bytes", tar.len());
}

#[test]
fn every_snapshot_of_a_history_is_exported() {
    for seed in 0..cases(3) {
        let mut random = StdRng::seed_from_u64(seed);
        let bucket = Bucket::new(Arc::new(MemoryStore::new()));
        let master = Node::master(&bucket);
        for round in 0..5 {
            tree::random_changes(master.fs().as_ref(), &mut random, 60);
            snapshot(&master, &format!("s{round}"));
        }
        for round in 0..5 {
            checked(&bucket, &format!("s{round}"));
        }
    }
}

#[test]
fn shared_cut_and_moved_bytes_are_exported() {
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let master = Node::master(&bucket);
    let held = master.fs();
    let fs = held.as_ref();
    let dir = make(fs, Ino::ROOT, b"dir", FileKind::Directory, (0, b""));
    let from = file(fs, dir, b"from", &noise(1, 3_000_000));
    let small = file(fs, dir, b"small", &noise(2, 9_000));
    snapshot(&master, "base");
    let to = file(fs, Ino::ROOT, b"to", &noise(3, 100));
    copy(fs, (from, 4_096), (to, 1_000_000), 2_000_000);
    copy(fs, (small, 0), (to, 5_000_001), 9_000);
    copy(fs, (small, 100), (small, 20_000), 5_000);
    snapshot(&master, "shared");
    fs.allocate(from, 500_000, 1_200_000, AllocateMode::PunchHole, KEEP).unwrap();
    fs.write(from, 1_048_570, &noise(4, 20), KEEP).unwrap();
    resize(fs, to, 2_200_000);
    resize(fs, to, 4_400_000);
    fs.rename((Ino::ROOT, b"dir"), (Ino::ROOT, b"moved"), RenameMode::Replace).unwrap();
    fs.unlink(dir, b"small").unwrap();
    fs.forgotten(small);
    snapshot(&master, "cut");
    resize(fs, from, 0);
    fs.write(from, 10, b"x", KEEP).unwrap();
    snapshot(&master, "gone");
    for name in ["base", "shared", "cut", "gone"] {
        checked(&bucket, name);
    }
}

#[test]
fn a_huge_sparse_file_and_large_directories_are_exported() {
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let master = Node::master(&bucket);
    let held = master.fs();
    let fs = held.as_ref();
    let sparse = make(fs, Ino::ROOT, b"sparse", FileKind::Regular, (0, b""));
    // More windows than are held at once, and far apart.
    for n in 0..200 {
        fs.write(sparse, n * 5_000_000, &noise(n, 3_000), KEEP).unwrap();
    }
    resize(fs, sparse, 1 << 40);
    let many = file(fs, Ino::ROOT, b"many windows", &b"abcdefg".repeat(10 << 20));
    fs.set_xattr(many, b"user.behind", b"the windows", XattrMode::Set).unwrap();
    let full = make(fs, Ino::ROOT, b"full", FileKind::Directory, (0, b""));
    for n in 0..2_100_u64 {
        // Names in another order than inodes.
        let name = format!("{:04}", n * 781 % 2_100);
        file(fs, full, name.as_bytes(), &noise(n, (n % 50) as usize));
    }
    for n in 0..40 {
        let sub = make(fs, full, format!("dir{n}").as_bytes(), FileKind::Directory, (0, b""));
        file(fs, sub, b"file", b"in it");
    }
    let mut at = Ino::ROOT;
    for _ in 0..60 {
        at = make(fs, at, b"deeper", FileKind::Directory, (0, b""));
    }
    snapshot(&master, "one");
    let (tar, written, _) = bucket.export(SnapshotSelector::Latest);
    written.unwrap();
    let members = read(&tar);
    let found = members.iter().find(|member| member.path == b"sparse").unwrap();
    assert_eq!((found.size, found.data.len()), (1 << 40, 200));
    for (n, (offset, bytes)) in found.data.iter().enumerate() {
        let skip = (n as u64 * 5_000_000 - offset) as usize;
        assert!(bytes[skip..skip + 3_000] == noise(n as u64, 3_000), "island {n}");
        assert!(bytes[..skip].iter().chain(&bytes[skip + 3_000..]).all(|byte| *byte == 0));
    }
    // What is left can be read through a mount in reasonable time.
    fs.unlink(Ino::ROOT, b"sparse").unwrap();
    fs.forgotten(sparse);
    snapshot(&master, "two");
    checked(&bucket, "two");
}

/// What was asked of the packs.
#[derive(Debug, Default)]
struct Asked {
    ranges: Mutex<Vec<(String, Range<u64>)>>,
}

impl Observer for Asked {
    fn call(&self, call: &Call<'_>) -> Result<(), StoreError> {
        match call {
            Call::GetRange(name, range) if name.contains("/pack/") => {
                self.ranges.lock().push(((*name).to_owned(), range.clone()));
            }
            _ => {}
        }
        Ok(())
    }
}

#[test]
fn each_frame_is_fetched_once_and_neighbours_together() {
    let asked = Arc::new(Asked::default());
    let bucket = Bucket::new(Arc::new(Observed::new(Arc::new(MemoryStore::new()), Arc::clone(&asked))));
    let master = Node::master(&bucket);
    let held = master.fs();
    for n in 0..8_u64 {
        let dir = make(held.as_ref(), Ino::ROOT, format!("d{n}").as_bytes(), FileKind::Directory, (0, b""));
        for m in 0..150 {
            file(held.as_ref(), dir, format!("f{m}").as_bytes(), &noise(n * 1000 + m, 15_000));
        }
        file(held.as_ref(), dir, b"large", &noise(n, 5_000_000));
    }
    snapshot(&master, "one");
    let packs: u64 = bucket.history().snapshots()[0].snapshot.packs_new.iter().map(|pack| pack.size).sum();
    checked(&bucket, "one");
    asked.ranges.lock().clear();
    bucket.export(SnapshotSelector::Latest).1.unwrap();
    let mut ranges = std::mem::take(&mut *asked.ranges.lock());
    let (count, bytes) = (ranges.len() as u64, ranges.iter().map(|(_, range)| range.end - range.start).sum::<u64>());
    ranges.sort_by_key(|(name, range)| (name.clone(), range.start));
    for pair in ranges.windows(2) {
        assert!(pair[0].0 != pair[1].0 || pair[0].1.end <= pair[1].1.start, "fetched twice: {pair:?}");
    }
    assert!(bytes <= packs && bytes > packs * 9 / 10, "{bytes} of {packs} bytes");
    assert!(count <= packs / (2 << 20) + 4, "{count} requests for {packs} bytes");
}

/// What GNU tar says of it: whether it takes it for a whole archive.
fn tar_accepts(bytes: &[u8]) -> bool {
    let mut tar = Command::new("tar")
        .args(["-tf", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It hangs up when it has seen enough.
    let _ = tar.stdin.take().unwrap().write_all(bytes);
    tar.wait().unwrap().success()
}

fn objects(bucket: &Bucket, part: &str) -> Vec<(String, Bytes)> {
    bucket.block_on(async |store| {
        let mut found = Vec::new();
        for meta in store.list("").await.unwrap().into_iter().filter(|meta| meta.name.contains(part)) {
            found.push((meta.name.clone(), store.get(&meta.name).await.unwrap()));
        }
        found
    })
}

fn put(bucket: &Bucket, name: &str, bytes: Bytes) {
    bucket.block_on(async |store| store.put(name, bytes).await.unwrap());
}

#[test]
fn damage_is_an_error_that_names_object_and_path_and_never_a_short_tar() {
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let master = Node::master(&bucket);
    let held = master.fs();
    for n in 0..60 {
        file(held.as_ref(), Ino::ROOT, format!("file {n}").as_bytes(), &noise(n, 90_000));
    }
    everything(held.as_ref());
    snapshot(&master, "one");
    let whole = checked(&bucket, "one");
    assert!(tar_accepts(&whole));
    let mut places = BTreeSet::new();
    for part in ["/pack/", "/idx/"] {
        let damaged = objects(&bucket, part);
        assert!(!damaged.is_empty());
        for (name, bytes) in damaged {
            for percent in [1, 30, 60, 99] {
                let mut wrong = bytes.to_vec();
                let at = wrong.len() * percent / 100;
                wrong[at] ^= 1;
                put(&bucket, &name, wrong.into());
                let (tar, written, _) = bucket.export(SnapshotSelector::Latest);
                put(&bucket, &name, bytes.clone());
                // The seek table of a pack and the gap of a run are for others.
                let Err(error) = written else {
                    assert!(tar == whole, "{name} at {percent} %");
                    continue;
                };
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                assert!(error.to_string().contains(&name), "names the object: {error}");
                assert!(!tar_accepts(&tar), "{name} at {percent} %: {} bytes pass for a tar", tar.len());
                assert!(whole.starts_with(&tar[..tar.len().saturating_sub(512)]), "nothing wrong came out");
                places.insert((part, percent));
            }
            put(&bucket, &name, bytes.slice(..bytes.len() / 2));
            let (tar, written, _) = bucket.export(SnapshotSelector::Latest);
            assert_eq!(written.unwrap_err().kind(), ErrorKind::Corrupt, "half of {name}");
            assert!(!tar_accepts(&tar) || tar.is_empty());
            bucket.block_on(async |store| store.delete(&name).await.unwrap());
            let (_, written, _) = bucket.export(SnapshotSelector::Latest);
            let error = written.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Gone, "{error}");
            put(&bucket, &name, bytes);
        }
    }
    assert!(places.len() >= 6, "hardly anything was damaged: {places:?}");
    let (tar, written, _) = bucket.export(SnapshotSelector::Latest);
    written.unwrap();
    assert!(tar == whole, "all is well again");
}

#[test]
fn a_fault_at_any_call_is_survived_or_told() {
    let store = Arc::new(MemoryStore::new());
    let bucket = Bucket::new(Arc::clone(&store) as _);
    let master = Node::master(&bucket);
    everything(master.fs().as_ref());
    snapshot(&master, "one");
    let whole = checked(&bucket, "one");
    drop(master);
    let mut survived = 0;
    for n in 1.. {
        let before = store.calls();
        store.set_faults(FaultPlan::nth(n, FaultMoment::Before));
        let (tar, written, _) = bucket.export(SnapshotSelector::Latest);
        store.set_faults(FaultPlan::none());
        match written {
            Ok(_) => {
                assert!(tar == whole, "call {n}");
                survived += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "call {n}: {error}");
                assert!(tar.is_empty() || !tar_accepts(&tar), "call {n}");
            }
        }
        if store.calls() - before < n {
            break;
        }
    }
    assert!(survived > 0, "packs are fetched again");
}

#[test]
fn what_cannot_be_exported_is_refused() {
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let master = Node::master(&bucket);
    let kind = |selector| bucket.export(selector).1.unwrap_err().kind();
    assert_eq!(kind(SnapshotSelector::Latest), ErrorKind::NotFound);
    tree::write_file(master.fs().as_ref(), "f", b"1");
    snapshot(&master, "one");
    tree::write_file(master.fs().as_ref(), "f", b"2");
    assert_eq!(kind(SnapshotSelector::Named("two".into())), ErrorKind::NotFound);
    let tar = checked(&bucket, "one");
    assert_eq!(read(&tar).iter().find(|member| member.path == b"f").unwrap().data, [(0, b"1".to_vec())]);
    assert_eq!(read_file(master.fs().as_ref(), "f"), b"2");
}

/// A reader that hangs up, and a disk that is full.
struct Broken(usize, std::io::ErrorKind);

impl Write for Broken {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let some = bytes.len().min(self.0);
        self.0 -= some;
        if some == 0 { Err(self.1.into()) } else { Ok(some) }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_output_that_fails_ends_it_and_a_wish_too() {
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let master = Node::master(&bucket);
    everything(master.fs().as_ref());
    snapshot(&master, "one");
    for room in [0, 1, 5_000, 1_000_000] {
        let error = bucket.export_to(&mut Broken(room, std::io::ErrorKind::BrokenPipe), Stop::Never).unwrap_err();
        assert!(error.is_closed_pipe(), "{error}");
        let error = bucket.export_to(&mut Broken(room, std::io::ErrorKind::StorageFull), Stop::Never).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
    }
    let mut out = Vec::new();
    let members = bucket.export_to(&mut out, Stop::Never).unwrap().members;
    let whole = out.len();
    // Between two members a tar has no end of its own: what is written there must not pass for one.
    for asked in 0..members as u32 {
        out.clear();
        assert_eq!(bucket.export_to(&mut out, Stop::After(asked)).unwrap_err().kind(), ErrorKind::Busy);
        assert!(out.len() < whole && !tar_accepts(&out), "stopped after {asked} of {members}");
    }
}
