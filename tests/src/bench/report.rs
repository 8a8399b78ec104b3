//! The figures as tables.

use super::limits::{BASE, CBFS, HOST, JUICEFS, JUICEFS_WRITEBACK, NULL, title};
use super::results::{MEBIBYTE, Results, Row, Sample, Spread};
use std::fmt;

/// What CBFS is compared with.
const YARDSTICKS: [&str; 4] = [HOST, NULL, JUICEFS, JUICEFS_WRITEBACK];

/// A markdown table; numbers are on the right.
pub fn markdown(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|---|", head.join(" | "));
    text.push_str(&"---:|".repeat(head.len().saturating_sub(1)));
    text.push('\n');
    for row in rows {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text
}

/// A mark for the reader: whether `value` is within `limit`.
pub fn mark(value: f64, limit: f64) -> &'static str {
    if value <= limit { "✓" } else { "✗" }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; {}{}\n", self.machine, self.rounds_of_rows(), self.tree())?;
        for target in [CBFS, BASE].into_iter().filter(|target| self.has(target)) {
            writeln!(f, "{}\n", self.comparison_title(target))?;
            writeln!(f, "{}", self.comparison(target))?;
        }
        writeln!(f, "Rates (medians):\n\n{}", self.rates())?;
        writeln!(f, "Processor time of the daemon, µs for each operation or MiB, while the step ran + after it:\n")?;
        writeln!(f, "{}", self.processor_time())?;
        for failure in &self.failures {
            writeln!(f, "**failed**: {} on {}: {}\n", failure.step, failure.target, failure.error.trim_end())?;
        }
        Ok(())
    }
}

impl Results {
    /// How often each step ran; steps can come from several runs.
    fn rounds_of_rows(&self) -> String {
        let counts = self.rows.iter().filter_map(|row| row.samples.values().map(Vec::len).max());
        let (least, most) = counts.fold((usize::MAX, 0), |(least, most), n| (least.min(n), most.max(n)));
        if least < most { format!("{least} to {most} rounds") } else { format!("{most} rounds") }
    }

    fn tree(&self) -> String {
        let size =
            |tree: &super::workload::Tree| format!("; a tree of {} files and {} MiB", tree.files, tree.bytes >> 20);
        self.workload.tree.as_ref().map(size).unwrap_or_default()
    }

    fn has(&self, target: &str) -> bool {
        self.rows.iter().any(|row| row.samples.contains_key(target))
    }

    fn comparison_title(&self, target: &str) -> String {
        let words = "takes so many times as long as (median of the rounds, least–most; at most)";
        match target {
            BASE => format!("CBFS on a published base of {} files {words}:", self.base_files),
            _ => format!("CBFS {words}:"),
        }
    }

    /// The ratios of a target, with what is asked for.
    fn comparison(&self, target: &str) -> String {
        let yardsticks: Vec<&str> = YARDSTICKS.into_iter().filter(|other| self.has(other)).collect();
        let mut head = vec!["step"];
        head.extend(yardsticks.iter().map(|other| title(other)));
        let rows = self.rows.iter().filter(|row| row.samples.contains_key(target)).map(|row| {
            let cells = yardsticks.iter().map(|other| ratio(row, target, other));
            std::iter::once(row.name.clone()).chain(cells).collect()
        });
        markdown(&head, &rows.collect::<Vec<Vec<String>>>())
    }

    fn columns(&self, wanted: impl Fn(&str) -> bool) -> Vec<&'static str> {
        let all = super::limits::TARGETS.into_iter();
        all.filter(|target| wanted(target) && self.has(target)).collect()
    }

    fn by_target(&self, columns: &[&'static str], cell: impl Fn(&Row, &str) -> String) -> String {
        let mut head = vec!["step", "amount"];
        head.extend(columns.iter().map(|target| title(target)));
        let rows = self.rows.iter().map(|row| {
            let unit = if row.unit == MEBIBYTE { " MiB" } else { "" };
            let first = [row.name.clone(), format!("{}{unit}", row.count)];
            first.into_iter().chain(columns.iter().map(|target| cell(row, target))).collect()
        });
        markdown(&head, &rows.collect::<Vec<Vec<String>>>())
    }

    fn rates(&self) -> String {
        self.by_target(&self.columns(|_| true), |row, target| {
            let Some(seconds) = row.median(target, |sample| Some(sample.seconds)) else { return "–".into() };
            let rate = row.count as f64 / seconds.max(1e-9);
            if row.unit == MEBIBYTE { format!("{rate:.0} MiB/s") } else { format!("{rate:.0}/s") }
        })
    }

    fn processor_time(&self) -> String {
        self.by_target(&self.columns(|target| target != HOST), |row, target| {
            let micros = |what: fn(&Sample) -> Option<f64>| {
                row.median(target, what).map(|seconds| seconds * 1e6 / row.count.max(1) as f64)
            };
            match (micros(|sample| sample.cpu_seconds), micros(|sample| sample.cpu_seconds_later)) {
                (Some(now), Some(later)) => format!("{now:.1} + {later:.1}"),
                _ => "–".into(),
            }
        })
    }
}

fn ratio(row: &Row, target: &str, yardstick: &str) -> String {
    let Some(Spread { min, median, max }) = row.ratio(target, yardstick) else { return "–".into() };
    let spread = format!("{median:.2} ({min:.2}–{max:.2}");
    match row.limit(yardstick) {
        Some(limit) => format!("{spread}; {limit:.1}) {}", mark(median, limit)),
        None => format!("{spread})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::run::Plan;
    use crate::bench::steps::STEPS;
    use crate::bench::workload::Workload;

    fn results() -> Results {
        let plan = Plan {
            rounds: 3,
            targets: Vec::new(),
            base_files: 0,
            steps: Vec::new(),
            workload: Workload { files: 100, ..Workload::tiny() },
        };
        let mut results = Results::new(&plan, &[&STEPS[0]]).unwrap();
        let all =
            [(HOST, [1.0, 9.0, 2.0]), (NULL, [4.0, 4.0, 4.0]), (CBFS, [8.0, 3.0, 9.0]), (JUICEFS, [80.0, 4.0, 30.1])];
        for (target, seconds) in all {
            for (round, seconds) in seconds.into_iter().enumerate() {
                let cpu = (target != HOST).then_some(seconds / 1000.0);
                let sample = Sample { round, seconds, cpu_seconds: cpu, cpu_seconds_later: cpu.map(|_| 0.001) };
                results.add(&STEPS[0], target, sample);
            }
        }
        results
    }

    #[test]
    fn ratios_are_of_the_same_round_and_say_what_is_asked_for() {
        let mut results = results();
        results.fail("rename", CBFS, &anyhow::anyhow!("no more"));
        let text = results.to_string();
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        let ratios = "| create files of 4 KiB | 4.50 (0.33–8.00) | 2.00 (0.75–2.25; 1.3) ✗ | 0.30 (0.10–0.75; 0.3) ✓ |";
        assert_eq!(line("| create"), ratios);
        assert!(text.contains("| create files of 4 KiB | 100 | 50/s | 25/s | 12/s | 3/s |"), "{text}");
        assert!(text.contains("| create files of 4 KiB | 100 | 40.0 + 10.0 | 80.0 + 10.0 | 301.0 + 10.0 |"), "{text}");
        assert_eq!(line("**failed**"), "**failed**: rename on cbfs: no more");
    }

    #[test]
    fn runs_come_together_by_rounds_and_only_if_they_did_the_same() {
        let text = serde_json::to_string(&results()).unwrap();
        let again = || serde_json::from_str::<Results>(&text).unwrap();
        let mut slower = again();
        slower.rows[0].samples.get_mut(CBFS).unwrap().iter_mut().for_each(|sample| sample.seconds *= 10.0);
        let all = Results::together(vec![again(), slower]).unwrap();
        let ratio = all.rows[0].ratio(CBFS, NULL).unwrap();
        assert_eq!((all.rounds, ratio.min, ratio.max), (6, 0.75, 22.5), "each with the null FUSE of its own round");
        assert!(all.to_string().contains("; 6 rounds"));
        let mut other = again();
        other.rows[0].count = 99;
        assert!(Results::together(vec![again(), other]).unwrap_err().to_string().contains("100 in one run, 99"));
        let mut more = again();
        more.rows[0].step = "unlink".into();
        let all = Results::together(vec![more, again()]).unwrap();
        assert_eq!(all.rows.iter().map(|row| row.step.as_str()).collect::<Vec<_>>(), ["create", "unlink"]);
    }

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 10.0]).unwrap();
        assert_eq!(spread, Spread { min: 1.0, median: 3.0, max: 10.0 });
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
