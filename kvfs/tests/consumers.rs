//! Readers of an engine's journal: what they get, what the journal keeps for them, and how they are cut off.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on ends

mod common;

use common::{instance, make};
use kvfs::engine::{Consumer, Engine, EngineOptions, Opening};
use kvfs::fs::{FileSystem, Fs};
use kvfs::ids::PackNo;
use kvfs::journal::{Followed, JournalOptions, Position};
use kvfs::node::NodeChanges;
use kvfs::op::{Evacuation, Op};
use kvfs::schema::{FrameRef, Time};
use kvfs::{Ino, Xid};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "reader";
const SEGMENT_BYTES: u64 = 16 << 10;

fn open(dir: &Path, journal_max_bytes: u64) -> (Fs, Arc<Engine>) {
    let options = EngineOptions {
        checkpoint_interval: Duration::from_secs(3600),
        journal: JournalOptions { segment_bytes: SEGMENT_BYTES, spares: 1 },
        journal_max_bytes,
        ..EngineOptions::default()
    };
    let fs = common::open(dir, Opening::Fresh, options);
    let engine = fs.engine().unwrap();
    (fs, engine)
}

/// Names of the files whose creation the reader sees from here on.
fn made(engine: &Engine, position: &mut Position) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        match engine.read_journal(position, 5000).unwrap() {
            Followed::Records(records) => {
                for record in records {
                    if let Op::Make { at, .. } = record.record.op {
                        names.push(String::from_utf8(at.name.to_vec()).unwrap());
                    }
                }
            }
            Followed::End => return names,
            Followed::Released(first) => panic!("released up to {first}"),
        }
    }
}

#[test]
fn an_offset_and_what_came_of_it_survive_a_kill_together() {
    let dir = instance();
    let (fs, engine) = open(dir.path(), 1 << 30);
    let begun = engine.consumer(NAME).unwrap();
    make(&fs, "a");
    make(&fs, "b");
    let mut position = Position::at(begun.next);
    assert!(made(&engine, &mut position).is_empty(), "nothing of it is persisted");
    engine.flush().unwrap();
    assert_eq!(made(&engine, &mut position), ["a", "b"]);
    let mut changes = NodeChanges::default();
    changes.put("result", &"a and b").unwrap();
    engine.consumed(NAME, position.next(), &mut changes).unwrap();
    make(&fs, "c");
    engine.flush().unwrap();
    assert_eq!(made(&engine, &mut position), ["c"]);
    // Read, and not consumed.
    engine.halt();
    drop((fs, engine));
    let (_fs, engine) = open(dir.path(), 1 << 30);
    assert_eq!(engine.node().get::<String>("result").unwrap().as_deref(), Some("a and b"));
    let mut position = Position::at(engine.consumer(NAME).unwrap().next);
    assert_eq!(made(&engine, &mut position), ["c"]);
}

#[test]
fn the_journal_keeps_what_a_reader_wants_and_no_more() {
    let dir = instance();
    let (fs, engine) = open(dir.path(), 1 << 30);
    let mut position = Position::at(engine.consumer(NAME).unwrap().next);
    let journal_bytes = || {
        let files = std::fs::read_dir(dir.path().join("journal")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|ext| ext == "journal")).count() as u64 * SEGMENT_BYTES
    };
    let write = |from: usize| {
        for n in from..from + 1000 {
            make(&fs, &format!("file {n:0200}"));
        }
        engine.checkpoint().unwrap();
    };
    write(0);
    let kept = journal_bytes();
    assert!(kept > 10 * SEGMENT_BYTES, "{kept} bytes");
    assert_eq!(made(&engine, &mut position).len(), 1000);
    engine.consumed(NAME, position.next(), &mut NodeChanges::default()).unwrap();
    write(1000);
    let mut second = Position::at(engine.consumer(NAME).unwrap().next);
    assert_eq!(made(&engine, &mut second).len(), 1000);
    engine.consumed(NAME, second.next(), &mut NodeChanges::default()).unwrap();
    make(&fs, "one more");
    engine.checkpoint().unwrap();
    assert!(journal_bytes() <= 3 * SEGMENT_BYTES, "{} bytes", journal_bytes());
}

#[test]
fn a_reader_that_is_too_far_behind_is_cut_off_and_the_gap_is_kept() {
    let dir = instance();
    let limit = 4 * SEGMENT_BYTES;
    let (fs, engine) = open(dir.path(), limit);
    let begun = engine.consumer(NAME).unwrap();
    for n in 0..2000 {
        make(&fs, &format!("file {n:0200}"));
        if n % 500 == 499 {
            engine.checkpoint().unwrap();
        }
    }
    let mut position = Position::at(begun.next);
    let Followed::Released(first) = engine.read_journal(&mut position, 1000).unwrap() else { panic!("not cut off") };
    let cut = engine.consumer(NAME).unwrap();
    assert!(cut.next >= first, "{cut:?} {first}");
    let (from, upto) = cut.gap.unwrap();
    // It may have been cut off several times; the last gap ends where it goes on.
    assert!(from >= begun.next && upto == Xid(cut.next.0 - 1), "{cut:?}");
    let rest = made(&engine, &mut Position::at(cut.next));
    assert!(!rest.is_empty() && rest.len() < 1000, "{} records", rest.len());
    assert!(rest.last().unwrap().ends_with("1999"));
    engine.halt();
    drop((fs, engine));
    let (_fs, engine) = open(dir.path(), limit);
    let after: Consumer = engine.consumer(NAME).unwrap();
    assert_eq!(after, cut, "over a restart");
}

/// The segment with its bytes would be named by nothing, and a replay would ask for them.
#[test]
fn bytes_that_come_back_too_late_leave_no_record() {
    let dir = instance();
    let (fs, engine) = open(dir.path(), 1 << 30);
    make(&fs, "a");
    let ino = fs.lookup(Ino::ROOT, b"a").unwrap().ino;
    fs.write(ino, 0, &vec![7; 100_000], kvfs::op::Privileges::Keep).unwrap();
    let before = engine.last_xid();
    let frame = FrameRef { pack: PackNo(1), offset: 0, stored_len: 10, raw_len: 200_000, hash: [0; 16] };
    let evacuation = Evacuation { ino, offset: 0, len: 100_000, frame, within: 0 };
    let bytes = engine.place_bytes(&vec![9; 100_000]).unwrap();
    engine.run_write(Time::default(), Op::Evacuate(evacuation), bytes).unwrap();
    assert_eq!(engine.last_xid(), before);
    assert_eq!(fs.read(ino, 0, 100_000).unwrap(), vec![7; 100_000]);
}
