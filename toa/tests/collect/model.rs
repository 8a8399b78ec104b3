//! Random histories: every snapshot gives back every byte, and merged runs say what the runs said.

use crate::sides::{Records, Run, apply_record};
use crate::world::{Held, World, noise};
use bytes::Bytes;
use kvfs::Ino;
use kvfs::schema::{FileKind, Value};
use proptest::prelude::*;
use toa::collect::{Bottom, CollectError, Limits, RunRecords, merge_runs, plan_merge};

#[derive(Clone, Debug)]
pub enum Step {
    Make(u8, u8),
    Write { file: u8, at: u32, len: u32 },
    Truncate { file: u8, size: u32 },
    Share { from: (u8, u32), to: (u8, u32), len: u32 },
    Link(u8, u8),
    Unlink(u8, bool),
    Rename(u8, u8),
    Xattr(u8, u8, bool),
    Snapshot,
}

pub fn step() -> impl Strategy<Value = Step> {
    let at = prop_oneof![Just(0u32), 0u32..3_000_000];
    let len = prop_oneof![1u32..300, 300u32..20_000, 900_000u32..1_300_000];
    prop_oneof![
        3 => (any::<u8>(), any::<u8>()).prop_map(|(dir, kind)| Step::Make(dir, kind)),
        4 => (any::<u8>(), at.clone(), len.clone()).prop_map(|(file, at, len)| Step::Write { file, at, len }),
        2 => (any::<u8>(), 0u32..3_000_000).prop_map(|(file, size)| Step::Truncate { file, size }),
        2 => (any::<u8>(), at.clone(), any::<u8>(), at.clone(), len.clone())
            .prop_map(|(from, a, to, b, len)| Step::Share { from: (from, a), to: (to, b), len }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(file, dir)| Step::Link(file, dir)),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(name, open)| Step::Unlink(name, open)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(name, dir)| Step::Rename(name, dir)),
        1 => (any::<u8>(), 0u8..3, any::<bool>()).prop_map(|(file, name, set)| Step::Xattr(file, name, set)),
        2 => Just(Step::Snapshot),
    ]
}

fn pick(world: &World, kind: FileKind, which: u8) -> Option<Ino> {
    let all: Vec<_> = world.nodes.iter().filter(|(_, node)| node.value.kind == kind).map(|(ino, _)| *ino).collect();
    all.get(usize::from(which) % all.len().max(1)).copied()
}

pub fn take_step(world: &mut World, step: &Step, count: u64) {
    let dir = |world: &World, which| pick(world, FileKind::Directory, which).unwrap();
    let file = |world: &World, which| pick(world, FileKind::Regular, which);
    let name = format!("name-{count}").into_bytes();
    match *step {
        Step::Make(parent, kind) => {
            let kinds = [FileKind::Regular, FileKind::Regular, FileKind::Directory, FileKind::Fifo, FileKind::Socket];
            let parent = dir(world, parent);
            world.make(kinds[usize::from(kind) % kinds.len()], parent, &name);
        }
        Step::Write { file: which, at, len } => {
            let Some(ino) = file(world, which) else { return };
            world.write(ino, u64::from(at), &noise(count, len as usize));
        }
        Step::Truncate { file: which, size } => {
            if let Some(ino) = file(world, which) {
                world.truncate(ino, u64::from(size));
            }
        }
        Step::Share { from, to, len } => {
            if let (Some(source), Some(target)) = (file(world, from.0), file(world, to.0)) {
                world.share((source, u64::from(from.1)), (target, u64::from(to.1)), u64::from(len));
            }
        }
        Step::Link(which, parent) => {
            if let Some(ino) = file(world, which) {
                let parent = dir(world, parent);
                world.link(ino, parent, &name);
            }
        }
        Step::Unlink(which, open) => {
            let is_full = |ino: &Ino| world.names.keys().any(|(parent, _)| parent == ino);
            let names: Vec<_> =
                world.names.iter().filter(|(_, ino)| !is_full(ino)).map(|(name, _)| name.clone()).collect();
            if let Some((parent, name)) = names.get(usize::from(which) % names.len().max(1)) {
                world.unlink(*parent, name, if open { Held::Open } else { Held::No });
            }
        }
        Step::Rename(which, parent) => {
            let names: Vec<_> = world.names.keys().cloned().collect();
            if let Some((from, old)) = names.get(usize::from(which) % names.len().max(1)) {
                let parent = dir(world, parent);
                world.rename((*from, old), (parent, &name));
            }
        }
        Step::Xattr(which, attr, set) => {
            if let Some(ino) = file(world, which) {
                world.set_xattr(ino, format!("user.{attr}").as_bytes(), set.then_some(&name));
            }
        }
        Step::Snapshot => snapshot(world),
    }
}

fn snapshot(world: &mut World) {
    let before = world.base.records.clone();
    let local = world.local_bytes();
    let collected = world.snapshot();
    world.verify();
    let raw: u64 = collected.packs.iter().map(|pack| pack.summary.raw).sum();
    assert!(raw >= local, "every new byte is in the tar, also what stays inline");
    let records = world.runs[0].len() as u64 + world.nodes.len() as u64;
    assert!(raw <= local + 64 * 1024 + records * 8 * 1024, "nothing but new bytes and headers: {raw} for {local}");
    for (key, value) in &world.base.records {
        if let Value::Pack(pack) = Value::decode(value).unwrap().1 {
            let before = before.get(key).map(|old| Value::decode(old).unwrap().1);
            let was_unused = matches!(&before, Some(Value::Pack(old)) if old.live == 0);
            assert!(pack.live > 0 || !was_unused, "a pack without a user outlives one snapshot at most: {key:?}");
            let newly_unused = matches!(&before, Some(Value::Pack(old)) if old.live > 0) && pack.live == 0;
            assert!(!newly_unused || world.runs[0].contains_key(key));
        }
    }
}

fn iterate(run: &Records) -> RunRecords<'_> {
    Box::new(run.iter().map(|(key, value)| Ok((Bytes::copy_from_slice(key), value.clone()))))
}

fn apply_all<'a>(oldest_first: impl Iterator<Item = &'a Records>) -> Records {
    let mut all = Records::new();
    for run in oldest_first {
        for (key, value) in run {
            apply_record(&mut all, key, value);
        }
    }
    all
}

fn merged(runs: &[Records], bottom: Bottom) -> Records {
    let mut out = Run::default();
    let count = merge_runs(runs.iter().map(iterate).collect(), bottom, &mut out).unwrap();
    assert_eq!(count, out.records.len() as u64);
    out.records
}

fn check_merges(world: &World) {
    let runs = &world.runs;
    let truth = &world.base.records;
    assert_eq!(&apply_all(runs.iter().rev()), truth);
    for newest in 1..=runs.len() {
        for oldest in newest..=runs.len() {
            let middle = merged(&runs[newest - 1..oldest], Bottom::Below);
            let stack = runs[oldest..].iter().rev().chain([&middle]).chain(runs[..newest - 1].iter().rev());
            assert_eq!(&apply_all(stack), truth, "merging runs {newest} to {oldest}");
        }
    }
    assert_eq!(&merged(runs, Bottom::Included), truth, "the bottom run is the tree itself");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("CBFS_COLLECT_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24),
        ..ProptestConfig::default()
    })]
    #[test]
    fn snapshots_hold_the_tree_and_merges_change_nothing(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        world.limits = Limits { pack_bytes_target: 1 << 20, member_bytes_max: 1 << 20, ..Limits::default() };
        for (count, step) in steps.iter().enumerate() {
            take_step(&mut world, step, count as u64);
        }
        snapshot(&mut world);
        check_merges(&world);
    }
}

#[test]
fn a_run_out_of_order_is_refused() {
    let row = |key: &[u8]| Ok((Bytes::copy_from_slice(key), Value::Tombstone.encode(kvfs::Xid(1))));
    let keys = [kvfs::schema::Key::inode(Ino(2)), kvfs::schema::Key::inode(Ino(1))];
    let bad: RunRecords<'_> = Box::new(keys.iter().map(|key| row(key.as_bytes())));
    let error = merge_runs(vec![bad], Bottom::Below, &mut Run::default()).unwrap_err();
    assert!(matches!(error, CollectError::Inconsistent(_)));
}

#[test]
fn runs_stay_few_and_each_byte_is_merged_seldom() {
    let (mut stack, mut written) = (Vec::<u64>::new(), 0);
    for _ in 0..4096 {
        stack.insert(0, 1000);
        let take = plan_merge(&stack);
        let sum: u64 = stack.drain(..take).sum();
        stack.insert(0, sum);
        written += sum;
        assert!(stack.len() <= toa::collect::RUNS_MAX);
    }
    assert_eq!(stack.iter().sum::<u64>(), 4096 * 1000);
    assert!(written < 4096 * 1000 * 16, "{}", written / 4_096_000);
    assert_eq!((plan_merge(&[]), plan_merge(&[5]), plan_merge(&[5, 1000])), (0, 1, 1));
}
