//! What snapshots cost: beside `tar | zstd | upload` and restic where those do the same, in rounds, with what is asked for.
//!
//! The bucket is a real S3 server on the disk that is measured, with nothing in between; peers use the same server.

mod cost;
mod cut;
mod figures;
mod first;
mod many;
mod peers;
mod requests;
mod slowdown;
mod tree;
mod upload;

pub use figures::{Figures, Unit};
pub use upload::upload;

use super::site::Site;
use super::target::Filesystem;
use super::workload::Tree;
use crate::bucket::Bucket;
use anyhow::{Result, bail};
use clap::Args;
use many::Many;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much each step does.
#[derive(Args, Clone, Debug)]
pub struct Amounts {
    /// Rounds of the steps that have them; the medians count
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Numbers of files at which a cut is measured, with commas
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 1_000_000])]
    pub cut_files: Vec<usize>,
    /// Cuts at each of them
    #[arg(long, default_value_t = 20)]
    pub cuts: usize,
    /// Files of the large filesystem
    #[arg(long, default_value_t = 1_000_000)]
    pub files: usize,
    /// Bytes of each of them
    #[arg(long, default_value_t = 512)]
    pub file_bytes: usize,
    /// Numbers of files that change on it, growing, with commas
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 100_000])]
    pub changed: Vec<usize>,
    /// Small snapshots whose requests are counted
    #[arg(long, default_value_t = 20)]
    pub small: usize,
    /// Seconds for which nobody does anything
    #[arg(long, default_value_t = 300.0)]
    pub idle_seconds: f64,
    /// Seconds of the loop of fsyncs without a snapshot
    #[arg(long, default_value_t = 5.0)]
    pub fsync_seconds: f64,
    /// The number that the random choices begin with
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Ids of steps; none: all.
    pub steps: Vec<String>,
    /// How much.
    pub amounts: Amounts,
    /// The source tree, if a step needs it.
    pub tree: Option<Tree>,
}

/// One step: its id, whether it needs a source tree, and what it does.
struct Step {
    id: &'static str,
    needs: Needs,
    run: fn(&mut Bench<'_, '_>) -> Result<()>,
}

#[derive(PartialEq, Eq)]
enum Needs {
    Nothing,
    Tree,
}

const FIRST: &str = "first";
const INCREMENTAL: &str = "incremental";
const REQUESTS: &str = "requests";
const IDLE: &str = "idle";
const SLOWDOWN: &str = "slowdown";
const MEMORY: &str = "memory";
const GROWTH: &str = "growth";
const CUT: &str = "cut";

/// In the order in which they run: those that share a filesystem follow each other.
const STEPS: [Step; 8] = [
    Step { id: FIRST, needs: Needs::Tree, run: |bench| bench.first() },
    Step { id: INCREMENTAL, needs: Needs::Tree, run: |bench| bench.incremental() },
    Step { id: SLOWDOWN, needs: Needs::Tree, run: |bench| bench.slowdown() },
    Step { id: REQUESTS, needs: Needs::Nothing, run: |bench| bench.requests() },
    Step { id: IDLE, needs: Needs::Nothing, run: |bench| bench.idle() },
    Step { id: MEMORY, needs: Needs::Nothing, run: |bench| bench.memory() },
    Step { id: GROWTH, needs: Needs::Nothing, run: |bench| bench.growth() },
    Step { id: CUT, needs: Needs::Nothing, run: |bench| bench.cut() },
];

/// The steps that `names` ask for; none: all.
fn select(names: &[String]) -> Result<Vec<&'static Step>> {
    if let Some(name) = names.iter().find(|name| STEPS.iter().all(|step| step.id != **name)) {
        let known: Vec<&str> = STEPS.iter().map(|step| step.id).collect();
        bail!("no step {name:?}; there are {}", known.join(" "));
    }
    Ok(STEPS.iter().filter(|step| names.is_empty() || names.iter().any(|name| name == step.id)).collect())
}

impl Plan {
    /// Whether `steps` have some on a source tree.
    pub fn needs_tree(steps: &[String]) -> Result<bool> {
        Ok(select(steps)?.iter().any(|step| step.needs == Needs::Tree))
    }
}

/// A measurement under way.
struct Bench<'a, 'b> {
    site: Site<'a>,
    plan: &'b Plan,
    bucket: Arc<Bucket>,
    figures: Figures,
    /// Filesystems so far.
    made: usize,
    /// What the step before leaves to the next one.
    pair: Option<first::Pair>,
    many: Option<Many>,
}

/// Measures; `after_step` has what is known by then. A step that fails is named, and the others go on.
pub fn measure(site: Site<'_>, plan: &Plan, after_step: &mut dyn FnMut(&Figures) -> Result<()>) -> Result<Figures> {
    let steps = select(&plan.steps)?;
    let bucket = Arc::new(Bucket::direct()?);
    let figures = Figures::new(plan.tree.clone())?;
    let mut bench = Bench { site, plan, bucket, figures, made: 0, pair: None, many: None };
    for step in steps {
        if step.needs == Needs::Tree && plan.tree.is_none() {
            bench.figures.note(format!("{}: left out, it needs a tree (--tree)", step.id));
            continue;
        }
        if let Err(error) = (step.run)(&mut bench) {
            bench.figures.fail(step.id, &error);
        }
        after_step(&bench.figures)?;
    }
    bench.end()
}

impl Bench<'_, '_> {
    /// A new filesystem in the bucket, and the directory of its state.
    fn filesystem(&mut self) -> Result<Mounted> {
        self.made += 1;
        let state = self.site.dir.join(format!("state-{}", self.made));
        fs::create_dir(&state)?;
        let filesystem = Filesystem::on(&state, &self.bucket, &format!("bench{}", self.made))?;
        Ok(Mounted { filesystem, state })
    }

    fn end(mut self) -> Result<Figures> {
        let left = [self.pair.take().map(|pair| pair.mounted), self.many.take().map(|many| many.mounted)];
        left.into_iter().flatten().try_for_each(Mounted::end)?;
        Ok(self.figures)
    }
}

/// A filesystem whose local files go away with it.
struct Mounted {
    filesystem: Filesystem,
    state: PathBuf,
}

impl Mounted {
    fn dir(&self) -> &Path {
        self.filesystem.dir()
    }

    /// Unmounts, and makes room on the disk.
    fn end(self) -> Result<()> {
        self.filesystem.end()?;
        Ok(fs::remove_dir_all(&self.state)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_chosen_by_name_and_run_in_their_order() {
        let ids = |names: &[&str]| -> Vec<&str> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            select(&names).unwrap().iter().map(|step| step.id).collect()
        };
        assert_eq!(ids(&["cut", "first"]), ["first", "cut"]);
        assert_eq!(ids(&[]).len(), STEPS.len());
        let unknown = select(&["cuts".to_owned()]).err().unwrap().to_string();
        assert!(unknown.contains("growth"), "{unknown}");
        assert!(Plan::needs_tree(&["idle".into(), "slowdown".into()]).unwrap());
        assert!(!Plan::needs_tree(&["idle".into()]).unwrap());
    }
}
