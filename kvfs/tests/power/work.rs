//! Threads at work on a filesystem, each in a directory of its own, and the record of what they did and when.

use crate::instance::{Bases, Instance};
use crate::powerfs::PowerFs;
use crate::reference::{Content, Id, ROOT, Reference};
use crate::violation::broken;
use anyhow::{Result, bail};
use kvfs::base::Base;
use kvfs::engine::SnapshotRefusal;
use kvfs::fs::{Caller, FileSystem, Fs, NewNode};
use kvfs::op::{AllocateMode, AttributeChange, Privileges, RenameMode, XattrMode};
use kvfs::schema::FileKind;
use kvfs::{FsError, Ino, Xid};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use uuid::Uuid;

const CALLER: Caller = Caller { uid: 1000, gid: 100 };

/// A state of a thread's directory, and when the operation that led to it began and ended.
#[derive(Clone)]
pub struct Moment {
    pub model: Reference,
    pub began: u64,
    pub ended: u64,
}

/// What one thread did since the last restart: the state at the restart first.
pub struct History {
    pub moments: Mutex<Vec<Moment>>,
    acknowledged: AtomicUsize,
    begun: AtomicUsize,
    /// As many moments must survive the loss of power.
    floor: AtomicUsize,
}

impl History {
    /// Begins with `model`, which is durable.
    pub fn new(model: Reference) -> Self {
        let moments = Mutex::new(vec![Moment { model, began: 0, ended: 0 }]);
        let one = || AtomicUsize::new(1);
        Self { moments, acknowledged: one(), begun: one(), floor: one() }
    }

    /// The index of the last moment that must have survived.
    pub fn floor(&self) -> usize {
        self.floor.load(Ordering::SeqCst) - 1
    }
}

/// Where in each thread's history a snapshot's instant lies: from, to (indices, inclusive).
pub type Span = Vec<(usize, usize)>;

/// A snapshot that was asked for.
pub struct Taken {
    pub id: Uuid,
    pub xid: Xid,
    /// Its request came back while the power was on.
    pub confirmed: bool,
    pub span: Span,
}

/// What an error of an operation means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errors {
    /// A broken promise: nothing is planned to fail.
    Broken,
    /// The planned one, once it has struck: then nothing has happened.
    Planned,
}

/// What all threads share.
pub struct Shared<'w> {
    pub errors: Errors,
    pub power: &'w PowerFs,
    pub instance: &'w Instance,
    pub bases: &'w Bases,
    pub histories: Vec<History>,
    pub taken: Mutex<Vec<Taken>>,
    /// Publishing up to this xid came back while the power was on.
    pub published: AtomicU64,
    pub clock: AtomicU64,
    /// Syncs that came back in time.
    pub confirmed_syncs: AtomicUsize,
    /// Operations that got the planned error.
    pub refused: AtomicUsize,
}

impl<'w> Shared<'w> {
    /// Threads on `instance` whose directories are as `models` say.
    pub fn new(errors: Errors, on: (&'w PowerFs, &'w Instance, &'w Bases), models: &[Reference]) -> Self {
        let (power, instance, bases) = on;
        Self {
            errors,
            power,
            instance,
            bases,
            histories: models.iter().map(|model| History::new(model.clone())).collect(),
            taken: Mutex::default(),
            published: AtomicU64::new(0),
            clock: AtomicU64::new(1),
            confirmed_syncs: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        }
    }

    /// Whether an error was to be expected; counted.
    fn is_planned(&self) -> bool {
        let planned = self.errors == Errors::Planned && self.power.struck() > 0;
        self.refused.fetch_add(usize::from(planned), Ordering::SeqCst);
        planned
    }

    /// What comes of an error.
    fn refuse(&self, what: &str, error: &dyn std::fmt::Display) -> Result<()> {
        if self.is_planned() { Ok(()) } else { Err(broken(format!("{what}: {error}"))) }
    }

    fn acknowledged(&self) -> Vec<usize> {
        self.histories.iter().map(|history| history.acknowledged.load(Ordering::SeqCst)).collect()
    }

    /// What was acknowledged before is durable, if the power is still on.
    fn confirm(&self, acknowledged: &[usize]) -> bool {
        let in_time = !self.power.is_cut();
        if in_time {
            self.confirmed_syncs.fetch_add(1, Ordering::SeqCst);
            for (history, count) in self.histories.iter().zip(acknowledged) {
                history.floor.fetch_max(*count, Ordering::SeqCst);
            }
        }
        in_time
    }
}

/// One thread.
pub struct Worker<'w> {
    shared: &'w Shared<'w>,
    me: usize,
    top: Ino,
    rng: StdRng,
    model: Reference,
    inos: BTreeMap<Id, Ino>,
    pub done: usize,
}

impl<'w> Worker<'w> {
    /// Thread `me` on its directory as it is; `paths` are the inodes in it.
    pub fn new(shared: &'w Shared<'w>, me: usize, seed: u64, paths: &BTreeMap<String, Ino>) -> Result<Self> {
        let top = shared.instance.top(&format!("t{me}"))?;
        let model = shared.histories[me].moments.lock()[0].model.clone();
        let mut inos = BTreeMap::from([(ROOT, top)]);
        name_inodes(&model, ROOT, "", paths, &mut inos);
        let rng = StdRng::seed_from_u64(seed);
        Ok(Self { shared, me, top, rng, model, inos, done: 0 })
    }

    fn fs(&self) -> &'w Fs {
        &self.shared.instance.fs
    }

    /// Works until the power is gone, or `steps` are done.
    pub fn work(&mut self, steps: usize) -> Result<()> {
        for _ in 0..steps {
            if self.shared.power.is_cut() {
                break;
            }
            match self.rng.random_range(0..100) {
                0..13 => self.sync()?,
                13..17 if self.me == 0 => self.checkpoint()?,
                17..20 if self.me == 0 => self.snapshot()?,
                20..22 if self.me == 0 => self.publish()?,
                22..24 if self.me == 0 => self.compact()?,
                _ => self.change()?,
            }
            self.done += 1;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let acknowledged = self.shared.acknowledged();
        let engine = &self.shared.instance.engine;
        let had_failed = engine.read_only_reason().is_some();
        match self.fs().sync(self.top) {
            Ok(()) if had_failed => bail!(broken("fsync succeeds after one had failed")),
            Ok(()) => drop(self.shared.confirm(&acknowledged)),
            Err(error) => {
                self.shared.refuse("fsync", &error)?;
                if engine.read_only_reason().is_none() {
                    bail!(broken("an fsync failed, and the filesystem takes more"));
                }
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<()> {
        match self.shared.instance.engine.checkpoint() {
            Ok(()) => Ok(()),
            Err(error) => self.shared.refuse("checkpoint", &error),
        }
    }

    fn compact(&mut self) -> Result<()> {
        let percent = self.rng.random_range(30..=100);
        match self.shared.instance.engine.compact(percent) {
            Ok(()) => Ok(()),
            Err(error) => self.shared.refuse("compaction", &error),
        }
    }

    fn snapshot(&mut self) -> Result<()> {
        let id = Uuid::from_u64_pair(self.rng.next_u64(), self.rng.next_u64());
        let from = self.shared.acknowledged();
        let taken = self.shared.instance.engine.take_snapshot(Instance::request(id), &BTreeSet::new());
        let xid = match taken {
            Ok(xid) => xid,
            Err(SnapshotRefusal::QueueFull(_)) => return Ok(()),
            Err(error) => return self.shared.refuse("snapshot", &error),
        };
        let confirmed = self.shared.confirm(&from);
        let to = self.shared.histories.iter().map(|history| history.begun.load(Ordering::SeqCst));
        let span = from.iter().zip(to).map(|(from, to)| (from - 1, to - 1)).collect();
        self.shared.taken.lock().push(Taken { id, xid, confirmed, span });
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        let Shared { instance, bases, .. } = self.shared;
        let Some(oldest) = instance.engine.pending_snapshots().into_iter().next() else { return Ok(()) };
        self.checkpoint()?;
        let id = oldest.request.id;
        let base = match instance.collect(id, bases) {
            Ok(Some(base)) => base,
            Ok(None) => return self.shared.refuse("collecting", &"a snapshot is not sealed"),
            Err(error) => return self.shared.refuse("collecting", &error),
        };
        let xid = base.xid().0;
        if let Err(error) = instance.publish(base, bases) {
            return self.shared.refuse("publish", &error);
        }
        if !self.shared.power.is_cut() {
            self.shared.published.fetch_max(xid, Ordering::SeqCst);
        }
        Ok(())
    }

    /// One operation, on both; if it changes something, a moment of the history.
    fn change(&mut self) -> Result<()> {
        let history = &self.shared.histories[self.me];
        history.begun.fetch_add(1, Ordering::SeqCst);
        let began = self.shared.clock.fetch_add(1, Ordering::SeqCst);
        let before = (self.shared.errors == Errors::Planned).then(|| self.model.clone());
        let real = match self.step() {
            Ok(changed) => changed,
            Err(error) if self.shared.is_planned() && error.is::<Refused>() => {
                self.model = before.unwrap_or_else(Reference::new);
                false
            }
            Err(error) if error.is::<Refused>() => bail!(broken(error.to_string())),
            Err(error) => return Err(error),
        };
        let ended = self.shared.clock.fetch_add(1, Ordering::SeqCst);
        if real {
            let model = self.model.clone();
            let mut moments = history.moments.lock();
            moments.push(Moment { model, began, ended });
            history.acknowledged.store(moments.len(), Ordering::SeqCst);
        } else {
            history.begun.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn pick(&mut self, want: fn(&Reference, Id) -> bool) -> Option<Id> {
        let known: Vec<Id> =
            self.inos.keys().copied().filter(|id| self.model.nodes[id].names > 0 && want(&self.model, *id)).collect();
        (!known.is_empty()).then(|| known[self.rng.random_range(0..known.len())])
    }

    fn name(&mut self) -> Vec<u8> {
        vec![b'a' + self.rng.random_range(0..8)]
    }

    /// Does one operation; whether it succeeded.
    fn step(&mut self) -> Result<bool> {
        let dir = self.pick(Reference::is_dir).unwrap_or(ROOT);
        let name = self.name();
        let file = self.pick(|model, id| matches!(model.nodes[&id].content, Content::File(_)));
        match (self.rng.random_range(0..40), file) {
            (0..6, _) | (_, None) => self.make(dir, &name, FileKind::Regular),
            (6..8, _) => self.make(dir, &name, FileKind::Directory),
            (8, _) => self.make(dir, &name, FileKind::Symlink),
            (9, Some(file)) => {
                let real = self.fs().link(self.inos[&file], self.inos[&dir], &name).map(drop);
                let modelled = self.model.link(file, dir, &name);
                agree("link", real, modelled)
            }
            (10..13, _) => self.remove(dir, &name, false),
            (13, _) => self.remove(dir, &name, true),
            (14..18, _) => self.rename(dir, &name),
            (18..21, Some(file)) => self.truncate(file),
            (21..23, Some(file)) => self.allocate(file),
            (23..26, Some(file)) => {
                let (key, value) = ([b"user.", &name[..]].concat(), self.bytes(20));
                let real = self.fs().set_xattr(self.inos[&file], &key, &value, XattrMode::Set);
                self.model.node(file).xattrs.insert(key, value);
                agree("setxattr", real, Ok(()))
            }
            (26, Some(file)) => {
                let mode = self.rng.random_range(0..0o1000);
                let change = AttributeChange { mode: Some(mode), ..AttributeChange::default() };
                let real = self.fs().set_attributes(self.inos[&file], &change, Privileges::Keep).map(drop);
                self.model.node(file).mode = mode;
                agree("chmod", real, Ok(()))
            }
            (_, Some(file)) => self.write(file),
        }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    fn write(&mut self, file: Id) -> Result<bool> {
        let len = match self.rng.random_range(0..10) {
            0..6 => self.rng.random_range(1..3000),
            6..9 => self.rng.random_range(15_000..20_000),
            _ => self.rng.random_range(20_000..150_000),
        };
        let offset = if self.rng.random_bool(0.5) { 0 } else { self.rng.random_range(0..60_000) };
        let data = self.bytes(len);
        let real = self.fs().write(self.inos[&file], offset as u64, &data, Privileges::Keep).map(drop);
        if real.is_ok()
            && let Ok(bytes) = self.model.file(file)
        {
            bytes.resize(bytes.len().max(offset + len), 0);
            bytes[offset..offset + len].copy_from_slice(&data);
        }
        agree("write", real, Ok(()))
    }

    fn truncate(&mut self, file: Id) -> Result<bool> {
        let size = self.rng.random_range(0..40_000);
        let change = AttributeChange { size: Some(size as u64), ..AttributeChange::default() };
        let real = self.fs().set_attributes(self.inos[&file], &change, Privileges::Keep).map(drop);
        if let Ok(bytes) = self.model.file(file) {
            bytes.resize(size, 0);
        }
        agree("truncate", real, Ok(()))
    }

    fn allocate(&mut self, file: Id) -> Result<bool> {
        let (start, len) = (self.rng.random_range(0..40_000), self.rng.random_range(1..30_000));
        let mode = AllocateMode::PunchHole;
        let real = self.fs().allocate(self.inos[&file], start as u64, len as u64, mode, Privileges::Keep);
        if let Ok(bytes) = self.model.file(file) {
            let upto = (start + len).min(bytes.len());
            bytes[start.min(upto)..upto].fill(0);
        }
        agree("punch hole", real, Ok(()))
    }

    fn make(&mut self, dir: Id, name: &[u8], kind: FileKind) -> Result<bool> {
        let target: &[u8] = if kind == FileKind::Symlink { b"some/where" } else { b"" };
        let node = NewNode { kind, mode: 0o640, umask: 0, rdev: 0, target };
        let real = self.fs().make(CALLER, self.inos[&dir], name, &node);
        let content = match kind {
            FileKind::Directory => Content::Dir(BTreeMap::new()),
            FileKind::Symlink => Content::Symlink(target.to_vec()),
            _ => Content::File(Arc::default()),
        };
        let modelled = self.model.make(dir, name, content, node.mode, node.umask);
        if let (Ok(real), Ok(id)) = (&real, &modelled) {
            self.inos.insert(*id, real.ino);
        }
        agree("make", real.map(drop), modelled.map(drop))
    }

    fn remove(&mut self, dir: Id, name: &[u8], want_dir: bool) -> Result<bool> {
        let ino = self.inos[&dir];
        let real = if want_dir { self.fs().rmdir(ino, name) } else { self.fs().unlink(ino, name) };
        let modelled = self.model.remove(dir, name, want_dir);
        if real.is_ok() {
            self.forget(modelled.ok());
        }
        agree("remove", real, modelled.map(drop))
    }

    fn rename(&mut self, from: Id, name: &[u8]) -> Result<bool> {
        let to = self.pick(Reference::is_dir).unwrap_or(ROOT);
        let new = self.name();
        let mode = match self.rng.random_range(0..6) {
            0 => RenameMode::NoReplace,
            1 => RenameMode::Exchange,
            _ => RenameMode::Replace,
        };
        let real = self.fs().rename((self.inos[&from], name), (self.inos[&to], &new), mode);
        let modelled = self.model.rename((from, name), (to, &new), mode);
        if real.is_ok() {
            self.forget(modelled.ok().flatten());
        }
        agree("rename", real, modelled.map(drop))
    }

    /// What has lost its last name is let go, as the kernel does when nobody has it open; now and then it is kept.
    fn forget(&mut self, gone: Option<Id>) {
        let Some(id) = gone.filter(|id| self.model.nodes[id].names == 0) else { return };
        if let Some(ino) = self.inos.remove(&id)
            && self.rng.random_bool(0.7)
        {
            self.fs().forgotten(ino);
        }
    }
}

/// Only the filesystem refused.
#[derive(Debug)]
struct Refused(&'static str, FsError);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0, self.1)
    }
}

impl std::error::Error for Refused {}

/// Whether both did it; both may have refused.
fn agree(what: &'static str, real: Result<(), FsError>, modelled: Result<(), ()>) -> Result<bool> {
    match (real, modelled) {
        (Ok(()), Ok(())) => Ok(true),
        (Err(_), Err(())) => Ok(false),
        (Err(error), Ok(())) => Err(Refused(what, error).into()),
        (Ok(()), Err(())) => bail!(broken(format!("{what} succeeded, and should not have"))),
    }
}

fn name_inodes(model: &Reference, dir: Id, path: &str, paths: &BTreeMap<String, Ino>, inos: &mut BTreeMap<Id, Ino>) {
    for (name, id) in model.dir(dir).into_iter().flatten() {
        let path = format!("{path}/{}", String::from_utf8_lossy(name));
        if let Some(ino) = paths.get(&path) {
            inos.insert(*id, *ino);
        }
        if model.is_dir(*id) {
            name_inodes(model, *id, &path, paths, inos);
        }
    }
}
