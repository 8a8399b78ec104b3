//! Merging index runs: newest wins, and what can hide nothing any more drops out.

use super::RecordSink;
use super::error::CollectError;
use super::rows::{decode, parts};
use bytes::Bytes;
use kvfs::schema::key::Parts;
use kvfs::schema::{Space, Value};
use kvfs::{Ino, Xid};

/// The records of one run in key order.
pub type RunRecords<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), CollectError>> + 'a>;

/// Whether the oldest run of the filesystem takes part in a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bottom {
    /// It does: nothing lies below, so tombstones and cuts drop out.
    Included,
    /// It does not: they stay, to hide what lies below.
    Below,
}

/// Runs in the stack of a filesystem at most.
pub const RUNS_MAX: usize = 6;
/// A run is merged into the newer ones before it unless it is this many times larger.
const SIZE_FACTOR: u64 = 4;

/// How many of the newest runs to merge into one, given all sizes in bytes, newest first; 1 = nothing to merge.
pub fn plan_merge(sizes: &[u64]) -> usize {
    let mut sum = 0u64;
    for (taken, size) in sizes.iter().enumerate() {
        let stack_after = sizes.len() - taken + 1;
        if taken > 0 && *size >= sum.saturating_mul(SIZE_FACTOR) && stack_after <= RUNS_MAX {
            return taken;
        }
        sum = sum.saturating_add(*size);
    }
    sizes.len()
}

/// Merges `runs` (newest first) into `out`; answers the number of records.
pub fn merge_runs(runs: Vec<RunRecords<'_>>, bottom: Bottom, out: &mut dyn RecordSink) -> Result<u64, CollectError> {
    let mut heads = runs.into_iter().map(Head::new).collect::<Result<Vec<_>, _>>()?;
    let mut merge = Merge { bottom, out, hidden: Hidden::new(heads.len()), records: 0 };
    while let Some(key) = heads.iter().filter_map(Head::key).min().cloned() {
        let mut versions = Vec::new();
        for (rank, head) in heads.iter_mut().enumerate() {
            if head.key() == Some(&key)
                && let Some((_, value)) = head.advance()?
            {
                versions.push((rank, value));
            }
        }
        merge.key(&key, &versions)?;
    }
    Ok(merge.records)
}

struct Head<'a> {
    rest: RunRecords<'a>,
    first: Option<(Bytes, Bytes)>,
}

impl<'a> Head<'a> {
    fn new(mut rest: RunRecords<'a>) -> Result<Self, CollectError> {
        let first = rest.next().transpose()?;
        Ok(Self { rest, first })
    }

    fn key(&self) -> Option<&Bytes> {
        self.first.as_ref().map(|(key, _)| key)
    }

    fn advance(&mut self) -> Result<Option<(Bytes, Bytes)>, CollectError> {
        let next = self.rest.next().transpose()?;
        let out_of_order = matches!((&self.first, &next), (Some((before, _)), Some((after, _))) if before >= after);
        if out_of_order {
            return Err(CollectError::Inconsistent("the keys of a run are not in order".into()));
        }
        Ok(std::mem::replace(&mut self.first, next))
    }
}

/// What newer runs hide of the inode at hand in older ones. A rank counts runs from the newest.
struct Hidden {
    ino: Ino,
    /// Runs older than this one lost the inode.
    dead: Option<usize>,
    /// First window that is dead in the runs older than each.
    cuts: Vec<Option<u64>>,
}

impl Hidden {
    fn new(runs: usize) -> Self {
        Self { ino: Ino(0), dead: None, cuts: vec![None; runs] }
    }

    fn enter(&mut self, ino: Ino) {
        if self.ino != ino {
            *self = Self { ino, ..Self::new(self.cuts.len()) };
        }
    }

    fn is_dead(&self, rank: usize) -> bool {
        self.dead.is_some_and(|dead| dead < rank)
    }

    fn is_cut(&self, rank: usize, window: u64) -> bool {
        self.cuts.iter().take(rank).flatten().any(|cut| *cut <= window)
    }
}

struct Merge<'a> {
    bottom: Bottom,
    out: &'a mut dyn RecordSink,
    hidden: Hidden,
    records: u64,
}

impl Merge<'_> {
    fn key(&mut self, key: &[u8], versions: &[(usize, Bytes)]) -> Result<(), CollectError> {
        let parts: Parts<'_> = parts(key)?;
        self.hidden.enter(parts.ino);
        let Some((rank, newest)) = versions.first() else { return Ok(()) };
        match parts.space {
            Space::Inode => {
                self.hidden.dead = versions.iter().find(|(_, value)| Value::is_tombstone(value)).map(|(rank, _)| *rank);
            }
            Space::Cut => return self.cut(key, versions),
            Space::Window => {
                let number = parts.number().unwrap_or_default();
                if self.hidden.is_dead(*rank) || self.hidden.is_cut(*rank, number) {
                    return Ok(());
                }
            }
            Space::Xattr if self.hidden.is_dead(*rank) => return Ok(()),
            Space::Xattr | Space::Dirent | Space::Orphan | Space::Pack | Space::PackUsers => {}
        }
        if self.bottom == Bottom::Included && Value::is_tombstone(newest) {
            return Ok(());
        }
        self.push(key, newest)
    }

    /// Cuts combine: what any of them hides in lower tiers stays hidden.
    fn cut(&mut self, key: &[u8], versions: &[(usize, Bytes)]) -> Result<(), CollectError> {
        let mut combined: Option<(Xid, u64)> = None;
        for (rank, value) in versions {
            if self.hidden.is_dead(*rank) {
                break;
            }
            if let (xid, Value::Cut(first)) = decode(key, value)? {
                if let Some(slot) = self.hidden.cuts.get_mut(*rank) {
                    *slot = Some(first);
                }
                combined = Some(combined.map_or((xid, first), |(newest, least)| (newest, least.min(first))));
            }
        }
        match combined {
            Some((xid, first)) if self.bottom == Bottom::Below => self.push(key, &Value::Cut(first).encode(xid)),
            _ => Ok(()),
        }
    }

    fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), CollectError> {
        self.records += 1;
        self.out.push(key, value)
    }
}
