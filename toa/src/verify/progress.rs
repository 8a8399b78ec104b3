//! How far a verification is, and who is told.

use super::finding::Finding;
use serde::Serialize;

/// What is being looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The ledger and the names in the bucket.
    #[default]
    Ledger,
    /// The index runs, node by node.
    Runs,
    /// The trees of the snapshots.
    Trees,
    /// The packs, byte by byte.
    Packs,
    /// The portable listings, byte by byte.
    Listings,
}

impl Phase {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Runs => "runs",
            Self::Trees => "trees",
            Self::Packs => "packs",
            Self::Listings => "listings",
        }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What is being looked at.
    pub phase: Phase,
    /// Objects of the phase that are done; of [`Phase::Trees`] snapshots.
    pub objects_done: u64,
    /// All of them.
    pub objects_total: u64,
    /// Bytes of the phase that were read (and those that an interrupted verification had read).
    pub bytes_done: u64,
    /// All of them; 0 where bytes say nothing.
    pub bytes_total: u64,
}

impl Progress {
    /// The beginning of a phase.
    pub(super) fn begin(phase: Phase, objects_total: u64, bytes_total: u64) -> Self {
        Self { phase, objects_total, bytes_total, ..Self::default() }
    }

    /// Bytes of an object that ends at `end` were read; wrong ones are read once more, which counts nothing.
    pub(super) fn read(&mut self, bytes: u64, end: u64) {
        self.bytes_done = self.bytes_done.saturating_add(bytes).min(end);
    }
}

/// Who is told while a verification runs.
pub trait Watch {
    /// It is that far; often.
    fn progress(&mut self, progress: &Progress);
    /// Something was found.
    fn finding(&mut self, finding: &Finding);
}
