//! How much memory the daemon needs with many files, and whether it grows while they change.

use super::fill::{Fill, fill, path_of};
use super::machine::Machine;
use super::report::{mark, markdown};
use super::results::Spread;
use super::site::Site;
use super::steps::noise;
use super::target::Filesystem;
use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use walkdir::WalkDir;

const LIMIT_MB: f64 = 300.0;
/// Memory at the end of the churn may be so many times that at its beginning and still count as flat.
const GROWTH_LIMIT: f64 = 1.1;
const FILE_BYTES: usize = 4096;
const SAMPLES: u32 = 60;

/// Memory (`RssAnon`) of the daemon and its helpers, in MB.
#[derive(Debug, Serialize)]
pub struct Memory {
    machine: Machine,
    files: usize,
    created: f64,
    listed: f64,
    settled: f64,
    churn_seconds: f64,
    churn_operations: usize,
    /// (seconds, MB) since the churn began.
    churn: Vec<(f64, f64)>,
}

impl Memory {
    /// Creates and lists `files` files on a filesystem then changes them for a while.
    pub fn measure(mut site: Site<'_>, files: usize, churn: Duration) -> Result<Self> {
        let filesystem = Filesystem::new(site.dir)?;
        let top = filesystem.dir().join("files");
        let megabytes = || filesystem.processes().anonymous_bytes().map(|bytes| bytes as f64 / 1e6);
        site.tell(format_args!("creating {files} files"));
        fill(&top, &Fill { from: 0, to: files, bytes: FILE_BYTES })?;
        let created = megabytes()?;
        site.tell("listing them");
        for entry in WalkDir::new(&top) {
            entry?.metadata()?;
        }
        let listed = megabytes()?;
        filesystem.settle(site.settle)?;
        let settled = megabytes()?;
        site.tell(format_args!("changing them for {churn:?}"));
        let (mut operations, mut samples) = (0, Vec::new());
        let (start, mut change) = (Instant::now(), Churn::new(&top, files));
        let mut next = Duration::ZERO;
        while start.elapsed() < churn {
            change.step()?;
            operations += 1;
            if start.elapsed() >= next {
                samples.push((start.elapsed().as_secs_f64(), megabytes()?));
                next += churn / SAMPLES;
            }
        }
        let churn_seconds = start.elapsed().as_secs_f64();
        let machine = Machine::this()?;
        // An hour of figures is not thrown away for its end.
        if let Err(error) = filesystem.end() {
            site.tell(format_args!("the filesystem did not end as it should: {error:#}"));
        }
        Ok(Self {
            machine,
            files,
            created,
            listed,
            settled,
            churn_seconds,
            churn_operations: operations,
            churn: samples,
        })
    }

    /// Medians of the first and the last quarter of the churn, and its most.
    fn churned(&self) -> Option<(f64, f64, f64)> {
        let figures: Vec<f64> = self.churn.iter().map(|(_, megabytes)| *megabytes).collect();
        let quarter = figures.len().div_ceil(4);
        let first = Spread::of(figures.iter().take(quarter).copied().collect())?;
        let last = Spread::of(figures.iter().rev().take(quarter).copied().collect())?;
        Some((first.median, last.median, Spread::of(figures)?.max))
    }
}

/// Overwrites, replaces, renames and truncates files at random; their number stays.
struct Churn<'a> {
    top: &'a Path,
    files: usize,
    random: SmallRng,
    body: Vec<u8>,
}

impl<'a> Churn<'a> {
    fn new(top: &'a Path, files: usize) -> Self {
        Self { top, files, random: SmallRng::seed_from_u64(3), body: noise(FILE_BYTES) }
    }

    fn step(&mut self) -> Result<()> {
        let path = path_of(self.top, self.random.random_range(0..self.files));
        match self.random.random_range(0..4) {
            0 => File::options().write(true).open(&path)?.write_all(&self.body)?,
            1 => {
                fs::remove_file(&path)?;
                File::create_new(&path)?.write_all(&self.body)?;
            }
            2 => {
                let new = path.with_extension("new");
                File::create_new(&new)?.write_all(&self.body)?;
                fs::rename(new, &path)?;
            }
            _ => {
                let file = File::options().write(true).open(&path)?;
                file.set_len(self.random.random_range(0..FILE_BYTES as u64))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; RssAnon of the daemon and its helpers, MB\n", self.machine)?;
        let row = |what: String, megabytes: f64, limit: f64| {
            vec![what, format!("{megabytes:.0}"), format!("{limit:.0}"), mark(megabytes, limit).to_owned()]
        };
        let mut rows = vec![
            row(format!("{} files of 4 KiB created", self.files), self.created, LIMIT_MB),
            row("then all listed with their attributes".into(), self.listed, LIMIT_MB),
            row("then nothing left to be done".into(), self.settled, LIMIT_MB),
        ];
        if let Some((first, last, max)) = self.churned() {
            let (minutes, operations) = (self.churn_seconds / 60.0, self.churn_operations);
            rows.push(row(format!("{minutes:.1} min of churn, {operations} changes: most"), max, LIMIT_MB));
            rows.push(vec![
                "last quarter / first quarter of it".into(),
                format!("{last:.0} / {first:.0}"),
                format!("x {GROWTH_LIMIT}"),
                mark(last / first.max(1.0), GROWTH_LIMIT).to_owned(),
            ]);
        }
        write!(f, "{}", markdown(&["after", "MB", "at most", ""], &rows))
    }
}
