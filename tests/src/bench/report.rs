//! The figures as a table.

use super::steps::{Sizes, Step, Unit};
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::thread::available_parallelism;

/// Seconds of every step on every target.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    unit: Unit,
    count: usize,
    seconds: BTreeMap<&'static str, Vec<f64>>,
}

impl Table {
    /// Adds one measurement.
    pub fn add(&mut self, step: &Step, sizes: Sizes, target: &'static str, seconds: f64) {
        let index = self.rows.iter().position(|row| row.name == step.name).unwrap_or_else(|| {
            let count = (step.count)(sizes);
            self.rows.push(Row { name: step.name, unit: step.unit, count, seconds: BTreeMap::new() });
            self.rows.len() - 1
        });
        self.rows[index].seconds.entry(target).or_default().push(seconds);
    }
}

impl Row {
    fn median(&self, target: &str) -> Option<f64> {
        let mut all = self.seconds.get(target)?.clone();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }

    fn rate(&self, target: &str) -> String {
        let Some(seconds) = self.median(target) else { return "–".into() };
        let rate = self.count as f64 / seconds.max(1e-9);
        match self.unit {
            Unit::Operations => format!("{rate:.0}/s"),
            Unit::Mebibytes => format!("{rate:.0} MiB/s"),
        }
    }

    /// How many times as long as `other` CBFS takes.
    fn ratio(&self, other: &str) -> String {
        match (self.median("CBFS"), self.median(other)) {
            (Some(own), Some(other)) => format!("{:.2}", own / other.max(1e-9)),
            _ => "–".into(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| step | host | null FUSE | CBFS | time / host | time / null |")?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|")?;
        for row in &self.rows {
            let (host, null, own) = (row.rate("host"), row.rate("null FUSE"), row.rate("CBFS"));
            let (to_host, to_null) = (row.ratio("host"), row.ratio("null FUSE"));
            writeln!(f, "| {} | {host} | {null} | {own} | {to_host} | {to_null} |", row.name)?;
        }
        Ok(())
    }
}

/// What the figures were measured on.
#[derive(Debug)]
pub struct Machine {
    processor: String,
    processors: usize,
    memory_gib: u64,
    kernel: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Result<Self> {
        let field = |text: &str, name: &str| -> Option<String> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&fs::read_to_string("/proc/meminfo")?, "MemTotal").unwrap_or_default();
        let kibibytes: u64 = memory.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        Ok(Self {
            processor: field(&fs::read_to_string("/proc/cpuinfo")?, "model name").unwrap_or_else(|| "unknown".into()),
            processors: available_parallelism()?.get(),
            memory_gib: kibibytes >> 20,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, processors, memory_gib, kernel } = self;
        write!(f, "{processors} x {processor}, {memory_gib} GiB, Linux {kernel}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::steps::STEPS;

    #[test]
    fn medians_rates_and_ratios() {
        let sizes = Sizes { files: 100, synced: 1, large_mib: 1, random: 1 };
        let mut table = Table::default();
        for (target, all) in [("host", [1.0, 9.0, 2.0]), ("null FUSE", [4.0, 4.0, 4.0]), ("CBFS", [8.0, 0.1, 9.0])] {
            for seconds in all {
                table.add(&STEPS[0], sizes, target, seconds);
            }
        }
        let text = table.to_string();
        assert_eq!(text.lines().count(), 3);
        assert_eq!(text.lines().last().unwrap(), "| create files of 4 KiB | 50/s | 25/s | 12/s | 4.00 | 2.00 |");
    }
}
