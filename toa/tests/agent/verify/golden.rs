//! A whole small bucket, committed as a directory with what its snapshots show: it must be readable for ever.
//!
//! `CBFS_TEST_BLESS=1` writes the next one, where there is none; what is written never changes again: `SUMS` says what it is.

use crate::node::{Bucket, Node};
use crate::tree::{self, noise, waiting};
use crate::untar;
use cloud_mgmt::config::{CONFIG_FORMAT, FsConfig, ProbeReport};
use cloud_mgmt::ledger::{Appender, Ledger, MemoryIntents, SnapshotEntry, Writer};
use cloud_mgmt::names::FsName;
use cloud_mgmt::store::{DirStore, MemoryStore, StoreOptions};
use kvfs::Ino;
use kvfs::fs::{Caller, FileSystem, NewNode};
use kvfs::op::{AllocateMode, AttributeChange, CopyRange, Privileges, RenameMode, XattrMode};
use kvfs::schema::FileKind;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toa::{SnapshotSelector, SnapshotState};
use uuid::Uuid;

const KEEP: Privileges = Privileges::Keep;
/// Of which `two` is dropped, and `six` is the next reign's.
const LIVE: [&str; 5] = ["one", "three", "four", "five", "six"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bucket_fixtures/bucket-1")
}

fn name() -> FsName {
    FsName { tag: "golden".parse().unwrap(), id: Uuid::from_u128(0xb1) }
}

fn make(fs: &dyn FileSystem, parent: Ino, name: &str, kind: FileKind, target: &[u8]) -> Ino {
    let node = NewNode { kind, mode: 0o751, umask: 0, rdev: 0, target };
    fs.make(Caller { uid: 1000, gid: 100 }, parent, name.as_bytes(), &node).unwrap().ino
}

fn file(fs: &dyn FileSystem, parent: Ino, name: &str, bytes: &[u8]) -> Ino {
    let ino = make(fs, parent, name, FileKind::Regular, b"");
    fs.write(ino, 0, bytes, KEEP).unwrap();
    ino
}

fn ino(fs: &dyn FileSystem, name: &str) -> Ino {
    fs.lookup(Ino::ROOT, name.as_bytes()).unwrap().ino
}

fn unlink(fs: &dyn FileSystem, name: &str) {
    let gone = ino(fs, name);
    fs.unlink(Ino::ROOT, name.as_bytes()).unwrap();
    fs.forgotten(gone);
}

/// A line for each name below the root: what it is and, by hash, what is in it.
fn shown(fs: &dyn FileSystem) -> String {
    let mut lines = Vec::new();
    let mut open = vec![(Ino::ROOT, String::new())];
    while let Some((dir, path)) = open.pop() {
        for entry in waiting(|| fs.read_dir(dir, None, 10_000)).unwrap().into_iter().skip(2) {
            let path = format!("{path}/{}", String::from_utf8(entry.name.clone()).unwrap());
            let a = waiting(|| fs.lookup(dir, &entry.name)).unwrap();
            let (kind, content) = match a.kind {
                FileKind::Regular => ("file", waiting(|| fs.read(a.ino, 0, a.size as u32)).unwrap().to_vec()),
                FileKind::Symlink => ("symlink", waiting(|| fs.read_link(a.ino)).unwrap().to_vec()),
                FileKind::Directory => ("directory", vec![]),
                FileKind::Fifo => ("fifo", vec![]),
                FileKind::Socket => ("socket", vec![]),
                FileKind::CharDevice => ("char", vec![]),
                FileKind::BlockDevice => ("block", vec![]),
            };
            assert!(kind != "file" || content.len() as u64 == a.size, "{path}");
            let (m, c) = (a.mtime, a.ctime);
            let mut line = format!(
                "{path} {} {kind} {:o} {}:{} links {} size {} mtime {}.{:09} ctime {}.{:09} {}",
                a.ino,
                a.mode,
                a.uid,
                a.gid,
                a.nlink,
                a.size,
                m.secs,
                m.nanos,
                c.secs,
                c.nanos,
                blake3::hash(&content)
            );
            for name in waiting(|| fs.list_xattrs(a.ino)).unwrap() {
                let value = waiting(|| fs.get_xattr(a.ino, &name)).unwrap();
                line.push_str(&format!(" {}={}", String::from_utf8_lossy(&name), blake3::hash(&value)));
            }
            lines.push(line);
            if a.kind == FileKind::Directory {
                open.push((a.ino, path));
            }
        }
    }
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

/// What happens before a snapshot.
fn change(fs: &dyn FileSystem, snapshot: &str) {
    let root = Ino::ROOT;
    match snapshot {
        "one" => {
            let dir = make(fs, root, "dir", FileKind::Directory, b"");
            let linked = file(fs, dir, "linked", &noise(1, 5_000));
            fs.link(linked, root, b"linked too").unwrap();
            fs.set_xattr(linked, b"user.note", b"two names", XattrMode::Set).unwrap();
            fs.set_xattr(dir, b"user.long", &noise(2, 3_000), XattrMode::Set).unwrap();
            make(fs, dir, "symlink", FileKind::Symlink, b"../linked too");
            make(fs, dir, "pipe", FileKind::Fifo, b"");
            make(fs, dir, "socket", FileKind::Socket, b"");
            let sparse = file(fs, root, "sparse", b"at its beginning");
            fs.write(sparse, 3_000_000, &noise(3, 4_000), KEEP).unwrap();
            let size = Some(5_000_000);
            fs.set_attributes(sparse, &AttributeChange { size, ..AttributeChange::default() }, KEEP).unwrap();
            for n in 0..40 {
                file(fs, dir, &format!("small {n}"), format!("{n}\n").repeat(n + 1).as_bytes());
            }
        }
        "two" => {
            file(fs, root, "passing", &noise(4, 20_000));
            fs.rename((root, b"dir"), (root, b"renamed"), RenameMode::Replace).unwrap();
        }
        "three" => {
            unlink(fs, "passing");
            unlink(fs, "linked too");
            let text = b"the same words again and again\n".repeat(2_000);
            file(fs, root, "text", &text);
        }
        "four" => {
            let (text, sparse) = (ino(fs, "text"), ino(fs, "sparse"));
            fs.allocate(text, 10_000, 20_000, AllocateMode::PunchHole, KEEP).unwrap();
            let copy = file(fs, root, "copy", b"");
            let range = CopyRange { from: sparse, from_offset: 3_000_000, to: copy, to_offset: 100, len: 4_000 };
            assert_eq!(fs.copy_range(&range, KEEP).unwrap(), 4_000);
            let mode = Some(0o600);
            fs.set_attributes(sparse, &AttributeChange { mode, ..AttributeChange::default() }, KEEP).unwrap();
        }
        _ => {
            let renamed = ino(fs, "renamed");
            for n in 0..20 {
                let name = format!("small {n}");
                let gone = fs.lookup(renamed, name.as_bytes()).unwrap().ino;
                fs.unlink(renamed, name.as_bytes()).unwrap();
                fs.forgotten(gone);
            }
            tree::write_file(fs, "last", &noise(5, 3_000));
        }
    }
}

/// Writes the bucket, and what its master showed at each snapshot.
fn write() {
    let bucket = Bucket { name: name(), ..Bucket::new(Arc::new(MemoryStore::new())) };
    let now = jiff::Timestamp::UNIX_EPOCH;
    let config = FsConfig {
        format: CONFIG_FORMAT,
        id: name().id,
        tag: name().tag.to_string(),
        created: now,
        created_by: "cbfs".into(),
        op: Uuid::from_u128(1),
        features: Vec::new(),
        probe: ProbeReport { rounds: 0, racers: 0, checked: now },
        settings: BTreeMap::new(),
    };
    bucket.put(&name().config_object(), config.encode().unwrap());
    let master = Node::master(&bucket);
    let mut texts = BTreeMap::new();
    for snapshot in ["one", "two", "three", "four", "five"] {
        change(master.fs().as_ref(), snapshot);
        master.agent().request_snapshot(Some(snapshot.into()), None).unwrap();
        assert_eq!(master.finished(snapshot), SnapshotState::Complete);
        texts.insert(snapshot, shown(master.fs().as_ref()));
    }
    drop(master);
    texts.insert("six", texts["five"].clone());
    let ledger = Ledger::new(bucket.store.clone(), bucket.name.clone());
    let writer = Writer { host: "next".into(), ..Writer::ephemeral() };
    let next = Appender::new(ledger, Arc::new(MemoryIntents::default()), writer);
    let next = next.summarizing_every(NonZeroU64::new(1).unwrap());
    bucket.runtime.block_on(async {
        next.promote(1).await.unwrap();
        let snapshots = next.ledger().known().snapshots();
        next.drop_snapshot(snapshots[1].snapshot.id).await.unwrap();
        next.pin(snapshots[0].snapshot.id, "the first").await.unwrap();
        let newest = (*snapshots[4].snapshot).clone();
        let (parent, name, packs_new, xid_from) = (Some(newest.id), Some("six".into()), vec![], newest.xid);
        let (runs_dead, packs_dead, listing) = (vec![], vec![], None);
        let same = SnapshotEntry {
            id: Uuid::new_v4(),
            name,
            epoch: 2,
            parent,
            xid_from,
            packs_new,
            packs_dead,
            runs_dead,
            listing,
            ..newest
        };
        next.publish_snapshot(&same).await.unwrap();
    });
    let mut sums = String::new();
    let mut keep = |path: String, bytes: &[u8]| {
        let at = folder().join(&path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, bytes).unwrap();
        sums.push_str(&format!("{}  {path}\n", blake3::hash(bytes)));
    };
    for object in bucket.objects("golden-") {
        keep(format!("bucket/{object}"), &bucket.get(&object));
    }
    for (snapshot, text) in texts.iter().filter(|(snapshot, _)| LIVE.contains(snapshot)) {
        keep(format!("trees/{snapshot}.txt"), text.as_bytes());
    }
    std::fs::write(folder().join("SUMS"), sums).unwrap();
}

/// All files below a folder, by their paths in it.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_bucket_of_format_1_is_read_as_it_was_written() {
    if std::env::var_os("CBFS_TEST_BLESS").is_some() && !folder().exists() {
        write();
    }
    let sums = std::fs::read_to_string(folder().join("SUMS")).unwrap();
    let sums: BTreeMap<&str, &str> =
        sums.lines().filter_map(|line| line.split_once("  ")).map(|(b, a)| (a, b)).collect();
    let mut committed = files(&folder());
    committed.retain(|path| path != "SUMS");
    assert_eq!(committed, sums.keys().copied().collect::<Vec<_>>());
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = 0;
    for (path, sum) in &sums {
        let content = std::fs::read(folder().join(path)).unwrap();
        assert_eq!(blake3::hash(&content).to_string(), *sum, "{path} has changed");
        bytes += content.len();
        if let Some(object) = path.strip_prefix("bucket/") {
            let at = dir.path().join(object);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::fs::write(at, content).unwrap();
        }
    }
    assert!(bytes <= 200 << 10, "{bytes} bytes");

    let made = Bucket::new(Arc::new(MemoryStore::new()));
    let store = Arc::new(DirStore::new(dir.path(), StoreOptions::INTERACTIVE));
    let bucket = Bucket { store, name: name(), ..made };
    bucket.check_sound();
    let history = bucket.history();
    let names: Vec<_> = history.snapshots().iter().filter_map(|published| published.snapshot.name.clone()).collect();
    assert_eq!(names, LIVE);
    for snapshot in LIVE {
        let slave = Node::slave(&bucket, SnapshotSelector::Named(snapshot.into()));
        let text = std::fs::read_to_string(folder().join(format!("trees/{snapshot}.txt"))).unwrap();
        assert_eq!(shown(slave.fs().as_ref()), text, "{snapshot}");
        let (tar, written, _) = bucket.export(SnapshotSelector::Named(snapshot.into()));
        written.unwrap();
        untar::check(&tar, slave.fs().as_ref());
    }
    // It has what a fixture should have: a merged run, a dead pack, a pin, a second reign, a summary.
    let manifests = history.snapshots();
    assert!(manifests.iter().any(|published| !published.snapshot.runs_dead.is_empty()), "no run was merged");
    assert!(history.packs().any(|(.., dead)| dead.is_some()), "no pack is dead");
    assert_eq!((history.pins().len(), history.state().epoch), (1, 2));
    let summary = history.state().summary.clone().unwrap();
    let ledger = Ledger::new(bucket.store.clone(), bucket.name.clone());
    let told = bucket.runtime.block_on(ledger.summary(&summary)).unwrap();
    assert_eq!(told.snapshots().len(), 4);
}
