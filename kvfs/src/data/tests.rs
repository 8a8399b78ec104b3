//! Data segments: bytes come back or fail their check; numbers are used once; limits hold; power is lost.

use super::*;
use crate::ids::SegmentNo;
use crate::schema::BlobRef;
use crate::segment::sim::{Fault, SimDisk};
use crate::segment::{Disk, FailureKind};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

const SEGMENT_BYTES: u32 = 16 << 10;

fn options() -> DataOptions {
    DataOptions { segment_bytes: SEGMENT_BYTES, spares: 1, max_bytes: None }
}

fn open(disk: &SimDisk) -> DataStore {
    DataStore::open_on(Arc::new(disk.clone()), options()).unwrap()
}

fn open_limited(disk: &SimDisk, max: u64) -> DataStore {
    DataStore::open_on(Arc::new(disk.clone()), DataOptions { max_bytes: Some(max), ..options() }).unwrap()
}

fn disk_bytes(disk: &SimDisk) -> u64 {
    disk.list().unwrap().iter().map(|(_, bytes)| bytes).sum()
}

fn noise(rng: &mut StdRng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.random()).collect()
}

#[test]
fn blobs_come_back_from_a_host_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let store = DataStore::open(&path, DataOptions::default()).unwrap();
    let big = vec![7; BLOB_BYTES_MAX];
    let (a, b, c) = (store.write(b"some bytes").unwrap(), store.write(&big).unwrap(), store.write(b"").unwrap());
    store.flush().unwrap();
    drop(store);
    let store = DataStore::open(&path, DataOptions::default()).unwrap();
    assert_eq!(&store.read_all(&a).unwrap()[..], b"some bytes");
    assert_eq!(store.read_all(&b).unwrap(), big);
    assert!(store.read_all(&c).unwrap().is_empty());
    let mut part = [0; 5];
    store.read(&a, 5, &mut part).unwrap();
    assert_eq!(&part, b"bytes");
    assert_eq!(store.read(&a, 6, &mut part).unwrap_err().kind(), FailureKind::Invalid);
    assert_eq!(store.write(&vec![0; BLOB_BYTES_MAX + 1]).unwrap_err().kind(), FailureKind::Invalid);
    // Nothing is added to a segment of a former run.
    assert_ne!(store.write(b"more").unwrap().segment, a.segment);
}

#[test]
fn every_flipped_bit_is_found_and_missing_segments_are_named() {
    let disk = SimDisk::default();
    let store = open(&disk);
    let blob = store.write(b"twelve bytes").unwrap();
    let name = disk.names(".data").remove(0);
    for bit in 0..blob.len as usize * 8 {
        disk.flip(&name, blob.offset as usize * 8 + bit);
        assert!(matches!(store.read_all(&blob), Err(DataError::Corrupt(_))), "bit {bit}");
        disk.flip(&name, blob.offset as usize * 8 + bit);
    }
    assert_eq!(&store.read_all(&blob).unwrap()[..], b"twelve bytes");
    disk.cut(&name, blob.offset as usize + 3);
    assert!(matches!(store.read(&blob, 0, &mut [0; 6]), Err(DataError::Corrupt(_))));
    let gone = BlobRef { segment: SegmentNo(99), ..blob };
    assert!(matches!(store.read_all(&gone), Err(DataError::Missing(SegmentNo(99)))));
    let wild = BlobRef { len: u32::MAX, offset: u32::MAX, ..blob };
    assert_eq!(store.read_all(&wild).unwrap_err().kind(), FailureKind::Corrupt);
}

#[test]
fn neighbours_are_read_in_one_go_and_checked() {
    let disk = SimDisk::default();
    let store = open(&disk);
    let blobs: Vec<BlobRef> =
        ["one", "two", "three"].iter().map(|text| store.write(text.as_bytes()).unwrap()).collect();
    let whole = |n: usize| Part { blob: blobs[n], within: 0, len: blobs[n].len };
    let all = [whole(0), whole(1), whole(2)];
    assert!(store.read_run(&all).is_none(), "they are not flushed");
    store.flush().unwrap();
    assert_eq!(&store.read_run(&all).unwrap()[..], b"onetwothree");
    let ends = [Part { within: 1, len: 2, ..all[0] }, all[1], Part { len: 2, ..all[2] }];
    assert_eq!(&store.read_run(&ends).unwrap()[..], b"netwoth");
    assert_eq!(&store.read_run(&[Part { within: 1, len: 2, ..all[2] }]).unwrap()[..], b"hr");

    assert!(store.read_run(&[]).is_none());
    assert!(store.read_run(&[all[0], all[2]]).is_none(), "there is one between them");
    assert!(store.read_run(&[all[1], all[0]]).is_none(), "the other way round");
    assert!(store.read_run(&[all[0], Part { within: 1, len: 2, ..all[1] }]).is_none(), "a gap");
    assert!(store.read_run(&[Part { len: 2, ..all[0] }, all[1]]).is_none(), "a gap");
    assert!(store.read_run(&[Part { within: 1, ..all[2] }]).is_none(), "longer than its blob");
    let elsewhere = BlobRef { segment: SegmentNo(99), ..blobs[1] };
    assert!(store.read_run(&[all[0], Part { blob: elsewhere, ..all[1] }]).is_none());

    let name = disk.names(".data").remove(0);
    disk.flip(&name, (blobs[0].offset as usize) * 8);
    assert!(
        store.read_run(&ends).is_none(),
        "a bad byte that is not asked for; whoever reads each by itself learns more"
    );
    assert!(store.read_run(&all[1..]).is_some());
    disk.flip(&name, (blobs[0].offset as usize) * 8);
    store.write(b"more").unwrap();
    disk.fail_nth(Fault::Sync, 1, libc::EIO);
    store.flush().unwrap_err();
    assert!(store.read_run(&all).is_none(), "a flush has failed");
}

#[test]
fn a_run_on_a_host_directory_is_the_same_wherever_its_bytes_are() {
    let dir = tempfile::tempdir().unwrap();
    let store = DataStore::open(dir.path(), DataOptions::default()).unwrap();
    let mut rng = StdRng::seed_from_u64(3);
    let texts: Vec<Vec<u8>> = [5, 300_000, 70_001, 512 << 10].into_iter().map(|len| noise(&mut rng, len)).collect();
    let mut parts = Vec::new();
    for text in &texts {
        let blob = store.write(text).unwrap();
        parts.push(Part { blob, within: 0, len: blob.len });
    }
    store.flush().unwrap();
    let all = texts.concat();
    assert!(store.read_run(&parts).unwrap() == all, "in the page cache");
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let file = std::fs::File::open(entry.unwrap().path()).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    assert!(store.read_run(&parts).unwrap() == all, "on the disk");
    parts[0] = Part { within: 2, len: 3, ..parts[0] };
    parts[3] = Part { len: 100_000, ..parts[3] };
    assert!(store.read_run(&parts).unwrap() == all[2..5 + 370_001 + 100_000]);
}

#[test]
fn recycling_never_uses_a_number_twice() {
    for spares in [0, 1, 3] {
        let disk = SimDisk::default();
        let mut used = BTreeSet::new();
        for life in 0..12 {
            let store = DataStore::open_on(Arc::new(disk.clone()), DataOptions { spares, ..options() }).unwrap();
            store.retain(&BTreeSet::new()).unwrap();
            assert_eq!((store.used_bytes(), store.sealed_segments()), (0, vec![]), "nothing was live");
            let mut this_life = BTreeSet::new();
            for _ in 0..life * 5 % 17 {
                this_life.insert(store.write(&[1; 5000]).unwrap().segment);
            }
            let sealed = store.sealed_segments();
            store.free(&sealed);
            this_life.extend(sealed);
            assert!(used.is_disjoint(&this_life), "{used:?} {this_life:?}");
            assert!(used.last() < this_life.first() || this_life.is_empty());
            used.extend(this_life);
        }
        let files = disk.list().unwrap().len();
        assert!(used.len() > 20 && files <= 2 + 4 * spares, "{} numbers, {files} files", used.len());
    }
}

#[test]
fn a_freed_segment_is_gone_and_the_live_one_stays() {
    let disk = SimDisk::default();
    let store = open(&disk);
    let old = store.write(&[1; 9000]).unwrap();
    let live = store.write(&[2; 9000]).unwrap();
    assert_eq!(store.sealed_segments(), [old.segment]);
    let before = store.used_bytes();
    store.free(&[old.segment, live.segment, SegmentNo(77)]);
    assert!(matches!(store.read_all(&old), Err(DataError::Missing(_))));
    assert_eq!(store.read_all(&live).unwrap(), vec![2; 9000]);
    assert!(store.used_bytes() < before);
    // The next segment is the old file under a new number: the old name does not reach the new bytes.
    let next = store.write(&[3; 9000]).unwrap();
    assert!(next.segment > live.segment && next.offset == old.offset);
    assert!(store.read_all(&old).is_err());
}

#[test]
fn the_limit_is_hard_and_freeing_makes_room() {
    let disk = SimDisk::default();
    let max = 5 * u64::from(SEGMENT_BYTES) + 700;
    let store = open_limited(&disk, max);
    let mut rng = StdRng::seed_from_u64(3);
    let mut refused = 0;
    for round in 0..400 {
        let len = rng.random_range(1..6000);
        match store.write(&vec![round as u8; len]) {
            Ok(blob) => assert_eq!(store.read_all(&blob).unwrap(), vec![round as u8; len]),
            Err(error) => {
                assert_eq!(error.kind(), FailureKind::NoSpace);
                refused += 1;
                let sealed = store.sealed_segments();
                store.free(&sealed[..rng.random_range(1..=sealed.len())]);
            }
        }
        assert!(store.used_bytes() <= max);
    }
    drop(store);
    assert!(refused > 10);
    // A spare that was being filled is all that may come on top, and it is removed again.
    assert!(disk_bytes(&disk) <= max + u64::from(SEGMENT_BYTES), "{}", disk_bytes(&disk));
    let tiny = SimDisk::default();
    assert_eq!(open_limited(&tiny, 4000).write(b"x").unwrap_err().kind(), FailureKind::NoSpace);
}

#[test]
fn the_reserve_is_for_those_who_ask_for_it() {
    let max = 10 * u64::from(SEGMENT_BYTES);
    let store = open_limited(&SimDisk::default(), max);
    while store.write(&[1; 4000]).is_ok() {}
    let kept = store.free_bytes(Room::Reserve).unwrap();
    assert!(kept >= u64::from(SEGMENT_BYTES), "{kept}");
    let blob = store.write_in(Room::Reserve, &[2; 4000]).unwrap();
    assert_eq!(store.read_all(&blob).unwrap(), vec![2; 4000]);
    assert_eq!(store.free_bytes(Room::Ordinary), Some(0));
    while store.write_in(Room::Reserve, &[3; 4000]).is_ok() {}
    assert!(store.used_bytes() <= max);
}

#[test]
fn a_failed_write_reserves_nothing_for_long() {
    let disk = SimDisk::default();
    let store = open(&disk);
    let first = store.write(b"first").unwrap();
    for fault in [Fault::WriteBefore, Fault::WriteTorn, Fault::WriteAfter] {
        disk.fail_nth(fault, 1, libc::ENOSPC);
        assert_eq!(store.write(&[9; 3000]).unwrap_err().kind(), FailureKind::NoSpace);
    }
    let second = store.write(b"second").unwrap();
    assert_eq!((second.segment, second.offset), (first.segment, first.offset + 5));
    disk.fail_nth(Fault::WriteBefore, 1, libc::EIO);
    assert_eq!(store.write(b"third").unwrap_err().kind(), FailureKind::Io);
}

#[test]
fn a_failed_flush_is_final() {
    let disk = SimDisk::default();
    let store = open(&disk);
    let blob = store.write(b"bytes").unwrap();
    disk.fail_nth(Fault::Sync, 1, libc::EIO);
    assert_eq!(store.flush().unwrap_err().kind(), FailureKind::Poisoned);
    assert_eq!(store.flush().unwrap_err().kind(), FailureKind::Poisoned);
    assert_eq!(store.write(b"more").unwrap_err().kind(), FailureKind::Poisoned);
    assert!(store.read_all(&blob).is_ok(), "reading goes on");
}

#[test]
fn threads_write_at_once_and_share_their_flushes() {
    let disk = SimDisk::default();
    disk.slow_syncs(Duration::from_millis(1));
    let store = open(&disk);
    let blobs: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..16u8)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || {
                    let write = |i: u8| {
                        let bytes = vec![thread ^ i; 300 + i as usize];
                        let blob = store.write(&bytes).unwrap();
                        store.flush().unwrap();
                        (blob, bytes)
                    };
                    (0..20).map(write).collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let syncs = disk.syncs();
    assert!(syncs < 16 * 20 / 2, "{syncs} syncs for 320 flushes");
    store.flush().unwrap();
    assert_eq!(disk.syncs(), syncs, "nothing is dirty");
    let places: BTreeSet<_> = blobs.iter().map(|(blob, _)| (blob.segment, blob.offset)).collect();
    assert_eq!(places.len(), blobs.len());
    let store = open(&disk.lose_power(&mut StdRng::seed_from_u64(5)));
    for (blob, bytes) in &blobs {
        assert_eq!(store.read_all(blob).unwrap(), bytes);
    }
}

/// After any loss of power: flushed blobs are whole, others are whole or do not check.
#[test]
fn power_loss_costs_only_what_was_not_flushed_and_the_crc_tells() {
    let rounds: u64 = std::env::var("CBFS_POWER_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(250);
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..rounds {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut disk = SimDisk::default();
        let mut durable: HashMap<BlobRef, Vec<u8>> = HashMap::new();
        for _ in 0..4 {
            let store = open(&disk);
            for (blob, bytes) in &durable {
                assert!(store.read_all(blob).unwrap() == bytes[..], "round {seed}: {blob:?}");
                kept += 1;
            }
            let live: BTreeSet<_> = durable.keys().map(|blob| blob.segment).collect();
            store.retain(&live).unwrap();
            if rng.random_bool(0.5) {
                disk.fail_nth(Fault::PowerOff, rng.random_range(1..60), libc::EIO);
            }
            let mut loose = Vec::new();
            for _ in 0..rng.random_range(1..60) {
                match rng.random_range(0..12) {
                    0 if store.flush().is_ok() => durable.extend(loose.drain(..)),
                    1 => {
                        // The journal no longer names a segment: first there, then here.
                        let sealed = store.sealed_segments();
                        if let Some(victim) = sealed.get(rng.random_range(0..=sealed.len())) {
                            durable.retain(|blob, _| blob.segment != *victim);
                            loose.retain(|(blob, _): &(BlobRef, _)| blob.segment != *victim);
                            store.free(&[*victim]);
                        }
                    }
                    _ => {
                        let len = rng.random_range(1..5000);
                        let bytes = noise(&mut rng, len);
                        loose.extend(store.write(&bytes).map(|blob| (blob, bytes)));
                    }
                }
            }
            disk = disk.lose_power(&mut rng);
            let store = open(&disk);
            for (blob, bytes) in &loose {
                match store.read_all(blob) {
                    Ok(read) => assert!(read == bytes[..], "round {seed}: wrong bytes were served"),
                    Err(error) => {
                        assert_eq!(error.kind(), FailureKind::Corrupt);
                        lost += 1;
                    }
                }
            }
        }
    }
    assert!(lost > rounds && kept > rounds, "vacuous: {lost} lost, {kept} kept");
}
