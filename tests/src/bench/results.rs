//! What was measured, as it is written to JSON.

use super::limits::{EVERYWHERE, Limit};
use super::machine::Machine;
use super::run::Plan;
use super::steps::{STEPS, Step, Unit};
use super::workload::Workload;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The unit of rows that count bytes.
pub(super) const MEBIBYTE: &str = "MiB";

/// All of a run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Results {
    /// Where.
    pub machine: Machine,
    /// How often.
    pub rounds: usize,
    /// How much.
    pub workload: Workload,
    /// Files in the base of the target `base`.
    pub base_files: usize,
    /// The steps, in order.
    pub rows: Vec<Row>,
    /// What did not work.
    pub failures: Vec<Failure>,
}

/// A step.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// Its id.
    pub step: String,
    /// Its name.
    pub name: String,
    /// What is counted.
    pub unit: String,
    /// How many of them.
    pub count: usize,
    /// How long it may take, beside others.
    pub limits: Vec<AtMost>,
    /// By target.
    pub samples: BTreeMap<String, Vec<Sample>>,
}

/// A [`Limit`], as it is kept.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct AtMost {
    /// The target to compare with.
    pub yardstick: String,
    /// How many times as long.
    pub factor: f64,
}

impl From<&Limit> for AtMost {
    fn from(limit: &Limit) -> Self {
        Self { yardstick: limit.yardstick.to_owned(), factor: limit.factor }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Sample {
    /// The round, from 0.
    pub round: usize,
    /// How long it took.
    pub seconds: f64,
    /// Processor time of the daemon meanwhile.
    pub cpu_seconds: Option<f64>,
    /// And after it, until nothing was left to be done.
    pub cpu_seconds_later: Option<f64>,
}

/// A step that did not work on a target.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Failure {
    /// The step.
    pub step: String,
    /// The target.
    pub target: String,
    /// Why.
    pub error: String,
}

impl Results {
    /// None yet.
    pub fn new(plan: &Plan, steps: &[&Step]) -> Result<Self> {
        let row = |step: &&Step| Row {
            step: step.id.to_owned(),
            name: step.name.to_owned(),
            unit: if step.unit == Unit::Mebibytes { MEBIBYTE } else { "operation" }.to_owned(),
            count: (step.count)(&plan.workload),
            limits: step.limits.iter().chain(&EVERYWHERE).map(AtMost::from).collect(),
            samples: BTreeMap::new(),
        };
        Ok(Self {
            machine: Machine::this()?,
            rounds: plan.rounds,
            workload: plan.workload.clone(),
            base_files: plan.base_files,
            rows: steps.iter().map(row).collect(),
            failures: Vec::new(),
        })
    }

    /// Adds a measurement.
    pub fn add(&mut self, step: &Step, target: &str, sample: Sample) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.step == step.id) {
            row.samples.entry(target.to_owned()).or_default().push(sample);
        }
    }

    /// Several runs as one, for instance of one round each: their rounds one after the other.
    pub fn together(runs: Vec<Self>) -> Result<Self> {
        let mut runs = runs.into_iter();
        let mut all = runs.next().context("no run is given")?;
        for run in runs {
            all.append(run)?;
        }
        let place = |row: &Row| STEPS.iter().position(|step| step.id == row.step);
        all.rows.sort_by_key(place);
        Ok(all)
    }

    fn append(&mut self, run: Self) -> Result<()> {
        ensure!(self.machine == run.machine, "one run is of {}, another of {}", self.machine, run.machine);
        let bases_agree = self.base_files == run.base_files || self.base_files == 0 || run.base_files == 0;
        ensure!(bases_agree, "a base of {} files, and one of {}", self.base_files, run.base_files);
        self.base_files = self.base_files.max(run.base_files);
        self.workload.tree = self.workload.tree.take().or(run.workload.tree);
        for mut row in run.rows {
            for sample in row.samples.values_mut().flatten() {
                sample.round += self.rounds;
            }
            let Some(own) = self.rows.iter_mut().find(|own| own.step == row.step) else {
                self.rows.push(row);
                continue;
            };
            ensure!(own.count == row.count, "{}: {} in one run, {} in another", row.name, own.count, row.count);
            for (target, samples) in row.samples {
                own.samples.entry(target).or_default().extend(samples);
            }
        }
        self.rounds += run.rounds;
        self.failures.extend(run.failures);
        Ok(())
    }

    /// Notes what did not work.
    pub fn fail(&mut self, step: &str, target: &str, error: &anyhow::Error) {
        let (step, target) = (step.to_owned(), target.to_owned());
        self.failures.push(Failure { step, target, error: format!("{error:#}") });
    }
}

impl Row {
    /// The median of something in all rounds of a target.
    pub fn median(&self, target: &str, what: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        Spread::of(self.samples.get(target)?.iter().filter_map(what).collect()).map(|spread| spread.median)
    }

    /// How many times as long as `yardstick` a target takes, in each round that has both.
    pub fn ratio(&self, target: &str, yardstick: &str) -> Option<Spread> {
        let others = self.samples.get(yardstick)?;
        let ratio = |own: &Sample| {
            let other = others.iter().find(|other| other.round == own.round)?;
            Some(own.seconds / other.seconds.max(1e-9))
        };
        Spread::of(self.samples.get(target)?.iter().filter_map(ratio).collect())
    }

    /// The limit beside `yardstick`, if there is one.
    pub fn limit(&self, yardstick: &str) -> Option<f64> {
        self.limits.iter().find(|limit| limit.yardstick == yardstick).map(|limit| limit.factor)
    }
}

/// The middle and the ends of some figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The one in the middle, or the mean of the two there.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of all figures; of none there is none.
    pub fn of(mut all: Vec<f64>) -> Option<Self> {
        all.sort_by(f64::total_cmp);
        let (min, max) = (*all.first()?, *all.last()?);
        let middle = all.get((all.len() - 1) / 2..=all.len() / 2)?;
        Some(Self { min, median: middle.iter().sum::<f64>() / middle.len() as f64, max })
    }
}
