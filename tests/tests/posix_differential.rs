//! Random system calls on a mount and on the host's filesystem, and the tree that they leave: the same after a `kill -9`,
//! and in a snapshot on another node.
//!
//! `CBFS_DIFFERENTIAL_ROUNDS`, `CBFS_DIFFERENTIAL_STEPS` and `CBFS_DIFFERENTIAL_SEED` make it longer, or another one.
//! The process changes its working directory, so this stands alone.

use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::differential::{self, HostSide};
use cbfs_tests::manifest::{Compare, Kind, Manifest};
use cbfs_tests::paths::count_from_env;
use cbfs_tests::scenario::{Mount, Scenario};
use cbfs_tests::serial::serial;
use std::fs;

/// Times between these were set by the clock, seconds.
const CLOCK: std::ops::Range<i64> = 1_600_000_000..4_000_000_000;
/// The unit in which the host knows holes, bytes.
const BLOCK_BYTES: u64 = 4096;

#[test]
fn a_mount_answers_as_the_host_does() -> Result<()> {
    let rounds = count_from_env("CBFS_DIFFERENTIAL_ROUNDS", 6)?;
    let steps = count_from_env("CBFS_DIFFERENTIAL_STEPS", 4_000)?;
    let seed = count_from_env("CBFS_DIFFERENTIAL_SEED", 1)? as u64;
    let _turn = serial()?;
    let scenario = Scenario::new(StoreKind::Directory, "differential")?;
    let Mount { mut mounted, node } = Mount::new(&scenario.bucket, &scenario.address, &[])?;
    for round in 0..rounds as u64 {
        let host = HostSide::new()?;
        let place = mounted.path(&format!("round {round}"));
        fs::create_dir(&place)?;
        differential::run(seed + round, steps, host.path(), &place)?;
        let (expected, found) = (Manifest::scan(host.path())?, Manifest::scan(&place)?);
        same_tree(&expected, &found).with_context(|| format!("seed {}: the tree", seed + round))?;
        if round % 2 == 1 {
            let all = Manifest::scan(mounted.dir())?;
            mounted.kill()?;
            mounted = node.mount(&scenario.address, "mnt", &[])?;
            all.must_equal(&Manifest::scan(mounted.dir())?, Compare::Exact).context("after kill -9")?;
        }
        let name = format!("round-{round}");
        let all = Manifest::scan(mounted.dir())?;
        scenario.snapshot(&node, &name)?;
        let slave = Mount::new(&scenario.bucket, &scenario.at(&name), &[])?;
        all.must_equal(&Manifest::scan(slave.mounted.dir())?, Compare::Exact).context("in a snapshot")?;
        slave.unmount()?;
    }
    mounted.unmount(&node)
}

/// The same, but for times of the clock; and no data where the host has a hole.
fn same_tree(expected: &Manifest, found: &Manifest) -> Result<()> {
    for (path, entry) in &found.entries {
        let Some(Kind::File { data, .. }) = expected.entries.get(path).map(|entry| &entry.kind) else { continue };
        if let Kind::File { data: ours, .. } = &entry.kind {
            let blocks = |&(start, end): &(u64, u64)| (start / BLOCK_BYTES, end.div_ceil(BLOCK_BYTES));
            let within = |ours: (u64, u64)| data.iter().map(blocks).any(|host| host.0 <= ours.0 && ours.1 <= host.1);
            ensure!(
                ours.iter().map(blocks).all(within),
                "{}: data at {ours:?}, on the host at {data:?}",
                path.escape_ascii()
            );
        }
    }
    without_clock(expected).must_equal(&without_clock(found), Compare::AnyHoles)
}

fn without_clock(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    for entry in manifest.entries.values_mut().filter(|entry| CLOCK.contains(&entry.mtime.0)) {
        entry.mtime = (0, 0);
    }
    manifest
}
