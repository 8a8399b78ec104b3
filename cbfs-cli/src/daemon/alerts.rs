//! Alerts by a command of the operator: mail, a pager, a chat.

use crate::failure::{Failure, FailureKind};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use toa::{Alert, Alerts, LogOnly};

/// A command that takes longer is killed.
const TAKES_AT_MOST: Duration = Duration::from_secs(30);
/// Between looks whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Alerts that wait for the command; of more, the log alone tells.
const WAITING_MAX: usize = 16;

/// The alerts that the setting `alert.command` asks for.
pub(super) fn by_command(command: Option<&str>) -> Result<Arc<dyn Alerts>, Failure> {
    let Some(command) = command else { return Ok(Arc::new(LogOnly)) };
    let (alerts, waiting) = sync_channel(WAITING_MAX);
    let command = command.to_owned();
    std::thread::Builder::new()
        .name("cbfs-alerts".into())
        .spawn(move || run_all(&command, &waiting))
        .map_err(|error| Failure::new(FailureKind::Bug, format!("no thread for alert.command: {error}")))?;
    Ok(Arc::new(ByCommand { alerts }))
}

struct ByCommand {
    alerts: SyncSender<Alert>,
}

impl Alerts for ByCommand {
    fn raise(&self, alert: Alert) {
        match self.alerts.try_send(alert) {
            Ok(()) => {}
            Err(TrySendError::Full(alert)) => tracing::error!(?alert, "alert.command does not keep up: not told"),
            Err(TrySendError::Disconnected(alert)) => tracing::error!(?alert, "the thread of alert.command has ended"),
        }
    }
}

/// One at a time, in order.
fn run_all(command: &str, alerts: &Receiver<Alert>) {
    while let Ok(alert) = alerts.recv() {
        match run(command, &alert) {
            Ok(()) => tracing::info!(kind = name(&alert), "alert.command was run"),
            Err(error) => tracing::error!(kind = name(&alert), %error, "alert.command failed"),
        }
    }
}

/// Why an alert did not get through.
#[derive(Debug, thiserror::Error)]
enum AlertError {
    #[error("it did not start: {0}")]
    NotStarted(std::io::Error),
    #[error("it could not be waited for: {0}")]
    NotWaited(std::io::Error),
    #[error("it ended with {0}")]
    Unhappy(std::process::ExitStatus),
    #[error("it took longer than {} s and was killed", TAKES_AT_MOST.as_secs())]
    TooLong,
}

/// The alert is in the environment, for one-liners, and as JSON on standard input.
fn run(command: &str, alert: &Alert) -> Result<(), AlertError> {
    let text = |at: Option<String>| at.unwrap_or_default();
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .env("CBFS_ALERT_KIND", name(alert))
        .env("CBFS_ALERT_FS", &alert.fs)
        .env("CBFS_ALERT_SNAPSHOT", text(alert.snapshot.map(|id| id.to_string())))
        .env("CBFS_ALERT_NAME", text(alert.name.clone()))
        .env("CBFS_ALERT_PROBLEM", &alert.problem)
        .env("CBFS_ALERT_SINCE", text(alert.since.map(|since| since.to_string())))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Its own group, so that what it starts ends with it.
        .process_group(0)
        .spawn()
        .map_err(AlertError::NotStarted)?;
    if let (Some(mut stdin), Ok(json)) = (child.stdin.take(), serde_json::to_vec(alert)) {
        // A few hundred bytes: they fit the pipe whether it reads them or not.
        let _ = stdin.write_all(&json);
    }
    wait(&mut child)
}

fn wait(child: &mut Child) -> Result<(), AlertError> {
    let until = Instant::now() + TAKES_AT_MOST;
    loop {
        match child.try_wait().map_err(AlertError::NotWaited)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(AlertError::Unhappy(status)),
            None if Instant::now() < until => std::thread::sleep(LOOK_EVERY),
            None => {
                if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
                    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                child.wait().map_err(AlertError::NotWaited)?;
                return Err(AlertError::TooLong);
            }
        }
    }
}

/// The kind as in JSON.
fn name(alert: &Alert) -> String {
    serde_json::to_value(alert.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use toa::AlertKind;

    fn alert() -> Alert {
        Alert {
            kind: AlertKind::SnapshotStuck,
            fs: "home-0".into(),
            snapshot: Some(uuid::Uuid::nil()),
            name: Some("nightly; $(touch /nowhere)".into()),
            problem: "the store is away".into(),
            since: None,
        }
    }

    #[test]
    fn the_command_gets_the_alert_in_its_environment_and_on_stdin() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let command = format!(
            "{{ printf '%s|%s|%s\\n' \"$CBFS_ALERT_KIND\" \"$CBFS_ALERT_NAME\" \"$CBFS_ALERT_PROBLEM\"; cat; }} >{}",
            out.display()
        );
        run(&command, &alert()).unwrap();
        let text = std::fs::read_to_string(&out).unwrap();
        let (line, json) = text.split_once('\n').unwrap();
        assert_eq!(line, "snapshot-stuck|nightly; $(touch /nowhere)|the store is away");
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["kind"], "snapshot-stuck");
        assert_eq!(json["fs"], "home-0");
    }

    #[test]
    fn a_command_that_fails_or_is_not_there_is_said() {
        assert!(matches!(run("exit 3", &alert()), Err(AlertError::Unhappy(_))));
        assert!(matches!(run("/no/such/program", &alert()), Err(AlertError::Unhappy(_))));
    }

    #[test]
    fn alerts_never_wait_for_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        let command = format!("sleep 0.05; echo x >>{}", count.display());
        let alerts = by_command(Some(&command)).unwrap();
        (0..WAITING_MAX * 4).for_each(|_| alerts.raise(alert()));
        drop(alerts);
        let lines = || std::fs::read_to_string(&count).map_or(0, |text| text.lines().count());
        let until = Instant::now() + TAKES_AT_MOST;
        while lines() < WAITING_MAX && Instant::now() < until {
            std::thread::sleep(LOOK_EVERY);
        }
        assert!((WAITING_MAX..WAITING_MAX * 4).contains(&lines()), "{} were run", lines());
    }
}
