//! What an operation costs in the engine alone, without a kernel in between: nanoseconds of wall and of processor time
//! for each, the checkpointer's included.
//!
//! ```sh
//! cargo bench -p kvfs --bench engine -- [DIR] [FILES]
//! ```
//! DIR is where the state goes (default: the directory for temporary files); FILES is how many files (default 100000).
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a benchmark that cannot go on ends

use kvfs::base::EmptyBase;
use kvfs::engine::{Engine, EngineIdentity, EngineOptions, EngineSetup, InstanceDirs, Opening, create_instance};
use kvfs::fs::{Caller, FileSystem, Fs, NewNode, SystemClock};
use kvfs::node::NodeStore;
use kvfs::op::{Privileges, RenameMode};
use kvfs::schema::{FileKind, Time};
use kvfs::stack::Stack;
use kvfs::{Epoch, Ino};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// The allocator of the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
const BLOCK: usize = 4096;
const FILES_PER_DIR: usize = 100;
const LARGE_BYTES: u64 = 256 << 20;

fn open(dir: &Path) -> Fs {
    let dirs = InstanceDirs::new(dir);
    let node = Arc::new(NodeStore::open(&dirs.node()).unwrap());
    if kvfs::engine::identity_of(&node).unwrap().is_none() {
        let identity = EngineIdentity { fs: Uuid::from_u128(1), epoch: Epoch(1) };
        create_instance(&dirs, &node, identity, &EmptyBase).unwrap();
    }
    let stack = Arc::new(Stack::read_only(Arc::new(EmptyBase)));
    let options = EngineOptions::default();
    let setup =
        EngineSetup { dirs, node, stack, owner: (0, 0), now: Time::default(), options, opening: Opening::Fresh };
    Fs::new(Engine::open(setup).unwrap(), Arc::new(SystemClock))
}

fn node(kind: FileKind) -> NewNode<'static> {
    NewNode { kind, mode: 0o644, umask: 0, rdev: 0, target: &[] }
}

/// Processor time of the process, nanoseconds.
fn processor_ns() -> u64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64
}

fn measure(name: &str, count: usize, work: impl FnOnce()) {
    let (start, cpu) = (Instant::now(), processor_ns());
    work();
    let (wall, cpu) = (start.elapsed().as_nanos() as u64, processor_ns() - cpu);
    println!("{name:34} {:>9} ns wall {:>9} ns cpu", wall / count as u64, cpu / count as u64);
}

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let below = words.next().map_or_else(std::env::temp_dir, Into::into);
    let files: usize = words.next().map_or(100_000, |n| n.parse().unwrap());
    let dir = tempfile::Builder::new().prefix("kvfs-bench-").tempdir_in(below).unwrap();
    let fs = open(dir.path());
    let dirs = names_steps(&fs, files);
    fs.engine().unwrap().close().unwrap();
    drop(fs);
    let fs = open(dir.path());
    cold_steps(&fs, &dirs, files);
    large_steps(&fs);
    fs.engine().unwrap().close().unwrap();
}

fn file_name(n: usize) -> Vec<u8> {
    format!("f{n}").into_bytes()
}

/// Where file `n` lies.
fn place(dirs: &[Ino], n: usize) -> Ino {
    dirs[n / FILES_PER_DIR]
}

fn names_steps(fs: &Fs, files: usize) -> Vec<Ino> {
    let count = files.div_ceil(FILES_PER_DIR);
    let mut dirs = Vec::new();
    measure("mkdir", count, || {
        for n in 0..count {
            let name = format!("d{n}");
            dirs.push(fs.make(CALLER, Ino::ROOT, name.as_bytes(), &node(FileKind::Directory)).unwrap().ino);
        }
    });
    let block = [7; BLOCK];
    measure("create: look up, make, write 4 KiB", files, || {
        for n in 0..files {
            let (parent, name) = (place(&dirs, n), file_name(n));
            assert!(fs.lookup(parent, &name).is_err());
            let made = fs.make(CALLER, parent, &name, &node(FileKind::Regular)).unwrap();
            fs.write(made.ino, 0, &block, Privileges::Keep).unwrap();
        }
    });
    measure("look up", files, || {
        for n in 0..files {
            fs.lookup(place(&dirs, n), &file_name(n)).unwrap();
        }
    });
    dirs
}

fn cold_steps(fs: &Fs, dirs: &[Ino], files: usize) {
    measure("look up in LMDB", files, || {
        for n in 0..files {
            fs.lookup(place(dirs, n), &file_name(n)).unwrap();
        }
    });
    measure("list names, each", files, || {
        for dir in dirs {
            assert!(fs.read_dir(*dir, None, usize::MAX).unwrap().len() > 2);
        }
    });
    measure("look up and read 4 KiB", files, || {
        for n in 0..files {
            let found = fs.lookup(place(dirs, n), &file_name(n)).unwrap();
            assert_eq!(fs.read(found.ino, 0, BLOCK as u32).unwrap().len(), BLOCK);
        }
    });
    measure("create beside old ones", files, || {
        for n in 0..files {
            let (parent, name) = (place(dirs, n), format!("g{n}"));
            assert!(fs.lookup(parent, name.as_bytes()).is_err());
            let made = fs.make(CALLER, parent, name.as_bytes(), &node(FileKind::Regular)).unwrap();
            fs.write(made.ino, 0, &[7; BLOCK], Privileges::Keep).unwrap();
        }
    });
    measure("rename", files, || {
        for n in 0..files {
            let parent = place(dirs, n);
            let to = format!("r{n}");
            fs.rename((parent, &file_name(n)), (parent, to.as_bytes()), RenameMode::Replace).unwrap();
        }
    });
    measure("unlink and forget", files, || {
        for n in 0..files {
            let (parent, name) = (place(dirs, n), format!("r{n}"));
            let ino = fs.lookup(parent, name.as_bytes()).unwrap().ino;
            fs.unlink(parent, name.as_bytes()).unwrap();
            fs.forgotten(ino);
        }
    });
}

fn large_steps(fs: &Fs) {
    let chunk = vec![9; 1 << 20];
    let large = fs.make(CALLER, Ino::ROOT, b"large", &node(FileKind::Regular)).unwrap().ino;
    let chunks = (LARGE_BYTES >> 20) as usize;
    for name in ["write 1 MiB", "write 1 MiB again"] {
        measure(name, chunks, || {
            for n in 0..chunks {
                fs.write(large, (n as u64) << 20, &chunk, Privileges::Keep).unwrap();
            }
        });
    }
    measure("fsync", 1, || fs.sync(large).unwrap());
    measure("read 128 KiB", chunks * 8, || {
        for n in 0..chunks * 8 {
            fs.read(large, (n as u64) << 17, 128 << 10).unwrap();
        }
    });
    let mut random = SmallRng::seed_from_u64(7);
    let mut offset = move || random.random_range(0..LARGE_BYTES / BLOCK as u64) * BLOCK as u64;
    let count = 50_000;
    measure("write 4 KiB at random", count, || {
        for _ in 0..count {
            fs.write(large, offset(), &[3; BLOCK], Privileges::Keep).unwrap();
        }
    });
    measure("fsync", 1, || fs.sync(large).unwrap());
    measure("read 4 KiB at random", count, || {
        for _ in 0..count {
            fs.read(large, offset(), BLOCK as u32).unwrap();
        }
    });
    let log = fs.make(CALLER, Ino::ROOT, b"log", &node(FileKind::Regular)).unwrap().ino;
    measure("append 100 bytes", count, || {
        for n in 0..count {
            fs.write(log, n as u64 * 100, &[4; 100], Privileges::Keep).unwrap();
        }
    });
}
