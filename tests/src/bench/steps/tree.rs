//! A source tree: unpacked, copied, removed, and under git.

use super::program::{output_of, time_of};
use crate::bench::workload::Workload;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const TREE: &str = "tree";
const COPY: &str = "copy";

/// The tar file itself must not come from the disk for the first target alone.
pub(super) fn warm_archive(_: &Path, workload: &Workload) -> Result<()> {
    io::copy(&mut File::open(&workload.tree()?.tar)?, &mut io::sink())?;
    Ok(())
}

pub(super) fn untar(place: &Path, workload: &Workload) -> Result<Duration> {
    time_of(Command::new("tar").arg("-xf").arg(&workload.tree()?.tar).arg("-C").arg(place))
}

pub(super) fn copy(place: &Path, _: &Workload) -> Result<Duration> {
    time_of(Command::new("cp").args(["-r", TREE, COPY]).current_dir(place))
}

pub(super) fn remove(place: &Path, _: &Workload) -> Result<Duration> {
    time_of(Command::new("rm").args(["-rf", COPY]).current_dir(place))
}

/// Git without this machine's configuration, and without work in the background.
fn git(place: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    let settings = ["user.name=bench", "user.email=bench@localhost", "gc.auto=0", "maintenance.auto=false"];
    command.current_dir(place.join(TREE)).args(settings.iter().flat_map(|setting| ["-c", *setting])).args(args);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    command
}

pub(super) fn init(place: &Path, _: &Workload) -> Result<()> {
    time_of(&mut git(place, &["init", "--quiet", "--initial-branch=main"])).map(drop)
}

pub(super) fn add(place: &Path, _: &Workload) -> Result<Duration> {
    time_of(&mut git(place, &["add", "--all", "--force", "."]))
}

pub(super) fn commit(place: &Path, _: &Workload) -> Result<Duration> {
    time_of(&mut git(place, &["commit", "--quiet", "--message=all"]))
}

pub(super) fn status(place: &Path, _: &Workload) -> Result<Duration> {
    let (elapsed, output) = output_of(&mut git(place, &["status", "--porcelain"])).context("git status")?;
    ensure!(output.is_empty(), "git sees changes that nobody made: {}", output.lines().next().unwrap_or_default());
    Ok(elapsed)
}
