//! Staging: packs, run and manifest of a snapshot, in the proxy.

use super::attempt::Standing;
use super::listing::Listing;
use super::open::as_base;
use super::pack::Ground;
use super::parts::{FinishedPart, OpenParts, StagedParts, listed, stacked};
use super::worker::Duty;
use super::{Agent, kind_name};
use crate::base::RunBase;
use crate::collect::{
    Bottom, CollectError, CollectInput, Collected, Limits, PackSink, Pins, RunSplitter, collect, merge_stack,
    plan_stack,
};
use crate::error::AgentError;
use crate::pack::{PACK_BYTES_TARGET, PackSummary};
use crate::proxy::{ProxyError, StagedFile};
use crate::snapshot::Job;
use crate::snapshot::job::JobObject;
use cloud_mgmt::config::{PACK_USERS, SPLIT_RUNS};
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
        let merged = self.merge(&staged.parts, run_base.as_deref(), parent.as_deref(), &naming)?;
        let Merged { parts, stay, kept, dead: runs_dead } = merged.unwrap_or_else(|| Merged {
            parts: staged.parts,
            stay: Vec::new(),
            kept: parent.as_ref().map(|p| p.runs.clone()).unwrap_or_default(),
            dead: Vec::new(),
        });
        let written = parts.into_iter().map(FinishedPart::commit).collect::<Result<Vec<_>, _>>()?;
        job.objects = packs.objects;
        for object in &mut job.objects {
            // Some may have left early, to make room.
            object.sent = self.proxy.staged_path(&object.name).is_none();
        }
        let run_objects = written.iter().map(|part| self.run_object(part)).collect::<Result<Vec<_>, _>>()?;
        job.xid_from = Some(changes.xid_from().0);
        let mut runs = listed(written.into_iter().chain(stay).collect());
        runs.extend(kept);
        let is_split = runs.iter().any(|run| run.ino_from.is_some());
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
            features: is_split.then_some(SPLIT_RUNS).into_iter().chain([PACK_USERS]).map(str::to_owned).collect(),
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
        job.objects.extend(run_objects);
        manifest.uploaded = job.objects.iter().map(|o| o.size).sum();
        job.manifest = Some(Box::new(manifest));
        Ok(Staged::Ready)
    }

    /// A part of the run as the job sends it.
    fn run_object(&self, part: &RunEntry) -> Result<JobObject, AgentError> {
        let hash = Some(self.hash_of_staged(&part.object)?);
        Ok(JobObject { name: part.object.clone(), size: part.size, hash, sent: false })
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
        let naming = packs.naming.clone();
        let parts = StagedParts::new(self, &naming, 0, (changes.xid_from(), changes.xid()));
        let mut run = RunSplitter::new(parts, self.limits().run_part_bytes);
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
        Ok(StagedRun { parts: run.finish()?.into_done(), collected })
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
            run_part_bytes: self.setup.options.run_part_bytes,
        }
    }

    /// Merges the new run with the newest ones of the base, where their sizes ask for it: the stack stays low. What the
    /// newer runs do not touch of the oldest one stays as it is.
    fn merge(
        &self,
        newest: &[FinishedPart],
        base: Option<&RunBase>,
        parent: Option<&SnapshotEntry>,
        naming: &Naming,
    ) -> Result<Option<Merged>, AgentError> {
        let (Some(base), Some(parent)) = (base, parent) else { return Ok(None) };
        let (newest_parts, below) = (OpenParts::open(newest)?, base.waiting());
        let mut runs = vec![newest_parts.stacked()];
        runs.extend(stacked(&below));
        let Some(plan) = plan_stack(&runs, self.limits().run_part_bytes)? else { return Ok(None) };
        let mut entries = parent.stacked_runs();
        let replaced: Vec<&[RunEntry]> = entries.by_ref().take(plan.runs - 1).collect();
        let kept: Vec<RunEntry> = entries.flatten().cloned().collect();
        let oldest = replaced.last().copied().unwrap_or_default();
        let stay: Vec<RunEntry> =
            oldest.iter().enumerate().filter(|(at, _)| plan.keeps(*at)).map(|p| p.1.clone()).collect();
        let gone =
            replaced.iter().copied().flatten().filter(|part| !stay.iter().any(|stays| stays.object == part.object));
        let dead = gone.map(|part| part.object.clone()).collect();
        let xids = (Xid(oldest.first().map_or(parent.xid_from, |part| part.xid_from)), Xid(naming.xid));
        let parts = StagedParts::new(self, naming, newest.len() as u32, xids);
        let mut out = RunSplitter::new(parts, plan.part_bytes);
        let bottom = if kept.is_empty() { Bottom::Included } else { Bottom::Below };
        merge_stack(&runs, &plan, bottom, &mut out)?;
        Ok(Some(Merged { parts: out.finish()?.into_done(), stay, kept, dead }))
    }
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
pub(super) struct Naming {
    fs: FsName,
    epoch: u32,
    xid: u64,
    op: Uuid,
    pub(super) snapshot: Uuid,
}

impl Naming {
    fn pack(&self, pack: PackNo) -> String {
        self.fs.pack_object(self.epoch, self.xid, self.op, pack.0 as u32)
    }

    /// Part `n` of the snapshot's runs.
    pub(super) fn run(&self, n: u32) -> String {
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
        self.agent.room_for(self.naming.snapshot, staged, bytes)
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

/// The top of the new stack of runs.
struct Merged {
    /// What was written of it.
    parts: Vec<FinishedPart>,
    /// Parts of the parent's runs that are parts of it as they are.
    stay: Vec<RunEntry>,
    /// The parent's runs that stay below it.
    kept: Vec<RunEntry>,
    /// Names of the parent's objects that it replaces.
    dead: Vec<String>,
}

struct StagedRun {
    parts: Vec<FinishedPart>,
    collected: Collected,
}
