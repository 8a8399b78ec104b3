//! The rounds.
//!
//! Every step runs on all targets in turn before the next one begins, every time in another order, and every round does
//! so anew: whatever else the machine does hits all of them.

use super::limits::TARGETS;
use super::results::{Results, Sample};
use super::site::Site;
use super::steps::{Caches, Step, TREE, select};
use super::target::{Maker, Target};
use super::workload::Workload;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::time::Duration;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often.
    pub rounds: usize,
    /// Ids of targets.
    pub targets: Vec<String>,
    /// Files in the base of the target `base`.
    pub base_files: usize,
    /// Ids or groups of steps; none: all.
    pub steps: Vec<String>,
    /// How much each step does.
    pub workload: Workload,
}

impl Plan {
    /// Whether `steps` have some on a source tree.
    pub fn needs_tree(steps: &[String]) -> Result<bool> {
        Ok(select(steps)?.iter().any(|step| step.group == TREE))
    }
}

/// Measures; `after_round` has what is known by then. What fails is left out from then on, and named.
pub fn measure(
    mut site: Site<'_>,
    plan: &Plan,
    after_round: &mut dyn FnMut(&Results) -> Result<()>,
) -> Result<Results> {
    let mut steps = select(&plan.steps)?;
    steps.retain(|step| step.group != TREE || plan.workload.tree.is_some());
    for id in &plan.targets {
        ensure!(TARGETS.contains(&id.as_str()), "no target {id:?}; there are {}", TARGETS.join(" "));
    }
    let mut results = Results::new(plan, &steps)?;
    let mut maker = Maker::new(site.dir, plan.base_files);
    let mut targets = Vec::new();
    for id in TARGETS.iter().filter(|id| plan.targets.iter().any(|wanted| wanted == *id)) {
        site.tell(format_args!("setting up {id}"));
        match maker.make(id) {
            Ok(target) => targets.push(target),
            Err(error) => results.fail("setting up", id, &error),
        }
    }
    let mut rounds = Rounds { site, plan, results, targets, broken: BTreeSet::new() };
    for round in 0..plan.rounds {
        for group in groups(&steps) {
            rounds.group(round, &group);
        }
        after_round(&rounds.results)?;
    }
    Ok(rounds.end())
}

/// The steps, those of a group together.
fn groups<'a>(steps: &[&'a Step]) -> Vec<Vec<&'a Step>> {
    steps.chunk_by(|a, b| a.group == b.group).map(<[&Step]>::to_vec).collect()
}

struct Rounds<'a, 'b> {
    site: Site<'b>,
    plan: &'a Plan,
    results: Results,
    targets: Vec<Target>,
    /// Groups and targets that failed: what follows would have nothing to work on.
    broken: BTreeSet<(&'static str, &'static str)>,
}

impl Rounds<'_, '_> {
    fn group(&mut self, round: usize, steps: &[&'static Step]) {
        let count = self.targets.len();
        for (number, step) in steps.iter().enumerate() {
            for turn in 0..count {
                let at = (turn + round + number) % count;
                let Some(target) = self.targets.get_mut(at) else { continue };
                if self.broken.contains(&(step.group, target.id())) {
                    continue;
                }
                let (now, all) = (round + 1, self.plan.rounds);
                self.site.tell(format_args!("round {now} of {all}: {} on {}", step.name, target.id()));
                match one(step, target, (round, self.site.settle), &self.plan.workload) {
                    Ok(sample) => self.results.add(step, target.id(), sample),
                    Err(error) => {
                        self.broken.insert((step.group, target.id()));
                        self.results.fail(step.name, target.id(), &error);
                    }
                }
            }
        }
        let Some(group) = steps.first().map(|step| step.group) else { return };
        for target in &self.targets {
            let cleared = target.place(group, round).and_then(|place| target.clear(&place));
            if let Err(error) = cleared.and_then(|()| target.settle(self.site.settle)) {
                self.broken.insert((group, target.id()));
                self.results.fail(&format!("clearing after {group}"), target.id(), &error);
            }
        }
    }

    fn end(self) -> Results {
        let Self { mut results, targets, .. } = self;
        for target in targets {
            let id = target.id();
            if let Err(error) = target.end() {
                results.fail("unmounting", id, &error);
            }
        }
        results
    }
}

fn one(step: &Step, target: &mut Target, (round, settle): (usize, Duration), workload: &Workload) -> Result<Sample> {
    let place = target.place(step.group, round)?;
    step.prepare(&place, workload).context("preparing")?;
    target.settle(settle).context("before it")?;
    if step.caches == Caches::Cold {
        target.forget_caches()?;
    }
    let before = target.cpu()?;
    let took = step.run(&place, workload)?;
    let after = target.cpu()?;
    target.settle(settle).context("after it")?;
    let settled = target.cpu()?;
    let between = |from: Option<Duration>, to: Option<Duration>| Some(to?.saturating_sub(from?).as_secs_f64());
    let (cpu, later) = (between(before, after), between(after, settled));
    Ok(Sample { round, seconds: took.as_secs_f64(), cpu_seconds: cpu, cpu_seconds_later: later })
}
