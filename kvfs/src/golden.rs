//! Bytes that the first version wrote, committed: every later version reads them.
//!
//! `CBFS_TEST_BLESS=1` writes the files anew; that is right only before a format is released.

use crate::data::{DataOptions, DataStore};
use crate::ids::{Epoch, Ino, PackNo, SegmentNo, Xid};
use crate::journal::{Journal, JournalIdentity, JournalOptions};
use crate::op::{
    AllocateMode, AttributeChange, CopyRange, Entry, Evacuation, NewInode, Op, Payload, Privileges, Record, RenameMode,
    SnapshotKind, SnapshotRequest, XattrMode,
};
use crate::request::{Lane, RequestId, Requested};
use crate::schema::value::PackValue;
use crate::schema::{
    BlobRef, DirentValue, Extent, FileKind, FrameRef, InodeValue, PackUsersValue, Place, Time, UserRanges, Value,
    WindowValue,
};
use bytes::Bytes;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn is_to_be_blessed() -> bool {
    std::env::var_os("CBFS_TEST_BLESS").is_some()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// One line for each: its bytes, and what they mean.
fn check_lines<T: PartialEq + std::fmt::Debug>(
    name: &str,
    items: &[T],
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> T,
) {
    let lines: Vec<_> = items.iter().map(|item| hex(&encode(item))).collect();
    if is_to_be_blessed() {
        std::fs::write(fixture(name), lines.join("\n") + "\n").unwrap();
    }
    let text = std::fs::read_to_string(fixture(name)).unwrap();
    let golden: Vec<_> = text.lines().collect();
    assert_eq!(golden.len(), items.len(), "{name}");
    for ((line, today), item) in golden.iter().zip(&lines).zip(items) {
        let bytes: Vec<_> = line
            .as_bytes()
            .chunks(2)
            .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(&decode(&bytes), item, "{name}: what was written then");
        assert_eq!(line, today, "{name}: what is written today");
    }
}

fn time(secs: i64) -> Time {
    Time { secs, nanos: 999_999_999 }
}

fn inode(kind: FileKind, target: &'static [u8]) -> Value {
    Value::Inode(Arc::new(InodeValue {
        kind,
        mode: 0o6755,
        uid: 1000,
        gid: 70_000,
        nlink: 3,
        rdev: 0x0801,
        size: 1 << 40,
        stored: 300,
        atime: time(-1),
        mtime: time(i64::MIN),
        ctime: time(i64::MAX),
        parent: Ino(1 << 40 | 5),
        name: Bytes::from_static(b"na\xffme"),
        target: Bytes::from_static(target),
    }))
}

fn window() -> Value {
    let blob = BlobRef { segment: SegmentNo(300), offset: 4096, len: 100, crc: 0xdead_beef };
    let frame = FrameRef { pack: PackNo(7), offset: 1 << 33, stored_len: 500, raw_len: 1 << 20, hash: [0xab; 16] };
    let places = [
        (0, 4, Place::Inline(Bytes::from_static(b"abcd"))),
        (4, 50, Place::Segment { blob, within: 50 }),
        (1000, 1000, Place::Frame { frame, within: 17 }),
    ];
    let extents = places.into_iter().map(|(start, len, place)| Extent { start, len, place }).collect();
    Value::Window(Arc::new(WindowValue { extents }))
}

#[test]
fn values_of_format_1_are_read_for_ever() {
    let kinds = [
        FileKind::Regular,
        FileKind::Directory,
        FileKind::Symlink,
        FileKind::Fifo,
        FileKind::Socket,
        FileKind::CharDevice,
        FileKind::BlockDevice,
    ];
    let mut values = vec![Value::Tombstone, Value::Cut(1 << 20), window(), Value::Orphan];
    values.extend(kinds.map(|kind| inode(kind, if kind == FileKind::Symlink { b"to/x" } else { b"" })));
    values.push(Value::Window(Arc::default()));
    values.push(Value::Xattr(Bytes::from_static(&[0, 1, 2, 255])));
    values.push(Value::Dirent(DirentValue { ino: Ino(u64::MAX), kind: FileKind::BlockDevice }));
    let object = "home-1/pack/x.tar.zst".to_owned();
    values.push(Value::Pack(PackValue { object, size: 1 << 26, live: 5, raw: u64::MAX }));
    let mut users = UserRanges::default();
    for ino in [5, 6, 300, 1 << 40] {
        users.insert(Ino(ino));
    }
    values.push(Value::PackUsers(PackUsersValue::new(1 << 26, users)));
    let xid = Xid(0x0102_0304_0506_0708);
    let decode = |bytes: &[u8]| {
        let (found, value) = Value::decode(bytes).unwrap();
        assert_eq!(found, xid);
        value
    };
    check_lines("values-1.txt", &values, |value| value.encode(xid).to_vec(), decode);
}

fn operations() -> Vec<Op> {
    let ino = Ino(9);
    let privileges = Privileges::Drop;
    let entry = |name: &'static [u8]| Entry { parent: Ino::ROOT, name: Bytes::from_static(name) };
    let target = Bytes::from_static(b"target");
    let new = NewInode { ino, kind: FileKind::Symlink, mode: 0o700, uid: 1, gid: 2, rdev: 3, target };
    let change =
        AttributeChange { mode: Some(0o600), size: Some(1 << 33), mtime: Some(time(-5)), ..Default::default() };
    let range = CopyRange { from: ino, from_offset: 1, to: Ino(10), to_offset: 2, len: 3 };
    let request = SnapshotRequest {
        id: Uuid::from_u128(1),
        name: Some("before".into()),
        kind: SnapshotKind::Periodic,
        key: Some(Uuid::from_u128(2)),
        requested: time(7),
    };
    let name = Bytes::from_static(b"user.a");
    let frame = FrameRef { pack: PackNo(7), offset: 1 << 33, stored_len: 500, raw_len: 1 << 20, hash: [0xab; 16] };
    let acl = Bytes::from_static(crate::acl::ACCESS);
    let file = NewInode { ino: Ino(11), kind: FileKind::Regular, target: Bytes::new(), ..new.clone() };
    vec![
        Op::Root(new.clone()),
        Op::Make { at: entry(b"a"), inode: new },
        Op::Link { ino, at: entry(b"b") },
        Op::Unlink { at: entry(b"b") },
        Op::Rmdir { at: entry(b"d") },
        Op::Rename { from: entry(b"a"), to: entry(b"c"), mode: RenameMode::Exchange },
        Op::SetAttributes { ino, change, privileges },
        Op::Write { ino, offset: 1 << 40, len: 4, privileges },
        Op::Allocate { ino, offset: 5, len: 6, mode: AllocateMode::ZeroRangeKeepSize, privileges },
        Op::SetXattr { ino, name: name.clone(), value: Bytes::from_static(b"v"), mode: XattrMode::Replace },
        Op::RemoveXattr { ino, name },
        Op::Purge { ino },
        Op::Snapshot(request),
        Op::Epoch { epoch: Epoch(2) },
        Op::CopyRange { range, privileges },
        Op::PurgeAll { inos: vec![Ino((1 << 40) + 2), Ino((1 << 40) + 3)] },
        Op::Evacuate(Evacuation { ino, offset: 1 << 40, len: 8, frame, within: 17 }),
        Op::MakeWithAcls { at: entry(b"e"), inode: file, acls: vec![(acl.clone(), Bytes::from_static(b"access"))] },
        Op::SetAcl { ino, change, privileges, name: acl.clone(), value: Some(Bytes::from_static(b"other")) },
        Op::SetAcl { ino, change, privileges, name: acl, value: None },
    ]
}

fn records() -> Vec<Record> {
    let blob = BlobRef { segment: SegmentNo(1), offset: 4096, len: 4, crc: 7 };
    let id = RequestId { connection: 0x1234_5678, unique: 1 << 40 };
    let requested = Requested { id, lane: Lane { life: 2, thread: 3 } };
    let payload = |n: usize| match n % 3 {
        0 => Payload::None,
        1 => Payload::Inline(Bytes::from_static(b"abcd")),
        _ => Payload::Stored(vec![blob, blob]),
    };
    let record = |(n, op)| Record {
        time: time(n as i64),
        op,
        payload: payload(n),
        requested: (n % 2 == 0).then_some(requested),
    };
    operations().into_iter().enumerate().map(record).collect()
}

#[test]
fn journal_records_of_version_1_are_read_for_ever() {
    let encode = |record: &Record| postcard::to_stdvec(record).unwrap();
    check_lines("operations-1.txt", &records(), encode, |bytes| postcard::from_bytes(bytes).unwrap());
}

const IDENTITY: JournalIdentity = JournalIdentity { fs: Uuid::from_u128(0xf5), epoch: Epoch(3) };
const SMALL: JournalOptions = JournalOptions { segment_bytes: 8192, spares: 0 };
const DATA: DataOptions = DataOptions { segment_bytes: 16 << 10, spares: 0, max_bytes: None };

fn copy(from: &std::path::Path, to: &std::path::Path, ext: &str) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|found| found == ext) {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// 20 records of 300 bytes over two segments.
#[test]
fn journal_segments_of_version_1_are_read_for_ever() {
    let body = |n: u8| vec![n; 300];
    let dir = tempfile::tempdir().unwrap();
    if is_to_be_blessed() {
        let journal = Journal::open(dir.path(), IDENTITY, Xid(0), SMALL).unwrap().finish(Xid(0)).unwrap();
        for n in 1..=20 {
            journal.append(&body(n)).unwrap();
        }
        journal.flush().unwrap();
        copy(dir.path(), &fixture("journal-1"), "journal");
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture("journal-1"), dir.path(), "journal");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "two segments");
    let mut replay = Journal::open(dir.path(), IDENTITY, Xid(0), SMALL).unwrap();
    for n in 1..=20 {
        assert_eq!(replay.next().unwrap().unwrap(), (Xid(u64::from(n)), Bytes::from(body(n))));
    }
    assert_eq!(replay.next().unwrap(), None);
}

#[test]
fn data_segments_of_version_1_are_read_for_ever() {
    let blobs = [b"first blob".to_vec(), vec![7; 3000], Vec::new(), b"last".to_vec()];
    let (segment, at) = (SegmentNo(1), |n: usize| 4096 + blobs[..n].iter().map(Vec::len).sum::<usize>() as u32);
    if is_to_be_blessed() {
        let dir = tempfile::tempdir().unwrap();
        let store = DataStore::open(dir.path(), DATA).unwrap();
        for blob in &blobs {
            store.write(blob).unwrap();
        }
        store.flush().unwrap();
        copy(dir.path(), &fixture("data-1"), "data");
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture("data-1"), dir.path(), "data");
    let store = DataStore::open(dir.path(), DATA).unwrap();
    for (n, bytes) in blobs.iter().enumerate() {
        let blob = BlobRef { segment, offset: at(n), len: bytes.len() as u32, crc: crc32c::crc32c(bytes) };
        assert_eq!(store.read_all(&blob).unwrap(), bytes.as_slice(), "blob {n}");
    }
}
