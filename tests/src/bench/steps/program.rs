//! Programs whose time is measured: waiting for their end must not add to it.

use crate::process::signal;
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// No program of a step takes longer, on whatever target.
const LIMIT: Duration = Duration::from_secs(3600);

/// Runs `command`, which must succeed; how long it took.
pub(in crate::bench) fn time_of(command: &mut Command) -> Result<Duration> {
    output_of(command).map(|(elapsed, _)| elapsed)
}

/// [`time_of`], and what it printed.
pub(in crate::bench) fn output_of(command: &mut Command) -> Result<(Duration, String)> {
    let shown = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
    let (pid, (ended, end)) = (child.id(), channel::<()>());
    let guard = thread::spawn(move || match end.recv_timeout(LIMIT) {
        Err(RecvTimeoutError::Timeout) => signal(pid, Signal::KILL),
        _ => Ok(()),
    });
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {shown}"))?;
    let elapsed = start.elapsed();
    drop(ended);
    // A guard that panicked has nothing to say: the program has ended.
    let _ = guard.join();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let words = text(&output.stderr);
    ensure!(output.status.success(), "{shown} ended with {}: {}", output.status, words.trim_end());
    Ok((elapsed, text(&output.stdout)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_the_program_said() {
        let error = time_of(Command::new("sh").args(["-c", "echo words >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("words") && error.contains('3'), "{error}");
        let (elapsed, output) = output_of(Command::new("sh").args(["-c", "sleep 0.05; echo out"])).unwrap();
        assert!(elapsed >= Duration::from_millis(50));
        assert_eq!(output, "out\n");
    }
}
