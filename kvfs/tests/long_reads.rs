//! Long reads of a large file that changes in between, with the host's page cache warm, cold and in between: always what was written.

#![allow(clippy::unwrap_used)] // a test that cannot go on ends

mod common;

use common::{instance, make};
use kvfs::engine::{EngineOptions, InstanceDirs, Opening};
use kvfs::fs::FileSystem;
use kvfs::op::{AllocateMode, Privileges};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::fs::{Advice, fadvise};
use std::path::Path;

const FILE_BYTES: usize = 12 << 20;
const MIB: usize = 1 << 20;

/// A whole block or what comes, at a whole place or anywhere.
fn range(random: &mut StdRng) -> (usize, usize) {
    let len = match random.random_range(0..4) {
        0 => 128 << 10,
        1 => MIB,
        _ => random.random_range(1..MIB + 1),
    };
    let offset = random.random_range(0..FILE_BYTES - len + 1);
    (if random.random_bool(0.5) { offset / len * len } else { offset }, len)
}

fn drop_cache(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let file = std::fs::File::open(entry.unwrap().path()).unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

#[test]
fn long_reads_show_what_was_written() {
    let dir = instance();
    let fs = common::open(dir.path(), Opening::Fresh, EngineOptions::default());
    let engine = fs.engine().unwrap();
    let file = make(&fs, "file");
    let mut random = StdRng::seed_from_u64(11);
    let mut wanted = vec![0; FILE_BYTES];
    fs.allocate(file, 0, FILE_BYTES as u64, AllocateMode::Extend, Privileges::Keep).unwrap();
    for step in 0..400 {
        let (offset, len) = range(&mut random);
        let span = offset..offset + len;
        match random.random_range(0..10) {
            0 => {
                fs.allocate(file, offset as u64, len as u64, AllocateMode::PunchHole, Privileges::Keep).unwrap();
                wanted[span].fill(0);
            }
            1 => engine.checkpoint().unwrap(),
            2 | 3 => {
                fs.sync(file).unwrap();
                drop_cache(&InstanceDirs::new(dir.path()).data());
            }
            _ => {
                random.fill(&mut wanted[span.clone()]);
                fs.write(file, offset as u64, &wanted[span], Privileges::Keep).unwrap();
            }
        }
        for _ in 0..3 {
            let (offset, len) = range(&mut random);
            let read = fs.read(file, offset as u64, len as u32).unwrap();
            assert!(read == wanted[offset..offset + len], "step {step}: {len} bytes at {offset}");
        }
    }
}
