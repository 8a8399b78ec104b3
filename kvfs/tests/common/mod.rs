//! An engine in a directory of its own, with nothing below it.

use kvfs::base::EmptyBase;
use kvfs::engine::{Engine, EngineIdentity, EngineOptions, EngineSetup, InstanceDirs, Opening, create_instance};
use kvfs::fs::{Caller, FileSystem, Fs, NewNode, SystemClock};
use kvfs::node::NodeStore;
use kvfs::schema::{FileKind, Time};
use kvfs::stack::Stack;
use kvfs::{Epoch, Ino};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use uuid::Uuid;

/// A new one, not open.
pub fn instance() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let dirs = InstanceDirs::new(dir.path());
    let node = NodeStore::open(&dirs.node()).unwrap();
    create_instance(&dirs, &node, EngineIdentity { fs: Uuid::from_u128(1), epoch: Epoch(1) }, &EmptyBase).unwrap();
    dir
}

/// The one in `dir`; without a ballast.
pub fn open(dir: &Path, opening: Opening, options: EngineOptions) -> Fs {
    let dirs = InstanceDirs::new(dir);
    let node = Arc::new(NodeStore::open(&dirs.node()).unwrap());
    let stack = Arc::new(Stack::read_only(Arc::new(EmptyBase)));
    let options = EngineOptions { ballast_bytes: 0, ..options };
    let setup = EngineSetup { dirs, node, stack, owner: (0, 0), now: Time::default(), options, opening };
    Fs::new(Engine::open(setup).unwrap(), Arc::new(SystemClock))
}

/// An empty file.
pub fn make(fs: &Fs, name: &str) -> Ino {
    let node = NewNode { kind: FileKind::Regular, mode: 0o644, umask: 0, rdev: 0, target: &[] };
    fs.make(Caller { uid: 0, gid: 0 }, Ino::ROOT, name.as_bytes(), &node).unwrap().ino
}
