//! Staging: packs, run and manifest of a snapshot, in the proxy.

use super::attempt::Standing;
use super::listing::Listing;
use super::open::as_base;
use super::pack::Ground;
use super::worker::Duty;
use super::{Agent, kind_name};
use crate::base::RunBase;
use crate::collect::{
    Bottom, CollectError, CollectInput, Collected, Limits, PackSink, Pins, RecordSink, RunRecords, collect, merge_runs,
    plan_merge,
};
use crate::error::AgentError;
use crate::pack::{PACK_BYTES_TARGET, PackSummary};
use crate::proxy::{ProxyError, StagedFile};
use crate::run::{FileNodes, NodeSource, RunCursor, RunSummary, RunWriter, Tree};
use crate::snapshot::Job;
use crate::snapshot::job::JobObject;
use bytes::Bytes;
use cloud_mgmt::ledger::{PackEntry, RunEntry, SnapshotEntry};
use cloud_mgmt::names::FsName;
use kvfs::Xid;
use kvfs::base::Base;
use kvfs::changes::ChangeSet;
use kvfs::ids::PackNo;
use kvfs::op::SnapshotKind;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// Packs of a snapshot of everything, at most, by the size of the packs.
const PACKS_PER_SNAPSHOT: u64 = 400;
/// Names of dead packs in a manifest; of more, the rest is told by the next ones.
const PACKS_DEAD_MAX: usize = 400;
/// Room that a run reserves before its size is known, bytes.
const RUN_ROOM_BYTES: u64 = 1 << 20;
/// A pack may become this much larger than its target.
const PACK_SLACK: (u64, u64) = (5, 4);

impl Agent {
    /// Writes everything that the snapshot uploads into the proxy, and its manifest into the job.
    pub(super) fn stage(&self, job: &mut Job, ground: &Ground) -> Result<Staged, AgentError> {
        let Ground { changes, parent, base: run_base, standing } = ground;
        let waiting = run_base.as_ref().map(|base| Arc::new(base.waiting()));
        let base = as_base(waiting.as_ref());
        let naming = Naming {
            fs: self.setup.name.clone(),
            epoch: job.epoch,
            xid: job.xid,
            op: job.op.unwrap_or_default(),
            snapshot: job.id,
        };
        let mut packs = ProxyPacks::new(self, naming.clone());
        let staged = self.collect_into(changes, base.as_ref(), &mut packs, parent.as_deref())?;
        // Against a snapshot that may still be cancelled, nothing is not nothing.
        let nothing = staged.collected.records == 0 && packs.entries.is_empty() && *standing == Standing::Official;
        if nothing && job.kind == SnapshotKind::Periodic && self.may_end_unpublished()? {
            return Ok(Staged::Unchanged);
        }
        let merged = self.merge(&staged, run_base.as_deref(), parent.as_deref(), &naming)?;
        let Merged { run, kept, dead: runs_dead } = merged.unwrap_or_else(|| Merged {
            run: staged.run,
            kept: parent.as_ref().map(|p| p.runs.clone()).unwrap_or_default(),
            dead: Vec::new(),
        });
        let run_entry = run.commit()?;
        job.objects = packs.objects;
        for object in &mut job.objects {
            // Some may have left early, to make room.
            object.sent = self.proxy.staged_path(&object.name).is_none();
        }
        let run_object = JobObject {
            name: run_entry.object.clone(),
            size: run_entry.size,
            hash: Some(self.hash_of_staged(&run_entry.object)?),
            sent: false,
        };
        job.xid_from = Some(changes.xid_from().0);
        let runs = std::iter::once(run_entry).chain(kept).collect();
        let Collected { pack_end, packs_dead, .. } = staged.collected;
        let mut manifest = SnapshotEntry {
            id: job.id,
            name: job.name.clone(),
            snapshot_kind: kind_name(job.kind).into(),
            key: job.key,
            epoch: job.epoch,
            parent: parent.as_ref().map(|p| p.id),
            xid_from: changes.xid_from().0,
            xid: changes.xid().0,
            requested: job.requested,
            ino_end: changes.ino_end().0,
            pack_end: pack_end.0,
            inodes: changes.totals().inodes,
            bytes: changes.totals().bytes,
            uploaded: 0,
            runs,
            packs_new: packs.entries,
            packs_dead: packs_dead.into_iter().map(|dead| dead.object).collect(),
            runs_dead,
            features: Vec::new(),
            listing: None,
        };
        if self.setup.options.listing == Listing::On {
            let object = naming.fs.listing_object(naming.epoch, naming.xid, naming.op);
            let listing = self.stage_listing(&manifest, &object)?;
            let hash = Some(listing.hash.clone());
            job.objects.push(JobObject { name: object, size: listing.size, hash, sent: false });
            manifest.listing = Some(listing);
        }
        // The run goes last, when all that it names is there (I3).
        job.objects.push(run_object);
        manifest.uploaded = job.objects.iter().map(|o| o.size).sum();
        job.manifest = Some(Box::new(manifest));
        Ok(Staged::Ready)
    }

    fn hash_of_staged(&self, object: &str) -> Result<String, AgentError> {
        let path = self.proxy.staged_path(object).ok_or_else(|| AgentError::StagedLost(object.to_owned()))?;
        Ok(hash_file(&path)?.to_hex().to_string())
    }

    fn collect_into(
        &self,
        changes: &dyn ChangeSet,
        base: &dyn Base,
        packs: &mut ProxyPacks<'_>,
        parent: Option<&SnapshotEntry>,
    ) -> Result<StagedRun, AgentError> {
        let mut run = StagedRunFile::create(self, &packs.naming, 0, (changes.xid_from(), changes.xid()))?;
        let held = self.fs.engine().map(|engine| engine.orphan_packs()).transpose()?.unwrap_or_default();
        let input = CollectInput {
            changes,
            base,
            fs: self.setup.name.id,
            next_pack: PackNo(parent.map_or(0, |p| p.pack_end)),
            pins: &Pins { held },
            limits: self.limits(),
        };
        let collected = collect(input, packs, &mut run)?;
        Ok(StagedRun { run: run.finish()?, collected })
    }

    /// Packs that fit a small proxy several times. A large file is one member as long as the proxy can hold it, so that
    /// plain tar restores it whole.
    fn limits(&self) -> Limits {
        let proxy_bytes = self.setup.options.proxy_max_bytes;
        // A manifest names every new pack, and has a limit: the packs of a large filesystem are larger.
        let enough = self.fs.engine().map_or(0, |engine| engine.totals().bytes / PACKS_PER_SNAPSHOT);
        let pack_bytes_target = PACK_BYTES_TARGET.max(enough).min(proxy_bytes / 8).max(1 << 20);
        Limits {
            pack_bytes_target,
            member_bytes_max: (proxy_bytes / 4).max(pack_bytes_target),
            packs_dead_max: PACKS_DEAD_MAX,
        }
    }

    /// Merges the new run with the newest ones of the base, where their sizes ask for it: the stack stays low.
    fn merge(
        &self,
        staged: &StagedRun,
        base: Option<&RunBase>,
        parent: Option<&SnapshotEntry>,
        naming: &Naming,
    ) -> Result<Option<Merged>, AgentError> {
        let (Some(base), Some(parent)) = (base, parent) else { return Ok(None) };
        let mut sizes = vec![staged.run.summary.size];
        sizes.extend(parent.runs.iter().map(|run| run.size));
        let taken = plan_merge(&sizes);
        if taken < 2 {
            return Ok(None);
        }
        let (replaced, kept) = parent.runs.split_at((taken - 1).min(parent.runs.len()));
        let oldest = replaced.last().map_or(parent.xid_from, |run| run.xid_from);
        let bottom = if kept.is_empty() { Bottom::Included } else { Bottom::Below };
        let newest = Tree::<FileNodes>::open_file(staged.run.file.path(), Some(&staged.run.summary.root))?;
        let trees = base.run_trees();
        let mut inputs: Vec<RunRecords<'_>> = vec![records(&newest, |error| CollectError::of_run(MERGING, error))];
        inputs.extend(trees.iter().take(taken - 1).map(|tree| records(tree, CollectError::Base)));
        let xids = (Xid(oldest), staged.run.summary.xid);
        let mut merged = StagedRunFile::create(self, naming, 1, xids)?;
        merge_runs(inputs, bottom, &mut merged)?;
        let dead = replaced.iter().map(|run| run.object.clone()).collect();
        Ok(Some(Merged { run: merged.finish()?, kept: kept.to_vec(), dead }))
    }
}

/// What is going on when a run cannot be read.
const MERGING: &str = "reading a run to merge it";

/// The records of a run; `failed` says what an error of it is to the collector.
fn records<'t, S: NodeSource>(tree: &'t Tree<S>, failed: impl Fn(S::Error) -> CollectError + 't) -> RunRecords<'t> {
    let mut cursor: RunCursor<'t, S> = tree.cursor(&[]);
    Box::new(std::iter::from_fn(move || match cursor.advance() {
        Ok(true) => Some(Ok((Bytes::copy_from_slice(cursor.key()), Bytes::copy_from_slice(cursor.value())))),
        Ok(false) => None,
        Err(error) => Some(Err(failed(error))),
    }))
}

/// What packing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Staged {
    /// There is something to send.
    Ready,
    /// Nothing is different from the base, and nobody asked for it by hand.
    Unchanged,
}

/// BLAKE3 of a file.
pub(super) fn hash_file(path: &Path) -> Result<blake3::Hash, ProxyError> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(ProxyError::io("open", path))?;
    hasher.update_reader(file).map_err(ProxyError::io("read", path))?;
    Ok(hasher.finalize())
}

/// Names of a snapshot's objects.
#[derive(Clone)]
struct Naming {
    fs: FsName,
    epoch: u32,
    xid: u64,
    op: Uuid,
    snapshot: Uuid,
}

impl Naming {
    fn pack(&self, pack: PackNo) -> String {
        self.fs.pack_object(self.epoch, self.xid, self.op, pack.0 as u32)
    }
    fn run(&self, n: u32) -> String {
        self.fs.run_object(self.epoch, self.xid, self.op, n)
    }
}

/// Packs in the proxy. Those that are complete may leave it while others are written: whatever becomes of the snapshot,
/// they are orphans at worst (I3).
struct ProxyPacks<'a> {
    agent: &'a Agent,
    naming: Naming,
    current: Option<StagedFile>,
    entries: Vec<PackEntry>,
    objects: Vec<JobObject>,
}

impl<'a> ProxyPacks<'a> {
    fn new(agent: &'a Agent, naming: Naming) -> Self {
        Self { agent, naming, current: None, entries: Vec::new(), objects: Vec::new() }
    }
}

impl PackSink for ProxyPacks<'_> {
    fn path(&mut self, pack: PackNo) -> Result<PathBuf, CollectError> {
        let room = PACK_BYTES_TARGET * PACK_SLACK.0 / PACK_SLACK.1;
        let room = room.min(self.agent.proxy.usage().max / 4);
        let name = self.naming.pack(pack);
        let staged = self.agent.with_room(self.naming.snapshot, || self.agent.proxy.stage(&name, room))?;
        let path = staged.path().to_owned();
        self.current = Some(staged);
        Ok(path)
    }

    fn growing(&mut self, bytes: u64) -> Result<(), CollectError> {
        let Some(staged) = self.current.as_mut() else { return Ok(()) };
        self.agent.with_room(self.naming.snapshot, || staged.ensure_room(bytes))
    }

    fn object(&self, pack: PackNo) -> String {
        self.naming.pack(pack)
    }

    fn staged(&mut self, pack: &PackSummary, _path: &Path) -> Result<(), CollectError> {
        let missing = || CollectError::Inconsistent(format!("pack {} was never begun", pack.number));
        let staged = self.current.take().ok_or_else(missing)?;
        let object = staged.object().to_owned();
        staged.commit().map_err(|error| CollectError::of_proxy("staging a pack", error))?;
        self.agent.state.lock().meter.add_packed(pack.size);
        let hash = blake3::Hash::from_bytes(pack.hash).to_hex().to_string();
        let known = Some(hash.clone());
        let whole = JobObject { name: object.clone(), size: pack.size, hash: known, sent: false };
        self.objects.push(whole.clone());
        self.agent.attempt.offer(Some(self.naming.op), whole);
        self.agent.worker.hand_to(Duty::Ship);
        self.entries.push(PackEntry { number: pack.number.0, object, size: pack.size, hash });
        Ok(())
    }
}

/// A run that is being written into the proxy.
struct StagedRunFile<'a> {
    agent: &'a Agent,
    snapshot: Uuid,
    file: StagedFile,
    writer: RunWriter,
}

/// One that is complete and not yet committed.
struct FinishedRun {
    file: StagedFile,
    summary: RunSummary,
}

/// The top of the new stack of runs.
struct Merged {
    run: FinishedRun,
    /// The parent's runs that stay below it.
    kept: Vec<RunEntry>,
    /// Names of the parent's runs that it replaces.
    dead: Vec<String>,
}

struct StagedRun {
    run: FinishedRun,
    collected: Collected,
}

impl<'a> StagedRunFile<'a> {
    fn create(agent: &'a Agent, naming: &Naming, n: u32, xids: (Xid, Xid)) -> Result<Self, AgentError> {
        let (object, snapshot) = (naming.run(n), naming.snapshot);
        let file = agent.with_room(snapshot, || agent.proxy.stage(&object, RUN_ROOM_BYTES))?;
        let writer = RunWriter::create(file.path(), xids.0, xids.1)?;
        Ok(Self { agent, snapshot, file, writer })
    }

    fn finish(self) -> Result<FinishedRun, AgentError> {
        Ok(FinishedRun { summary: self.writer.finish()?, file: self.file })
    }
}

impl FinishedRun {
    fn commit(self) -> Result<RunEntry, AgentError> {
        let RunSummary { size, root, records, xid_from, xid } = self.summary;
        let object = self.file.object().to_owned();
        self.file.commit()?;
        let root = root.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        Ok(RunEntry { object, size, root, xid_from: xid_from.0, xid: xid.0, records })
    }
}

impl RecordSink for StagedRunFile<'_> {
    fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), CollectError> {
        self.agent.with_room(self.snapshot, || self.file.ensure_room(self.writer.size() + RUN_ROOM_BYTES))?;
        self.writer.push(key, value).map_err(|error| CollectError::of_run("writing the run", error))
    }
}
