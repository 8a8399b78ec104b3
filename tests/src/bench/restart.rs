//! How long a mount takes to answer after everything was killed.

use super::fill::{Fill, fill, path_of};
use super::machine::Machine;
use super::report::{mark, markdown};
use super::results::Spread;
use super::site::Site;
use super::target::{Filesystem, Held};
use anyhow::{Context, Result, ensure};
use rustix::fs::statvfs;
use serde::Serialize;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LIMIT_SECONDS: f64 = 3.0;
/// Files that fill the journal: the largest whose bytes travel in it.
const JOURNAL_FILE_BYTES: usize = 16 << 10;

/// Times from `cbfs mount` to the first answer.
#[derive(Debug, Serialize)]
pub struct Restart {
    machine: Machine,
    files: usize,
    journal_mib: usize,
    rounds: Vec<Round>,
}

#[derive(Debug, Serialize)]
struct Round {
    /// Changes that only the journal had.
    pending: u64,
    /// From the kill of the daemon alone until another one answered, where somebody keeps the mount.
    held_seconds: Option<f64>,
    /// Until `cbfs mount` came back.
    mounted_seconds: f64,
    /// Until a file could be read as well.
    answered_seconds: f64,
}

impl Restart {
    /// Kills a filesystem of `files` files, with its journal as full as `journal_mib` make it, `rounds` times.
    pub fn measure(mut site: Site<'_>, files: usize, rounds: usize, journal_mib: usize) -> Result<Self> {
        let mut filesystem = Filesystem::new(site.dir)?;
        let base = filesystem.dir().join("files");
        site.tell(format_args!("creating {files} files"));
        fill(&base, &Fill { from: 0, to: files, bytes: 16 })?;
        let mut done = Vec::new();
        for round in 0..rounds {
            let full = Full { base: path_of(&base, files / 2), journal_mib, settle: site.settle };
            site.tell(format_args!("round {} of {rounds}: filling the journal, killing the daemon", round + 1));
            let (top, _) = full.make(&filesystem, &format!("held-{round}"))?;
            let start = Instant::now();
            let held_seconds = match filesystem.kill_daemon()? {
                Held::Yes => Some(full.answer(&filesystem, start)?),
                Held::No => None,
            };
            fs::remove_dir_all(&top)?;

            site.tell(format_args!("round {} of {rounds}: filling the journal, killing all, mounting", round + 1));
            let (top, pending) = full.make(&filesystem, &format!("all-{round}"))?;
            filesystem.kill()?;
            let start = Instant::now();
            filesystem.restart()?;
            let mounted_seconds = start.elapsed().as_secs_f64();
            let answered_seconds = full.answer(&filesystem, start)?;
            full.check(&top)?;
            fs::remove_dir_all(&top)?;
            done.push(Round { pending, held_seconds, mounted_seconds, answered_seconds });
        }
        filesystem.end()?;
        Ok(Self { machine: Machine::this()?, files, journal_mib, rounds: done })
    }
}

/// A journal that is full.
struct Full {
    /// A file that has been there for long.
    base: PathBuf,
    journal_mib: usize,
    settle: Duration,
}

impl Full {
    fn count(&self) -> usize {
        (self.journal_mib << 20) / JOURNAL_FILE_BYTES
    }

    /// Writes into a new directory; with it, the changes that only the journal has.
    fn make(&self, filesystem: &Filesystem, name: &str) -> Result<(PathBuf, u64)> {
        filesystem.settle(self.settle)?;
        let top = filesystem.dir().join(name);
        fill(&top, &Fill { from: 0, to: self.count(), bytes: JOURNAL_FILE_BYTES })?;
        Ok((top, filesystem.pending()?))
    }

    /// Seconds from `start` to an answer that the kernel cannot give from memory, and that a file is there.
    fn answer(&self, filesystem: &Filesystem, start: Instant) -> Result<f64> {
        statvfs(filesystem.dir()).context("no answer after the kill")?;
        fs::read(&self.base).context("a file after the kill")?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn check(&self, top: &Path) -> Result<()> {
        let last = fs::read(path_of(top, self.count().saturating_sub(1))).context("the last file after the kill")?;
        ensure!(last.len() == JOURNAL_FILE_BYTES, "the last file has {} bytes after the kill", last.len());
        Ok(())
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, files, journal_mib, rounds } = self;
        writeln!(f, "{machine}; {files} files, {journal_mib} MiB written since the last checkpoint, then kill -9\n")?;
        let spread = |what: fn(&Round) -> Option<f64>| Spread::of(rounds.iter().filter_map(what).collect());
        let row = |what: &str, spread: Option<Spread>, limit: Option<f64>| {
            let Some(Spread { min, median, max }) = spread else {
                return [what, "–", "–", "", ""].map(str::to_owned).into();
            };
            let (asked, verdict) = limit.map_or((String::new(), ""), |limit| (format!("{limit}"), mark(max, limit)));
            vec![what.into(), format!("{median:.2}"), format!("{min:.2}–{max:.2}"), asked, verdict.into()]
        };
        let rows = [
            row("changes to apply again", spread(|round| Some(round.pending as f64)), None),
            row("daemon killed: s until another one answers", spread(|round| round.held_seconds), Some(LIMIT_SECONDS)),
            row("all killed: s until cbfs mount comes back", spread(|round| Some(round.mounted_seconds)), None),
            row(
                "all killed: s until the first answer",
                spread(|round| Some(round.answered_seconds)),
                Some(LIMIT_SECONDS),
            ),
        ];
        write!(f, "{}", markdown(&["after kill -9", "median", "least–most", "at most", ""], &rows))
    }
}
