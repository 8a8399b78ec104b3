//! Damage to the objects of a bucket that a master has written.

use super::deep;
use crate::node::{Bucket, Node};
use crate::tree;
use cloud_mgmt::store::MemoryStore;
use std::sync::Arc;
use toa::verify::{Problem, VerifyOptions};
use toa::{ErrorKind, SnapshotSelector, SnapshotState};

/// Three snapshots with packs and runs of their own.
fn bucket() -> Bucket {
    let bucket = Bucket::new(Arc::new(MemoryStore::new()));
    let master = Node::master(&bucket);
    for round in 0..3_u64 {
        for n in 0..20 {
            tree::write_file(master.fs().as_ref(), &format!("f{round}-{n}"), &tree::noise(round * 100 + n, 30_000));
        }
        let name = format!("s{round}");
        master.agent().request_snapshot(Some(name.clone()), None).unwrap();
        assert_eq!(master.finished(&name), SnapshotState::Complete);
    }
    drop(master);
    bucket
}

/// Positions all over an object.
fn positions(len: usize) -> impl Iterator<Item = usize> {
    (0..9).map(move |n| len * n / 9).chain([len - 1])
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x10;
    bytes
}

#[test]
fn every_flipped_bit_is_found_and_its_object_named() {
    let bucket = bucket();
    bucket.check_sound();
    for object in ["/pack/", "/idx/", "/listing/"].into_iter().flat_map(|part| bucket.objects(part)) {
        let whole = bucket.get(&object);
        for at in positions(whole.len()) {
            bucket.put(&object, flipped(&whole, at));
            let (_, told) = bucket.verify(&deep());
            let damage = told.damage();
            assert!(!damage.is_empty(), "{object}, byte {at}");
            for finding in damage {
                assert_eq!((finding.problem, finding.object.as_deref()), (Problem::WrongBytes, Some(object.as_str())));
                assert!(!finding.snapshots.is_empty() && !finding.hint.is_empty(), "{finding:?}");
            }
            if !object.contains("/idx/") {
                let (report, _) = bucket.verify(&VerifyOptions::default());
                assert!(report.is_sound(), "a verification of the structure reads no pack and no listing");
            }
        }
        bucket.put(&object, whole);
    }
    bucket.check_sound();
}

#[test]
fn a_damaged_pack_hits_the_snapshots_that_use_it_and_names_their_files() {
    let bucket = bucket();
    let packs = bucket.objects("/pack/");
    let whole = bucket.get(&packs[1]);
    bucket.put(&packs[1], flipped(&whole, whole.len() / 2));
    let (_, told) = bucket.verify(&deep());
    let hit: Vec<_> = told.damage()[0].snapshots.iter().map(|s| s.name.clone().unwrap()).collect();
    assert_eq!(hit, ["s1", "s2"], "the snapshot before it is whole");
    assert!(told.damage()[0].what.contains("1 of"), "{told:?}");
    let path = told.damage().iter().find_map(|finding| finding.path.clone()).unwrap();
    assert!(path.starts_with("/f1-"), "a file of the pack: {path}");
    // One snapshot alone.
    let one =
        |name: &str| bucket.verify(&VerifyOptions { snapshot: Some(SnapshotSelector::Named(name.into())), ..deep() });
    assert!(one("s0").0.is_sound());
    assert_eq!(one("s0").0.snapshots, 1);
    assert!(!one("s1").0.is_sound());
    let (error, _) =
        bucket.try_verify(&VerifyOptions { snapshot: Some(SnapshotSelector::Named("x".into())), ..deep() });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn ledger_records_that_are_wrong_or_gone_are_named() {
    let bucket = bucket();
    let records = bucket.objects("/ledger/");
    for (n, object) in records.iter().enumerate() {
        let whole = bucket.get(object);
        // The chain tells of a changed record by the one behind it; the last one is told by what contradicts it alone.
        let next = records.get(n + 1);
        for at in positions(whole.len()).filter(|_| next.is_some()) {
            bucket.put(object, flipped(&whole, at));
            let (_, told) = bucket.verify(&VerifyOptions::default());
            let named = told.damage()[0].object.clone();
            assert!(named.as_ref() == Some(object) || named.as_ref() == next, "{object}, byte {at}: {told:?}");
        }
        bucket.put(object, whole[..whole.len() / 2].to_vec());
        let (_, told) = bucket.verify(&VerifyOptions::default());
        assert_eq!(told.damage()[0].object.as_ref(), Some(object), "half a record");
        bucket.delete(object);
        let (report, told) = bucket.verify(&VerifyOptions::default());
        if next.is_some() {
            assert_eq!(told.damage()[0].object.as_ref(), Some(object), "a missing record");
            assert!(told.damage()[0].what.contains("written"), "{told:?}");
        } else {
            assert_eq!((report.damage, report.snapshots), (0, 2), "a ledger that ends earlier is a ledger");
        }
        bucket.put(object, whole);
    }
    // Only the hint tells that records at the end are gone.
    let last = records.last().unwrap();
    let whole = bucket.get(last);
    bucket.put(&bucket.name.hint_object(), format!("{{\"seq\":{},\"time\":\"2026-01-01T00:00:00Z\"}}", records.len()));
    bucket.check_sound();
    bucket.delete(last);
    let (_, told) = bucket.verify(&VerifyOptions::default());
    assert_eq!((told.damage()[0].problem, told.damage()[0].object.as_ref()), (Problem::Missing, Some(last)));
    bucket.put(last, whole);
    bucket.check_sound();
}

#[test]
fn missing_truncated_and_exchanged_objects_are_named() {
    let bucket = bucket();
    let (packs, runs) = (bucket.objects("/pack/"), bucket.objects("/idx/"));
    let listings = bucket.objects("/listing/");
    assert_eq!(listings.len(), 3);
    for object in packs.iter().chain(&runs).chain(&listings) {
        let whole = bucket.get(object);
        bucket.delete(object);
        let (_, told) = bucket.verify(&VerifyOptions::default());
        let [finding] = told.damage()[..] else { panic!("{object}: {told:?}") };
        assert_eq!((finding.problem, finding.object.as_ref()), (Problem::Missing, Some(object)));
        bucket.put(object, whole[..whole.len() - 1].to_vec());
        let (_, told) = bucket.verify(&VerifyOptions::default());
        let [finding] = told.damage()[..] else { panic!("{object}: {told:?}") };
        assert_eq!((finding.problem, finding.object.as_ref()), (Problem::WrongSize, Some(object)));
        bucket.put(object, whole);
    }
    for pair in [&packs, &runs] {
        let (one, two) = (bucket.get(&pair[0]), bucket.get(&pair[1]));
        // Of the same length: the sizes tell nothing.
        let len = one.len().min(two.len());
        if one.len() == two.len() {
            bucket.put(&pair[0], two.clone());
            bucket.put(&pair[1], one.clone());
        } else {
            let longer = usize::from(two.len() > len);
            let tail = if longer == 1 { two.slice(two.len() - len..) } else { one.slice(one.len() - len..) };
            bucket.put(&pair[1 - longer], tail);
        }
        let (_, told) = bucket.verify(&deep());
        let damage = told.damage();
        assert!(!damage.is_empty() && damage.iter().all(|f| f.problem == Problem::WrongBytes), "{told:?}");
        bucket.put(&pair[0], one);
        bucket.put(&pair[1], two);
    }
    let config = bucket.name.config_object();
    bucket.put(&config, "{}");
    assert_eq!(bucket.verify(&VerifyOptions::default()).1.damage()[0].object.as_ref(), Some(&config));
    bucket.delete(&config);
    assert_eq!(bucket.verify(&VerifyOptions::default()).1.damage()[0].problem, Problem::Missing);
}

#[test]
fn what_nobody_needs_is_a_note_and_an_absent_store_is_no_damage() {
    let store = Arc::new(MemoryStore::new());
    let bucket = Bucket::new(Arc::clone(&store) as _);
    let master = Node::master(&bucket);
    tree::write_file(master.fs().as_ref(), "f", &tree::noise(1, 30_000));
    master.agent().request_snapshot(Some("s".into()), None).unwrap();
    assert_eq!(master.finished("s"), SnapshotState::Complete);
    let op = uuid::Uuid::from_u128(9);
    let (left_over, coming) = (bucket.name.pack_object(1, 1, op, 7), bucket.name.run_object(1, 1 << 40, op, 0));
    bucket.put(&left_over, "12345");
    bucket.put(&coming, "123");
    let (report, told) = bucket.verify(&deep());
    assert!(report.is_sound());
    assert_eq!((report.unreferenced, report.unreferenced_bytes, report.notes), (2, 8, 2));
    let note = |object: &String| told.findings.iter().find(|f| f.object.as_ref() == Some(object)).unwrap();
    assert!(note(&left_over).what.contains("left over"), "{told:?}");
    assert!(note(&coming).what.contains("being uploaded"), "{told:?}");
    store.offline();
    let (error, told) = bucket.try_verify(&deep());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(told.findings.is_empty());
    store.online();
}

#[test]
fn a_filesystem_without_snapshots_is_sound_and_a_deleted_one_keeps_its_index() {
    let empty = Bucket::new(Arc::new(MemoryStore::new()));
    let (report, _) = empty.verify(&deep());
    assert_eq!((report.damage, report.snapshots, report.records), (0, 0, 0));
    let bucket = bucket();
    let name = bucket.name.clone();
    bucket
        .runtime
        .block_on(cloud_mgmt::admin::delete(&bucket.store, &name, cloud_mgmt::admin::DeleteMode::Really))
        .unwrap();
    for pack in bucket.objects("/pack/") {
        bucket.delete(&pack);
    }
    let (report, told) = bucket.verify(&deep());
    assert_eq!((report.damage, report.snapshots, report.packs), (0, 1, 0), "{told:?}");
}
