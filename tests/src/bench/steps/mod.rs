//! The steps, in the order in which they run: each finds what the ones before it left.

mod build;
mod large;
pub(super) mod program;
mod small;
mod synced;
mod tree;

use super::limits::{HOST, Limit, NULL};
use super::workload::Workload;
use anyhow::{Result, bail};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

const SMALL_BYTES: usize = 4096;

/// Whether a step begins without caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caches {
    /// The kernel's are dropped, and the daemon is new.
    Cold,
    /// As the step before left them; if that was a cold one on another target, it dropped everybody's: a step that must find
    /// them warm begins by warming them.
    Warm,
}

/// What a step's rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Operations a second.
    Operations,
    /// MiB a second.
    Mebibytes,
}

type Work = fn(&Path, &Workload) -> Result<Duration>;

/// One step.
#[derive(Debug)]
pub struct Step {
    /// Its name on the command line and in JSON.
    pub id: &'static str,
    /// Its name in the table.
    pub name: &'static str,
    /// Steps of a group share a directory, which goes away after the last of them.
    pub group: &'static str,
    /// Steps of the group that must have run before.
    needs: &'static [&'static str],
    /// How it begins.
    pub caches: Caches,
    /// What is counted.
    pub unit: Unit,
    /// How many of them.
    pub count: fn(&Workload) -> usize,
    /// How long it may take, beside others.
    pub limits: &'static [Limit],
    /// What is not measured.
    prepare: fn(&Path, &Workload) -> Result<()>,
    work: Work,
}

impl Step {
    const fn new(
        (group, id, name): (&'static str, &'static str, &'static str),
        count: fn(&Workload) -> usize,
        work: Work,
        limits: &'static [Limit],
    ) -> Self {
        let (caches, unit) = (Caches::Warm, Unit::Operations);
        Self { id, name, group, needs: &[], caches, unit, count, limits, prepare: |_, _| Ok(()), work }
    }

    const fn cold(self) -> Self {
        Self { caches: Caches::Cold, ..self }
    }

    const fn mebibytes(self) -> Self {
        Self { unit: Unit::Mebibytes, ..self }
    }

    const fn needs(self, needs: &'static [&'static str]) -> Self {
        Self { needs, ..self }
    }

    const fn after(self, prepare: fn(&Path, &Workload) -> Result<()>) -> Self {
        Self { prepare, ..self }
    }

    /// Does what the step needs and does not measure.
    pub fn prepare(&self, place: &Path, workload: &Workload) -> Result<()> {
        (self.prepare)(place, workload)
    }

    /// Runs it below `place`; how long it took.
    pub fn run(&self, place: &Path, workload: &Workload) -> Result<Duration> {
        (self.work)(place, workload)
    }
}

const SMALL: &str = "small";
const SYNC: &str = "sync";
const SQLITE: &str = "sqlite";
const LARGE: &str = "large";
/// The group that needs a source tree.
pub const TREE: &str = "tree";
const BUILD: &str = "build";

const NULL_1_3: &[Limit] = &[Limit::new(NULL, 1.3)];
const HOST_1_5: &[Limit] = &[Limit::new(HOST, 1.5)];

/// All of them.
pub const STEPS: &[Step] = &[
    Step::new((SMALL, "create", "create files of 4 KiB"), |w| w.files, small::create, NULL_1_3)
        .after(small::directories),
    Step::new((SMALL, "stat-cold", "cold stat"), |w| w.files, small::stat, NULL_1_3).cold().needs(&["create"]),
    Step::new((SMALL, "stat-warm", "warm stat"), |w| w.files, small::stat, NULL_1_3)
        .needs(&["create"])
        .after(|place, workload| small::stat(place, workload).map(drop)),
    Step::new((SMALL, "readdir", "cold readdir"), |w| w.files, small::list_names, NULL_1_3).cold().needs(&["create"]),
    Step::new((SMALL, "ls", "cold readdir with stat"), |w| w.files, small::list_long, NULL_1_3)
        .cold()
        .needs(&["create"]),
    Step::new((SMALL, "read-small", "cold open + read of 4 KiB"), |w| w.files, small::read, NULL_1_3)
        .cold()
        .needs(&["create"]),
    Step::new((SMALL, "rename", "rename"), |w| w.files, small::rename, NULL_1_3)
        .needs(&["create"])
        .after(|place, workload| small::stat(place, workload).map(drop)),
    Step::new((SMALL, "unlink", "unlink"), |w| w.files, small::unlink, NULL_1_3).needs(&["create"]),
    Step::new((SYNC, "sync-1", "fsynced creates, 1 thread"), |w| w.synced, synced::create::<1>, SYNCED_1)
        .after(synced::directories::<1>),
    Step::new((SYNC, "sync-16", "fsynced creates, 16 threads"), |w| w.synced, synced::create::<16>, SYNCED_16)
        .after(synced::directories::<16>),
    Step::new((SQLITE, "sqlite-rollback", "SQLite, rollback journal"), |w| w.transactions, synced::rollback, HOST_1_5),
    Step::new((SQLITE, "sqlite-wal", "SQLite, WAL"), |w| w.transactions, synced::write_ahead, HOST_1_5),
    Step::new((LARGE, "write", "sequential write + fsync"), |w| w.large_mib, large::write, &[Limit::new(HOST, 1.3)])
        .mebibytes(),
    Step::new((LARGE, "read-cold", "cold sequential read"), |w| w.large_mib, large::read, &[Limit::new(HOST, 1.2)])
        .mebibytes()
        .cold()
        .needs(&["write"]),
    Step::new(
        (LARGE, "read-warm", "warm sequential read"),
        |w| w.large_mib * large::WARM_PASSES,
        large::read_warm,
        &[Limit::new(NULL, 1.1)],
    )
    .mebibytes()
    .needs(&["write"])
    .after(|place, workload| large::read(place, workload).map(drop)),
    Step::new((LARGE, "random-read", "random 4 KiB reads, warm"), |w| w.random, large::read_random, NULL_1_3)
        .needs(&["write"]),
    Step::new(
        (LARGE, "random-read-fuse", "random 4 KiB reads, not cached"),
        |w| w.random,
        large::read_random,
        NULL_1_3,
    )
    .needs(&["write"])
    .after(large::drop_pages),
    Step::new((LARGE, "random-write", "random 4 KiB writes + fsync"), |w| w.random, large::write_random, WRITTEN)
        .needs(&["write"]),
    Step::new((TREE, "untar", "untar a source tree"), Workload::tree_files, tree::untar, &[Limit::new(HOST, 2.0)])
        .after(tree::warm_archive),
    Step::new((TREE, "cp", "cp -r"), Workload::tree_files, tree::copy, &[Limit::new(HOST, 2.5)]).needs(&["untar"]),
    Step::new((TREE, "rm", "rm -rf"), Workload::tree_files, tree::remove, &[Limit::new(HOST, 1.0)])
        .needs(&["untar", "cp"]),
    Step::new((TREE, "git-add", "git add"), Workload::tree_files, tree::add, NULL_1_3)
        .needs(&["untar"])
        .after(tree::init),
    Step::new((TREE, "git-commit", "git commit"), Workload::tree_files, tree::commit, NULL_1_3)
        .needs(&["untar", "git-add"]),
    Step::new((TREE, "git-status-warm", "git status, warm"), Workload::tree_files, tree::status, NULL_1_3)
        .needs(&["untar", "git-add", "git-commit"])
        .after(|place, workload| tree::status(place, workload).map(drop)),
    Step::new((TREE, "git-status-cold", "git status, cold"), Workload::tree_files, tree::status, NULL_1_3)
        .cold()
        .needs(&["untar", "git-add", "git-commit"]),
    Step::new((BUILD, "make", "make -j2"), |w| w.sources, build::make, &[Limit::new(HOST, 1.1)]).after(build::sources),
];

const SYNCED_1: &[Limit] = &[Limit::new(HOST, 1.2)];
const SYNCED_16: &[Limit] = &[Limit::new(HOST, 1.0)];
const WRITTEN: &[Limit] = &[Limit::new(NULL, 2.0)];

/// The steps that `names` ask for (ids and groups; none: all), with those that they need.
pub fn select(names: &[String]) -> Result<Vec<&'static Step>> {
    let mut wanted = BTreeSet::new();
    for name in names {
        let found: Vec<&Step> = STEPS.iter().filter(|step| step.id == name || step.group == name).collect();
        for step in &found {
            wanted.insert(step.id);
            wanted.extend(step.needs);
        }
        if found.is_empty() {
            let known: Vec<&str> = STEPS.iter().map(|step| step.id).collect();
            bail!("no step {name:?}; there are {}, and the groups small sync sqlite large tree build", known.join(" "));
        }
    }
    Ok(STEPS.iter().filter(|step| names.is_empty() || wanted.contains(step.id)).collect())
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// Bytes that nothing compresses away.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SmallRng::seed_from_u64(length as u64).fill(&mut bytes[..]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workload::Tree;
    use std::fs;

    #[test]
    fn every_step_finds_what_it_needs_and_does_it() {
        let source = tempfile::tempdir().unwrap();
        fs::create_dir(source.path().join("sub")).unwrap();
        fs::write(source.path().join("sub/file"), b"text").unwrap();
        let packed = tempfile::tempdir().unwrap();
        let tree = Tree::of(source.path(), packed.path()).unwrap();
        let workload = Workload { tree: Some(tree), ..Workload::tiny() };
        let dir = tempfile::tempdir().unwrap();
        for step in STEPS {
            let place = dir.path().join(step.group);
            fs::create_dir_all(&place).unwrap();
            step.prepare(&place, &workload).unwrap();
            assert!(step.run(&place, &workload).unwrap() > Duration::ZERO, "{}", step.id);
            assert!((step.count)(&workload) > 0, "{}", step.id);
        }
        let in_dir = |path: &str| fs::read_dir(dir.path().join(path)).unwrap().count();
        assert_eq!(in_dir("small/d0"), 0, "unlink leaves nothing");
        assert_eq!(fs::metadata(dir.path().join("large/large")).unwrap().len(), 2 << 20);
        assert!(dir.path().join("tree/tree/.git").is_dir() && !dir.path().join("tree/copy").exists());
        assert_eq!(fs::read(dir.path().join("tree/tree/sub/file")).unwrap(), b"text");
        assert!(dir.path().join("build/program").is_file());
    }

    #[test]
    fn what_a_step_needs_comes_with_it() {
        let ids = |names: &[&str]| -> Vec<&str> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            select(&names).unwrap().iter().map(|step| step.id).collect()
        };
        assert_eq!(ids(&["unlink", "sqlite"]), ["create", "unlink", "sqlite-rollback", "sqlite-wal"]);
        assert_eq!(ids(&["create", "unlink", "create"]), ["create", "unlink"]);
        assert_eq!(ids(&[]).len(), STEPS.len());
        assert!(select(&["creat".to_owned()]).unwrap_err().to_string().contains("git-status-cold"));
        for (at, step) in STEPS.iter().enumerate() {
            let before = |id: &&str| STEPS[..at].iter().any(|other| other.id == *id && other.group == step.group);
            assert!(step.needs.iter().all(before), "{} needs what is not before it", step.id);
        }
    }
}
