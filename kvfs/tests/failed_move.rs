//! A move of compaction whose write to LMDB reports a failure: whether it is there, nobody knows. In a program of its own, since
//! what is made to fail fails everywhere in it.

#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used)] // a test that cannot go on ends

mod common;

use common::instance;
use kvfs::Ino;
use kvfs::data::DataOptions;
use kvfs::engine::{Engine, EngineOptions, Opening};
use kvfs::fs::{FileSystem, Fs};
use kvfs::op::Privileges;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Six files in a segment.
const FILE_BYTES: usize = 20_000;
const SEGMENT_BYTES: u32 = 128 << 10;

fn open(dir: &Path) -> (Fs, Arc<Engine>) {
    let data = DataOptions { segment_bytes: SEGMENT_BYTES, spares: 0, max_bytes: None };
    let checkpoint_interval = Duration::from_secs(3600);
    let options = EngineOptions { data, checkpoint_interval, ..EngineOptions::default() };
    let fs = common::open(dir, Opening::Fresh, options);
    let engine = fs.engine().unwrap();
    (fs, engine)
}

fn written(fs: &Fs, number: usize) -> Ino {
    let file = common::make(fs, &format!("file {number}"));
    fs.write(file, 0, &content(number), Privileges::Keep).unwrap();
    file
}

fn content(number: usize) -> Vec<u8> {
    (0..FILE_BYTES).map(|at| (at % 251) as u8 ^ number as u8).collect()
}

fn check(fs: &Fs, files: &[(usize, Ino)]) {
    for (number, file) in files {
        assert!(fs.read(*file, 0, u32::MAX).unwrap() == content(*number), "file {number} shows other bytes");
    }
}

#[test]
fn segments_of_a_move_that_failed_stay_until_the_next_start() {
    let dir = instance();
    let (fs, engine) = open(dir.path());
    let files: Vec<(usize, Ino)> = (0..60).map(|number| (number, written(&fs, number))).collect();
    engine.checkpoint().unwrap();
    let (mut left, gone): (Vec<_>, Vec<_>) = files.into_iter().partition(|(number, _)| number % 4 == 0);
    for (number, file) in gone {
        fs.unlink(Ino::ROOT, format!("file {number}").as_bytes()).unwrap();
        fs.forgotten(file);
    }
    engine.checkpoint().unwrap();
    let before = engine.data().used_bytes();

    fail::cfg("kvfs::checkpoint::before_commit", "return").unwrap();
    // If the engine's own thread goes on with it and fails, this does not.
    engine.compact(50).unwrap_or_default();
    fail::remove("kvfs::checkpoint::before_commit");
    let moved = engine.data().used_bytes();
    assert!(moved >= before + 15 * FILE_BYTES as u64 - u64::from(SEGMENT_BYTES), "vacuous: nothing was moved");
    // The last segment that it wrote to gets full, too, and each checkpoint looks for segments without a name; those that the one before
    // found are free when nobody reads the older tiers any more.
    for numbers in [60..72, 72..73, 73..74, 74..75] {
        left.extend(numbers.map(|number| (number, written(&fs, number))));
        engine.checkpoint().unwrap();
    }
    let written = (15 + 15) * FILE_BYTES as u64;
    let now = engine.data().used_bytes();
    assert!(now >= before + written, "{now}: of {before} before and {written} written since, something was freed");
    check(&fs, &left);

    engine.halt();
    drop((fs, engine));
    let (fs, engine) = open(dir.path());
    let after = engine.data().used_bytes();
    assert!(after + u64::from(SEGMENT_BYTES) <= now, "{after} of {now} are in use: the start knows what is named");
    check(&fs, &left);
}
