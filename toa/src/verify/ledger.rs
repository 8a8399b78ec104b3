//! The ledger and the names in the bucket: what there must be, and whether it is.

use super::VerifyOptions;
use super::error::VerifyError;
use super::finding::{Finding, Findings, Problem, SnapshotName};
use super::source::Source;
use crate::agent::SnapshotSelector;
use crate::error::AgentError;
use crate::run::Hash128;
use cloud_mgmt::config::{AccessMode, ConfigError, FsConfig, unknown_feature};
use cloud_mgmt::ledger::{
    BadSummary, History, Ledger, LedgerError, PackEntry, Published, RunEntry, Seq, SnapshotEntry, SummaryFault,
};
use cloud_mgmt::names::FsName;
use kvfs::acl::AclSupport;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// A pack as the ledger knows it.
#[derive(Clone, Debug)]
pub(super) struct LedgerPack {
    /// Name, size and hash.
    pub entry: PackEntry,
    born: Seq,
    dead: Option<Seq>,
}

impl LedgerPack {
    /// Whether the snapshot of that record uses it.
    pub fn is_used_by(&self, seq: Seq) -> bool {
        self.born <= seq && self.dead.is_none_or(|dead| seq < dead)
    }
}

/// What the ledger says, and what the bucket lists.
pub(super) struct Truth {
    ledger: Ledger,
    runtime: tokio::runtime::Handle,
    /// Whether the config says that there are ACLs; `None` if it says nothing at all.
    pub acls: Option<AclSupport>,
    pub history: Arc<History>,
    /// The snapshots that are looked at, oldest first.
    pub snapshots: Vec<Published>,
    /// The packs that they use, by number.
    pub packs: BTreeMap<u64, LedgerPack>,
    /// Sizes of all objects of the filesystem, by name.
    pub listed: BTreeMap<String, u64>,
}

impl Truth {
    /// Reads config and ledger and lists the objects; adds what is wrong with them.
    pub fn read(
        source: &Source,
        name: &FsName,
        options: &VerifyOptions,
        only: Option<&[Uuid]>,
        findings: &mut Findings,
    ) -> Result<Self, VerifyError> {
        let runtime = source.runtime.clone();
        let config = check_config(source, name, findings)?;
        let acls = config.map(|config| if config.has_acls() { AclSupport::Enforced } else { AclSupport::Absent });
        // Before the ledger: a hint that is read later may tell of records that were not there yet.
        let hint = runtime.block_on(source.store.get(&name.hint_object())).ok();
        let ledger = Ledger::of_records_alone(Arc::clone(&source.store), name.clone());
        let mut bad = Vec::new();
        let audited = runtime.block_on(ledger.audit(&mut bad));
        for bad in bad {
            findings.add(finding_of(&bad));
        }
        let (history, whole) = match audited {
            Ok(history) => (history, true),
            Err(LedgerError::Corrupt { object, reason }) => {
                let what = format!("{reason}; nothing behind it is trusted or looked at");
                findings.add(Finding::new(Problem::WrongBytes, Some(&object), what));
                (ledger.known(), false)
            }
            Err(error) => return Err(error.into()),
        };
        // One listing, after the ledger: whatever the ledger names was there before it.
        let objects = runtime.block_on(source.store.list(&name.to_string()))?;
        let listed = objects.into_iter().map(|object| (object.name, object.size)).collect();
        let snapshots = select(&history, options.snapshot.as_ref(), only)?;
        let mut truth = Self { ledger, runtime, acls, history, snapshots, packs: BTreeMap::new(), listed };
        truth.check_summary_size(findings);
        if whole {
            truth.check_end(source, name, hint.as_deref(), findings)?;
        }
        truth.find_packs(findings)?;
        truth.check_manifests(name, findings)?;
        Ok(truth)
    }

    /// The newest summary is as long as the ledger says: of a longer one only that much is read.
    fn check_summary_size(&self, findings: &mut Findings) {
        let Some(entry) = &self.history.state().summary else { return };
        let Some(size) = self.listed.get(&entry.object).filter(|size| **size > entry.size) else { return };
        let what = format!("it has {size} bytes, the ledger says {}", entry.size);
        findings.add(Finding::new(Problem::WrongSize, Some(&entry.object), what));
    }

    /// Records behind the end that was found: somebody took a record away.
    fn check_end(
        &self,
        source: &Source,
        name: &FsName,
        hint: Option<&[u8]>,
        findings: &mut Findings,
    ) -> Result<(), VerifyError> {
        let tail = self.history.tail_seq().0;
        let prefix = format!("{name}/ledger/");
        let number = |object: &String| {
            let digits = object.strip_prefix(&prefix)?.strip_suffix(".json")?;
            u64::from_str_radix(digits, 16).ok()
        };
        let later: HashSet<u64> = self.listed.keys().filter_map(number).filter(|seq| *seq > tail).collect();
        let hinted = hint.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok());
        let hinted = hinted.and_then(|hint| hint.get("seq")?.as_u64()).filter(|seq| *seq < u64::MAX / 2);
        let last = later.iter().copied().max().max(hinted).unwrap_or(tail);
        let Some(first) = (tail + 1..=last).find(|seq| !later.contains(seq)) else { return Ok(()) };
        let object = name.ledger_object(first);
        // A record may have been appended between two pages of the listing.
        match self.runtime.block_on(source.store.head(&object)) {
            Err(error) if error.is_not_found() => {
                let what = format!("record {first} is not there, and record {last} was written behind it");
                findings.add(Finding::new(Problem::Missing, Some(&object), what));
                Ok(())
            }
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }

    /// The packs of the snapshots, with what the record that brought each says of it.
    fn find_packs(&mut self, findings: &mut Findings) -> Result<(), VerifyError> {
        let seqs: Vec<Seq> = self.snapshots.iter().map(|published| published.seq).collect();
        let mut entries: HashMap<String, PackEntry> = HashMap::new();
        for published in self.history.snapshots() {
            entries.extend(published.snapshot.packs_new.iter().map(|pack| (pack.object.clone(), pack.clone())));
        }
        let mut read = HashSet::new();
        for (object, born, dead) in self.history.packs() {
            let is_used = seqs.iter().any(|seq| born <= *seq && dead.is_none_or(|dead| *seq < dead));
            if !is_used {
                continue;
            }
            // The snapshot that brought it was dropped since.
            if !entries.contains_key(object) && read.insert(born) {
                let record = self.runtime.block_on(self.ledger.read(born))?;
                if let cloud_mgmt::ledger::Entry::Snapshot(snapshot) = record.entry {
                    entries.extend(snapshot.packs_new.into_iter().map(|pack| (pack.object.clone(), pack)));
                }
            }
            let Some(entry) = entries.get(object).cloned() else { continue };
            let pack = LedgerPack { entry, born, dead };
            if let Some(other) = self.packs.insert(pack.entry.number, pack) {
                let what = format!("it has the number {} of {object}", other.entry.number);
                findings.add(Finding::new(Problem::Manifest, Some(&other.entry.object), what));
            }
        }
        Ok(())
    }

    fn check_manifests(&self, name: &FsName, findings: &mut Findings) -> Result<(), VerifyError> {
        for published in &self.snapshots {
            let entry = &*published.snapshot;
            if let Some(feature) = unknown_feature(&entry.features, AccessMode::ReadOnly) {
                let (object, feature) = (format!("snapshot {}", entry.id), feature.to_owned());
                return Err(ConfigError::UnknownFeature { object, feature }.into());
            }
            let object = name.ledger_object(published.seq.0);
            for what in manifest_faults(entry, name) {
                let hits = vec![SnapshotName::from(entry)];
                findings.add(Finding::new(Problem::Manifest, Some(&object), what).hits(hits));
            }
        }
        Ok(())
    }

    /// The snapshots that list the run.
    pub fn users_of_run(&self, object: &str) -> Vec<SnapshotName> {
        let uses = |published: &&Published| published.snapshot.runs.iter().any(|run| run.object == object);
        self.snapshots.iter().filter(uses).map(|published| SnapshotName::from(&*published.snapshot)).collect()
    }

    /// The snapshots that use the pack.
    pub fn users_of_pack(&self, pack: &LedgerPack) -> Vec<SnapshotName> {
        let uses = |published: &&Published| pack.is_used_by(published.seq);
        self.snapshots.iter().filter(uses).map(|published| SnapshotName::from(&*published.snapshot)).collect()
    }

    /// Whether an object must be there: used by a live snapshot, and not condemned.
    pub fn needs(&self, object: &str, retained: &HashSet<&str>) -> bool {
        retained.contains(object) && self.history.condemned_by(object).is_none()
    }

    /// The ledger as it is now; one that is broken is as good as it was.
    fn now(&self) -> Result<Arc<History>, VerifyError> {
        match self.runtime.block_on(self.ledger.history()) {
            Ok(now) => Ok(now),
            Err(LedgerError::Corrupt { .. }) => Ok(Arc::clone(&self.history)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an object that was not found must be there still, by the ledger as it is now.
    pub fn still_needs(&self, object: &str) -> Result<bool, VerifyError> {
        let now = self.now()?;
        Ok(now.retained().contains(object) && now.condemned_by(object).is_none())
    }

    /// Presence and size of an object by the listing; adds what is wrong. Whether it can be read.
    pub fn check_listed(
        &self,
        object: &str,
        size: u64,
        hits: impl FnOnce() -> Vec<SnapshotName>,
        findings: &mut Findings,
    ) -> Result<bool, VerifyError> {
        let (problem, what) = match self.listed.get(object) {
            Some(found) if *found == size => return Ok(true),
            Some(found) => (Problem::WrongSize, format!("it has {found} bytes, the ledger says {size}")),
            None if !self.still_needs(object)? => return Ok(false),
            None => (Problem::Missing, format!("it is not in the bucket; it had {size} bytes")),
        };
        findings.add(Finding::new(problem, Some(object), what).hits(hits()));
        Ok(false)
    }

    /// Objects that no live snapshot needs: how many, and their bytes; adds a note for each.
    pub fn check_unreferenced(&self, name: &FsName, findings: &mut Findings) -> Result<(u64, u64), VerifyError> {
        // A snapshot may have been published since.
        let now = self.now()?;
        let retained = now.retained();
        let newest = now.newest_snapshot().map_or(0, |published| published.snapshot.xid);
        let prefixes = [name.pack_prefix(), name.run_prefix(), name.listing_prefix()];
        let (mut objects, mut bytes) = (0, 0);
        for (object, size) in &self.listed {
            let Some(rest) = prefixes.iter().find_map(|prefix| object.strip_prefix(prefix)) else { continue };
            if retained.contains(object.as_str()) || now.condemned_by(object).is_some() {
                continue;
            }
            objects += 1;
            bytes += size;
            let may_be_coming = place_of(rest).is_some_and(|(epoch, xid)| epoch >= now.state().epoch && xid > newest);
            let state = if may_be_coming { "perhaps of a snapshot that is being uploaded" } else { "left over" };
            findings.add(Finding::new(
                Problem::Unreferenced,
                Some(object),
                format!("no snapshot uses it ({size} bytes): {state}"),
            ));
        }
        Ok((objects, bytes))
    }
}

/// A summary that readers cannot use, or must not.
fn finding_of(bad: &BadSummary) -> Finding {
    let problem = match &bad.fault {
        SummaryFault::Missing => Problem::Missing,
        SummaryFault::Damaged { .. } => Problem::WrongBytes,
        _ => Problem::Malformed,
    };
    let what = format!("the summary of the ledger that record {} names: {}", bad.named_by, bad.fault);
    Finding::new(problem, Some(&bad.entry.object), what)
}

/// Epoch and xid in the last component of an object's name.
fn place_of(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.split('-');
    let epoch = u32::from_str_radix(parts.next()?, 16).ok()?;
    Some((epoch, u64::from_str_radix(parts.next()?, 16).ok()?))
}

/// What the config says; a bad one is added to the findings.
fn check_config(source: &Source, name: &FsName, findings: &mut Findings) -> Result<Option<FsConfig>, VerifyError> {
    let object = name.config_object();
    let found = source.runtime.block_on(source.store.get(&object));
    let (problem, what) = match found.map(|bytes| FsConfig::parse(name, &bytes)) {
        Ok(Ok(config)) => {
            config.check_features(AccessMode::ReadOnly)?;
            return Ok(Some(config));
        }
        Ok(Err(ConfigError::Malformed { detail, .. })) => (Problem::Malformed, detail),
        Ok(Err(error)) => return Err(error.into()),
        Err(error) if error.is_not_found() => (Problem::Missing, "the filesystem has no config object".to_owned()),
        Err(error) => return Err(error.into()),
    };
    findings.add(Finding::new(problem, Some(&object), what));
    Ok(None)
}

/// The snapshots to look at: those of an interrupted verification, the one that was named, or all live ones. Of a
/// deleted filesystem only the newest one's index stays.
fn select(
    history: &History,
    selector: Option<&SnapshotSelector>,
    only: Option<&[Uuid]>,
) -> Result<Vec<Published>, VerifyError> {
    let mut snapshots = history.snapshots();
    if history.deletion().is_some() {
        snapshots = snapshots.pop().into_iter().collect();
    }
    if let Some(only) = only {
        snapshots.retain(|published| only.contains(&published.snapshot.id));
        return Ok(snapshots);
    }
    let Some(selector) = selector else { return Ok(snapshots) };
    let what = match selector {
        SnapshotSelector::Latest => {
            snapshots.drain(..snapshots.len().saturating_sub(1));
            "snapshot yet".to_owned()
        }
        SnapshotSelector::Named(text) => {
            let id = Uuid::try_parse(text).ok();
            snapshots.retain(|p| Some(p.snapshot.id) == id || p.snapshot.name.as_deref() == Some(text));
            format!("snapshot {text:?}")
        }
    };
    match snapshots.pop() {
        Some(found) => Ok(vec![found]),
        None => Err(AgentError::NoSnapshot { fs: history.fs().tag.to_string(), what }.into()),
    }
}

/// What a manifest says of a run, as its parts, that cannot be; the records above it begin at xid `above`.
fn run_faults(parts: &[RunEntry], above: u64) -> Vec<String> {
    let mut faults = Vec::new();
    let Some(first) = parts.first() else { return faults };
    let (from, ino_from) = (first.xid_from, first.ino_from.unwrap_or(0));
    let xid = parts.iter().map(|part| part.xid).max().unwrap_or(0);
    if xid != above {
        faults.push(format!("run {} ends at xid {xid}, the records above it begin at {above}", first.object));
    }
    if ino_from != 0 {
        faults.push(format!("run {} has no part below inode {ino_from}", first.object));
    }
    for part in parts {
        if part.xid_from != from {
            let object = &part.object;
            faults.push(format!("part {object} begins at xid {}, the first part of its run at {from}", part.xid_from));
        }
        if part.xid_from > part.xid {
            faults.push(format!("run {} begins at xid {} and ends at {}", part.object, part.xid_from, part.xid));
        }
    }
    faults
}

/// What a manifest says that cannot be.
fn manifest_faults(entry: &SnapshotEntry, name: &FsName) -> Vec<String> {
    let mut faults = Vec::new();
    let (packs, runs) = (name.pack_prefix(), name.run_prefix());
    let mut above = entry.xid;
    for parts in entry.stacked_runs() {
        faults.extend(run_faults(parts, above));
        above = parts.first().map_or(above, |part| part.xid_from);
    }
    for run in &entry.runs {
        if parse_root(&run.root).is_none() {
            faults.push(format!("run {} has the root hash {:?}", run.object, run.root));
        }
        if !run.object.starts_with(&runs) {
            faults.push(format!("{} is not the name of a run of this filesystem", run.object));
        }
    }
    if above != 0 {
        faults.push(format!("no run holds the records up to xid {above}"));
    }
    for pack in &entry.packs_new {
        if pack.number >= entry.pack_end {
            faults.push(format!("pack {} is not below the end of pack numbers, {}", pack.number, entry.pack_end));
        }
        if !pack.object.starts_with(&packs) {
            faults.push(format!("{} is not the name of a pack of this filesystem", pack.object));
        }
    }
    faults
}

/// 32 hex digits.
pub(super) fn parse_root(text: &str) -> Option<Hash128> {
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| digits)?;
    Some(number.to_be_bytes())
}
