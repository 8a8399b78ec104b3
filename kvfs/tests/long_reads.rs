//! Long reads of a large file that changes in between, with the host's page cache warm, cold and in between: always what was written.

#![allow(clippy::unwrap_used)] // a test that cannot go on ends

use kvfs::base::EmptyBase;
use kvfs::engine::{Engine, EngineIdentity, EngineOptions, EngineSetup, InstanceDirs, Opening, create_instance};
use kvfs::fs::{Caller, FileSystem, Fs, NewNode, SystemClock};
use kvfs::node::NodeStore;
use kvfs::op::{AllocateMode, Privileges};
use kvfs::schema::{FileKind, Time};
use kvfs::stack::Stack;
use kvfs::{Epoch, Ino};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::fs::{Advice, fadvise};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

const FILE_BYTES: usize = 12 << 20;
const MIB: usize = 1 << 20;

fn open(dir: &Path) -> (Fs, Arc<Engine>) {
    let dirs = InstanceDirs::new(dir);
    let node = NodeStore::open(&dirs.node()).unwrap();
    create_instance(&dirs, &node, EngineIdentity { fs: Uuid::from_u128(1), epoch: Epoch(1) }, &EmptyBase).unwrap();
    let stack = Arc::new(Stack::read_only(Arc::new(EmptyBase)));
    let options = EngineOptions { ballast_bytes: 0, ..EngineOptions::default() };
    let (node, now, opening) = (Arc::new(node), Time::default(), Opening::Fresh);
    let engine = Engine::open(EngineSetup { dirs, node, stack, owner: (0, 0), now, options, opening }).unwrap();
    (Fs::new(Arc::clone(&engine), Arc::new(SystemClock)), engine)
}

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
    let dir = tempfile::tempdir().unwrap();
    let (fs, engine) = open(dir.path());
    let node = NewNode { kind: FileKind::Regular, mode: 0o644, umask: 0, rdev: 0, target: &[] };
    let file: Ino = fs.make(Caller { uid: 0, gid: 0 }, Ino::ROOT, b"file", &node).unwrap().ino;
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
