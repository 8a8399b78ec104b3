//! Runs that were written by the first version of format 1: every later version reads them.
#![allow(clippy::unwrap_used)] // helpers of tests

use kvfs::Xid;
use std::path::PathBuf;
use toa::run::{RunError, RunSummary, RunWriter, Tree};

/// The ledger's hash of the committed file.
const ROOT: &str = "b4d70bceb8f8c8d1d1f4daee48d6746a";

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/run_fixtures/format-1.run")
}

/// Two levels, shared prefixes, an empty value, a tombstone-like short value, one value larger than a node.
fn records() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records: Vec<_> = (0..1_200_u64)
        .map(|n| {
            let key = [&(n / 9).to_be_bytes()[..], &[0x40], format!("name-{:05}", n * 7).as_bytes()].concat();
            let value = blake3::hash(&n.to_be_bytes()).as_bytes()[..(n % 33) as usize].to_vec();
            (key, value)
        })
        .collect();
    records.push((vec![0xff; 17], vec![0x5a; 40_000]));
    records
}

fn write(path: &std::path::Path) -> Result<RunSummary, RunError> {
    let mut writer = RunWriter::create(path, Xid(41), Xid(1_000_000_007))?;
    for (key, value) in records() {
        writer.push(&key, &value)?;
    }
    writer.finish()
}

#[test]
fn the_first_run_of_format_1_is_read_for_ever() {
    let root = u128::from_str_radix(ROOT, 16).unwrap().to_be_bytes();
    let tree = Tree::open_file(&fixture(), Some(&root)).unwrap();
    let footer = tree.footer();
    assert_eq!((footer.depth, footer.records, footer.xid_from, footer.xid), (2, 1_201, Xid(41), Xid(1_000_000_007)));
    let found = tree.cursor(&[]).map(|record| record.map(|(k, v)| (k.to_vec(), v.to_vec())));
    assert_eq!(found.collect::<Result<Vec<_>, _>>().unwrap(), records());
    for (key, value) in records() {
        assert_eq!(tree.get(&key).unwrap().unwrap(), value);
    }
}

/// The bytes may change with the zstd library; the shape may not without a new format.
#[test]
fn todays_writer_makes_the_same_tree() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.run");
    let summary = write(&path).unwrap();
    let new = Tree::open_file(&path, Some(&summary.root)).unwrap();
    let old = Tree::open_file(&fixture(), None).unwrap();
    let shape = |footer: &toa::run::Footer| (footer.depth, footer.records, footer.min_reader);
    assert_eq!(shape(new.footer()), shape(old.footer()));
    assert_eq!(new.footer().root.map(|root| root.raw_len), old.footer().root.map(|root| root.raw_len));
}

/// A snapshot of format 1 whose index is a small run above one in three parts, of which the second is older than the
/// others: committed, and read for ever. `CBFS_TEST_BLESS=1` writes it anew; that is right only before it is released.
mod split {
    use bytes::Bytes;
    use cloud_mgmt::ledger::{RunEntry, SnapshotEntry};
    use cloud_mgmt::store::{MemoryStore, ObjectStore};
    use kvfs::base::Base;
    use kvfs::ids::PackNo;
    use kvfs::schema::value::PackValue;
    use kvfs::schema::{DirentValue, Extent, FileKind, Key, Place, Value, WindowValue};
    use kvfs::{Ino, Xid};
    use std::ops::ControlFlow;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use toa::base::{Objects, ObjectsOptions, RunBase};
    use toa::proxy::{Proxy, ProxyOptions};
    use toa::run::RunWriter;

    type Record = (Key, Value);

    fn folder() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/run_fixtures/split-1")
    }

    fn inline(ino: u64, number: u64, bytes: &'static [u8]) -> Record {
        let place = Place::Inline(Bytes::from_static(bytes));
        let extents = vec![Extent { start: 7, len: bytes.len() as u32, place }];
        (Key::window(Ino(ino), number), Value::Window(WindowValue { extents }.into()))
    }

    fn dirent(name: &'static [u8], ino: u64) -> Record {
        (Key::dirent(Ino(1), name), Value::Dirent(DirentValue { ino: Ino(ino), kind: FileKind::Regular }))
    }

    fn xattr(ino: u64, value: &'static [u8]) -> Record {
        (Key::xattr(Ino(ino), b"user.a"), Value::Xattr(Bytes::from_static(value)))
    }

    fn pack() -> Record {
        let pack = PackValue { object: "fs/pack/4.tar.zst".into(), size: 900, live: 5, raw: 1000 };
        (Key::pack(PackNo(4)), Value::Pack(pack))
    }

    /// First inode (`None`: not split), xid range, records.
    type Run = (Option<u64>, (u64, u64), Vec<Record>);

    /// As the manifest lists them.
    fn runs() -> Vec<Run> {
        let dead = (Key::inode(Ino(20)), Value::Tombstone);
        let cut = (Key::cut(Ino(30)), Value::Cut(2));
        vec![
            (None, (20, 30), vec![(Key::dirent(Ino(1), b"c"), Value::Tombstone), dead, cut, inline(30, 3, b"new")]),
            (Some(0), (0, 20), vec![dirent(b"a", 10), dirent(b"b", 20), dirent(b"c", 30)]),
            (Some(10), (0, 10), vec![inline(10, 0, b"ten"), xattr(10, b"old part"), xattr(20, b"of a dead inode")]),
            (Some(25), (0, 20), vec![inline(30, 1, b"one"), inline(30, 2, b"two"), xattr(31, b"last"), pack()]),
        ]
    }

    /// What the snapshot shows, with the xid of each record.
    fn shown() -> Vec<(Record, u64)> {
        vec![
            (dirent(b"a", 10), 20),
            (dirent(b"b", 20), 20),
            (inline(10, 0, b"ten"), 10),
            (xattr(10, b"old part"), 10),
            (inline(30, 1, b"one"), 20),
            (inline(30, 3, b"new"), 30),
            (xattr(31, b"last"), 20),
            (pack(), 20),
        ]
    }

    fn bless(dir: &Path) {
        std::fs::create_dir_all(dir).unwrap();
        let written = runs().into_iter().enumerate().map(|(n, (ino_from, (xid_from, xid), records))| {
            let path = dir.join(format!("{n}.run"));
            let mut writer = RunWriter::create(&path, Xid(xid_from), Xid(xid)).unwrap();
            for (key, value) in &records {
                writer.push(key.as_bytes(), &value.encode(Xid(xid))).unwrap();
            }
            let summary = writer.finish().unwrap();
            let root = format!("{:032x}", u128::from_be_bytes(summary.root));
            let (object, size, records) = (format!("fs/idx/{n}.run"), summary.size, summary.records);
            RunEntry { object, size, root, xid_from, xid, records, ino_from }
        });
        let entry = SnapshotEntry {
            id: uuid::Uuid::from_u128(1),
            name: None,
            snapshot_kind: "user".into(),
            key: None,
            epoch: 1,
            parent: None,
            xid_from: 20,
            xid: 30,
            requested: jiff::Timestamp::UNIX_EPOCH,
            ino_end: 40,
            pack_end: 5,
            inodes: 5,
            bytes: 50,
            uploaded: 0,
            runs: written.collect(),
            packs_new: Vec::new(),
            packs_dead: Vec::new(),
            runs_dead: Vec::new(),
            features: vec![cloud_mgmt::config::SPLIT_RUNS.to_owned()],
            listing: None,
        };
        std::fs::write(dir.join("manifest.json"), serde_json::to_vec_pretty(&entry).unwrap()).unwrap();
    }

    #[test]
    fn the_first_split_run_is_read_for_ever() {
        if std::env::var_os("CBFS_TEST_BLESS").is_some() {
            bless(&folder());
        }
        let manifest = std::fs::read(folder().join("manifest.json")).unwrap();
        let entry: SnapshotEntry = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(entry.stacked_runs().map(<[RunEntry]>::len).collect::<Vec<_>>(), [1, 3]);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store = MemoryStore::new();
        for (n, run) in entry.runs.iter().enumerate() {
            let bytes = std::fs::read(folder().join(format!("{n}.run"))).unwrap();
            runtime.block_on(store.put(&run.object, bytes.into())).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let proxy = Proxy::open(dir.path(), ProxyOptions { max_bytes: 16 << 20 }).unwrap();
        let objects = Objects::new(proxy, Arc::new(store), runtime.handle().clone(), ObjectsOptions::default());
        let base = RunBase::open(&objects, &entry).unwrap().waiting();
        let expected: Vec<_> =
            shown().iter().map(|((key, value), xid)| (key.as_bytes().to_vec(), value.encode(Xid(*xid)))).collect();
        let mut found = Vec::new();
        base.scan(&[], &[0xff; 10], &mut |key, value| {
            found.push((key.to_vec(), Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(found, expected);
        for (key, value) in &expected {
            assert_eq!(base.get(key).unwrap().as_ref(), Some(value));
        }
        for (_, _, records) in runs() {
            for (key, _) in records.iter().filter(|(key, _)| !expected.iter().any(|(shown, _)| shown == key.as_bytes()))
            {
                assert_eq!(base.get(key.as_bytes()).unwrap(), None, "{key:?}");
            }
        }
    }
}
