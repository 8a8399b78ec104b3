//! Runs that are split by key: a stack of them says what unsplit runs say, and merges leave alone what they need not touch.

use crate::model::{step, take_step};
use crate::sides::{Records, apply_record};
use crate::world::{Held, World, noise};
use bytes::Bytes;
use kvfs::Ino;
use kvfs::schema::{FileKind, Key};
use proptest::prelude::*;
use std::ops::Bound;
use std::sync::Arc;
use toa::collect::{
    Bottom, CollectError, MergePlan, PartRecords, PartSink, RUNS_MAX, RecordSink, RunRecords, RunSplitter, StackedPart,
    StackedParts, merge_stack, plan_stack,
};

/// Every record is a byte of a part: sizes are numbers of records.
struct Part(Records);

impl PartRecords for Part {
    fn records(&self, key: &[u8]) -> RunRecords<'_> {
        let records = self.0.range::<[u8], _>((Bound::Included(key), Bound::Unbounded));
        Box::new(records.map(|(key, value)| Ok((Bytes::copy_from_slice(key), value.clone()))))
    }
}

#[derive(Default)]
struct Parts {
    open: Option<Records>,
    done: Vec<(Ino, Arc<Part>)>,
}

impl PartSink for Parts {
    fn begin(&mut self) -> Result<(), CollectError> {
        assert!(self.open.replace(Records::new()).is_none());
        Ok(())
    }
    fn push(&mut self, key: &[u8], value: &[u8]) -> Result<u64, CollectError> {
        let open = self.open.as_mut().unwrap();
        assert!(open.last_key_value().is_none_or(|(last, _)| last.as_slice() < key));
        open.insert(key.to_vec(), Bytes::copy_from_slice(value));
        Ok(open.len() as u64)
    }
    fn end(&mut self, from: Ino) -> Result<(), CollectError> {
        self.done.push((from, Arc::new(Part(self.open.take().unwrap()))));
        Ok(())
    }
}

type Run = Vec<(Ino, Arc<Part>)>;

/// The runs of a filesystem, newest first.
#[derive(Default)]
struct Stack {
    runs: Vec<Run>,
    part_bytes: u64,
}

fn stacked(run: &Run) -> StackedParts<'_> {
    run.iter()
        .map(|(from, part)| StackedPart { from: *from, size: part.0.len() as u64, records: part.as_ref() })
        .collect()
}

impl Stack {
    /// A new run on top, merged as a snapshot does; answers what was done.
    fn push(&mut self, records: &Records) -> Option<MergePlan> {
        let mut newest = RunSplitter::new(Parts::default(), self.part_bytes);
        for (key, value) in records {
            newest.push(key, value).unwrap();
        }
        self.runs.insert(0, newest.finish().unwrap().done);
        let runs: Vec<_> = self.runs.iter().map(stacked).collect();
        let plan = plan_stack(&runs, self.part_bytes).unwrap()?;
        let bottom = if plan.runs == runs.len() { Bottom::Included } else { Bottom::Below };
        let mut out = RunSplitter::new(Parts::default(), plan.part_bytes);
        let written = merge_stack(&runs, &plan, bottom, &mut out).unwrap();
        let mut run = out.finish().unwrap().done;
        assert_eq!(run.iter().map(|(_, part)| part.0.len() as u64).sum::<u64>(), written);
        drop(runs);
        let replaced: Vec<Run> = self.runs.drain(..plan.runs).collect();
        let kept = replaced.last().unwrap().iter().enumerate().filter(|(at, _)| plan.keeps(*at));
        run.extend(kept.map(|(_, part)| part.clone()));
        run.sort_by_key(|(from, _)| *from);
        run[0].0 = Ino(0);
        self.runs.insert(0, run);
        Some(plan)
    }

    fn check(&self, truth: &Records) {
        let mut shown = Records::new();
        for run in self.runs.iter().rev() {
            let mut last: Option<u64> = None;
            assert_eq!(run[0].0, Ino(0));
            for (at, (from, part)) in run.iter().enumerate() {
                let end = run.get(at + 1).map_or(u64::MAX, |(from, _)| from.0 - 1);
                assert!(from.0 <= end, "parts ascend");
                for (key, value) in &part.0 {
                    let ino = u64::from_be_bytes(*key.first_chunk().unwrap());
                    assert!((from.0..=end).contains(&ino), "inode {ino} in the part from {from} to {end}");
                    apply_record(&mut shown, key, value);
                    last = last.max(Some(ino));
                }
            }
            assert!(last.is_some() || run.len() == 1 || run.iter().all(|(_, part)| part.0.is_empty()));
        }
        assert_eq!(&shown, truth);
        assert!(self.runs.len() <= RUNS_MAX);
        let parts: usize = self.runs.iter().map(Vec::len).sum();
        assert!(parts <= 226, "{parts} parts do not fit into a manifest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("CBFS_COLLECT_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24),
        ..ProptestConfig::default()
    })]
    #[test]
    fn stacks_of_split_runs_show_the_tree(steps in proptest::collection::vec(step(), 1..80), part_bytes in 1..40_u64) {
        let mut world = World::new();
        let mut stack = Stack { part_bytes, ..Stack::default() };
        for (count, step) in steps.iter().enumerate() {
            let before = world.runs.len();
            take_step(&mut world, step, count as u64);
            if world.runs.len() > before {
                stack.push(&world.runs[0]);
                stack.check(&world.base.records);
            }
        }
    }
}

/// Many files, of which some change; the runs are those of a filesystem that is older than its changes.
fn filled(files: u64, part_bytes: u64) -> (World, Stack, Vec<Ino>) {
    let mut world = World::new();
    let inodes = (0..files).map(|n| world.file(Ino::ROOT, format!("f{n}").as_bytes(), &noise(n, 40))).collect();
    world.snapshot();
    let mut stack = Stack { part_bytes, ..Stack::default() };
    stack.push(&world.runs[0]);
    stack.check(&world.base.records);
    (world, stack, inodes)
}

#[test]
fn a_merge_keeps_the_parts_that_nothing_touches() {
    let (mut world, mut stack, files) = filled(400, 100);
    assert!(stack.runs[0].len() > 6);
    let mut merged = 0;
    for round in 0..12 {
        let before: Vec<_> = stack.runs.last().unwrap().clone();
        for file in &files[100..270] {
            world.write(*file, 0, &noise(round, 50));
        }
        world.snapshot();
        let plan = stack.push(&world.runs[0]);
        stack.check(&world.base.records);
        let Some(plan) = plan.filter(|_| stack.runs.len() == 1) else { continue };
        merged += 1;
        let stay = before.iter().filter(|(_, part)| stack.runs[0].iter().any(|(_, now)| Arc::ptr_eq(part, now)));
        // Four of ten files change, and the record of a pack in the last part.
        assert!(stay.count() * 5 >= before.len() * 2, "{plan:?} of {} parts", before.len());
    }
    assert!(merged > 1, "never merged with the base");
}

#[test]
fn parts_stay_few_whatever_is_touched() {
    let (mut world, mut stack, files) = filled(600, 20);
    for round in 0..120_usize {
        let alive = files.iter().filter(|ino| world.nodes.contains_key(ino));
        let touched: Vec<Ino> = alive.copied().skip(round % 7).step_by(7 + round % 11).collect();
        assert!(!touched.is_empty());
        for file in &touched {
            world.set_xattr(*file, format!("user.{}", round % 9).as_bytes(), (round % 3 > 0).then_some(b"value"));
        }
        if round % 10 == 9 {
            let names: Vec<_> = world.names.keys().skip(round).step_by(19).cloned().collect();
            for (parent, name) in &names {
                world.unlink(*parent, name, Held::No);
            }
        }
        world.snapshot();
        stack.push(&world.runs[0]);
        stack.check(&world.base.records);
    }
}

#[test]
fn what_is_deleted_as_a_whole_leaves_no_hole() {
    let (mut world, mut stack, _) = filled(300, 50);
    // Everything but the root goes: also the first part ends up without records of its own.
    let names: Vec<_> = world.names.keys().cloned().collect();
    for (parent, name) in names {
        world.unlink(parent, &name, Held::No);
    }
    world.snapshot();
    stack.push(&world.runs[0]);
    stack.check(&world.base.records);
    let late = world.make(FileKind::Regular, Ino::ROOT, b"late");
    world.snapshot();
    stack.push(&world.runs[0]);
    stack.check(&world.base.records);
    assert!(stack.runs.iter().flatten().any(|(_, part)| part.0.contains_key(Key::inode(late).as_bytes())));
}

#[test]
fn an_empty_run_is_one_empty_part() {
    let mut stack = Stack { part_bytes: 10, ..Stack::default() };
    stack.push(&Records::new());
    assert_eq!(stack.runs[0].len(), 1);
    stack.check(&Records::new());
}
