use super::choice::InUse;
use super::rows::survey;
use super::{Goal, Progress};
use crate::data::{DataOptions, Room};
use crate::engine::EngineOptions;
use crate::engine::testing::{Instance, options};
use crate::fs::FileSystem;
use crate::ids::{Ino, SegmentNo};
use crate::op::{SnapshotKind, SnapshotRequest};
use crate::schema::{Key, Place, Time, Value};
use crate::stack::{Change, ChangeList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use uuid::Uuid;

const FILE_BYTES: usize = 20_000;

fn content(file: usize, round: usize) -> Vec<u8> {
    (0..FILE_BYTES).map(|at| (at % 251) as u8 ^ file as u8 ^ (round * 37) as u8).collect()
}

/// Six files in a segment; of most segments one or two are left.
fn half_dead(instance: &Instance) -> Vec<(Ino, Vec<u8>)> {
    let files: Vec<Ino> = (0..60).map(|n| instance.make(&format!("f{n}"))).collect();
    for (n, file) in files.iter().enumerate() {
        instance.write(*file, 0, &content(n, 0));
    }
    instance.engine.checkpoint().unwrap();
    let mut left = Vec::new();
    for (n, file) in files.into_iter().enumerate() {
        if n % 4 == 0 {
            left.push((file, content(n, 0)));
        } else {
            instance.fs.unlink(Ino::ROOT, format!("f{n}").as_bytes()).unwrap();
            instance.fs.forgotten(file);
        }
    }
    instance.engine.checkpoint().unwrap();
    left
}

fn check(instance: &Instance, files: &[(Ino, Vec<u8>)]) {
    for (file, bytes) in files {
        assert!(instance.fs.read(*file, 0, u32::MAX).unwrap() == *bytes, "{file} shows other bytes");
    }
}

#[test]
fn half_dead_segments_come_back_and_files_show_the_same() {
    let instance = Instance::new(options());
    let files = half_dead(&instance);
    let before = instance.engine.data().used_bytes();
    assert!(before > 1_000_000, "vacuous: {before}");
    let applied = instance.engine.last_xid();
    instance.engine.compact(50).unwrap();
    assert_eq!(instance.engine.last_xid(), applied, "no record is needed");
    let after = instance.engine.data().used_bytes();
    assert!(after < 600_000, "{after} of {before}, for {} bytes", files.len() * FILE_BYTES);
    check(&instance, &files);
    let instance = instance.crash();
    check(&instance, &files);
    instance.engine.compact(50).unwrap();
    assert!(instance.engine.data().used_bytes() <= after, "there is nothing left to be gained");
}

#[test]
fn it_begins_by_itself_when_the_layer_holds_much() {
    let options = EngineOptions { compact_floor_bytes: 900_000, ..options() };
    let instance = Instance::new(options);
    let files = half_dead(&instance);
    // The checkpoint thread looks every tenth of a second.
    for _ in 0..300 {
        if instance.engine.data().used_bytes() < 700_000 {
            return check(&instance, &files);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{} bytes are still in use", instance.engine.data().used_bytes());
}

/// What is changed while a pass is under way names the old place until its checkpoint, which moves it as well.
#[test]
fn what_is_in_memory_only_moves_with_its_checkpoint() {
    let instance = Instance::new(options());
    let mut files = half_dead(&instance);
    let engine = &instance.engine;
    assert_eq!(engine.compact_piece().unwrap(), Progress::Done, "nothing is due");
    let full = engine.settled_segments(&engine.stack.load());
    engine.compaction.lock().survey(full, Goal::Room(InUse(50)));
    for (file, bytes) in &mut files {
        instance.write(*file, 500, b"changed");
        bytes[500..507].copy_from_slice(b"changed");
    }
    while engine.compact_piece().unwrap() == Progress::More {}
    let named = engine.data.used_bytes();
    assert!(named > 1_000_000, "memory names them still: {named}");
    engine.checkpoint().unwrap();
    // The checkpoint itself reads the old tiers while it looks.
    engine.reclaim();
    let after = engine.data.used_bytes();
    assert!(after < 900_000, "{after}");
    check(&instance, &files);
    check(&instance.crash(), &files);
}

/// A segment waits for its last reader; a record that was drafted before names it once more, in memory; somebody reads that
/// there; its checkpoint moves it away. The last one to know the segment is not the reader it waited for.
#[test]
fn a_segment_that_memory_names_again_waits_for_those_who_read_it_there() {
    let instance = Instance::new(options());
    let files = half_dead(&instance);
    let engine = &instance.engine;
    assert_eq!(engine.compact_piece().unwrap(), Progress::Done, "nothing is due");
    let old = engine.stack.load();
    let (file, window) = (files[0].0, old.view().window(files[0].0, 0).unwrap());
    let Place::Segment { blob, .. } = window.extents[0].place else { panic!("{window:?}") };
    engine.compaction.lock().survey(engine.settled_segments(&old), Goal::Room(InUse(50)));
    while engine.compact_piece().unwrap() == Progress::More {}
    assert!(engine.has_retired(), "vacuous: nothing waits");
    let mut again = ChangeList::default();
    again.changes.push(Change::Put(Key::window(file, 0), Value::Window(window)));
    engine.active().unwrap().apply(&again, engine.last_xid());
    let newer = engine.stack.load();
    drop(old);
    engine.checkpoint().unwrap();
    engine.data.read_all(&blob).unwrap();
    check(&instance, &files);
    drop(newer);
    for _ in 0..2 {
        let _turn = engine.checkpointing.lock();
        engine.reclaim();
    }
    assert!(!engine.data.sealed_segments().contains(&blob.segment), "it comes back in the end");
    check(&instance, &files);
}

/// The segment of the first bytes of `file`.
fn segment_of(instance: &Instance, file: Ino) -> SegmentNo {
    let window = instance.engine.stack.load().view().window(file, 0).unwrap();
    let in_segment = |place: &Place| if let Place::Segment { blob, .. } = place { Some(blob.segment) } else { None };
    window.extents.iter().find_map(|extent| in_segment(&extent.place)).unwrap()
}

/// Bytes that the open layer has in `segments`.
fn used_in(instance: &Instance, segments: &BTreeSet<SegmentNo>) -> u64 {
    let (tiers, mut used) = (instance.engine.stack.load(), BTreeMap::new());
    assert_eq!(survey(&tiers.layers[0], &[], &mut used).unwrap(), None, "in one piece");
    used.iter().filter(|(segment, _)| segments.contains(segment)).map(|(_, bytes)| bytes).sum()
}

/// The layer does not know how much is used of a segment that memory names.
#[test]
fn what_memory_names_is_no_candidate() {
    let instance = Instance::new(options());
    let (files, engine) = (half_dead(&instance), &instance.engine);
    let (settled, named) = (engine.settled_segments(&engine.stack.load()), segment_of(&instance, files[0].0));
    instance.write(files[0].0, 500, b"changed");
    let without = engine.settled_segments(&engine.stack.load());
    assert_eq!(settled.difference(&without).copied().collect::<Vec<_>>(), [named]);
    engine.checkpoint().unwrap();
    assert_eq!(engine.settled_segments(&engine.stack.load()), settled);
}

/// Writers wait for a checkpoint: what is beyond its share moves with a later pass.
#[test]
fn a_checkpoint_moves_its_share_and_leaves_the_rest() {
    const FILE: usize = 1 << 20;
    let data = DataOptions { segment_bytes: 4 << 20, ..options().data };
    let instance = Instance::new(EngineOptions { data, ..options() });
    let engine = &instance.engine;
    let content = |n: usize| (0..FILE).map(|at| (at % 253) as u8 ^ n as u8).collect::<Vec<u8>>();
    let mut files: Vec<_> = (0..48).map(|n| (instance.make(&format!("f{n}")), content(n))).collect();
    for (file, bytes) in &files {
        instance.write(*file, 0, bytes);
    }
    engine.checkpoint().unwrap();
    let emptied = engine.settled_segments(&engine.stack.load());
    let before = used_in(&instance, &emptied);
    assert!(before > 40 << 20, "vacuous: {before}");
    {
        let mut compaction = engine.compaction.lock();
        compaction.follow(engine.stack.load().layers[0].meta().number);
        compaction.emptying.begin(emptied.clone(), Room::Ordinary);
    }
    for (file, bytes) in &mut files {
        instance.write(*file, 500, b"changed");
        bytes[500..507].copy_from_slice(b"changed");
    }
    engine.checkpoint().unwrap();
    let moved = before - used_in(&instance, &emptied);
    assert!(moved > 31 << 20 && moved < 34 << 20, "{moved} bytes");
    check(&instance, &files);
    engine.checkpoint().unwrap();
    check(&instance.crash(), &files);
}

/// Others may take the room that the choice counted on.
#[test]
fn a_pass_that_finds_no_room_ends_and_loses_nothing() {
    let data = DataOptions { max_bytes: Some(2 << 20), ..options().data };
    let instance = Instance::new(EngineOptions { data, ..options() });
    let (files, engine) = (half_dead(&instance), &instance.engine);
    {
        let _turn = engine.checkpointing.lock();
        let (mut compaction, tiers) = (engine.compaction.lock(), engine.stack.load());
        compaction.follow(tiers.layers[0].meta().number);
        compaction.emptying.begin(engine.settled_segments(&tiers), Room::Ordinary);
        while engine.data.write_in(Room::Ordinary, &[0; 10_000]).is_ok() {}
        let (moved, _) = engine.move_piece(&mut compaction, &tiers.layers[0], &[]).unwrap();
        assert!(moved.lacks_room, "vacuous: {moved:?}");
        engine.finish(&mut compaction, tiers, moved);
        assert!(compaction.emptying.segments().is_empty(), "the next choice is of what fits");
    }
    check(&instance, &files);
    // What took the room is named by nothing, and the next pass has it.
    engine.compact(50).unwrap();
    assert!(engine.data.used_bytes() < 600_000, "{}", engine.data.used_bytes());
    check(&instance, &files);
    check(&instance.crash(), &files);
}

#[test]
fn bytes_that_went_bad_keep_their_place_and_their_sum() {
    let instance = Instance::new(options());
    let files = half_dead(&instance);
    let first = instance.engine.data().sealed_segments()[0];
    let paths = std::fs::read_dir(instance.dir.path().join("data")).unwrap();
    let mut paths: Vec<_> = paths.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut segment = std::fs::read(&paths[0]).unwrap();
    segment[5000] ^= 1;
    std::fs::write(&paths[0], segment).unwrap();
    instance.engine.compact(50).unwrap();
    assert!(instance.engine.data().sealed_segments().contains(&first), "whoever repairs the disk finds it");
    let bad = files.iter().filter(|(file, _)| instance.fs.read(*file, 0, u32::MAX).is_err()).count();
    assert_eq!(bad, 1, "the file whose bytes went bad, and no other");
    check(&instance, &files[2..]);
    assert!(instance.engine.data().used_bytes() < 700_000, "the other segments are emptied all the same");
}

#[test]
fn what_a_sealed_layer_has_stays() {
    let instance = Instance::new(options());
    let files = half_dead(&instance);
    let (id, requested) = (Uuid::from_u128(9), Time::default());
    let request = SnapshotRequest { id, name: None, kind: SnapshotKind::User, key: None, requested };
    instance.engine.take_snapshot(request, &BTreeSet::new()).unwrap();
    instance.engine.checkpoint().unwrap();
    let sealed = instance.engine.data().sealed_segments();
    instance.write(files[0].0, 0, &files[0].1);
    instance.engine.compact(100).unwrap();
    let left: BTreeSet<_> = instance.engine.data().sealed_segments().into_iter().collect();
    assert!(sealed.iter().all(|segment| left.contains(segment)));
    check(&instance, &files);
}

/// Twenty times what fits is written over it, and the store never says that it is full.
#[test]
fn a_small_store_takes_what_is_overwritten_at_random() {
    let data = DataOptions { max_bytes: Some(4 << 20), ..options().data };
    let instance = Instance::new(EngineOptions { data, compact_floor_bytes: 1 << 20, ..options() });
    let mut files: Vec<_> = (0..120).map(|n| (instance.make(&format!("f{n}")), content(n, 0))).collect();
    for (file, bytes) in &files {
        instance.write(*file, 0, bytes);
    }
    let mut at = 1;
    for round in 1..4_000 {
        // A fixed walk that meets all in an order of its own.
        at = (at * 75 + 74) % 65_537;
        let n = at % files.len();
        files[n].1 = content(n, round);
        instance.write(files[n].0, 0, &files[n].1);
        if round % 50 == 0 {
            instance.engine.checkpoint().unwrap();
        }
    }
    check(&instance, &files);
    check(&instance.crash(), &files);
}

#[test]
fn readers_never_meet_a_segment_that_is_gone() {
    let options = EngineOptions { compact_floor_bytes: 0, ..options() };
    let instance = Instance::new(options);
    let files = half_dead(&instance);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    check(&instance, &files);
                }
            });
        }
        for round in 0..40 {
            // New garbage in what was moved together, so that it moves again.
            for n in 0..20 {
                let file = instance.make(&format!("g{n}"));
                instance.write(file, 0, &content(n, round));
            }
            instance.engine.checkpoint().unwrap();
            for n in 0..20 {
                instance.fs.unlink(Ino::ROOT, format!("g{n}").as_bytes()).unwrap();
            }
            instance.engine.compact(100).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    check(&instance, &files);
}
