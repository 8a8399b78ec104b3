//! What is shipped, what is not, and which packs die.

use crate::sides::{Blobs, Changes, PackDir, Records, Run};
use crate::world::{Held, World, noise};
use kvfs::base::EmptyBase;
use kvfs::ids::{PackNo, SegmentNo};
use kvfs::schema::{BlobRef, Extent, FileKind, InodeValue, Key, Place, Value, WindowValue};
use kvfs::{Ino, Xid};
use toa::collect::{CollectErrorKind, CollectInput, Limits, Pins, collect};
use uuid::Uuid;

fn raw(collected: &toa::collect::Collected) -> u64 {
    collected.packs.iter().map(|pack| pack.summary.raw).sum()
}

fn dead(collected: &toa::collect::Collected) -> Vec<u64> {
    collected.packs_dead.iter().map(|pack| pack.number.0).collect()
}

#[test]
fn a_small_write_into_a_large_file_ships_a_small_part() {
    let mut world = World::new();
    let ino = world.file(Ino::ROOT, b"large", &noise(1, 5 << 20));
    assert!(raw(&world.snapshot()) > 5 << 20);
    world.write(ino, 3_000_000, &noise(2, 4096));
    let second = world.snapshot();
    world.verify();
    assert!(raw(&second) < 20_000, "{}", raw(&second));
    assert!(second.packs_dead.is_empty());
}

#[test]
fn changes_of_metadata_ship_nothing() {
    let mut world = World::new();
    let dir = world.make(FileKind::Directory, Ino::ROOT, b"dir");
    let ino = world.file(dir, b"file", &noise(1, 100_000));
    world.snapshot();
    world.rename((Ino::ROOT, b"dir"), (Ino::ROOT, b"other"));
    world.set_xattr(ino, b"user.x", Some(b"y"));
    let second = world.snapshot();
    world.verify();
    assert_eq!(second.packs, vec![]);
    assert_eq!(second.pack_end, PackNo(2), "no number is spent");
}

#[test]
fn a_pack_dies_with_its_last_byte() {
    let mut world = World::new();
    let first = world.file(Ino::ROOT, b"first", &noise(1, 2_500_000));
    world.snapshot();
    let second = world.file(Ino::ROOT, b"second", &noise(2, 50_000));
    world.snapshot();
    world.truncate(first, 1_000_000);
    assert_eq!(dead(&world.snapshot()), [] as [u64; 0]);
    world.write(first, 0, &noise(3, 1_000_000));
    assert_eq!(dead(&world.snapshot()), [1], "every byte of it was overwritten");
    world.unlink(Ino::ROOT, b"second", Held::No);
    let last = world.snapshot();
    world.verify();
    assert_eq!(dead(&last), [2]);
    assert_eq!(last.packs_dead[0].object, "pack/00000002.tar.zst");
    assert!(!world.base.records.contains_key(Key::pack(PackNo(2)).as_bytes()));
    assert!(!world.base.records.contains_key(Key::inode(second).as_bytes()));
}

#[test]
fn a_shared_pack_lives_as_long_as_anyone_uses_it() {
    let mut world = World::new();
    let from = world.file(Ino::ROOT, b"from", &noise(1, 1 << 20));
    world.snapshot();
    let to = world.make(FileKind::Regular, Ino::ROOT, b"to");
    world.share((from, 0), (to, 0), 1 << 20);
    // Once more, on another border, and a part of it within the file itself.
    world.share((from, 5_000), (to, (1 << 20) + 77), 1 << 20);
    world.share((to, 100), (to, 3 << 20), 300_000);
    let shared = world.snapshot();
    assert_eq!(shared.packs, vec![], "shared bytes are not shipped again");
    world.unlink(Ino::ROOT, b"from", Held::No);
    assert_eq!(dead(&world.snapshot()), [] as [u64; 0]);
    world.verify();
    world.truncate(to, 0);
    assert_eq!(dead(&world.snapshot()), [1]);
    world.verify();
}

#[test]
fn an_orphan_keeps_its_pack_until_it_is_released() {
    let mut world = World::new();
    world.file(Ino::ROOT, b"open", &noise(1, 200_000));
    world.snapshot();
    world.unlink(Ino::ROOT, b"open", Held::Open);
    let unlinked = world.snapshot();
    world.verify();
    assert_eq!(dead(&unlinked), [] as [u64; 0], "the mark among the changes is enough");
    world.pins.held.insert(PackNo(1));
    world.file(Ino::ROOT, b"more", &noise(2, 200_000));
    assert_eq!(dead(&world.snapshot()), [] as [u64; 0]);
    world.pins = Pins::default();
    assert_eq!(dead(&world.snapshot()), [1]);
    world.verify();
    assert_eq!(dead(&world.snapshot()), [] as [u64; 0], "told once");
}

#[test]
fn more_dead_packs_than_a_snapshot_can_tell_of_are_told_by_the_next_ones() {
    let mut world = World::new();
    world.limits.packs_dead_max = 3;
    let names: Vec<Vec<u8>> = (0..8u8).map(|n| vec![b'a' + n]).collect();
    for (n, name) in names.iter().enumerate() {
        world.file(Ino::ROOT, name, &noise(n as u64, 100_000));
        world.snapshot();
    }
    for name in &names {
        world.unlink(Ino::ROOT, name, Held::No);
    }
    assert_eq!(dead(&world.snapshot()), [1, 2, 3]);
    world.verify();
    world.file(Ino::ROOT, b"other", &noise(9, 100_000));
    assert_eq!(dead(&world.snapshot()), [4, 5, 6]);
    assert_eq!(dead(&world.snapshot()), [7, 8]);
    assert_eq!(dead(&world.snapshot()), [] as [u64; 0]);
    world.verify();
}

#[test]
fn small_files_stay_inline_and_many_share_a_frame() {
    let mut world = World::new();
    let tiny = world.file(Ino::ROOT, b"tiny", b"hello");
    for count in 0..200u64 {
        world.file(Ino::ROOT, format!("small-{count}").as_bytes(), &noise(count, 2000));
    }
    let collected = world.snapshot();
    world.verify();
    let value = &world.base.records[Key::window(tiny, 0).as_bytes()];
    let Value::Window(window) = Value::decode(value).unwrap().1 else { panic!("not a window") };
    assert!(matches!(window.extents[0].place, Place::Inline(_)));
    assert!(collected.packs[0].summary.frames.len() <= 5, "{:?}", collected.packs[0].summary.frames.len());
}

#[test]
fn packs_are_closed_near_their_target() {
    let mut world = World::new();
    world.limits = Limits { pack_bytes_target: 4 << 20, member_bytes_max: 4 << 20, ..Limits::default() };
    for count in 0..30u64 {
        world.file(Ino::ROOT, format!("f{count}").as_bytes(), &noise(count, 700_000));
    }
    world.file(Ino::ROOT, b"huge", &noise(99, 11 << 20));
    let collected = world.snapshot();
    world.verify();
    assert!((7..=12).contains(&collected.packs.len()), "{}", collected.packs.len());
    assert!(collected.packs.iter().all(|pack| pack.summary.size < 5 << 20));
}

#[test]
fn a_file_of_very_many_windows_is_collected_in_bounded_batches() {
    let mut world = World::new();
    let ino = world.make(FileKind::Regular, Ino::ROOT, b"scattered");
    for count in 0..400u64 {
        world.write(ino, count << 20, &noise(count, 400));
    }
    world.snapshot();
    world.verify();
    for count in (0..400u64).step_by(2) {
        world.write(ino, (count << 20) + 100, &noise(count + 1, 10));
    }
    world.truncate(ino, 390 << 20);
    world.snapshot();
    world.verify();
}

#[test]
fn very_many_records_do_not_wait_for_one_frame() {
    let mut world = World::new();
    let ino = world.file(Ino::ROOT, b"first", &noise(1, 2000));
    for count in 0..20_000 {
        world.link(ino, Ino::ROOT, format!("link-{count}").as_bytes());
        if count % 1000 == 0 {
            world.set_xattr(ino, b"user.count", Some(count.to_string().as_bytes()));
        }
    }
    let collected = world.snapshot();
    world.verify();
    assert_eq!(collected.records, 3 + 1 + 2 + 20_001);
}

/// As many bytes of the pack are in use as before, by an inode that it did not know.
#[test]
fn bytes_that_go_to_another_file_are_found_there() {
    let mut world = World::new();
    let from = world.file(Ino::ROOT, b"from", &noise(1, 5000));
    world.snapshot();
    for n in 0..50 {
        world.file(Ino::ROOT, format!("between {n}").as_bytes(), b"x");
    }
    let to = world.file(Ino::ROOT, b"to", b"");
    world.share((from, 0), (to, 0), 5000);
    world.unlink(Ino::ROOT, b"from", Held::No);
    world.snapshot();
    world.verify();
    assert_eq!(world.read(to), noise(1, 5000));
}

#[test]
fn what_never_lived_outside_leaves_nothing() {
    let mut world = World::new();
    world.snapshot();
    world.file(Ino::ROOT, b"temporary", &noise(1, 5000));
    world.unlink(Ino::ROOT, b"temporary", Held::No);
    world.file(Ino::ROOT, b"orphan", &noise(1, 5000));
    world.unlink(Ino::ROOT, b"orphan", Held::Open);
    let collected = world.snapshot();
    world.verify();
    assert_eq!(collected.packs, vec![]);
    // The first pack had the root's header and nothing that a file uses.
    assert_eq!(dead(&collected), [1]);
    let others = world.runs[0].keys().filter(|key| !key.starts_with(&1u64.to_be_bytes()));
    assert_eq!(others.count(), 2, "the root's names, the end of the pack and of its users");
}

#[test]
fn records_that_contradict_each_other_are_an_error() {
    let mut world = World::new();
    let ino = world.file(Ino::ROOT, b"f", b"x");
    let value = InodeValue { size: 1000, ..world.nodes[&ino].value.clone() };
    let inode = Value::Inode(value.into()).encode(Xid(1));
    let blob = BlobRef { segment: SegmentNo(9), offset: 0, len: 1000, crc: 0 };
    let extents = vec![Extent { start: 0, len: 1000, place: Place::Segment { blob, within: 0 } }];
    let lost = Value::Window(WindowValue { extents }.into()).encode(Xid(1));
    for (window, kind) in [(lost, CollectErrorKind::Io), (inode.clone(), CollectErrorKind::Corrupt)] {
        let mut records = Records::new();
        records.insert(Key::dirent(Ino::ROOT, b"f").into_bytes(), Value::Tombstone.encode(Xid(1)));
        records.insert(Key::inode(ino).into_bytes(), inode.clone());
        records.insert(Key::window(ino, 0).into_bytes(), window);
        let changes = Changes {
            records,
            blobs: Blobs::default(),
            xid_from: Xid(0),
            xid: Xid(2),
            ino_end: Ino(9),
            request: Changes::request(),
        };
        let input = CollectInput {
            changes: &changes,
            base: &EmptyBase,
            fs: Uuid::nil(),
            next_pack: PackNo(1),
            pins: &Pins::default(),
            limits: Limits::default(),
        };
        let error = collect(input, &mut PackDir::new(world.dir.path()), &mut Run::default()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn the_parts_of_one_window_may_lie_in_two_packs() {
    let mut world = World::new();
    world.limits = Limits { pack_bytes_target: 100_000, member_bytes_max: 1 << 20, ..Limits::default() };
    let ino = world.file(Ino::ROOT, b"f", &noise(1, 1 << 20));
    world.snapshot();
    for count in 0..8u64 {
        world.write(ino, count * 130_000, &noise(count + 2, 60_000));
    }
    assert!(world.snapshot().packs.len() > 2);
    world.verify();
}
