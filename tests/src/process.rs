//! Running programs with a time limit, and ending them by their id.

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a program that ended said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub command: String,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    /// How long it took.
    pub elapsed: Duration,
}

impl Outcome {
    /// Itself, if the exit code is `code`.
    pub fn expect_exit(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "exit code {code} expected\n{self}");
        Ok(self)
    }

    /// Itself, if the exit code is 0.
    pub fn success(self) -> Result<Self> {
        self.expect_exit(0)
    }

    /// Itself, if it refused with `code` and an `error:` line that holds each of `words`.
    pub fn refused(self, code: i32, words: &[&str]) -> Result<Self> {
        let outcome = self.expect_exit(code)?;
        ensure!(outcome.stderr.lines().any(|line| line.starts_with("error: ")), "no error line\n{outcome}");
        for word in words {
            ensure!(outcome.stderr.contains(word), "the message does not say {word:?}\n{outcome}");
        }
        Ok(outcome)
    }

    /// Standard output as JSON: one document, or the last of several lines.
    pub fn json(&self) -> Result<Value> {
        if let Ok(value) = serde_json::from_str(&self.stdout) {
            return Ok(value);
        }
        let last = self.stdout.lines().rev().find(|line| !line.trim().is_empty());
        let last = last.with_context(|| format!("no JSON on standard output\n{self}"))?;
        serde_json::from_str(last).with_context(|| format!("no JSON on standard output\n{self}"))
    }

    /// The first value with the key `key` at any depth of the JSON on standard output.
    pub fn field(&self, key: &str) -> Result<Value> {
        let value = self.json()?;
        find_key(&value, key).cloned().with_context(|| format!("no {key:?} in the JSON\n{self}"))
    }

    /// [`Self::field`] that is a string.
    pub fn text(&self, key: &str) -> Result<String> {
        let value = self.field(key)?;
        value.as_str().map(str::to_owned).with_context(|| format!("{key:?} is {value}, not a string"))
    }

    /// [`Self::field`] that is a number.
    pub fn number(&self, key: &str) -> Result<u64> {
        let value = self.field(key)?;
        value.as_u64().with_context(|| format!("{key:?} is {value}, not a number"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "$ {}", self.command)?;
        writeln!(f, "exit code: {:?} after {:?}", self.code, self.elapsed)?;
        writeln!(f, "stdout: {}", self.stdout.trim_end())?;
        write!(f, "stderr: {}", self.stderr.trim_end())
    }
}

/// The first value with the key `key`, breadth first, so that outer fields win.
fn find_key<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let mut level = vec![value];
    while !level.is_empty() {
        if let Some(found) = level.iter().find_map(|value| value.get(key)) {
            return Some(found);
        }
        level = level.into_iter().flat_map(children).collect();
    }
    None
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Object(map) => map.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    }
}

/// Runs `command` to its end. A program that is still there after `limit` is killed with its group, and that is an error.
///
/// Output goes through files: a daemon that keeps the descriptors open cannot make the caller wait.
pub fn run(command: &mut Command, limit: Duration) -> Result<Outcome> {
    run_with_input(command.stdin(Stdio::null()), limit)
}

/// The same with the input that `command` has.
pub fn run_with_input(command: &mut Command, limit: Duration) -> Result<Outcome> {
    let shown = show(command);
    let mut stdout = tempfile::tempfile()?;
    let mut stderr = tempfile::tempfile()?;
    command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).process_group(0);
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
    let status = wait_child(&mut child, limit)?;
    let elapsed = start.elapsed();
    if status.is_none() {
        kill_group(&child);
        child.wait()?;
    }
    let outcome = Outcome {
        command: shown,
        code: status.and_then(|status| status.code()),
        stdout: text_of(&mut stdout)?,
        stderr: text_of(&mut stderr)?,
        elapsed,
    };
    ensure!(status.is_some(), "not finished after {limit:?}\n{outcome}");
    Ok(outcome)
}

/// Runs a program of the host that must succeed.
pub fn run_ok(program: &str, args: &[&str], limit: Duration) -> Result<Outcome> {
    run(Command::new(program).args(args), limit)?.success()
}

/// The end of `child`, or `None` when `limit` is over.
pub fn wait_child(child: &mut Child, limit: Duration) -> Result<Option<std::process::ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks until `done` says yes, at first often and then less; an error that names `what` when `limit` is over.
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    while !done().with_context(|| format!("while waiting: {what}"))? {
        if start.elapsed() > limit {
            bail!("not so after {limit:?}: {what}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}

/// Sends `signal` to the process `pid`; one that is gone is fine.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid as i32).context("no such process id")?;
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).context("cannot send a signal"),
    }
}

/// Whether the process `pid` is there (a zombie is not).
pub fn is_alive(pid: u32) -> bool {
    let there = Pid::from_raw(pid as i32).is_some_and(|pid| test_kill_process(pid).is_ok());
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    there && !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

/// Ids of all processes whose command line holds `needle`, a path that only this test uses.
pub fn processes_with(needle: &Path) -> Result<Vec<u32>> {
    let needle = needle.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let has = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        if pid != std::process::id() && (has(&line) || has(&environment)) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Ids of the child processes of `parent`.
pub fn children_of(parent: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // `pid (name) state parent …`, and the name may hold anything.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default();
        if fields.split_whitespace().nth(1).is_some_and(|field| field == parent.to_string()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Threads of a process that sleep, as against waiting for something: their ids, and which of their sleeps it is.
pub(crate) fn sleeping_threads(pid: u32) -> Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A thread may end meanwhile.
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let status = read("status");
        let sleeps = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
        if let Some(sleeps) = sleeps
            && read("wchan").contains("nanosleep")
        {
            found.push((thread, sleeps.to_owned()));
        }
    }
    Ok(found)
}

fn kill_group(child: &Child) {
    if let Some(pid) = Pid::from_raw(child.id() as i32) {
        // Gone already is as good.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

fn text_of(file: &mut File) -> Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_exit_code_come_back() {
        let script = "echo '{\"outer\":{\"state\":\"inner\"},\"state\":\"staged\"}'; echo 'error: no' >&2; exit 5";
        let outcome = run(Command::new("sh").args(["-c", script]), Duration::from_secs(10)).unwrap();
        assert_eq!(outcome.text("state").unwrap(), "staged");
        assert!(outcome.number("state").is_err());
        assert!(outcome.clone().refused(5, &["yes"]).is_err());
        assert!(outcome.clone().refused(4, &["no"]).is_err());
        outcome.refused(5, &["no"]).unwrap();
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let error =
            run(Command::new("sh").args(["-c", "sleep 60 & sleep 60"]), Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("not finished"), "{error}");
    }

    #[test]
    fn a_thread_that_sleeps_is_told_from_one_that_waits() {
        let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        let mut waiter = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let found = |pid| sleeping_threads(pid).unwrap();
        wait_until("it sleeps", Duration::from_secs(10), || Ok(!found(sleeper.id()).is_empty())).unwrap();
        assert_eq!(found(sleeper.id()), found(sleeper.id()), "the same sleep");
        assert!(found(waiter.id()).is_empty());
        for child in [&mut sleeper, &mut waiter] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_daemon_that_keeps_the_output_open_does_not_hold_up() {
        let outcome = run(Command::new("sh").args(["-c", "sleep 5 & echo $!"]), Duration::from_secs(3)).unwrap();
        let pid: u32 = outcome.stdout.trim().parse().unwrap();
        assert!(is_alive(pid));
        signal(pid, Signal::KILL).unwrap();
        wait_until("it is gone", Duration::from_secs(5), || Ok(!is_alive(pid))).unwrap();
    }
}
