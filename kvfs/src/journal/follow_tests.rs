//! Readers beside the writer.

use super::tests::{SEGMENT_BYTES, body, fill, identity, options, reopen};
use super::*;
use crate::ids::Xid;
use crate::segment::sim::SimDisk;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reads everything that there is, a few records at a time.
fn read_all(journal: &Journal, position: &mut Position) -> Vec<u64> {
    let mut seen = Vec::new();
    loop {
        match journal.follow(position, 2000).unwrap() {
            Followed::Records(records) => {
                for (xid, bytes) in records {
                    assert!(bytes == body(xid.0, bytes.len()), "record {xid}");
                    seen.push(xid.0);
                }
            }
            Followed::End => return seen,
            Followed::Released(first) => panic!("released up to {first}"),
        }
    }
}

#[test]
fn a_reader_gets_persisted_records_only_each_once_and_in_order() {
    let disk = SimDisk::default();
    let (journal, _) = reopen(&disk, 0);
    let mut position = Position::at(Xid(1));
    fill(&journal, 10, 300);
    assert_eq!(journal.follow(&mut position, 1000).unwrap(), Followed::End, "nothing is persisted yet");
    journal.flush().unwrap();
    fill(&journal, 5, 300);
    assert_eq!(read_all(&journal, &mut position), (1..=10).collect::<Vec<_>>());
    journal.flush().unwrap();
    // Over several segments, the last of which is being written.
    fill(&journal, 100, 700);
    journal.flush().unwrap();
    assert_eq!(read_all(&journal, &mut position), (11..=115).collect::<Vec<_>>());
    assert_eq!(position.next(), Xid(116));
    assert_eq!(read_all(&journal, &mut Position::at(Xid(77))), (77..=115).collect::<Vec<_>>(), "from the middle");
    // A record that only just fits a segment.
    let len = (SEGMENT_BYTES - crate::segment::header::HEADER_BYTES) as usize - 64;
    fill(&journal, 3, len);
    journal.flush().unwrap();
    assert_eq!(read_all(&journal, &mut position), [116, 117, 118]);
}

#[test]
fn what_somebody_wants_stays_also_over_a_restart() {
    let disk = SimDisk::default();
    let (mut journal, _) = reopen(&disk, 0);
    journal.hold(Some(Xid(30)));
    fill(&journal, 200, 400);
    journal.flush().unwrap();
    journal.release(Xid(200)).unwrap();
    assert!(journal.first() > Xid(1) && journal.first() <= Xid(30), "{}", journal.first());
    drop(journal);
    journal = reopen(&disk, 200).0;
    journal.hold(Some(Xid(30)));
    journal.release(Xid(200)).unwrap();
    assert_eq!(read_all(&journal, &mut Position::at(Xid(30))), (30..=200).collect::<Vec<_>>());
    journal.hold(None);
    journal.release(Xid(200)).unwrap();
    let mut late = Position::at(Xid(30));
    let Followed::Released(first) = journal.follow(&mut late, 1000).unwrap() else { panic!("they are gone") };
    assert_eq!(first, journal.first());
}

#[test]
fn the_newest_segments_within_a_limit() {
    let disk = SimDisk::default();
    let (journal, _) = reopen(&disk, 0);
    fill(&journal, 100, 700);
    let all = journal.first_within(u64::MAX);
    assert_eq!(all, Xid(1));
    let (few, more) = (journal.first_within(3 * SEGMENT_BYTES), journal.first_within(5 * SEGMENT_BYTES));
    assert!(Xid(1) < more && more < few && few < Xid(100), "{more} {few}");
    assert!(journal.first_within(0) > few, "the live segment is always within");
}

#[test]
fn a_segment_that_is_recycled_under_a_reader_never_gives_a_wrong_record() {
    let disk = SimDisk::default();
    let (journal, _) = reopen(&disk, 0);
    let done = AtomicBool::new(false);
    let (mut seen, mut released) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..400 {
                fill(&journal, 15, 400);
                journal.flush().unwrap();
                journal.release(journal.last()).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut position = Position::at(Xid(1));
        let mut before = Xid(0);
        loop {
            let end = done.load(Ordering::Acquire);
            match journal.follow(&mut position, 3000).unwrap() {
                Followed::Records(records) => {
                    for (xid, bytes) in records {
                        assert!(xid > before, "{xid} behind {before}");
                        assert!(bytes == body(xid.0, 400), "record {xid}");
                        before = xid;
                        seen += 1;
                    }
                }
                Followed::Released(first) => {
                    assert!(first > position.next());
                    position = Position::at(first);
                    released += 1;
                }
                Followed::End if end => break,
                Followed::End => std::thread::yield_now(),
            }
        }
    });
    assert!(seen > 0 && released > 0, "{seen} seen, {released} times released: nothing was tried");
}

#[test]
fn damage_is_told_and_names_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = Journal::open(&path, identity(), Xid(0), options()).unwrap().finish(Xid(0)).unwrap();
    fill(&journal, 5, 300);
    journal.flush().unwrap();
    let mut files = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
    let file = files.find(|path| path.extension().is_some_and(|ext| ext == "journal")).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[crate::segment::header::HEADER_BYTES as usize + 2 * 316 + 100] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let mut position = Position::at(Xid(1));
    let Followed::Records(good) = journal.follow(&mut position, 300).unwrap() else { panic!("two are good") };
    assert_eq!(good.len(), 2);
    let error = journal.follow(&mut position, 300).unwrap_err();
    assert!(matches!(error, JournalError::Corrupt { bad: Xid(3), persisted: Xid(5) }), "{error}");
}
