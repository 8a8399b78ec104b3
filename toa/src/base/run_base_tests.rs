//! The base against a model, its frames, and what it needs of the network.

use super::test_store::Fault;
use super::tests::{MIB, World, noise, settle};
use super::visible::OpenTree;
use super::*;
use crate::run::{RunWriter, hash128};
use bytes::Bytes;
use cloud_mgmt::ledger::{RunEntry, SnapshotEntry};
use kvfs::base::{Base, BaseError};
use kvfs::ids::PackNo;
use kvfs::schema::value::PackValue;
use kvfs::schema::{FrameRef, Key, Space, Value};
use kvfs::{Ino, Xid};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

pub(super) type Change = BTreeMap<Vec<u8>, Value>;

/// Writes the changes of each age (oldest first) as a run each; the ledger's entry for them.
pub(super) fn publish(world: &World, ages: &[Change]) -> SnapshotEntry {
    publish_split(world, ages, |_| vec![0])
}

/// The same with the parts of each age: the first inode of each, from 0.
pub(super) fn publish_split(world: &World, ages: &[Change], parts: impl Fn(usize) -> Vec<u64>) -> SnapshotEntry {
    let mut runs = Vec::new();
    for (age, changes) in ages.iter().enumerate() {
        let froms = parts(age);
        let written = froms.iter().enumerate().map(|(n, from)| {
            let last = froms.get(n + 1).map_or(u64::MAX, |next| next - 1);
            let is_in = |key: &[u8]| (*from..=last).contains(&u64::from_be_bytes(*key.first_chunk().unwrap()));
            let part = changes.iter().filter(|(key, _)| is_in(key));
            let object = if froms.len() == 1 { format!("fs/idx/{age}.run") } else { format!("fs/idx/{age}-{n}.run") };
            RunEntry { ino_from: (froms.len() > 1).then_some(*from), ..write_part(world, object, age as u64, part) }
        });
        runs.splice(0..0, written.collect::<Vec<_>>());
    }
    SnapshotEntry {
        id: uuid::Uuid::nil(),
        name: None,
        snapshot_kind: "user".into(),
        key: None,
        epoch: 1,
        parent: None,
        xid_from: ages.len() as u64 - 1,
        xid: ages.len() as u64,
        requested: jiff::Timestamp::UNIX_EPOCH,
        ino_end: 100,
        pack_end: 10,
        inodes: 5,
        bytes: 50,
        uploaded: 0,
        runs,
        packs_new: Vec::new(),
        packs_dead: Vec::new(),
        runs_dead: Vec::new(),
        features: Vec::new(),
        listing: None,
    }
}

fn write_part<'a>(
    world: &World,
    object: String,
    age: u64,
    changes: impl Iterator<Item = (&'a Vec<u8>, &'a Value)>,
) -> RunEntry {
    let path = world.dir.path().join("tmp/writing");
    let mut writer = RunWriter::create(&path, Xid(age), Xid(age + 1)).unwrap();
    for (key, value) in changes {
        writer.push(key, &value.encode(Xid(age + 1))).unwrap();
    }
    let summary = writer.finish().unwrap();
    world.put(&object, std::fs::read(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    RunEntry {
        object,
        size: summary.size,
        root: format!("{:032x}", u128::from_be_bytes(summary.root)),
        xid_from: summary.xid_from.0,
        xid: summary.xid.0,
        records: summary.records,
        ino_from: None,
    }
}

/// Plays the changes one after the other: what the filesystem looks like after the last.
pub(super) fn play(ages: &[Change]) -> BTreeMap<Vec<u8>, Value> {
    let mut state = BTreeMap::new();
    for changes in ages {
        for (key, value) in changes {
            let ino = Ino(u64::from_be_bytes(key[..8].try_into().unwrap()));
            let space = key[8];
            if space == Space::Cut as u8 {
                let Value::Cut(first) = value else { continue };
                let dead =
                    Key::window(ino, *first).as_bytes().to_vec()..Key::end_of(ino, Space::Window).as_bytes().to_vec();
                state.retain(|key, _| !dead.contains(key));
            }
            if space == Space::Inode as u8 && *value == Value::Tombstone {
                let dead = Key::cut(ino).as_bytes().to_vec()..Key::end_of(ino, Space::Xattr).as_bytes().to_vec();
                state.retain(|key, _| !dead.contains(key));
            }
        }
        for (key, value) in changes.iter().filter(|(key, _)| key[8] != Space::Cut as u8) {
            match value {
                Value::Tombstone => state.remove(key),
                value => state.insert(key.clone(), value.clone()),
            };
        }
    }
    state
}

pub(super) fn scanned(base: &dyn Base, from: &[u8], end: &[u8]) -> Vec<(Vec<u8>, Value)> {
    settle(|| {
        let mut found = Vec::new();
        base.scan(from, end, &mut |key, value| {
            found.push((key.to_vec(), Value::decode(value).unwrap().1));
            ControlFlow::Continue(())
        })?;
        Ok(found)
    })
    .unwrap()
}

pub(super) fn change() -> impl Strategy<Value = (Vec<u8>, Value)> {
    let ino = (1..5_u64).prop_map(Ino);
    let bytes = prop::collection::vec(any::<u8>(), 0..6).prop_map(|b| Value::Xattr(Bytes::from(b)));
    let maybe = |value: BoxedStrategy<Value>| prop_oneof![3 => value, 1 => Just(Value::Tombstone)];
    let inode = (ino.clone(), maybe(bytes.clone().boxed())).prop_map(|(ino, v)| (Key::inode(ino), v));
    let cut = (ino.clone(), maybe((0..6_u64).prop_map(Value::Cut).boxed())).prop_map(|(ino, v)| (Key::cut(ino), v));
    // Any value does: the base does not look into what it passes on.
    let window = (ino.clone(), 0..6_u64, maybe(bytes.clone().boxed())).prop_map(|(i, w, v)| (Key::window(i, w), v));
    let xattr = (ino.clone(), 0..3_u8, maybe(bytes.clone().boxed())).prop_map(|(i, n, v)| (Key::xattr(i, &[n]), v));
    let dirent = (ino, b'a'..b'd', maybe(bytes.boxed())).prop_map(|(i, n, v)| (Key::dirent(i, &[n]), v));
    prop_oneof![2 => inode, 2 => cut, 6 => window, 2 => xattr, 2 => dirent]
        .prop_map(|(key, value)| (key.as_bytes().to_vec(), value))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_stack_of_runs_shows_what_was_played(
        ages in prop::collection::vec(prop::collection::vec(change(), 0..25).prop_map(Change::from_iter), 1..6),
        from in change(), end in change(),
    ) {
        let world = World::new(16 * MIB);
        let entry = publish(&world, &ages);
        let base = RunBase::open(&world.objects, &entry).unwrap();
        let model = play(&ages);
        let every: std::collections::BTreeSet<_> = ages.iter().flat_map(Change::keys).collect();
        for key in every {
            let found = settle(|| base.get(key)).unwrap().map(|bytes| Value::decode(&bytes).unwrap().1);
            prop_assert_eq!(found.as_ref(), model.get(key), "key {:?}", key);
        }
        let all: Vec<_> = model.clone().into_iter().collect();
        prop_assert_eq!(scanned(&base, &[], &[0xff; 10]), all);
        if from.0 <= end.0 {
            let part: Vec<_> = model.range(from.0.clone()..end.0.clone()).map(|(k, v)| (k.clone(), v.clone())).collect();
            prop_assert_eq!(scanned(&base, &from.0, &end.0), part);
        }
    }
}

/// A pack of two frames, and a base whose newest run names it.
fn packed(world: &World) -> (SnapshotEntry, Vec<(FrameRef, Vec<u8>)>) {
    let mut pack = b"header".to_vec();
    let mut frames = Vec::new();
    for fill in [7_u8, 9] {
        let raw = vec![fill; 70_000];
        let stored = zstd::bulk::compress(&raw, 3).unwrap();
        let frame = FrameRef {
            pack: PackNo(3),
            offset: pack.len() as u64,
            stored_len: stored.len() as u32,
            raw_len: raw.len() as u32,
            hash: hash128(&stored),
        };
        pack.extend_from_slice(&stored);
        frames.push((frame, raw));
    }
    let size = pack.len() as u64;
    world.put("fs/pack/3.tar.zst", pack);
    let record = PackValue { object: "fs/pack/3.tar.zst".into(), size, live: 1, raw: 2 };
    let old: Change = [(Key::pack(PackNo(3)).as_bytes().to_vec(), Value::Pack(record))].into();
    let new: Change = (0..2_000).map(|n| (Key::window(Ino(9), n).as_bytes().to_vec(), Value::Tombstone)).collect();
    (publish(world, &[old, new]), frames)
}

#[test]
fn frames_come_from_the_pack_that_the_index_names() {
    let world = World::new(64 * MIB);
    let (entry, frames) = packed(&world);
    let base = RunBase::open(&world.objects, &entry).unwrap();
    assert_eq!((base.xid(), base.ino_end(), base.totals().inodes), (Xid(2), Ino(100), 5));
    for (frame, raw) in &frames {
        assert_eq!(settle(|| base.read_frame(frame)).unwrap(), raw);
    }
    let (good, _) = &frames[0];
    for bad in [
        FrameRef { raw_len: good.raw_len + 1, ..*good },
        FrameRef { raw_len: u32::MAX, ..*good },
        FrameRef { offset: good.offset + 1, ..*good },
        FrameRef { offset: u64::MAX, ..*good },
        FrameRef { pack: PackNo(4), ..*good },
    ] {
        let answer = settle(|| base.read_frame(&bad));
        assert!(matches!(answer, Err(BaseError::Corrupt(_))), "{bad:?} {answer:?}");
    }
}

#[test]
fn a_base_opens_with_one_request_per_run() {
    let world = World::new(64 * MIB);
    let (entry, _) = packed(&world);
    let base = RunBase::open(&world.objects, &entry).unwrap();
    assert_eq!(world.requests(), 2);
    assert!(base.get(Key::window(Ino(9), 5).as_bytes()).unwrap().is_none());
    assert_eq!(world.requests(), 2, "small runs came with their tails");
}

#[test]
fn a_local_base_needs_no_store() {
    let world = World::new(64 * MIB);
    let (entry, frames) = packed(&world);
    let base = RunBase::open(&world.objects, &entry).unwrap();
    base.make_local().unwrap();
    base.make_local().unwrap();
    for frame in &frames {
        settle(|| base.read_frame(&frame.0)).unwrap();
    }
    let before = world.requests();
    drop(base);
    let World { dir, runtime, store, objects } = world;
    drop(objects);
    *store.fault.lock() = Fault::Hang;
    // Room for the pinned runs alone: everything else is evicted.
    let objects = World::objects(&dir, entry.runs.iter().map(|run| run.size).sum(), &store, &runtime);
    let base = RunBase::open(&objects, &entry).unwrap();
    base.make_local().unwrap();
    assert_eq!(base.get(Key::window(Ino(9), 5).as_bytes()).unwrap(), None);
    assert!(base.get(Key::pack(PackNo(3)).as_bytes()).unwrap().is_some());
    assert_eq!(store.requests.lock().len(), before);
    assert!(matches!(base.read_frame(&frames[0].0), Err(BaseError::NotResident(_))));
    objects.proxy().keep_only(&base.run_objects()).unwrap();
    assert_eq!(objects.proxy().usage().cached, 0);
    objects.proxy().keep_only(&[]).unwrap();
    assert_eq!(objects.proxy().usage().pinned, 0);
}

#[test]
fn a_proxy_without_room_for_the_runs_says_so() {
    let world = World::new(100);
    let (entry, _) = packed(&world);
    let base = RunBase::open(&world.objects, &entry).unwrap();
    assert!(matches!(base.make_local(), Err(BaseError::Unavailable(text)) if text.contains("full")));
    assert_eq!(world.objects.proxy().usage().reserved, 0);
}

#[test]
fn an_exchanged_run_is_noticed_at_once() {
    let world = World::new(64 * MIB);
    let (entry, _) = packed(&world);
    let (newer, older) = (entry.runs[0].clone(), entry.runs[1].clone());
    let wrong = |change: &dyn Fn(&mut RunEntry)| {
        let mut entry = entry.clone();
        change(&mut entry.runs[0]);
        assert!(matches!(RunBase::open(&world.objects, &entry), Err(BaseError::Corrupt(_))), "{:?}", entry.runs[0]);
    };
    wrong(&|run| run.root.clone_from(&older.root));
    wrong(&|run| run.root = "xyz".into());
    wrong(&|run| run.records += 1);
    wrong(&|run| run.xid_from = 0);
    wrong(&|run| run.size = 5);
    wrong(&|run| run.size -= 1);
    world.store.objects.lock().remove(&newer.object);
    world.objects.proxy().forget(&newer.object, 0..newer.size);
    assert!(matches!(RunBase::open(&world.objects, &entry), Err(BaseError::Gone(_))));
}

#[test]
fn every_wrong_byte_of_a_run_in_the_store_is_an_error_or_unread() {
    let world = World::new(64 * MIB);
    let change = |n: u64| (Key::xattr(Ino(n), b"user.a").as_bytes().to_vec(), Value::Xattr(Bytes::from(noise(n % 40))));
    let ages = [(1..900).map(change).collect::<Change>()];
    let entry = publish(&world, &ages);
    let sound = world.store.objects.lock()["fs/idx/0.run"].to_vec();
    for at in (0..sound.len()).step_by(977) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        world.put("fs/idx/0.run", bytes);
        world.objects.proxy().forget("fs/idx/0.run", 0..sound.len() as u64);
        let Ok(base) = RunBase::open(&world.objects, &entry) else { continue };
        for (key, value) in ages[0].iter().step_by(5) {
            match settle(|| base.get(key)) {
                Ok(found) => assert_eq!(found, Some(value.encode(Xid(1)))),
                Err(error) => assert!(matches!(error, BaseError::Corrupt(_)), "{error}"),
            }
        }
    }
}

#[test]
fn runs_can_be_read_one_by_one_for_merging() {
    let world = World::new(64 * MIB);
    let (entry, _) = packed(&world);
    let base = RunBase::open(&world.objects, &entry).unwrap();
    world.objects.proxy().forget("fs/idx/1.run", 0..entry.runs[0].size);
    let waiting = base.waiting();
    let trees = waiting.runs().iter().map(|run| run.parts[0].tree.tree().unwrap());
    let counts = trees.map(|tree| tree.cursor(&[]).collect::<Result<Vec<_>, _>>().unwrap().len());
    assert_eq!(counts.collect::<Vec<_>>(), [2_000, 1]);
    assert!(base.waiting().get(Key::window(Ino(9), 5).as_bytes()).unwrap().is_none());
}
