//! Runs that are split by key show what unsplit ones show, and ask the store for less.

use super::run_base_tests::{Change, change, play, publish, publish_split, scanned};
use super::test_store::Fault;
use super::tests::{MIB, World, noise, settle};
use super::*;
use bytes::Bytes;
use kvfs::Ino;
use kvfs::base::{Base, BaseError};
use kvfs::schema::{Key, Value};
use proptest::prelude::*;
use std::collections::BTreeSet;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn split_runs_show_what_unsplit_ones_show(
        ages in prop::collection::vec(prop::collection::vec(change(), 0..25).prop_map(Change::from_iter), 1..6),
        cuts in prop::collection::vec(prop::collection::btree_set(1..6_u64, 0..4), 6),
        from in change(), end in change(),
    ) {
        let world = World::new(16 * MIB);
        let whole = RunBase::open(&world.objects, &publish(&world, &ages)).unwrap();
        let parts = |age: usize| [0].into_iter().chain(cuts[age].iter().copied()).collect();
        let entry = publish_split(&world, &ages, parts);
        prop_assert_eq!(entry.stacked_runs().count(), ages.len());
        let split = RunBase::open(&world.objects, &entry).unwrap();
        for base in [&split, &split.waiting()] {
            let every: BTreeSet<_> = ages.iter().flat_map(Change::keys).collect();
            for key in every {
                prop_assert_eq!(settle(|| base.get(key)).unwrap(), settle(|| whole.get(key)).unwrap(), "key {:?}", key);
            }
            let all: Vec<_> = play(&ages).into_iter().collect();
            prop_assert_eq!(scanned(base, &[], &[0xff; 10]), all);
            if from.0 <= end.0 {
                prop_assert_eq!(scanned(base, &from.0, &end.0), scanned(&whole, &from.0, &end.0));
            }
        }
    }
}

/// A run of 20 parts with 10 inodes each, and what the ledger says of it.
fn twenty_parts(world: &World) -> cloud_mgmt::ledger::SnapshotEntry {
    let change = |n: u64| (Key::xattr(Ino(n), b"user.a").into_bytes(), Value::Xattr(Bytes::from(noise(n))));
    let ages = [(1..200).map(change).collect::<Change>()];
    publish_split(world, &ages, |_| (0..20).map(|part| part * 10).collect())
}

fn asked(world: &World) -> BTreeSet<String> {
    world.store.requests.lock().iter().map(|request| request.0.clone()).collect()
}

#[test]
fn a_look_up_opens_the_part_that_can_have_the_key() {
    let world = World::new(64 * MIB);
    let entry = twenty_parts(&world);
    let base = RunBase::open(&world.objects, &entry).unwrap();
    assert_eq!(world.requests(), 0, "nothing was asked yet");
    let key = Key::xattr(Ino(57), b"user.a");
    assert!(settle(|| base.get(key.as_bytes())).unwrap().is_some());
    let absent = Key::inode(Ino(59));
    assert!(settle(|| base.get(absent.as_bytes())).unwrap().is_none());
    assert_eq!(scanned(&base, Key::inode(Ino(55)).as_bytes(), Key::end_of_inode(Ino(59)).as_bytes()).len(), 5);
    assert_eq!(asked(&world), ["fs/idx/0-5.run".to_owned()].into());
    assert_eq!(scanned(&base, Key::inode(Ino(55)).as_bytes(), Key::end_of_inode(Ino(60)).as_bytes()).len(), 6);
    assert_eq!(asked(&world), ["fs/idx/0-5.run".to_owned(), "fs/idx/0-6.run".to_owned()].into());
}

#[test]
fn all_parts_are_made_local_without_being_opened() {
    let world = World::new(64 * MIB);
    let entry = twenty_parts(&world);
    let base = RunBase::open(&world.objects, &entry).unwrap();
    base.make_local().unwrap();
    assert_eq!((world.requests(), base.run_objects().len()), (20, 20));
    *world.store.fault.lock() = Fault::Hang;
    assert_eq!(scanned(&base, &[], &[0xff; 10]).len(), 199);
    assert_eq!(world.requests(), 20);
}

#[test]
fn a_part_that_was_exchanged_is_noticed_when_it_is_opened() {
    let world = World::new(64 * MIB);
    let mut entry = twenty_parts(&world);
    entry.runs[3].root = entry.runs[4].root.clone();
    let base = RunBase::open(&world.objects, &entry).unwrap();
    let answer = settle(|| base.get(Key::inode(Ino(35)).as_bytes()));
    assert!(matches!(answer, Err(BaseError::Corrupt(_))), "{answer:?}");
    settle(|| base.get(Key::inode(Ino(45)).as_bytes())).unwrap();
    entry.runs[3].root = "none".into();
    assert!(matches!(RunBase::open(&world.objects, &entry), Err(BaseError::Corrupt(_))));
}
