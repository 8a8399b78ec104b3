//! What the processes behind a mount use.

use crate::process::processes_with;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The unit of times in `/proc/PID/stat`, the same on every architecture of Linux.
const TICKS_PER_SECOND: u64 = 100;

/// All processes that name a path which nobody else names: a daemon, and whatever helps it.
#[derive(Clone, Debug)]
pub struct Processes {
    path: PathBuf,
}

impl Processes {
    /// Those whose command line or environment has `path`.
    pub fn naming(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Time on a processor so far, in user and kernel mode, of all of them together.
    pub fn cpu(&self) -> Result<Duration> {
        let mut ticks = 0;
        for pid in self.pids()? {
            // A process may end between being found and being read.
            if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
                ticks += ticks_of(&stat).with_context(|| format!("no times in {stat:?}"))?;
            }
        }
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// Memory that is neither a file's nor shared, in bytes, of all of them together.
    pub fn anonymous_bytes(&self) -> Result<u64> {
        let mut kibibytes = 0;
        for pid in self.pids()? {
            if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
                kibibytes += anonymous_of(&status).unwrap_or_default();
            }
        }
        ensure!(kibibytes > 0, "the daemon has no memory: is it there?");
        Ok(kibibytes << 10)
    }

    /// Their ids.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let found = processes_with(&self.path)?;
        ensure!(!found.is_empty(), "no process names {}", self.path.display());
        Ok(found)
    }
}

/// Time on a processor so far of all programs that this process ran and that have ended, with theirs.
pub fn cpu_of_children() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let ticks = times_of(&stat, 13).with_context(|| format!("no times in {stat:?}"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn ticks_of(stat: &str) -> Option<u64> {
    times_of(stat, 11)
}

/// User and system time together, `skipped` fields behind the name.
fn times_of(stat: &str, skipped: usize) -> Option<u64> {
    // The name of the program comes second and may hold anything; what follows its last parenthesis is fields 3 and on.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(skipped);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

fn anonymous_of(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_that_works_is_found_and_measured() {
        let mark = tempfile::tempdir().unwrap();
        let processes = Processes::naming(mark.path());
        assert!(processes.cpu().is_err(), "nobody names it yet");
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]).env("MARK", mark.path()).stdin(Stdio::null());
        let mut child = command.spawn().unwrap();
        let busy = Duration::from_millis(50);
        // Its environment can be read a moment after it has started only.
        let seen = crate::process::wait_until("it has worked", Duration::from_secs(30), || {
            Ok(processes.cpu().is_ok_and(|cpu| cpu >= busy))
        });
        let memory = processes.anonymous_bytes();
        child.kill().unwrap();
        child.wait().unwrap();
        seen.unwrap();
        assert!(memory.unwrap() > 0);
        let stat = "1 (a) b) S 1 1 1 0 -1 4 0 0 0 0 7 5 2 1 20";
        assert_eq!((ticks_of(stat), times_of(stat, 13)), (Some(12), Some(3)));
    }
}
