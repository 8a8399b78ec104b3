//! Snapshots made by hand whose records contradict each other: what no master writes.

use super::deep;
use crate::node::Bucket;
use bytes::Bytes;
use cloud_mgmt::config::{FsConfig, POSIX_ACL};
use cloud_mgmt::ledger::{Appender, Ledger, MemoryIntents, PackEntry, RunEntry, SnapshotEntry, Writer};
use cloud_mgmt::store::MemoryStore;
use kvfs::acl;
use kvfs::ids::{Epoch, PackNo};
use kvfs::schema::value::PackValue;
use kvfs::schema::{DirentValue, Extent, FileKind, FrameRef, InodeValue, Key, Place, Time, Value, WindowValue};
use kvfs::{Ino, Xid};
use std::collections::BTreeMap;
use std::sync::Arc;
use toa::pack::{Member, MemberKind, PackIdentity, PackSummary, PackWriter, Range};
use toa::run::RunWriter;
use toa::verify::Problem;
use uuid::Uuid;

const XID: Xid = Xid(7);
const BYTES: usize = 5000;

type Records = BTreeMap<Key, Value>;

/// A snapshot before it is published.
struct Made {
    bucket: Bucket,
    records: Records,
    entry: SnapshotEntry,
    frame: FrameRef,
    /// First inode of each part of the run, and what the manifest says of it.
    parts: Vec<(u64, Option<u64>)>,
}

fn inode(kind: FileKind, nlink: u32, parent: u64, name: &'static str) -> InodeValue {
    let time = Time { secs: 5, nanos: 6 };
    let (parent, name) = (Ino(parent), Bytes::from_static(name.as_bytes()));
    let (mode, uid, gid, rdev, size, stored, target) = (0o700, 1, 2, 0, 0, 0, Bytes::new());
    let (atime, mtime, ctime) = (time, time, time);
    InodeValue { kind, mode, uid, gid, nlink, rdev, size, stored, atime, mtime, ctime, parent, name, target }
}

fn dirent(ino: u64, kind: FileKind) -> Value {
    Value::Dirent(DirentValue { ino: Ino(ino), kind })
}

fn window(extent: Extent) -> Value {
    Value::Window(WindowValue { extents: vec![extent] }.into())
}

/// An ACL of tags, permissions and ids.
fn acl_of(entries: &[(u16, u16, u32)]) -> Value {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes()));
    }
    Value::Xattr(bytes.into())
}

/// The owner `rwx`, user 7 `r-x` by the mask: mode 0750.
const NAMED: &[(u16, u16, u32)] = &[(1, 7, !0), (2, 7, 7), (4, 0, !0), (16, 5, !0), (32, 0, !0)];
/// The owner `rwx`: mode 0700, and no more than that.
const PLAIN: &[(u16, u16, u32)] = &[(1, 7, !0), (4, 0, !0), (32, 0, !0)];

fn write_pack(bucket: &Bucket, object: &str) -> PackSummary {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pack");
    let identity = PackIdentity { fs: bucket.name.id, number: PackNo(0), epoch: Epoch(1) };
    let mut pack = PackWriter::create(&path, identity).unwrap();
    let kind = MemberKind::File { size: BYTES as u64, ranges: vec![Range { offset: 0, len: BYTES as u64 }] };
    let member = Member {
        path: b"dir/file".to_vec(),
        kind,
        mode: 0o700,
        uid: 1,
        gid: 2,
        mtime: Time { secs: 5, nanos: 6 },
        xattrs: Vec::new(),
        ino: Ino(3),
    };
    pack.begin(&member).unwrap();
    pack.data(&crate::tree::noise(1, BYTES)).unwrap();
    pack.end().unwrap();
    let summary = pack.finish().unwrap();
    bucket.put(object, std::fs::read(&path).unwrap());
    summary
}

fn write_run<'a>(bucket: &Bucket, object: String, part: impl Iterator<Item = (&'a Key, &'a Value)>) -> RunEntry {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let mut run = RunWriter::create(&path, Xid(0), XID).unwrap();
    for (key, value) in part {
        run.push(key.as_bytes(), &value.encode(XID)).unwrap();
    }
    let summary = run.finish().unwrap();
    bucket.put(&object, std::fs::read(&path).unwrap());
    let root = format!("{:032x}", u128::from_be_bytes(summary.root));
    let (size, records) = (summary.size, summary.records);
    RunEntry { object, size, root, xid_from: 0, xid: XID.0, records, ino_from: None }
}

impl Made {
    /// `/dir/file` with a second name `/link` and bytes in a pack, `/small` with inline bytes, `/dir/sub`.
    fn new() -> Self {
        let bucket = Bucket::new(Arc::new(MemoryStore::new()));
        let op = Uuid::from_u128(3);
        let object = bucket.name.pack_object(1, XID.0, op, 0);
        let pack = write_pack(&bucket, &object);
        let frame = pack.frames[1];
        let file = InodeValue { size: 6000, stored: BYTES as u64, ..inode(FileKind::Regular, 2, 2, "file") };
        let small = InodeValue { size: 3, stored: 3, ..inode(FileKind::Regular, 1, 1, "small") };
        let link =
            InodeValue { size: 2, target: Bytes::from_static(b"to"), ..inode(FileKind::Symlink, 1, 2, "symlink") };
        let in_frame = Place::Frame { frame, within: frame.raw_len - 1024 - 120 - BYTES as u32 };
        let inline = Place::Inline(Bytes::from_static(b"abc"));
        let live = PackValue { object: object.clone(), size: pack.size, live: BYTES as u64, raw: pack.raw };
        let records = [
            (Key::inode(Ino(1)), Value::Inode(inode(FileKind::Directory, 3, 1, "").into())),
            (Key::dirent(Ino(1), b"dir"), dirent(2, FileKind::Directory)),
            (Key::dirent(Ino(1), b"link"), dirent(3, FileKind::Regular)),
            (Key::dirent(Ino(1), b"small"), dirent(4, FileKind::Regular)),
            (Key::inode(Ino(2)), Value::Inode(inode(FileKind::Directory, 3, 1, "dir").into())),
            (Key::dirent(Ino(2), b"file"), dirent(3, FileKind::Regular)),
            (Key::dirent(Ino(2), b"sub"), dirent(5, FileKind::Directory)),
            (Key::dirent(Ino(2), b"symlink"), dirent(6, FileKind::Symlink)),
            (Key::inode(Ino(3)), Value::Inode(file.into())),
            (Key::window(Ino(3), 0), window(Extent { start: 0, len: BYTES as u32, place: in_frame })),
            (Key::xattr(Ino(3), b"user.x"), Value::Xattr(Bytes::from_static(b"y"))),
            (Key::inode(Ino(4)), Value::Inode(small.into())),
            (Key::window(Ino(4), 0), window(Extent { start: 0, len: 3, place: inline })),
            (Key::inode(Ino(5)), Value::Inode(inode(FileKind::Directory, 2, 2, "sub").into())),
            (Key::inode(Ino(6)), Value::Inode(link.into())),
            (Key::pack(PackNo(0)), Value::Pack(live)),
        ];
        let hash = blake3::Hash::from_bytes(pack.hash).to_hex().to_string();
        let entry = SnapshotEntry {
            id: Uuid::from_u128(11),
            name: Some("made".into()),
            snapshot_kind: "user".into(),
            key: None,
            listing: None,
            epoch: 1,
            parent: None,
            xid_from: 0,
            xid: XID.0,
            requested: jiff::Timestamp::UNIX_EPOCH,
            ino_end: 7,
            pack_end: 1,
            inodes: 6,
            bytes: 6003,
            uploaded: 0,
            runs: Vec::new(),
            packs_new: vec![PackEntry { number: 0, object, size: pack.size, hash }],
            packs_dead: Vec::new(),
            runs_dead: Vec::new(),
            features: Vec::new(),
        };
        Self { bucket, records: records.into(), entry, frame, parts: vec![(0, None)] }
    }

    fn inode(&mut self, ino: u64, change: impl FnOnce(&mut InodeValue)) {
        let Some(Value::Inode(inode)) = self.records.get_mut(&Key::inode(Ino(ino))) else { panic!("no inode {ino}") };
        change(Arc::make_mut(inode));
    }

    fn pack(&mut self, change: impl FnOnce(&mut PackValue)) {
        let Some(Value::Pack(pack)) = self.records.get_mut(&Key::pack(PackNo(0))) else { panic!("no pack") };
        change(pack);
    }

    fn extent(&mut self, ino: u64, change: impl FnOnce(&mut Extent)) {
        let Some(Value::Window(window)) = self.records.get_mut(&Key::window(Ino(ino), 0)) else { panic!("no window") };
        change(&mut Arc::make_mut(window).extents[0]);
    }

    fn put(&mut self, key: Key, value: Value) {
        self.records.insert(key, value);
    }

    fn put_acl(&mut self, ino: u64, name: &[u8], entries: &[(u16, u16, u32)]) {
        self.put(Key::xattr(Ino(ino), name), acl_of(entries));
    }

    /// With ACLs of `/dir/file`, `/dir` and `/dir/sub`.
    fn with_acls(&mut self) {
        let object = self.bucket.name.config_object();
        let mut config = FsConfig::parse(&self.bucket.name, &self.bucket.get(&object)).unwrap();
        config.features.push(POSIX_ACL.to_owned());
        self.bucket.put(&object, config.encode().unwrap());
        for ino in [3, 5] {
            self.inode(ino, |inode| inode.mode = 0o4750);
            self.put_acl(ino, acl::ACCESS, NAMED);
        }
        for ino in [2, 5] {
            self.put_acl(ino, acl::DEFAULT, if ino == 2 { NAMED } else { PLAIN });
        }
    }

    fn remove(&mut self, key: &Key) {
        self.records.remove(key).unwrap();
    }

    /// Writes the run and makes the snapshot official.
    fn publish(mut self) -> Bucket {
        for (n, (from, told)) in self.parts.iter().enumerate() {
            let end = self.parts.get(n + 1).map_or(u64::MAX, |next| next.0 - 1);
            let part = self.records.iter().filter(|(key, _)| (*from..=end).contains(&key.split().0.0));
            let object = self.bucket.name.run_object(1, XID.0, Uuid::from_u128(3), n as u32);
            self.entry.runs.push(RunEntry { ino_from: *told, ..write_run(&self.bucket, object, part) });
        }
        let writer = Writer { node: Uuid::from_u128(1), incarnation: Uuid::from_u128(2), host: "made".into() };
        let ledger = Ledger::new(Arc::clone(&self.bucket.store), self.bucket.name.clone());
        let appender = Appender::new(ledger, Arc::new(MemoryIntents::default()), writer);
        self.bucket.runtime.block_on(async {
            appender.claim_first_epoch().await.unwrap();
            appender.publish_snapshot(&self.entry).await.unwrap();
        });
        self.bucket
    }
}

#[test]
fn what_is_made_by_hand_is_sound() {
    Made::new().publish().check_sound();
}

#[test]
fn a_run_in_parts_is_sound() {
    let mut made = Made::new();
    made.parts = vec![(0, Some(0)), (3, Some(3)), (4, Some(4)), (u64::MAX, Some(9))];
    made.publish().check_sound();
}

#[test]
fn acls_are_sound_where_the_config_has_them_and_nobody_knows_without_a_config() {
    let mut made = Made::new();
    made.with_acls();
    let bucket = made.publish();
    bucket.check_sound();
    bucket.delete(&bucket.name.config_object());
    let (_, told) = bucket.verify(&deep());
    let problems: Vec<_> = told.damage().iter().map(|finding| finding.problem).collect();
    assert_eq!(problems, [Problem::Missing]);
}

/// One contradiction, and what is told of it.
type Case = (&'static str, Problem, &'static str, fn(&mut Made));

const CASES: &[Case] = &[
    ("links of a file", Problem::Tree, "2 names and 3 links", |m| m.inode(3, |i| i.nlink = 3)),
    ("no links", Problem::Tree, "no links", |m| m.inode(4, |i| i.nlink = 0)),
    ("links of a directory", Problem::Tree, "1 subdirectories has 4 links", |m| m.inode(2, |i| i.nlink = 4)),
    ("a dangling name", Problem::Tree, "no such inode", |m| {
        m.put(Key::dirent(Ino(2), b"x"), dirent(9, FileKind::Fifo));
    }),
    ("a lost name", Problem::Tree, "0 names and 1 links", |m| m.remove(&Key::dirent(Ino(1), b"small"))),
    ("another kind", Problem::Tree, "another kind", |m| {
        m.put(Key::dirent(Ino(1), b"small"), dirent(4, FileKind::Fifo));
    }),
    ("another parent", Problem::Tree, "another parent", |m| m.inode(5, |i| i.parent = Ino(1))),
    ("two names of a directory", Problem::Tree, "a directory with 2 names", |m| {
        m.put(Key::dirent(Ino(5), b"up"), dirent(2, FileKind::Directory));
    }),
    ("a cycle", Problem::Tree, "its own ancestor", |m| {
        m.remove(&Key::dirent(Ino(1), b"dir"));
        m.put(Key::dirent(Ino(5), b"dir"), dirent(2, FileKind::Directory));
        m.inode(2, |i| i.parent = Ino(5));
        m.inode(5, |i| i.nlink = 3);
        m.inode(1, |i| i.nlink = 2);
    }),
    ("no root", Problem::Tree, "no root directory", |m| {
        m.remove(&Key::inode(Ino(1)));
    }),
    ("entries of a file", Problem::Tree, "is no directory", |m| {
        m.put(Key::dirent(Ino(4), b"x"), dirent(3, FileKind::Regular));
    }),
    ("bytes of a directory", Problem::Tree, "no regular file", |m| {
        let inline = Place::Inline(Bytes::from_static(b"a"));
        m.put(Key::window(Ino(5), 0), window(Extent { start: 0, len: 1, place: inline }));
    }),
    ("an xattr of nobody", Problem::Tree, "no such inode", |m| {
        m.put(Key::xattr(Ino(8), b"user.x"), Value::Xattr(Bytes::new()));
    }),
    ("a number too high", Problem::Tree, "not below 6", |m| m.entry.ino_end = 6),
    ("the length of a symlink", Problem::Tree, "symbolic link of 2 bytes", |m| m.inode(6, |i| i.size = 3)),
    ("an ACL without the feature", Problem::Acl, "does not name the feature posix-acl", |m| {
        m.inode(3, |i| i.mode = 0o750);
        m.put_acl(3, acl::ACCESS, NAMED);
    }),
    ("a default ACL without the feature", Problem::Acl, "acl_default, and the config does not", |m| {
        m.put_acl(2, acl::DEFAULT, NAMED);
    }),
    ("another mode than the ACL's", Problem::Acl, "by it the mode is 4750, by the inode 4700", |m| {
        m.with_acls();
        m.inode(3, |i| i.mode = 0o4700);
    }),
    ("an ACL that a mode can say", Problem::Acl, "it says no more than the mode", |m| {
        m.with_acls();
        m.put_acl(4, acl::ACCESS, PLAIN);
    }),
    ("a default ACL of a file", Problem::Acl, "it is no directory", |m| {
        m.with_acls();
        m.put_acl(4, acl::DEFAULT, NAMED);
    }),
    ("an ACL without entries", Problem::Acl, "no entries", |m| {
        m.with_acls();
        m.put_acl(2, acl::DEFAULT, &[]);
    }),
    ("an ACL without a mask", Problem::Acl, "are not a valid ACL", |m| {
        m.with_acls();
        m.put_acl(2, acl::DEFAULT, &[(1, 7, !0), (2, 7, 7), (4, 0, !0), (32, 0, !0)]);
    }),
    ("bytes behind the end", Problem::Extent, "behind its end at 2", |m| {
        m.inode(4, |i| i.size = 2);
        m.entry.bytes -= 1;
    }),
    ("stored bytes", Problem::Extent, "its extents have 3 bytes", |m| m.inode(4, |i| i.stored = 4)),
    ("live bytes", Problem::PackUse, "files use 5000 bytes of pack 0, the index counts 4999", |m| {
        m.pack(|p| p.live = 4999);
    }),
    ("raw bytes", Problem::PackUse, "its frames have", |m| m.pack(|p| p.raw += 1)),
    ("another pack object", Problem::Manifest, "the index says that pack 0 is elsewhere", |m| {
        m.pack(|p| p.object = "elsewhere".into());
    }),
    ("a pack without record", Problem::Extent, "no record", |m| m.remove(&Key::pack(PackNo(0)))),
    ("a pack that is dead", Problem::PackUse, "dead or unknown", |m| {
        m.entry.packs_dead = vec![m.entry.packs_new[0].object.clone()];
    }),
    ("a pack number too high", Problem::Manifest, "not below", |m| m.entry.pack_end = 0),
    ("a frame behind the pack", Problem::Extent, "ends at byte", |m| {
        let frame = FrameRef { offset: 1 << 30, ..m.frame };
        m.extent(3, |e| e.place = Place::Frame { frame, within: 0 });
    }),
    ("a frame that is not there", Problem::Extent, "does not have", |m| {
        let frame = FrameRef { hash: [9; 16], ..m.frame };
        m.extent(3, |e| e.place = Place::Frame { frame, within: 0 });
    }),
    ("a frame of another length", Problem::Extent, "the seek table does not have", |m| {
        let frame = FrameRef { raw_len: m.frame.raw_len + 1, ..m.frame };
        m.extent(3, |e| e.place = Place::Frame { frame, within: 0 });
    }),
    ("sums of the manifest", Problem::Manifest, "counts 9 inodes", |m| m.entry.inodes = 9),
    ("a value of another kind", Problem::Malformed, "another kind", |m| {
        m.put(Key::inode(Ino(6)), dirent(1, FileKind::Fifo));
    }),
    ("bytes on one machine", Problem::Malformed, "one machine only", |m| {
        let blob = kvfs::schema::BlobRef { segment: kvfs::ids::SegmentNo(1), offset: 0, len: 9, crc: 0 };
        m.extent(4, |e| e.place = Place::Segment { blob, within: 0 });
    }),
    ("a name that cannot be", Problem::Malformed, "is not a key", |m| {
        m.put(Key::dirent(Ino(2), b".."), dirent(1, FileKind::Directory));
    }),
    ("a part with keys of the next one", Problem::Manifest, "listed as a part from 0 on", |m| {
        m.parts = vec![(0, Some(0)), (4, Some(3))];
    }),
    ("a part with keys of the one before", Problem::Manifest, "listed as a part from 5 on", |m| {
        m.parts = vec![(0, Some(0)), (4, Some(5))];
    }),
    ("no first part", Problem::Manifest, "has no part below inode 1", |m| {
        m.parts = vec![(0, Some(1)), (4, Some(4))];
    }),
    ("a wrong pack hash", Problem::WrongBytes, "all frames that files use are whole", |m| {
        m.entry.packs_new[0].hash = "00".repeat(32);
    }),
];

#[test]
fn every_contradiction_is_found_and_named() {
    for (what, problem, part, change) in CASES {
        let mut made = Made::new();
        change(&mut made);
        let bucket = made.publish();
        let (report, told) = bucket.verify(&deep());
        assert!(!report.is_sound(), "{what}: nothing was found");
        let hit = told.damage().into_iter().find(|f| f.problem == *problem && f.what.contains(part));
        let hit = hit.unwrap_or_else(|| panic!("{what}: {:#?}", told.findings));
        let names: Vec<_> = hit.snapshots.iter().filter_map(|snapshot| snapshot.name.as_deref()).collect();
        assert_eq!(names, ["made"], "{what}");
        if matches!(problem, Problem::Tree | Problem::Acl) && hit.inode == Some(3) {
            assert_eq!(hit.path.as_deref(), Some("/dir/file"), "{what}");
        }
    }
}
