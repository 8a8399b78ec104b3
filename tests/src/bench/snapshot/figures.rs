//! Figures of snapshots: each with its rounds, and with what is asked for.

use crate::bench::machine::Machine;
use crate::bench::report::{mark, markdown};
use crate::bench::results::Spread;
use crate::bench::workload::Tree;
use anyhow::Result;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Wall time.
    #[serde(rename = "s")]
    Seconds,
    /// Wall time.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Time on a processor.
    #[serde(rename = "CPU s")]
    CpuSeconds,
    /// 2^20 bytes.
    #[serde(rename = "MiB")]
    Mebibytes,
    /// 10^6 bytes, of memory.
    #[serde(rename = "MB")]
    Megabytes,
    /// One figure divided by another of the same round.
    #[serde(rename = "x")]
    Times,
    /// A number.
    #[serde(rename = "")]
    Count,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::CpuSeconds => "CPU s",
            Self::Mebibytes => "MiB",
            Self::Megabytes => "MB",
            Self::Times => "x",
            Self::Count => "",
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Seconds | Self::Mebibytes => 3,
            Self::Milliseconds | Self::CpuSeconds | Self::Times => 2,
            Self::Megabytes | Self::Count => 1,
        }
    }
}

/// A figure without its values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct What {
    /// The step that it is of.
    pub step: &'static str,
    /// What it is.
    pub name: Cow<'static, str>,
    /// What it counts.
    pub unit: Unit,
    /// What is asked for.
    pub at_most: Option<f64>,
}

impl What {
    pub(super) fn new(step: &'static str, name: impl Into<Cow<'static, str>>, unit: Unit) -> Self {
        Self { step, name: name.into(), unit, at_most: None }
    }

    pub(super) fn at_most(self, limit: f64) -> Self {
        Self { at_most: Some(limit), ..self }
    }
}

/// A figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it is.
    #[serde(flatten)]
    pub what: What,
    /// Its value in each round.
    pub values: Vec<f64>,
}

/// A step that did not work.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Which.
    pub step: &'static str,
    /// Why.
    pub error: String,
}

/// All of a measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    machine: Machine,
    tree: Option<Tree>,
    /// What a reader must know of them.
    pub notes: Vec<String>,
    /// In the order in which they came.
    pub figures: Vec<Figure>,
    /// What did not work.
    pub failures: Vec<Failure>,
}

impl Figures {
    pub(super) fn new(tree: Option<Tree>) -> Result<Self> {
        let (notes, figures, failures) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { machine: Machine::this()?, tree, notes, figures, failures })
    }

    /// One more value of a figure.
    pub(super) fn add(&mut self, what: What, value: f64) {
        match self.figures.iter_mut().find(|known| known.what == what) {
            Some(known) => known.values.push(value),
            None => self.figures.push(Figure { what, values: vec![value] }),
        }
    }

    /// Each note once.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    pub(super) fn fail(&mut self, step: &'static str, error: &anyhow::Error) {
        self.failures.push(Failure { step, error: format!("{error:#}") });
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.machine)?;
        if let Some(tree) = &self.tree {
            write!(f, "; a tree of {} files and {} MiB", tree.files, tree.bytes >> 20)?;
        }
        writeln!(f, "; median (least–most)\n")?;
        let rows: Vec<Vec<String>> = self.figures.iter().filter_map(row).collect();
        writeln!(f, "{}", markdown(&["step", "figure", "value", "unit", "at most", ""], &rows))?;
        for note in &self.notes {
            writeln!(f, "{note}\n")?;
        }
        for failure in &self.failures {
            writeln!(f, "**failed**: {}: {}\n", failure.step, failure.error.trim_end())?;
        }
        Ok(())
    }
}

fn row(figure: &Figure) -> Option<Vec<String>> {
    let Figure { what, values } = figure;
    let Spread { min, median, max } = Spread::of(values.clone())?;
    let digits = what.unit.digits();
    let value = match values.len() {
        1 => format!("{median:.digits$}"),
        _ => format!("{median:.digits$} ({min:.digits$}–{max:.digits$})"),
    };
    let (limit, verdict) = match what.at_most {
        Some(limit) => (limit.to_string(), mark(median, limit)),
        None => (String::new(), ""),
    };
    Some(vec![
        what.step.to_owned(),
        what.name.replace('|', "\\|"),
        value,
        what.unit.name().to_owned(),
        limit,
        verdict.to_owned(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_shown_with_its_rounds_and_its_limit() {
        let mut figures = Figures::new(None).unwrap();
        let ratio = || What::new("first", "time / tar | zstd", Unit::Times).at_most(1.2);
        for value in [1.1, 3.0, 1.3] {
            figures.add(ratio(), value);
        }
        figures.add(What::new("idle", "requests a minute", Unit::Count).at_most(1.0), 1.0);
        figures.note("once");
        figures.note("once");
        figures.fail("growth", &anyhow::anyhow!("no more"));
        let text = figures.to_string();
        assert!(text.contains(r"| first | time / tar \| zstd | 1.30 (1.10–3.00) | x | 1.2 | ✗ |"), "{text}");
        assert!(text.contains("| idle | requests a minute | 1.0 |  | 1 | ✓ |"), "{text}");
        assert_eq!(text.matches("once").count(), 1);
        assert!(text.contains("**failed**: growth: no more"), "{text}");
        let json = serde_json::to_value(&figures).unwrap();
        assert_eq!(json["figures"][0]["unit"], "x");
        assert_eq!(json["figures"][0]["values"], serde_json::json!([1.1, 3.0, 1.3]));
    }
}
