//! Keys, values and the operations of the journal.

use crate::fuzz::{Target, verdict};
use bytes::Bytes;
use kvfs::ids::{PackNo, SegmentNo};
use kvfs::op::{Op, Payload, Privileges, Record, SnapshotKind, SnapshotRequest};
use kvfs::schema::key::Parts;
use kvfs::schema::value::PackValue;
use kvfs::schema::{
    BlobRef, DirentValue, Extent, FileKind, FrameRef, InodeValue, Key, PackUsersValue, Place, Space, Time, UserRanges,
    Value, WINDOW_BYTES, WindowValue,
};
use kvfs::{Epoch, Ino, Xid};
use std::sync::Arc;

pub const KEY: Target = Target { name: "key", seeds: keys, words: &["..", ".", "/", "\0"], parse: key };
pub const VALUE: Target = Target { name: "value", seeds: values, words: &[], parse: value };
pub const OPERATION: Target = Target { name: "operation", seeds: operations, words: &[], parse: operation };

fn keys() -> Vec<Vec<u8>> {
    let keys = [
        Key::inode(Ino(7)),
        Key::cut(Ino(7)),
        Key::window(Ino(7), 3),
        Key::xattr(Ino(7), b"user.a"),
        Key::dirent(Ino(7), b"name"),
        Key::orphan(Ino(9)),
        Key::pack(PackNo(5)),
        Key::pack_users(PackNo(5)),
    ];
    keys.map(Key::into_bytes).into()
}

/// A key that parses is what its constructor makes of its parts.
fn key(bytes: &[u8]) -> String {
    let Some(parts) = Parts::parse(bytes) else {
        assert!(Key::from_bytes(bytes).is_none());
        return "no key".into();
    };
    let key = Key::from_bytes(bytes).expect("the same check");
    let number = || parts.number().expect("a number");
    let again = match parts.space {
        Space::Inode => Key::inode(parts.ino),
        Space::Cut => Key::cut(parts.ino),
        Space::Window => Key::window(parts.ino, number()),
        Space::Xattr => Key::xattr(parts.ino, parts.rest),
        Space::Dirent => Key::dirent(parts.ino, parts.rest),
        Space::Orphan => Key::orphan(Ino(number())),
        Space::Pack => Key::pack(PackNo(number())),
        Space::PackUsers => Key::pack_users(PackNo(number())),
    };
    assert_eq!(again, key, "a key of another shape is taken for one");
    let (ino, tail) = key.split();
    assert_eq!(Key::of_tail(ino, tail).as_ref(), Some(&key));
    assert!(Key::first_of(ino, parts.space) <= key && key < Key::end_of(ino, parts.space));
    assert!(key < Key::end_of_inode(ino));
    if parts.space == Space::Dirent {
        let plain = !parts.rest.iter().any(|byte| matches!(byte, 0 | b'/'));
        assert!(plain && parts.rest != b"." && parts.rest != b"..", "no name for a file: {:?}", parts.rest);
    }
    format!("{:?}", parts.space)
}

fn inode() -> InodeValue {
    let time = Time { secs: -5, nanos: 999_999_999 };
    InodeValue {
        kind: FileKind::Symlink,
        mode: 0o777,
        uid: 1,
        gid: 2,
        nlink: 1,
        rdev: 0,
        size: 6,
        stored: 0,
        atime: time,
        mtime: time,
        ctime: time,
        parent: Ino::ROOT,
        name: Bytes::from_static(b"name"),
        target: Bytes::from_static(b"target"),
    }
}

fn window() -> WindowValue {
    let blob = BlobRef { segment: SegmentNo(3), offset: 4096, len: 100, crc: 7 };
    let frame = FrameRef { pack: PackNo(2), offset: 512, stored_len: 300, raw_len: 1000, hash: [9; 16] };
    let places = [
        (0, 4, Place::Inline(Bytes::from_static(b"abcd"))),
        (10, 50, Place::Segment { blob, within: 50 }),
        (100, 1000, Place::Frame { frame, within: 0 }),
    ];
    WindowValue { extents: places.into_iter().map(|(start, len, place)| Extent { start, len, place }).collect() }
}

fn values() -> Vec<Vec<u8>> {
    let mut users = UserRanges::default();
    for ino in [3, 4, 90] {
        users.insert(Ino(ino));
    }
    let pack = PackValue { object: "fs/pack/1".into(), size: 10, live: 5, raw: 20 };
    let values = [
        Value::Tombstone,
        Value::Inode(Arc::new(inode())),
        Value::Cut(4),
        Value::Window(Arc::new(window())),
        Value::Xattr(Bytes::from_static(b"attribute")),
        Value::Dirent(DirentValue { ino: Ino(77), kind: FileKind::Directory }),
        Value::Orphan,
        Value::Pack(pack),
        Value::PackUsers(PackUsersValue::new(9, users)),
    ];
    values.iter().map(|value| value.encode(Xid(300)).to_vec()).collect()
}

/// What decodes comes back from its encoding; a window bears whatever is done with windows.
fn value(bytes: &[u8]) -> String {
    let (xid, value) = match Value::decode(bytes) {
        Ok(decoded) => decoded,
        Err(error) => return verdict(&format!("{error:?}")),
    };
    assert_eq!(Value::decode(&value.encode(xid)), Ok((xid, value.clone())));
    assert_eq!(Value::xid_of(bytes), Some(xid));
    assert_eq!(Value::is_tombstone(bytes), value == Value::Tombstone);
    match &value {
        Value::Window(window) => {
            use_window(window);
            format!("window of {}", window.extents.len().min(4))
        }
        Value::Inode(inode) => format!("{:?}", inode.kind),
        other => format!("{other:?}").chars().take_while(char::is_ascii_alphabetic).collect(),
    }
}

fn use_window(window: &WindowValue) {
    let end = WINDOW_BYTES as u32;
    let pieces = window.pieces(0, end);
    assert_eq!(pieces.iter().map(|(_, len, _)| u64::from(*len)).sum::<u64>(), WINDOW_BYTES);
    assert!(window.stored_bytes() <= WINDOW_BYTES);
    let cut = window.extents.first().map_or(1, |extent| extent.start + extent.len / 2);
    let mut changed = window.clone();
    changed.put(Extent { start: cut.min(end - 2), len: 2, place: Place::Inline(Bytes::from_static(b"xy")) });
    assert!(changed.is_sound(), "{changed:?}");
    changed.clear(0, end);
    assert!(changed.is_empty());
}

fn operations() -> Vec<Vec<u8>> {
    let seed = |op: Op, payload: Payload| {
        let record = Record { time: Time { secs: 1, nanos: 2 }, op, payload, requested: None };
        postcard::to_stdvec(&record).expect("encodes")
    };
    let write = Op::Write { ino: Ino(7), offset: 10, len: 4, privileges: Privileges::Keep };
    let blob = BlobRef { segment: SegmentNo(3), offset: 4096, len: 4, crc: 7 };
    let request = SnapshotRequest {
        id: uuid::Uuid::from_u128(1),
        name: Some("name".into()),
        kind: SnapshotKind::User,
        key: None,
        requested: Time::default(),
    };
    vec![
        seed(write.clone(), Payload::Inline(Bytes::from_static(b"abcd"))),
        seed(write, Payload::Stored(vec![blob])),
        seed(Op::Snapshot(request), Payload::None),
        seed(Op::Epoch { epoch: Epoch(2) }, Payload::None),
    ]
}

fn operation(bytes: &[u8]) -> String {
    match postcard::from_bytes::<Record>(bytes) {
        Ok(record) => {
            let again = postcard::to_stdvec(&record).expect("encodes");
            assert_eq!(postcard::from_bytes::<Record>(&again).as_ref(), Ok(&record));
            let _ = record.done_request();
            format!("{:?}", record.op).chars().take_while(char::is_ascii_alphabetic).collect()
        }
        Err(error) => verdict(&error),
    }
}
