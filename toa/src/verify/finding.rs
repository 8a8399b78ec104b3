//! What a verification finds, and the bounded list of it.

use super::Watch;
use cloud_mgmt::ledger::SnapshotEntry;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use uuid::Uuid;

/// Findings of one problem that are told one by one in a phase; the rest is counted.
const TOLD_PER_PROBLEM: usize = 100;

/// Whether something is lost or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A snapshot cannot be read as it was taken, or garbage collection could take something that is needed.
    Damage,
    /// Nothing is lost.
    Note,
}

/// What is wrong. The names in JSON are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// An object that is needed is not there.
    Missing,
    /// An object is shorter or longer than its ledger record says.
    WrongSize,
    /// Bytes do not match their hash.
    WrongBytes,
    /// Bytes match their hash and break the format.
    Malformed,
    /// A ledger record contradicts itself, its neighbours or the index.
    Manifest,
    /// Names and inodes contradict each other.
    Tree,
    /// An ACL that must not be there, or that its inode contradicts.
    Acl,
    /// The extents of a file are unsound.
    Extent,
    /// What the index or the ledger says of the use of a pack is wrong.
    PackUse,
    /// A pack is kept that no file uses.
    Unused,
    /// An object that no live snapshot needs.
    Unreferenced,
}

impl Problem {
    /// Whether something is lost or wrong.
    pub fn severity(self) -> Severity {
        match self {
            Self::Unused | Self::Unreferenced => Severity::Note,
            _ => Severity::Damage,
        }
    }

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::WrongSize => "wrong-size",
            Self::WrongBytes => "wrong-bytes",
            Self::Malformed => "malformed",
            Self::Manifest => "manifest",
            Self::Tree => "tree",
            Self::Acl => "acl",
            Self::Extent => "extent",
            Self::PackUse => "pack-use",
            Self::Unused => "unused",
            Self::Unreferenced => "unreferenced",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Missing | Self::WrongSize | Self::WrongBytes => {
                "put the object back under its name from a copy (versions of the bucket, a replica): objects never change, \
                 so any older version is right"
            }
            Self::Malformed | Self::Manifest | Self::Tree | Self::Acl | Self::Extent => {
                "the bytes are those that were written, so their writer was wrong: keep the bucket as it is, report the \
                 defect, and use a snapshot that is not named here"
            }
            Self::PackUse => {
                "reading is not harmed: do not collect garbage before this is understood, and report the defect"
            }
            Self::Unused => "nothing is lost; the collector of garbage may take it once no snapshot holds it",
            Self::Unreferenced => {
                "nothing is lost: the rest of an attempt that failed, of a dropped snapshot, or of one that is being \
                 uploaded now"
            }
        }
    }
}

/// A snapshot, as findings name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotName {
    /// Its id.
    pub id: Uuid,
    /// The name that the user gave.
    pub name: Option<String>,
}

impl From<&SnapshotEntry> for SnapshotName {
    fn from(entry: &SnapshotEntry) -> Self {
        Self { id: entry.id, name: entry.name.clone() }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Whether something is lost or wrong.
    pub severity: Severity,
    /// What kind of thing.
    pub problem: Problem,
    /// The object in the bucket that it is about; of a contradiction within the index `None`.
    pub object: Option<String>,
    /// The inode that it is about.
    pub inode: Option<u64>,
    /// A path of that inode, as far as it can be found.
    pub path: Option<String>,
    /// The snapshots that it hits.
    pub snapshots: Vec<SnapshotName>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

impl Finding {
    /// About an object, or about nothing in particular.
    pub(super) fn new(problem: Problem, object: Option<&str>, what: impl Into<String>) -> Self {
        Self {
            severity: problem.severity(),
            problem,
            object: object.map(str::to_owned),
            inode: None,
            path: None,
            snapshots: Vec::new(),
            what: what.into(),
            hint: problem.hint().to_owned(),
        }
    }

    pub(super) fn on(mut self, inode: u64) -> Self {
        self.inode = Some(inode);
        self
    }

    pub(super) fn hits(mut self, snapshots: Vec<SnapshotName>) -> Self {
        self.snapshots = snapshots;
        self
    }
}

/// What the same finding in another snapshot has in common with it.
type Sameness = (Problem, Option<String>, Option<u64>, String);

/// Findings of a phase. Holds a bounded number of them, whatever is broken.
#[derive(Debug, Default)]
pub(super) struct Findings {
    held: Vec<Finding>,
    at: HashMap<Sameness, usize>,
    /// How many of each problem are held, and how many are only counted.
    counts: HashMap<Problem, (usize, u64)>,
    damage: u64,
    notes: u64,
}

impl Findings {
    /// Takes a finding in; one that is there already learns of the further snapshots. Whether it will be told by itself.
    pub fn add(&mut self, finding: Finding) -> Told {
        let same = (finding.problem, finding.object.clone(), finding.inode, finding.what.clone());
        if let Some(known) = self.at.get(&same).and_then(|at| self.held.get_mut(*at)) {
            for snapshot in finding.snapshots {
                if !known.snapshots.contains(&snapshot) {
                    known.snapshots.push(snapshot);
                }
            }
            return Told::Before;
        }
        let (held, counted) = self.counts.entry(finding.problem).or_default();
        match finding.severity {
            Severity::Damage => self.damage += 1,
            Severity::Note => self.notes += 1,
        }
        if *held >= TOLD_PER_PROBLEM {
            *counted += 1;
            return Told::Never;
        }
        *held += 1;
        self.at.insert(same, self.held.len());
        self.held.push(finding);
        Told::Now
    }

    /// What was added since it was told last, as far as it is told one by one.
    pub fn held(&self) -> &[Finding] {
        &self.held
    }

    /// Gives what is held and has an inode its path, by `path` of the snapshots that it hits.
    pub fn find_paths(&mut self, path: impl Fn(&[SnapshotName], u64) -> Option<String>) {
        for finding in self.held.iter_mut().filter(|finding| finding.path.is_none()) {
            finding.path = finding.inode.and_then(|inode| path(&finding.snapshots, inode));
        }
    }

    /// The finding that was added last.
    pub fn last_mut(&mut self) -> Option<&mut Finding> {
        self.held.last_mut()
    }

    /// Tells everything that is held, and how many more there were; the sums stay.
    pub fn tell(&mut self, watch: &mut dyn Watch) {
        for finding in self.held.drain(..) {
            watch.finding(&finding);
        }
        self.at.clear();
        let mut counts: Vec<_> = self.counts.drain().collect();
        counts.sort_unstable_by_key(|(problem, _)| *problem);
        for (problem, (_, counted)) in counts.into_iter().filter(|(_, (_, counted))| *counted > 0) {
            let what = format!("at least {counted} more of this kind");
            watch.finding(&Finding::new(problem, None, what));
        }
    }

    /// Damage and notes so far.
    pub fn sums(&self) -> (u64, u64) {
        (self.damage, self.notes)
    }
}

/// What becomes of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It is told, by itself.
    Now,
    /// It was there already.
    Before,
    /// There are too many of its kind: it is counted.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Progress;

    #[derive(Default)]
    struct Log(Vec<Finding>);

    impl Watch for Log {
        fn progress(&mut self, _progress: &Progress) {}
        fn finding(&mut self, finding: &Finding) {
            self.0.push(finding.clone());
        }
    }

    #[test]
    fn the_list_is_bounded_and_the_sums_are_not() {
        let (mut findings, mut log) = (Findings::default(), Log::default());
        for inode in 0..250 {
            findings.add(Finding::new(Problem::Tree, None, "x").on(inode));
        }
        findings.add(Finding::new(Problem::Unused, Some("pack"), "y"));
        findings.tell(&mut log);
        assert_eq!(findings.sums(), (250, 1));
        assert_eq!(log.0.len(), TOLD_PER_PROBLEM + 2);
        assert_eq!(log.0.last().unwrap().what, "at least 150 more of this kind");
    }

    #[test]
    fn the_same_damage_of_two_snapshots_is_told_once() {
        let (mut findings, mut log) = (Findings::default(), Log::default());
        let snapshot = |id| SnapshotName { id: Uuid::from_u128(id), name: None };
        for id in [1, 2, 2] {
            findings.add(Finding::new(Problem::Tree, None, "x").on(7).hits(vec![snapshot(id)]));
        }
        findings.tell(&mut log);
        assert_eq!(findings.sums(), (1, 0));
        assert_eq!(log.0[0].snapshots, [snapshot(1), snapshot(2)]);
    }

    #[test]
    fn the_names_in_json_are_the_names() {
        for problem in [Problem::WrongBytes, Problem::PackUse, Problem::Unreferenced] {
            assert_eq!(serde_json::to_value(problem).unwrap(), problem.name());
        }
    }
}
