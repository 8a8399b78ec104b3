//! Runs that are split by key: where a part ends, and which parts a merge writes anew.
//!
//! A part ends between two inodes only, so that whatever hides something stands in the same part. A merge leaves alone the
//! parts of the oldest run that the newer ones do not touch: their objects stay.

use super::RecordSink;
use super::error::CollectError;
use super::merge::{Bottom, RunRecords, merge_runs, plan_merge};
use super::rows::parts;
use crate::run::{NodeSource, RunCursor, Tree};
use bytes::Bytes;
use kvfs::Ino;
use std::ops::Range;

/// A part of a run is closed at about this size, bytes.
pub const RUN_PART_BYTES: u64 = 256 << 20;
/// A larger index has larger parts: not more than so many of that size.
const PARTS_BY_SIZE: u64 = 16;
/// With more parts than this in all runs, the next merge writes everything anew: a manifest names them all, and has a limit.
const PARTS_MAX: usize = 96;

/// The records of one part of a run.
pub trait PartRecords {
    /// From `key` on.
    fn records(&self, key: &[u8]) -> RunRecords<'_>;
}

/// A part of a run in a stack.
#[derive(Clone, Copy)]
pub struct StackedPart<'a> {
    /// It has the keys of the inodes from this one on, up to the next part; the first one from 0 on.
    pub from: Ino,
    /// Bytes.
    pub size: u64,
    /// What is in it.
    pub records: &'a dyn PartRecords,
}

/// A run, as its parts in key order: at least one.
pub type StackedParts<'a> = Vec<StackedPart<'a>>;

/// What a merge of the newest runs does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergePlan {
    /// So many of the newest runs become one.
    pub runs: usize,
    /// Parts of the oldest of them that are written anew, together with what the newer ones say of their keys; the others
    /// become parts of the new run as they are.
    pub rewritten: Vec<Range<usize>>,
    /// Size at which a part is closed, bytes.
    pub part_bytes: u64,
}

impl MergePlan {
    /// Whether a part of the oldest run stays as it is.
    pub fn keeps(&self, part: usize) -> bool {
        !self.rewritten.iter().any(|range| range.contains(&part))
    }
}

/// The size at which parts are closed in a stack of `total` bytes.
fn part_bytes(total: u64, least: u64) -> u64 {
    least.max(total / PARTS_BY_SIZE).max(1)
}

/// Which of `runs` (newest first) to merge, and how; `None`: the stack is fine as it is. `part_bytes_min`: see
/// [`RUN_PART_BYTES`].
pub fn plan_stack(runs: &[StackedParts<'_>], part_bytes_min: u64) -> Result<Option<MergePlan>, CollectError> {
    let sizes: Vec<u64> = runs.iter().map(|run| run.iter().map(|part| part.size).sum()).collect();
    let part_bytes = part_bytes(sizes.iter().sum(), part_bytes_min);
    let are_many = runs.iter().map(Vec::len).sum::<usize>() > PARTS_MAX;
    let taken = if are_many { runs.len() } else { plan_merge(&sizes) };
    let Some((oldest, newer)) = runs.get(..taken).and_then(|taken| taken.split_last()) else { return Ok(None) };
    if newer.is_empty() {
        return Ok(None);
    }
    let mut touched = vec![are_many; oldest.len()];
    for (at, touched) in touched.iter_mut().enumerate().filter(|(_, touched)| !**touched) {
        *touched = is_touched(newer, bounds(oldest, at..at + 1))?;
    }
    // Something is always written: the newest record of a run is its xid.
    if !touched.contains(&true)
        && let Some(last) = touched.last_mut()
    {
        *last = true;
    }
    join_small(&mut touched, oldest, part_bytes);
    Ok(Some(MergePlan { runs: taken, rewritten: ranges(&touched), part_bytes }))
}

/// A small part beside one that is written anew goes with it: of two neighbours, one has at least half of the size.
fn join_small(touched: &mut [bool], parts: &[StackedPart<'_>], part_bytes: u64) {
    let is_small = |at: usize| parts.get(at).is_some_and(|part| part.size < part_bytes / 2);
    let upwards = 1..touched.len();
    let downwards = (1..touched.len()).rev();
    for (from, to) in upwards.map(|at| (at - 1, at)).chain(downwards.map(|at| (at, at - 1))) {
        if touched.get(from) == Some(&true)
            && is_small(to)
            && let Some(to) = touched.get_mut(to)
        {
            *to = true;
        }
    }
}

fn ranges(touched: &[bool]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (at, _) in touched.iter().enumerate().filter(|(_, touched)| **touched) {
        match ranges.last_mut().filter(|last| last.end == at) {
            Some(last) => last.end = at + 1,
            None => ranges.push(at..at + 1),
        }
    }
    ranges
}

/// First inode of some parts, and that of the part behind them.
fn bounds(run: &[StackedPart<'_>], range: Range<usize>) -> (Ino, Option<Ino>) {
    let from = if range.start == 0 { None } else { run.get(range.start).map(|part| part.from) };
    (from.unwrap_or(Ino(0)), run.get(range.end).map(|part| part.from))
}

fn is_touched(newer: &[StackedParts<'_>], bounds: (Ino, Option<Ino>)) -> Result<bool, CollectError> {
    for run in newer {
        if records_within(run, bounds).next().transpose()?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The records of a run for the inodes from `from` on and below `end`.
fn records_within<'a>(run: &'a [StackedPart<'a>], (from, end): (Ino, Option<Ino>)) -> RunRecords<'a> {
    let first = run.partition_point(|part| part.from <= from).saturating_sub(1);
    let start = from.0.to_be_bytes();
    let end = end.map(|end| end.0.to_be_bytes());
    let wanted = move |part: &&StackedPart<'a>| end.is_none_or(|end| part.from.0.to_be_bytes() < end);
    let parts = run.get(first..).unwrap_or_default().iter().enumerate();
    let parts = parts.take_while(move |(at, part)| *at == 0 || wanted(part));
    let records = parts.flat_map(move |(_, part)| part.records.records(&start));
    let is_below = move |key: &Bytes| end.is_none_or(|end| key.as_ref() < end.as_slice());
    Box::new(records.take_while(move |record| record.as_ref().map_or(true, |(key, _)| is_below(key))))
}

/// Merges as planned. `runs` are those of the plan, or more; the new run is what `out` writes and the parts that the plan
/// keeps, in the order of their inodes. Answers the number of records written.
pub fn merge_stack<S: PartSink>(
    runs: &[StackedParts<'_>],
    plan: &MergePlan,
    bottom: Bottom,
    out: &mut RunSplitter<S>,
) -> Result<u64, CollectError> {
    let taken = runs.get(..plan.runs).unwrap_or_default();
    let Some(oldest) = taken.last() else { return Ok(0) };
    let mut written = 0;
    for range in &plan.rewritten {
        let bounds = bounds(oldest, range.clone());
        out.start_at(bounds.0)?;
        written += merge_runs(taken.iter().map(|run| records_within(run, bounds)).collect(), bottom, out)?;
    }
    Ok(written)
}

/// The records of an open run or part; `failed` says what an error of it is to the collector.
pub fn cursor_records<'t, S: NodeSource>(
    tree: &'t Tree<S>,
    from: &[u8],
    failed: impl Fn(S::Error) -> CollectError + 't,
) -> RunRecords<'t> {
    let mut cursor: RunCursor<'t, S> = tree.cursor(from);
    Box::new(std::iter::from_fn(move || match cursor.advance() {
        Ok(true) => Some(Ok((Bytes::copy_from_slice(cursor.key()), Bytes::copy_from_slice(cursor.value())))),
        Ok(false) => None,
        Err(error) => Some(Err(failed(error))),
    }))
}

/// Where parts are written.
pub trait PartSink {
    /// A part begins.
    fn begin(&mut self) -> Result<(), CollectError>;
    /// Appends a record to it; answers its bytes so far.
    fn push(&mut self, key: &[u8], value: &[u8]) -> Result<u64, CollectError>;
    /// It is complete, and has the inodes from `from` on.
    fn end(&mut self, from: Ino) -> Result<(), CollectError>;
}

/// Divides records into parts.
pub struct RunSplitter<S> {
    sink: S,
    part_bytes: u64,
    /// First inode of the next part.
    next: Ino,
    open: Option<OpenPart>,
    ended: usize,
}

struct OpenPart {
    from: Ino,
    last: Ino,
    bytes: u64,
}

impl<S: PartSink> RunSplitter<S> {
    /// Parts of about `part_bytes`, the first one from inode 0 on.
    pub fn new(sink: S, part_bytes: u64) -> Self {
        Self { sink, part_bytes, next: Ino(0), open: None, ended: 0 }
    }

    /// The records that follow are of a part of their own, which has the inodes from `from` on.
    pub fn start_at(&mut self, from: Ino) -> Result<(), CollectError> {
        self.close()?;
        self.next = from;
        Ok(())
    }

    /// All parts are complete; a run without records is an empty part.
    pub fn finish(mut self) -> Result<S, CollectError> {
        self.close()?;
        if self.ended == 0 {
            self.sink.begin()?;
            self.sink.end(self.next)?;
        }
        Ok(self.sink)
    }

    fn close(&mut self) -> Result<(), CollectError> {
        match self.open.take() {
            Some(open) => {
                self.ended += 1;
                self.sink.end(open.from)
            }
            None => Ok(()),
        }
    }
}

impl<S: PartSink> RecordSink for RunSplitter<S> {
    fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), CollectError> {
        let ino = parts(key)?.ino;
        if self.open.as_ref().is_some_and(|open| open.bytes >= self.part_bytes && open.last != ino) {
            self.start_at(ino)?;
        }
        if self.open.is_none() {
            self.sink.begin()?;
        }
        let from = self.next;
        let open = self.open.get_or_insert(OpenPart { from, last: ino, bytes: 0 });
        open.last = ino;
        open.bytes = self.sink.push(key, value)?;
        Ok(())
    }
}
