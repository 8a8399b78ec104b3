//! Random operations on the filesystem core, without a kernel, against a plain model in memory: with crashes, clean
//! restarts, snapshots and publishing in between. `CBFS_TEST_CASES` sets the number of cases; two threads share them. What
//! failed once is kept in `proptest-regressions/` beside this directory and tried first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on ends

mod acl;
mod base;
mod reference;
mod rig;

use acl::ModelAcl;
use kvfs::acl::AclKind;
use kvfs::op::{AllocateMode, RenameMode};
use proptest::prelude::*;
use rig::Rig;

/// Files that steps are drawn from; what is drawn for any inode has the directories behind them.
pub(crate) const FILES_DRAWN: u8 = 6;

/// One step of a case. Names and directories are drawn from few, so that steps meet each other.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    MakeFile(u8, u8),
    MakeDir(u8, u8),
    Symlink(u8, u8),
    Link(u8, u8, u8),
    Unlink(u8, u8),
    Rmdir(u8, u8),
    Rename {
        from: (u8, u8),
        to: (u8, u8),
        mode: RenameMode,
    },
    Write {
        file: u8,
        offset: u32,
        len: u32,
        fill: u8,
    },
    Truncate {
        file: u8,
        size: u32,
    },
    Allocate {
        file: u8,
        offset: u32,
        len: u32,
        mode: AllocateMode,
    },
    CopyRange {
        from: (u8, u32),
        to: (u8, u32),
        len: u32,
    },
    SetXattr(u8, u8, u8),
    RemoveXattr(u8, u8),
    Chmod(u8, u16),
    SetAcl(u8, AclKind, ModelAcl),
    RemoveAcl(u8, AclKind),
    /// Reads a part of a file.
    Read {
        file: u8,
        offset: u32,
        len: u32,
    },
    Sync(u8),
    Forget(u8),
    Checkpoint,
    /// Empties data segments that are in use by at most so many percent.
    Compact(u64),
    Crash,
    Restart,
    Snapshot,
    Publish,
}

fn offset() -> impl Strategy<Value = u32> {
    // Around the borders of windows, and small.
    prop_oneof![0u32..5000, 1_048_000u32..1_049_000, 2_096_000u32..2_098_000, 0u32..2_200_000]
}

fn len() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 1u32..3000, 2 => 16_000u32..17_000, 1 => 100_000u32..1_200_000]
}

fn step() -> impl Strategy<Value = Step> {
    let dir = 0u8..4;
    let name = 0u8..6;
    let file = 0..FILES_DRAWN;
    let inode = 0..FILES_DRAWN + 4;
    let kind = prop_oneof![Just(AclKind::Access), Just(AclKind::Default)];
    let rename = prop_oneof![
        3 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        1 => Just(RenameMode::Exchange)
    ];
    let allocate = prop_oneof![
        Just(AllocateMode::Extend),
        Just(AllocateMode::KeepSize),
        Just(AllocateMode::PunchHole),
        Just(AllocateMode::ZeroRange),
        Just(AllocateMode::ZeroRangeKeepSize)
    ];
    prop_oneof![
        6 => (dir.clone(), name.clone()).prop_map(|(d, n)| Step::MakeFile(d, n)),
        3 => (dir.clone(), name.clone()).prop_map(|(d, n)| Step::MakeDir(d, n)),
        1 => (dir.clone(), name.clone()).prop_map(|(d, n)| Step::Symlink(d, n)),
        2 => (file.clone(), dir.clone(), name.clone()).prop_map(|(f, d, n)| Step::Link(f, d, n)),
        3 => (dir.clone(), name.clone()).prop_map(|(d, n)| Step::Unlink(d, n)),
        2 => (dir.clone(), name.clone()).prop_map(|(d, n)| Step::Rmdir(d, n)),
        4 => (dir.clone(), name.clone(), dir, name, rename)
            .prop_map(|(d, n, e, m, mode)| Step::Rename { from: (d, n), to: (e, m), mode }),
        8 => (file.clone(), offset(), len(), any::<u8>())
            .prop_map(|(file, offset, len, fill)| Step::Write { file, offset, len, fill }),
        4 => (file.clone(), offset()).prop_map(|(file, size)| Step::Truncate { file, size }),
        3 => (file.clone(), offset(), len(), allocate)
            .prop_map(|(file, offset, len, mode)| Step::Allocate { file, offset, len, mode }),
        5 => (file.clone(), offset(), file.clone(), offset(), len())
            .prop_map(|(from, a, to, b, len)| Step::CopyRange { from: (from, a), to: (to, b), len }),
        2 => (file.clone(), 0u8..3, any::<u8>()).prop_map(|(f, n, v)| Step::SetXattr(f, n, v)),
        1 => (file.clone(), 0u8..3).prop_map(|(f, n)| Step::RemoveXattr(f, n)),
        2 => (inode.clone(), 0u16..0o1000).prop_map(|(i, m)| Step::Chmod(i, m)),
        3 => (inode.clone(), kind.clone(), any::<u32>()).prop_map(|(i, k, a)| Step::SetAcl(i, k, ModelAcl::drawn(a))),
        1 => (inode, kind).prop_map(|(i, k)| Step::RemoveAcl(i, k)),
        3 => (file.clone(), offset(), len()).prop_map(|(file, offset, len)| Step::Read { file, offset, len }),
        1 => file.clone().prop_map(Step::Sync),
        2 => file.prop_map(Step::Forget),
        3 => Just(Step::Checkpoint),
        2 => (0u64..=100).prop_map(Step::Compact),
        2 => Just(Step::Crash),
        1 => Just(Step::Restart),
        3 => Just(Step::Snapshot),
        3 => Just(Step::Publish),
    ]
}

/// Cases of a run when nothing else is said.
const CASES: u32 = 2000;
const THREADS: u32 = 2;

fn cases() -> u32 {
    std::env::var("CBFS_TEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES).div_ceil(THREADS)
}

fn behaves_like_the_model(steps: &[Step]) {
    let mut rig = Rig::new();
    for step in steps {
        rig.run(step);
    }
    rig.crash();
    rig.compare();
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: cases(), max_shrink_iters: 400, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn behaves_like_the_model_here(steps in prop::collection::vec(step(), 1..60)) {
        behaves_like_the_model(&steps);
    }

    #[test]
    fn behaves_like_the_model_there(steps in prop::collection::vec(step(), 1..60)) {
        behaves_like_the_model(&steps);
    }
}

/// Published layers go one after the other; an open file without a name keeps its bytes all the same, also those written
/// later, and a crash then does not stand in the way of the next start.
#[test]
fn an_open_file_without_a_name_outlives_the_layers_that_it_was_in() {
    let write = |offset, fill| Step::Write { file: 0, offset, len: 40_000, fill };
    let publish = [Step::Snapshot, Step::Publish];
    for crash_after in 0..7 {
        let mut rig = Rig::new();
        let begin = [Step::MakeFile(0, 0), write(0, 1), Step::Snapshot, Step::Publish, Step::Unlink(0, 0)];
        for step in &begin {
            rig.run(step);
        }
        for round in 0..7 {
            for step in &publish {
                rig.run(step);
            }
            if round % 3 == 2 {
                rig.run(&write(2_000_000 + round, 2));
            }
            rig.compare();
            if round == crash_after {
                rig.run(&write(9, 3));
                rig.run(&Step::Crash);
                break;
            }
        }
    }
}
