//! Whether a filesystem in a bucket is sound: straight from the bucket, without a daemon or a mount.
//!
//! The *structure* is the config, the ledger, one listing of names, all bytes of the index runs, and the trees that they
//! show. A *deep* verification reads every byte of every pack as well. Each object is read once, however many snapshots
//! use it. [`verify`] blocks; memory does not grow with the number of files: 32 MiB of transfers, twice 32 MiB of rows
//! that are being sorted, a frame, two bits for each directory, and some hundred bytes for each object of the filesystem
//! and each frame of one pack. What is more goes to temporary files: the index runs, 60 bytes an inode and a name, and
//! for a deep verification 48 bytes an extent and the pack at hand.

mod acls;
mod directories;
mod error;
mod finding;
mod frames;
mod ledger;
mod names;
mod packs;
mod progress;
mod records;
mod resume;
mod runs;
mod scratch;
mod sort;
mod source;
mod stack;
mod tarball;
mod tree;

pub use error::VerifyError;
pub use finding::{Finding, Problem, Severity, SnapshotName};
pub use progress::{Phase, Progress, Watch};

use crate::agent::SnapshotSelector;
use cloud_mgmt::ledger::{ListingEntry, Published, RunEntry, Seq};
use cloud_mgmt::names::FsName;
use cloud_mgmt::store::ObjectStore;
use finding::Findings;
use frames::{FrameList, NamedFrame, NamedFrames};
use kvfs::Ino;
use kvfs::ids::PackNo;
use ledger::{LedgerPack, Truth};
use packs::{PackCheck, PackVerdict};
use resume::Progressed;
use runs::RunCheck;
use scratch::Scratch;
use serde::Serialize;
use source::Source;
use stack::{LocalRun, Stack};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Handle;
use tree::{PackFacts, TreeCheck};

/// How much is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Ledger, runs, and the names and sizes of packs.
    #[default]
    Structure,
    /// Every byte.
    Deep,
}

/// What to verify, and how.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// One snapshot; `None`: all live ones.
    pub snapshot: Option<SnapshotSelector>,
    /// How much is read.
    pub depth: Depth,
    /// The state file of a verification that may be interrupted; beside it a folder of its name and `.d`. Both go when it
    /// is complete.
    pub resume: Option<PathBuf>,
}

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Snapshots.
    pub snapshots: u64,
    /// Ledger records.
    pub records: u64,
    /// Index runs that were read.
    pub runs: u64,
    /// Packs that the snapshots use.
    pub packs: u64,
    /// Those of them that were read to their end, by this verification or the interrupted one that it goes on with.
    pub packs_read: u64,
    /// Bytes of runs, packs and portable listings that were read from the bucket.
    pub bytes_read: u64,
    /// Inodes of the newest snapshot that was looked at.
    pub inodes: u64,
    /// Its names.
    pub names: u64,
    /// Objects that no live snapshot needs.
    pub unreferenced: u64,
    /// Their bytes.
    pub unreferenced_bytes: u64,
    /// Snapshots that were published since the interrupted verification began, and were not looked at.
    pub later_snapshots: u64,
    /// Findings of damage.
    pub damage: u64,
    /// Other findings.
    pub notes: u64,
}

impl VerifyReport {
    /// Whether no damage was found.
    pub fn is_sound(&self) -> bool {
        self.damage == 0
    }
}

/// Verifies the filesystem `name`. Blocks, and must not run on a thread of `runtime`'s tasks. What is found goes to
/// `watch`; an error says that the verification could not be completed, and with [`VerifyOptions::resume`] the same call
/// goes on where it ended.
pub fn verify(
    store: Arc<dyn ObjectStore>,
    name: &FsName,
    runtime: Handle,
    options: &VerifyOptions,
    watch: &mut dyn Watch,
) -> Result<VerifyReport, VerifyError> {
    let wanted = options.snapshot.as_ref();
    let state = options.resume.as_deref().map(|path| Progressed::open(path, name, wanted)).transpose()?;
    let scratch = match options.resume.as_deref() {
        Some(path) => Scratch::lasting(&Progressed::folder(path))?,
        None => Scratch::temporary(),
    };
    let mut run = Verification {
        source: Source { store, runtime },
        name,
        options,
        scratch: &scratch,
        state,
        findings: Findings::default(),
        report: VerifyReport::default(),
        watch,
    };
    run.all()?;
    let Verification { state, report, .. } = run;
    if let Some((state, path)) = state.zip(options.resume.as_deref()) {
        Scratch::remove(&Progressed::folder(path))?;
        state.remove()?;
    }
    Ok(report)
}

struct Verification<'a> {
    source: Source,
    name: &'a FsName,
    options: &'a VerifyOptions,
    scratch: &'a Scratch,
    state: Option<Progressed>,
    findings: Findings,
    report: VerifyReport,
    watch: &'a mut dyn Watch,
}

impl Verification<'_> {
    fn all(&mut self) -> Result<(), VerifyError> {
        self.watch.progress(&Progress::begin(Phase::Ledger, 0, 0));
        let only = self.state.as_ref().and_then(Progressed::snapshots);
        let truth = Truth::read(&self.source, self.name, self.options, only, &mut self.findings)?;
        let looked_at = truth.snapshots.iter().map(|published| published.snapshot.id).collect();
        if let Some(state) = &mut self.state {
            state.begin(self.name, self.options.snapshot.as_ref(), looked_at)?;
        }
        self.report.records = truth.history.tail_seq().0;
        self.report.snapshots = truth.snapshots.len() as u64;
        self.report.later_snapshots = self.later(&truth);
        let packs = self.listed_packs(&truth)?;
        let listings = self.listed_listings(&truth)?;
        let scratch = self.scratch;
        let mut frames = (self.options.depth == Depth::Deep).then(|| FrameList::new(scratch));
        let runs = self.runs(&truth, frames.as_mut())?;
        let facts = self.trees(&truth, &runs)?;
        let (objects, bytes) = truth.check_unreferenced(self.name, &mut self.findings)?;
        (self.report.unreferenced, self.report.unreferenced_bytes) = (objects, bytes);
        self.findings.tell(self.watch);
        if let Some(frames) = frames {
            self.packs(&truth, &packs, frames.finish()?, (&facts, &runs))?;
            self.listings(&truth, &listings)?;
        }
        (self.report.damage, self.report.notes) = self.findings.sums();
        Ok(())
    }

    /// Live snapshots behind those that an interrupted verification had begun with.
    fn later(&self, truth: &Truth) -> u64 {
        if self.state.is_none() || self.options.snapshot.is_some() {
            return 0;
        }
        let newest = truth.snapshots.last().map_or(Seq(0), |published| published.seq);
        truth.history.snapshots().iter().filter(|published| published.seq > newest).count() as u64
    }

    /// The packs that are there in their right size.
    fn listed_packs<'t>(&mut self, truth: &'t Truth) -> Result<Vec<&'t LedgerPack>, VerifyError> {
        let retained = truth.history.retained();
        let mut listed = Vec::new();
        for pack in truth.packs.values().filter(|pack| truth.needs(&pack.entry.object, &retained)) {
            self.report.packs += 1;
            let hits = || truth.users_of_pack(pack);
            if truth.check_listed(&pack.entry.object, pack.entry.size, hits, &mut self.findings)? {
                listed.push(pack);
            }
        }
        Ok(listed)
    }

    /// The portable listings that are there in their right size, with their snapshots.
    fn listed_listings<'t>(&mut self, truth: &'t Truth) -> Result<Vec<(&'t Published, &'t ListingEntry)>, VerifyError> {
        let retained = truth.history.retained();
        let mut listed = Vec::new();
        for published in &truth.snapshots {
            let Some(listing) = &published.snapshot.listing else { continue };
            let hits = || vec![SnapshotName::from(&*published.snapshot)];
            if truth.needs(&listing.object, &retained)
                && truth.check_listed(&listing.object, listing.size, hits, &mut self.findings)?
            {
                listed.push((published, listing));
            }
        }
        Ok(listed)
    }

    /// Every portable listing: its hash.
    fn listings(&mut self, truth: &Truth, listings: &[(&Published, &ListingEntry)]) -> Result<(), VerifyError> {
        let bytes = listings.iter().map(|(_, listing)| listing.size).sum();
        let mut progress = Progress::begin(Phase::Listings, listings.len() as u64, bytes);
        for (published, listing) in listings {
            self.watch.progress(&progress);
            let end = progress.bytes_done + listing.size;
            let found = self.state.as_ref().and_then(|state| state.found(&listing.object));
            if let Some(found) = found {
                for finding in found.iter().cloned() {
                    self.findings.add(finding);
                }
            } else {
                let (watch, report) = (&mut *self.watch, &mut self.report);
                let mut read = |bytes: u64| {
                    progress.read(bytes, end);
                    report.bytes_read += bytes;
                    watch.progress(&progress);
                };
                let check = PackCheck { source: &self.source, scratch: self.scratch, truth };
                let hits = vec![SnapshotName::from(&*published.snapshot)];
                check.listing(listing, hits, &mut self.findings, &mut read)?;
                if let Some(state) = &mut self.state {
                    state.done(&listing.object, Some(published.snapshot.id), self.findings.held().to_vec())?;
                }
            }
            self.findings.tell(self.watch);
            progress.bytes_done = end;
            progress.objects_done += 1;
        }
        self.watch.progress(&progress);
        Ok(())
    }

    /// Every run once; the sound ones by name.
    fn runs(
        &mut self,
        truth: &Truth,
        mut frames: Option<&mut FrameList<'_>>,
    ) -> Result<HashMap<String, LocalRun>, VerifyError> {
        let mut entries: BTreeMap<&str, &RunEntry> = BTreeMap::new();
        for run in truth.snapshots.iter().flat_map(|published| &published.snapshot.runs) {
            entries.insert(&run.object, run);
        }
        let bytes = entries.values().map(|run| run.size).sum();
        let mut progress = Progress::begin(Phase::Runs, entries.len() as u64, bytes);
        let mut sound = HashMap::new();
        let check = RunCheck { source: &self.source, scratch: self.scratch, truth };
        for run in entries.into_values() {
            self.watch.progress(&progress);
            let end = progress.bytes_done + run.size;
            let hits = || truth.users_of_run(&run.object);
            if truth.check_listed(&run.object, run.size, hits, &mut self.findings)? {
                let (watch, report) = (&mut *self.watch, &mut self.report);
                let mut read = |bytes: u64, origin: runs::Origin| {
                    progress.read(bytes, end);
                    report.bytes_read += if origin == runs::Origin::Bucket { bytes } else { 0 };
                    watch.progress(&progress);
                };
                let checked = check.check(run, frames.as_deref_mut(), &mut self.findings, &mut read)?;
                self.report.runs += 1;
                sound.extend(checked.map(|local| (run.object.clone(), local)));
            }
            progress.bytes_done = end;
            progress.objects_done += 1;
        }
        self.watch.progress(&progress);
        Ok(sound)
    }

    /// The tree of every snapshot whose runs are sound; what the indexes say of packs.
    fn trees(
        &mut self,
        truth: &Truth,
        runs: &HashMap<String, LocalRun>,
    ) -> Result<BTreeMap<u64, PackFacts>, VerifyError> {
        let mut facts = BTreeMap::new();
        let mut progress = Progress::begin(Phase::Trees, truth.snapshots.len() as u64, 0);
        for published in &truth.snapshots {
            self.watch.progress(&progress);
            if let Some(stack) = Stack::of(&published.snapshot, runs) {
                for what in &stack.misplaced {
                    let hits = vec![SnapshotName::from(&*published.snapshot)];
                    self.findings.add(Finding::new(Problem::Manifest, None, what.clone()).hits(hits));
                }
                let mut check =
                    TreeCheck { scratch: self.scratch, truth, packs: &mut facts, findings: &mut self.findings };
                let sums = check.check(published, &stack)?;
                (self.report.inodes, self.report.names) = (sums.inodes, sums.names);
            }
            progress.objects_done += 1;
        }
        self.watch.progress(&progress);
        Ok(facts)
    }

    /// Every pack to its end; what is found in one is told before the next is begun.
    fn packs(
        &mut self,
        truth: &Truth,
        packs: &[&LedgerPack],
        mut frames: NamedFrames<'_>,
        (facts, runs): (&BTreeMap<u64, PackFacts>, &HashMap<String, LocalRun>),
    ) -> Result<(), VerifyError> {
        let bytes = packs.iter().map(|pack| pack.entry.size).sum();
        let mut progress = Progress::begin(Phase::Packs, packs.len() as u64, bytes);
        for pack in packs {
            self.watch.progress(&progress);
            let object = &pack.entry.object;
            let done = progress.bytes_done + pack.entry.size;
            if let Some(found) = self.state.as_ref().and_then(|state| state.found(object)) {
                for finding in found.iter().cloned() {
                    self.findings.add(finding);
                }
                self.report.packs_read += 1;
            } else {
                let named = frames.of(PackNo(pack.entry.number))?;
                let raw = facts.get(&pack.entry.number).map(|facts| facts.raw);
                self.pack(truth, pack, (&named, raw, runs), &mut progress)?;
            }
            self.findings.tell(self.watch);
            progress.bytes_done = done;
            progress.objects_done += 1;
        }
        self.watch.progress(&progress);
        Ok(())
    }

    fn pack(
        &mut self,
        truth: &Truth,
        pack: &LedgerPack,
        (named, raw, runs): (&[NamedFrame], Option<u64>, &HashMap<String, LocalRun>),
        progress: &mut Progress,
    ) -> Result<(), VerifyError> {
        let (watch, report) = (&mut *self.watch, &mut self.report);
        let end = progress.bytes_done + pack.entry.size;
        let mut read = |bytes: u64| {
            progress.read(bytes, end);
            report.bytes_read += bytes;
            watch.progress(progress);
        };
        let check = PackCheck { source: &self.source, scratch: self.scratch, truth };
        let verdict = check.check(pack, named, raw, &mut self.findings, &mut read)?;
        self.findings.find_paths(|hits, inode| path_of(truth, runs, hits, inode));
        if verdict == PackVerdict::Read {
            self.report.packs_read += 1;
            if let Some(state) = &mut self.state {
                let newest = truth.users_of_pack(pack).pop().map(|snapshot| snapshot.id);
                state.done(&pack.entry.object, newest, self.findings.held().to_vec())?;
            }
        }
        Ok(())
    }
}

/// A path of the inode in the newest of the snapshots that has one.
fn path_of(truth: &Truth, runs: &HashMap<String, LocalRun>, hits: &[SnapshotName], inode: u64) -> Option<String> {
    let newest_first = truth.snapshots.iter().rev();
    let mut hit = newest_first.filter(|published| hits.iter().any(|name| name.id == published.snapshot.id));
    hit.find_map(|published| Stack::of(&published.snapshot, runs)?.path(Ino(inode)))
}
