//! Spares: prepared in the background, kept within their number, gone without a trace.

use super::header::{Header, Magic, fresh_salt};
use super::pool::{Filling, Pool, PoolOptions};
use super::sim::{Fault, SimDisk};
use super::{Disk, HostDisk};
use crate::ids::{Epoch, Xid};
use std::sync::Arc;
use std::time::Duration;

fn options(spares: usize) -> PoolOptions {
    PoolOptions { magic: Magic::Data, ext: "data", segment_bytes: 3 << 20, spares, filling: Filling::Steady }
}

/// Waits until the background thread has brought it about.
fn eventually(what: &str, done: impl Fn() -> bool) {
    for _ in 0..3000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

#[test]
fn a_file_with_the_last_number_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ffffffffffffffff.data"), []).unwrap();
    let disk = Arc::new(HostDisk::new(dir.path()).unwrap());
    let refused = Pool::open(disk, options(0)).map(drop).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData);
    assert!(refused.to_string().contains("18446744073709551615"), "{refused}");
}

#[test]
fn spares_are_written_full_and_taken_under_new_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(HostDisk::new(dir.path()).unwrap());
    let (pool, found) = Pool::open(disk.clone(), options(2)).unwrap();
    assert!(found.is_empty() && disk.list().unwrap().is_empty(), "nothing is prepared unasked");
    pool.prepare();
    eventually("two spares", || pool.spare_bytes() == 2 * (3 << 20));
    let taken = pool.take(u64::MAX).unwrap();
    assert_eq!((taken.bytes, taken.file.size_bytes().unwrap()), (3 << 20, 3 << 20));
    let small = pool.take(1000).unwrap();
    assert_eq!(small.bytes, 0, "no spare is that small");
    assert!(small.number > taken.number);
    drop(pool);
    let (pool, found) = Pool::open(disk, options(2)).unwrap();
    assert_eq!(found.iter().map(|f| f.number).collect::<Vec<_>>(), [taken.number, small.number]);
    assert_eq!(pool.spare_bytes(), 3 << 20);
}

#[test]
fn a_full_disk_ends_the_preparing_and_leaves_nothing() {
    let disk = SimDisk::default();
    disk.fail_nth(Fault::WriteBefore, 2, libc::ENOSPC);
    let (pool, _) = Pool::open(Arc::new(disk.clone()), options(1)).unwrap();
    pool.prepare();
    eventually("the fault strikes and the file goes", || disk.names("tmp").is_empty() && !disk.armed());
    assert_eq!(pool.spare_bytes(), 0);
    // The next request tries again.
    eventually("a spare", || {
        pool.prepare();
        pool.spare_bytes() == 3 << 20
    });
}

#[test]
fn a_drop_in_the_middle_is_cleaned_up_by_the_thread_or_at_the_next_start() {
    let disk = SimDisk::default();
    let (pool, _) = Pool::open(Arc::new(disk.clone()), options(4)).unwrap();
    pool.prepare();
    eventually("it has begun", || !disk.list().unwrap().is_empty());
    drop(pool);
    let files = disk.list().unwrap();
    assert_eq!(disk.names(".spare").len(), files.len(), "{files:?}");
    assert!(files.iter().all(|(_, bytes)| *bytes == 3 << 20), "{files:?}");
    drop(disk.create("00000000000000ff.tmp").unwrap());
    let (pool, _) = Pool::open(Arc::new(disk.clone()), options(0)).unwrap();
    assert!(disk.names("tmp").is_empty());
    assert!(pool.take(0).unwrap().number > 0xff, "a number once given is not given again");
}

#[test]
fn there_is_no_room_for_spares_beyond_the_limit() {
    let disk = SimDisk::default();
    let (pool, _) = Pool::open(Arc::new(disk.clone()), options(4)).unwrap();
    pool.prepare();
    eventually("two spares", || pool.spare_bytes() >= 2 * (3 << 20));
    pool.set_room(4 << 20).unwrap();
    assert!(pool.spare_bytes() <= 4 << 20);
    let (number, bytes) = (pool.take(0).unwrap().number, 5);
    pool.give(number, bytes).unwrap();
    assert!(pool.spare_bytes() <= 4 << 20);
    pool.give(9999, 1).unwrap();
}

#[test]
fn the_newest_spare_gives_its_room_and_keeps_its_number() {
    let disk = SimDisk::default();
    let (pool, _) = Pool::open(Arc::new(disk.clone()), options(2)).unwrap();
    pool.prepare();
    eventually("two spares", || pool.spare_bytes() == 2 * (3 << 20));
    let newest = disk.names(".spare").into_iter().max().unwrap();
    pool.set_room(0).unwrap();
    assert_eq!(disk.list().unwrap(), [(newest.clone(), 0)]);
    drop(pool);

    let (pool, _) = Pool::open(Arc::new(disk.clone()), options(2)).unwrap();
    let number = u64::from_str_radix(newest.split('.').next().unwrap(), 16).unwrap();
    let taken = pool.take(u64::MAX).unwrap();
    assert_eq!((taken.bytes, taken.file.size_bytes().unwrap()), (0, 0));
    assert!(taken.number > number);
    pool.give(taken.number, 0).unwrap();
    pool.prepare();
    eventually("an empty one is not counted among two", || pool.spare_bytes() == 2 * (3 << 20));
    pool.set_room(u64::MAX).unwrap();
    assert_eq!(disk.list().unwrap().len(), 2, "and goes when it is not the newest any more");
}

#[test]
fn while_halted_none_is_prepared() {
    let disk = SimDisk::default();
    let (pool, _) = Pool::open(Arc::new(disk.clone()), options(1)).unwrap();
    pool.halt().unwrap();
    pool.prepare();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(disk.list().unwrap(), []);
    pool.resume();
    pool.prepare();
    eventually("a spare", || pool.spare_bytes() == 3 << 20);
    pool.halt().unwrap();
    assert_eq!(pool.take(u64::MAX).unwrap().bytes, 3 << 20, "what is there is used");
}

/// A power loss may undo the last rename of a file and keep the header that was written under the lost name.
#[test]
fn a_number_in_a_header_counts_although_its_name_is_lost() {
    let disk = SimDisk::default();
    let header = Header {
        magic: Magic::Data,
        fs: uuid::Uuid::nil(),
        epoch: Epoch(0),
        number: 9,
        first: Xid(0),
        persisted: Xid(0),
        salt: fresh_salt(),
    };
    let file = disk.create("0000000000000003.spare").unwrap();
    file.write_at(&header.encode(), 0).unwrap();
    let (pool, _) = Pool::open(Arc::new(disk), options(1)).unwrap();
    assert_eq!(pool.take(u64::MAX).unwrap().number, 10);
}
