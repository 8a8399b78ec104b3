//! The filesystem and the model side by side.

use crate::acl::ModelAcl;
use crate::base::MemoryBase;
use crate::reference::{Content, Id, Node, ROOT, Reference};
use crate::{FILES_DRAWN, Step};
use kvfs::acl::{AclKind, AclSupport};
use kvfs::base::Base as _;
use kvfs::data::DataOptions;
use kvfs::engine::{Engine, EngineIdentity, EngineOptions, EngineSetup, InstanceDirs, Opening, create_instance};
use kvfs::fs::{Caller, FileSystem, Fs, NewNode, Sgid, SystemClock};
use kvfs::journal::JournalOptions;
use kvfs::node::{NodeChanges, NodeStore};
use kvfs::op::{
    AllocateMode, AttributeChange, CopyRange, Privileges, RenameMode, SnapshotKind, SnapshotRequest, XattrMode,
};
use kvfs::schema::{FileKind, Time};
use kvfs::stack::Stack;
use kvfs::{Epoch, Ino};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) struct Rig {
    dir: TempDir,
    fs: Option<Fs>,
    base: Arc<MemoryBase>,
    model: Reference,
    inos: BTreeMap<Id, Ino>,
    /// Directories and files by index: steps name them so.
    dirs: Vec<Id>,
    files: Vec<Id>,
    /// Without a name, and still held by somebody.
    held: Vec<Id>,
    snapshots: Vec<(Uuid, Reference)>,
}

const CALLER: Caller = Caller { uid: 1000, gid: 100 };

fn options() -> EngineOptions {
    EngineOptions {
        checkpoint_interval: Duration::from_secs(3600),
        published_kept: 1,
        journal: JournalOptions { segment_bytes: 256 << 10, spares: 1 },
        data: DataOptions { segment_bytes: 2 << 20, spares: 1, ..DataOptions::default() },
        ballast_bytes: 0,
        ..EngineOptions::default()
    }
}

fn name(n: u8) -> Vec<u8> {
    vec![b'a' + n]
}

/// In memory where there is such a place: what a disk loses is tested elsewhere.
fn memory_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

impl Rig {
    pub(crate) fn new() -> Self {
        let dir = memory_dir();
        let base = Arc::new(MemoryBase::default());
        {
            let dirs = InstanceDirs::new(dir.path());
            let node = NodeStore::open(&dirs.node()).unwrap();
            let identity = EngineIdentity { fs: Uuid::from_u128(1), epoch: Epoch(1) };
            create_instance(&dirs, &node, identity, base.as_ref()).unwrap();
        }
        let inos = BTreeMap::from([(ROOT, Ino::ROOT)]);
        let (dirs, files, held, snapshots) = (vec![ROOT], Vec::new(), Vec::new(), Vec::new());
        let model = Reference::new();
        let mut rig = Self { dir, fs: None, base, model, inos, dirs, files, held, snapshots };
        rig.open();
        rig
    }

    fn open(&mut self) {
        let dirs = InstanceDirs::new(self.dir.path());
        let node = Arc::new(NodeStore::open(&dirs.node()).unwrap());
        let stack = Arc::new(Stack::read_only(Arc::clone(&self.base) as _));
        let now = Time::default();
        let setup = EngineSetup { dirs, node, stack, owner: (0, 0), now, options: options(), opening: Opening::Fresh };
        self.fs = Some(Fs::new(Engine::open(setup).unwrap(), Arc::new(SystemClock)).with_acls(AclSupport::Enforced));
        self.held.clear();
    }

    fn fs(&self) -> &Fs {
        self.fs.as_ref().unwrap()
    }

    fn engine(&self) -> Arc<Engine> {
        self.fs().engine().unwrap()
    }

    /// As after `kill -9`: what was written reached the page cache, nothing else was done.
    pub(crate) fn crash(&mut self) {
        self.engine().halt();
        self.fs = None;
        self.open();
    }

    fn dir(&self, n: u8) -> Id {
        self.dirs[n as usize % self.dirs.len()]
    }

    fn file(&self, n: u8) -> Option<Id> {
        (!self.files.is_empty()).then(|| self.files[n as usize % self.files.len()])
    }

    /// What is still there to be opened: it has a name, or somebody holds it.
    fn live(&self, id: Id) -> bool {
        self.model.nodes.get(&id).is_some_and(|n| n.names > 0) || self.held.contains(&id)
    }

    fn lost_name(&mut self, id: Id) {
        if self.model.nodes[&id].names == 0 {
            self.held.push(id);
        }
    }

    #[allow(clippy::too_many_lines)]
    pub(crate) fn run(&mut self, step: &Step) {
        match step {
            Step::MakeFile(d, n) => self.make(*d, *n, FileKind::Regular),
            Step::MakeDir(d, n) => self.make(*d, *n, FileKind::Directory),
            Step::Symlink(d, n) => self.make(*d, *n, FileKind::Symlink),
            Step::Link(f, d, n) => {
                let Some(file) = self.file(*f).filter(|f| self.live(*f)) else { return };
                let parent = self.dir(*d);
                let real = self.fs().link(self.inos[&file], self.inos[&parent], &name(*n));
                assert_eq!(real.is_ok(), self.model.link(file, parent, &name(*n)).is_ok(), "{step:?}: {real:?}");
            }
            Step::Unlink(d, n) => self.remove(*d, *n, false),
            Step::Rmdir(d, n) => self.remove(*d, *n, true),
            Step::Rename { from, to, mode } => self.rename(*from, *to, *mode),
            Step::Write { file, offset, len, fill } => {
                self.with_file(*file, |rig, id, ino| {
                    let data: Vec<u8> = (0..*len).map(|i| fill.wrapping_add((i % 251) as u8)).collect();
                    let real = rig.fs().write(ino, u64::from(*offset), &data, Privileges::Keep);
                    assert_eq!(real.unwrap(), *len);
                    let (start, end) = (*offset as usize, (*offset + *len) as usize);
                    let bytes = rig.model.file(id).unwrap();
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[start..end].copy_from_slice(&data);
                });
            }
            Step::Truncate { file, size } => self.with_file(*file, |rig, id, ino| {
                let change = AttributeChange { size: Some(u64::from(*size)), ..AttributeChange::default() };
                rig.fs().set_attributes(ino, &change, Privileges::Keep).unwrap();
                rig.model.file(id).unwrap().resize(*size as usize, 0);
            }),
            Step::Allocate { file, offset, len, mode } => self.with_file(*file, |rig, id, ino| {
                let (start, len) = (u64::from(*offset), u64::from(*len));
                rig.fs().allocate(ino, start, len, *mode, Privileges::Keep).unwrap();
                let bytes = rig.model.file(id).unwrap();
                let (start, end) = (start as usize, (start + len) as usize);
                if matches!(mode, AllocateMode::Extend | AllocateMode::ZeroRange) {
                    bytes.resize(bytes.len().max(end), 0);
                }
                if !matches!(mode, AllocateMode::Extend | AllocateMode::KeepSize) {
                    let upto = end.min(bytes.len());
                    bytes[start.min(upto)..upto].fill(0);
                }
            }),
            Step::CopyRange { from, to, len } => self.copy_range(*from, *to, *len),
            Step::SetXattr(f, n, v) => self.with_file(*f, |rig, id, ino| {
                let key = [b"user.", &name(*n)[..]].concat();
                rig.fs().set_xattr(ino, &key, &[*v; 10], XattrMode::Set).unwrap();
                rig.model.node(id).xattrs.insert(key, vec![*v; 10]);
            }),
            Step::RemoveXattr(f, n) => self.with_file(*f, |rig, id, ino| {
                let key = [b"user.", &name(*n)[..]].concat();
                let real = rig.fs().remove_xattr(ino, &key);
                assert_eq!(real.is_ok(), rig.model.node(id).xattrs.remove(&key).is_some());
            }),
            Step::Chmod(n, mode) => self.with_inode(*n, |rig, id, ino| {
                let change = AttributeChange { mode: Some(u32::from(*mode)), ..AttributeChange::default() };
                rig.fs().set_attributes(ino, &change, Privileges::Keep).unwrap();
                rig.model.node(id).chmod(u32::from(*mode));
            }),
            Step::SetAcl(n, kind, acl) => self.set_acl(*n, *kind, Some(acl.clone())),
            Step::RemoveAcl(n, kind) => self.set_acl(*n, *kind, None),
            Step::Read { file, offset, len } => self.with_file(*file, |rig, id, ino| {
                let real = rig.fs().read(ino, u64::from(*offset), *len).unwrap();
                let bytes = rig.model.file(id).unwrap();
                let (start, end) = ((*offset as usize).min(bytes.len()), ((*offset + *len) as usize).min(bytes.len()));
                assert!(real == bytes[start..end], "{step:?} of inode {ino} reads other bytes");
            }),
            Step::Sync(f) => self.with_file(*f, |rig, _, ino| rig.fs().sync(ino).unwrap()),
            Step::Forget(f) => {
                let Some(file) = self.file(*f) else { return };
                self.fs().forgotten(self.inos[&file]);
                self.held.retain(|id| *id != file);
            }
            Step::Checkpoint => self.engine().checkpoint().unwrap(),
            Step::Compact(percent) => self.engine().compact(*percent).unwrap(),
            Step::Crash => {
                self.crash();
                self.compare();
            }
            Step::Restart => {
                self.engine().close().unwrap();
                self.crash();
                self.compare();
            }
            Step::Snapshot => self.snapshot(),
            Step::Publish => self.publish(),
        }
    }

    fn with_file(&mut self, n: u8, run: impl FnOnce(&mut Self, Id, Ino)) {
        if let Some(id) = self.file(n).filter(|id| self.live(*id)) {
            run(self, id, self.inos[&id]);
        }
    }

    /// Files, then directories.
    fn with_inode(&mut self, n: u8, run: impl FnOnce(&mut Self, Id, Ino)) {
        match n.checked_sub(FILES_DRAWN).map(|n| self.dir(n)) {
            None => self.with_file(n, run),
            Some(id) if self.model.nodes.get(&id).is_some_and(|node| node.names > 0) => run(self, id, self.inos[&id]),
            Some(_) => {}
        }
    }

    fn set_acl(&mut self, n: u8, kind: AclKind, acl: Option<ModelAcl>) {
        self.with_inode(n, |rig, id, ino| {
            let real = match &acl {
                Some(acl) => rig.fs().set_acl(ino, kind, &acl.value(), Sgid::Keep),
                None => rig.fs().remove_xattr(ino, kind.name()),
            };
            let modelled = rig.model.set_acl(id, kind, acl);
            assert_eq!(real.is_ok(), modelled.is_ok(), "{kind:?} of inode {ino}: {real:?}");
            compare_node(rig.fs(), &rig.model.nodes[&id], ino);
        });
    }

    fn copy_range(&mut self, from: (u8, u32), to: (u8, u32), len: u32) {
        let (Some(source), Some(target)) = (self.file(from.0), self.file(to.0)) else { return };
        if !self.live(source) || !self.live(target) {
            return;
        }
        let (from_offset, to_offset) = (u64::from(from.1), u64::from(to.1));
        let (from, to) = (self.inos[&source], self.inos[&target]);
        let range = CopyRange { from, from_offset, to, to_offset, len: u64::from(len) };
        let real = self.fs().copy_range(&range, Privileges::Keep);
        let bytes = self.model.file(source).unwrap();
        let start = bytes.len().min(from_offset as usize);
        let copied = bytes[start..bytes.len().min(start + len as usize)].to_vec();
        let distance = from_offset.abs_diff(to_offset);
        if source == target && distance < copied.len() as u64 {
            assert!(real.is_err(), "{range:?} overlaps: {real:?}");
            return;
        }
        assert_eq!(real.unwrap(), copied.len() as u64, "{range:?}");
        if !copied.is_empty() {
            let (at, end) = (to_offset as usize, to_offset as usize + copied.len());
            let bytes = self.model.file(target).unwrap();
            bytes.resize(bytes.len().max(end), 0);
            bytes[at..end].copy_from_slice(&copied);
        }
    }

    fn make(&mut self, d: u8, n: u8, kind: FileKind) {
        let parent = self.dir(d);
        let target: &[u8] = if kind == FileKind::Symlink { b"some/where" } else { b"" };
        let node = NewNode { kind, mode: 0o676, umask: 0o027, rdev: 0, target };
        let real = self.fs().make(CALLER, self.inos[&parent], &name(n), &node);
        let content = match kind {
            FileKind::Directory => Content::Dir(BTreeMap::new()),
            FileKind::Symlink => Content::Symlink(target.to_vec()),
            _ => Content::File(Arc::default()),
        };
        let modelled = self.model.make(parent, &name(n), content, node.mode, node.umask);
        assert_eq!(real.is_ok(), modelled.is_ok(), "{real:?}");
        if let (Ok(real), Ok(id)) = (real, modelled) {
            self.inos.insert(id, real.ino);
            match kind {
                FileKind::Directory => self.dirs.push(id),
                FileKind::Regular => self.files.push(id),
                _ => {}
            }
        }
    }

    fn remove(&mut self, d: u8, n: u8, want_dir: bool) {
        let parent = self.dir(d);
        let ino = self.inos[&parent];
        let real = if want_dir { self.fs().rmdir(ino, &name(n)) } else { self.fs().unlink(ino, &name(n)) };
        let modelled = self.model.remove(parent, &name(n), want_dir);
        assert_eq!(real.is_ok(), modelled.is_ok(), "{real:?}");
        if let Ok(id) = modelled {
            self.lost_name(id);
        }
    }

    fn rename(&mut self, from: (u8, u8), to: (u8, u8), mode: RenameMode) {
        let (a, b) = (self.dir(from.0), self.dir(to.0));
        let (n, m) = (name(from.1), name(to.1));
        let real = self.fs().rename((self.inos[&a], &n), (self.inos[&b], &m), mode);
        let modelled = self.model.rename((a, &n), (b, &m), mode);
        assert_eq!(real.is_ok(), modelled.is_ok(), "{from:?} {to:?} {mode:?}: {real:?}");
        if let Ok(Some(id)) = modelled {
            self.lost_name(id);
        }
    }

    fn snapshot(&mut self) {
        let id = Uuid::new_v4();
        let request =
            SnapshotRequest { id, name: None, kind: SnapshotKind::User, key: None, requested: Time::default() };
        let waiting = self.engine().pending_snapshots().len();
        let real = self.engine().take_snapshot(request, &std::collections::BTreeSet::new());
        assert_eq!(real.is_ok(), waiting < 4, "{real:?}");
        if real.is_ok() {
            self.snapshots.push((id, self.model.clone()));
        }
    }

    /// Publishes the oldest snapshot, and checks that it shows its instant.
    fn publish(&mut self) {
        if self.snapshots.is_empty() {
            return;
        }
        let (id, then) = self.snapshots.remove(0);
        let engine = self.engine();
        engine.checkpoint().unwrap();
        let changes = engine.changes_of(id, self.base.xid()).expect("a sealed snapshot");
        self.base = Arc::new(self.base.next(&changes).unwrap());
        let slave = Fs::read_only(Arc::new(Stack::read_only(Arc::clone(&self.base) as _)), Arc::new(SystemClock));
        let slave = slave.with_acls(AclSupport::Enforced);
        compare_dir(&slave, &then, ROOT, Ino::ROOT);
        engine.publish(Arc::clone(&self.base) as _, &NodeChanges::default()).unwrap();
        self.compare();
    }

    pub(crate) fn compare(&self) {
        compare_dir(self.fs(), &self.model, ROOT, Ino::ROOT);
        for id in &self.held {
            if let Content::File(bytes) = &self.model.nodes[id].content {
                compare_file(self.fs(), self.inos[id], bytes);
            }
        }
        let named = self.model.nodes.values().filter(|n| n.names > 0);
        let inodes = named.clone().count() as u64;
        let bytes = named.map(|n| if let Content::File(b) = &n.content { b.len() as u64 } else { 0 }).sum::<u64>();
        let totals = self.engine().totals();
        assert_eq!((totals.inodes, totals.bytes), (inodes, bytes), "sums over the tree");
    }
}

fn compare_node(fs: &Fs, node: &Node, ino: Ino) {
    assert_eq!(fs.attributes(ino).unwrap().mode, node.mode, "mode of inode {ino}");
    let names = fs.list_xattrs(ino).unwrap().into_iter();
    let xattrs: BTreeMap<_, _> = names.map(|name| (name.clone(), fs.get_xattr(ino, &name).unwrap().to_vec())).collect();
    assert_eq!(xattrs, node.attributes(), "attributes of inode {ino}");
}

fn compare_dir(fs: &Fs, model: &Reference, id: Id, ino: Ino) {
    compare_node(fs, &model.nodes[&id], ino);
    let names = model.dir(id).unwrap();
    let mut listed = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let batch = fs.read_dir(ino, after.as_deref(), 3).unwrap();
        let Some(last) = batch.last() else { break };
        after = Some(last.name.clone());
        listed.extend(batch);
    }
    let real: Vec<&[u8]> = listed.iter().skip(2).map(|e| e.name.as_slice()).collect();
    assert_eq!(real, names.keys().map(Vec::as_slice).collect::<Vec<_>>(), "names of directory {ino}");
    assert_eq!(fs.attributes(ino).unwrap().nlink, 2 + model.subdirs(id), "links of directory {ino}");
    for (name, child) in names {
        let attributes = fs.lookup(ino, name).unwrap();
        let node = &model.nodes[child];
        if !model.is_dir(*child) {
            compare_node(fs, node, attributes.ino);
        }
        match &node.content {
            Content::Dir(_) => compare_dir(fs, model, *child, attributes.ino),
            Content::Symlink(target) => assert_eq!(&fs.read_link(attributes.ino).unwrap(), target),
            Content::File(bytes) => {
                assert_eq!(attributes.nlink, node.names);
                compare_file(fs, attributes.ino, bytes);
            }
        }
    }
}

fn compare_file(fs: &Fs, ino: Ino, bytes: &[u8]) {
    let attributes = fs.attributes(ino).unwrap();
    assert_eq!(attributes.size, bytes.len() as u64, "size of inode {ino}");
    let real = fs.read(ino, 0, u32::MAX).unwrap();
    if let Some(at) = real.iter().zip(bytes).position(|(a, b)| a != b) {
        panic!("inode {ino} differs at byte {at}: {} instead of {}", real[at], bytes[at]);
    }
}
