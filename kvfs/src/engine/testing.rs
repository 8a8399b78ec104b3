//! An engine in a directory of its own, with nothing below it.

use super::{Engine, EngineIdentity, EngineOptions, EngineSetup, InstanceDirs, Opening, create_instance};
use crate::base::EmptyBase;
use crate::data::DataOptions;
use crate::fs::{Caller, FileSystem, Fs, NewNode, SystemClock};
use crate::ids::{Epoch, Ino};
use crate::node::NodeStore;
use crate::op::Privileges;
use crate::schema::{FileKind, Time};
use crate::stack::Stack;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

pub(super) struct Instance {
    pub dir: tempfile::TempDir,
    pub engine: Arc<Engine>,
    pub fs: Fs,
    options: EngineOptions,
}

/// Small segments, and no checkpoint by itself.
pub(super) fn options() -> EngineOptions {
    let data = DataOptions { segment_bytes: 128 << 10, spares: 0, max_bytes: None };
    EngineOptions { data, checkpoint_interval: Duration::from_secs(3600), ballast_bytes: 0, ..EngineOptions::default() }
}

impl Instance {
    pub fn new(options: EngineOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let dirs = InstanceDirs::new(dir.path());
        let node = NodeStore::open(&dirs.node()).unwrap();
        create_instance(&dirs, &node, EngineIdentity { fs: Uuid::from_u128(1), epoch: Epoch(1) }, &EmptyBase).unwrap();
        drop(node);
        let (engine, fs) = open(dir.path(), options);
        Self { dir, engine, fs, options }
    }

    /// As `kill -9` leaves it, and begun again.
    pub fn crash(self) -> Self {
        let Self { dir, engine, fs, options } = self;
        engine.halt();
        drop((engine, fs));
        let (engine, fs) = open(dir.path(), options);
        Self { dir, engine, fs, options }
    }

    pub fn make(&self, name: &str) -> Ino {
        let new = NewNode { kind: FileKind::Regular, mode: 0o644, umask: 0, rdev: 0, target: &[] };
        self.fs.make(Caller { uid: 0, gid: 0 }, Ino::ROOT, name.as_bytes(), &new).unwrap().ino
    }

    pub fn write(&self, file: Ino, offset: u64, bytes: &[u8]) {
        self.fs.write(file, offset, bytes, Privileges::Keep).unwrap();
    }
}

fn open(dir: &Path, options: EngineOptions) -> (Arc<Engine>, Fs) {
    let dirs = InstanceDirs::new(dir);
    let node = Arc::new(NodeStore::open(&dirs.node()).unwrap());
    let stack = Arc::new(Stack::read_only(Arc::new(EmptyBase)));
    let (now, opening) = (Time::default(), Opening::Fresh);
    let engine = Engine::open(EngineSetup { dirs, node, stack, owner: (0, 0), now, options, opening }).unwrap();
    let fs = Fs::new(Arc::clone(&engine), Arc::new(SystemClock));
    (engine, fs)
}
