use super::{CheckpointMark, Layer, LayerMeta, create, list};
use crate::base::Totals;
use crate::ids::{Ino, Xid};
use crate::request::DoneRequests;
use crate::schema::{Key, Value};
use bytes::Bytes;

const FILES: u64 = 40_000;

/// Ten to a page of LMDB, or fewer.
fn value(round: u8, ino: u64) -> Value {
    Value::Xattr(Bytes::from(vec![round ^ ino as u8; 400 + (ino % 7) as usize * 100]))
}

fn key(ino: u64) -> Key {
    Key::xattr(Ino(ino), b"user.a")
}

fn mark(applied: u64) -> CheckpointMark {
    let (ino_end, totals, requests) = (Ino(FILES + 1), Totals::default(), DoneRequests::default());
    CheckpointMark { applied: Xid(applied), ino_end, totals, requests, seal: None }
}

/// One transaction changes more pages than LMDB keeps in memory (4,095, see `Cargo.toml`): some are written before it
/// commits, and some of those are changed again.
#[test]
fn a_checkpoint_may_change_more_pages_than_lmdb_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let meta = LayerMeta {
        number: 0,
        xid_from: Xid(0),
        applied: Xid(0),
        ino_floor: Ino(u64::MAX),
        ino_end: Ino(0),
        totals: Totals::default(),
        hiding: false,
        requests: DoneRequests::default(),
        sealed: None,
    };
    let layer = create(dir.path(), &meta).unwrap();
    let mut writer = layer.checkpoint().unwrap();
    for ino in 1..=FILES {
        writer.put(&key(ino), Xid(1), &value(1, ino)).unwrap();
    }
    writer.commit(mark(1)).unwrap();
    // What is thrown away changes nothing, although most of it was written.
    let mut dropped = layer.checkpoint().unwrap();
    for ino in 1..=FILES {
        dropped.put(&key(ino), Xid(2), &value(2, ino)).unwrap();
    }
    drop(dropped);
    let mut writer = layer.checkpoint().unwrap();
    for pass in [7919, 104_729] {
        for n in 0..FILES {
            let ino = n * pass % FILES + 1;
            let new = if ino.is_multiple_of(5) { Value::Tombstone } else { value(3, ino) };
            writer.put(&key(ino), Xid(3), &new).unwrap();
        }
    }
    writer.commit(mark(3)).unwrap();
    drop(layer);
    let path = list(dir.path()).unwrap().remove(0);
    let layer = Layer::open(&path).unwrap();
    for ino in 1..=FILES {
        let expected = if ino.is_multiple_of(5) { Value::Tombstone } else { value(3, ino) }.encode(Xid(3));
        assert!(layer.read(key(ino).as_bytes(), |bytes| bytes == expected).unwrap().unwrap(), "inode {ino}");
    }
    let mut count = 0;
    layer
        .scan(&[], &[0xff; 9], &mut |_, _| {
            count += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(count, FILES);
}
