//! How a mount's processes are started: the holder, in a session of its own unless it stays in the foreground, the
//! daemons that it starts, and the line by which the first of them reports.

use super::plan::{Absent, MountPlan, MountReport, Ready, Stays};
use crate::context::Context;
use crate::failure::{Failure, FailureKind};
use crate::holder::{self, Link};
use crate::output::{self, Format};
use crate::state::Purpose;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// A log longer than this is put aside when a daemon starts.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// The child's one line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Ready(MountReport),
    Failed(Failure),
}

/// Starts holder and daemon and waits until its mount can be used, or for its failure.
pub fn start_detached(context: &Context, plan: &MountPlan) -> Result<MountReport, Failure> {
    let program = Path::new("/proc/self/exe");
    let mut child = Command::new(program)
        .args(arguments(context, plan, "--detached"))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::from_io(&error, "start", program))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(|error| Failure::from_io(&error, "hear", program))?;
    }
    match serde_json::from_str(&line) {
        Ok(Line::Ready(report)) => Ok(report),
        Ok(Line::Failed(failure)) => {
            // It has ended but for its exit; an unreaped child would hold its place until we end, too.
            drop(child.wait());
            Err(failure)
        }
        Err(_) => {
            let status = child.wait().map_err(|error| Failure::from_io(&error, "wait for", program))?;
            Err(Failure::new(FailureKind::Bug, format!("the daemon ended before its mount could be used: {status}"))
                .with_hint("the same command with --foreground shows what happens"))
        }
    }
}

/// The command line of a process that mounts the same: everything in it is absolute, since it works in `/`.
fn arguments(context: &Context, plan: &MountPlan, process: &str) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec!["mount".into(), process.into()];
    if context.format == Format::JsonLines {
        all.push("--json".into());
    }
    all.extend(["--state-dir".into(), context.state.root().into()]);
    all.extend(["--config-dir".into(), context.config_dir.clone().into()]);
    if plan.absent == Absent::Create {
        all.push("--create".into());
    }
    if plan.address.snapshot.is_none() && plan.purpose != Purpose::Write {
        all.push("--read-only".into());
    }
    for (key, value) in &plan.flags {
        all.extend(["--set".into(), format!("{key}={value}").into()]);
    }
    all.extend(["--".into(), plan.address.to_string().into()]);
    all.extend(plan.mount_point.iter().map(|dir| dir.clone().into()));
    all
}

/// Becomes the holder, in its own session. Answers with the exit code.
pub fn hold_detached(context: &Context, plan: &MountPlan) -> Result<u8, Failure> {
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "this process leads a group already");
    }
    let held = hold(context, plan, Stays::Background);
    if let Err(failure) = &held {
        say(&Line::Failed(failure.clone()));
    }
    held
}

/// Becomes the holder of the mount. Answers with the exit code.
pub fn hold(context: &Context, plan: &MountPlan, stays: Stays) -> Result<u8, Failure> {
    holder::run(arguments(context, plan, held_option(stays)))
}

fn held_option(stays: Stays) -> &'static str {
    match stays {
        Stays::Foreground => "--held=foreground",
        Stays::Background => "--held=background",
    }
}

/// A daemon that the holder has started.
pub fn run_held(context: &Context, plan: MountPlan, stays: Stays) -> Result<(), Failure> {
    let format = context.format;
    let welcomed = Link::take()?;
    let ready = match stays {
        _ if welcomed.life > 0 => Ready::Silent,
        Stays::Foreground => Ready::Call(Box::new(move |report| output::print(format, report, report))),
        Stays::Background => Ready::Pipe,
    };
    let reports = matches!(ready, Ready::Pipe);
    let result = super::life::run(context, plan, (ready, stays), welcomed);
    if let Err(failure) = &result
        && reports
    {
        // After the report nobody reads this; the log has it.
        say(&Line::Failed(failure.clone()));
    }
    result
}

/// From now on stderr is that file, not the terminal of whoever mounts.
pub(super) fn redirect_log(log: &Path) -> Result<(), Failure> {
    let file = open_log(log)?;
    rustix::stdio::dup2_stderr(&file).map_err(|error| Failure::from_io(&error.into(), "redirect to", log))
}

/// Tells the parent that the mount can be used, and lets go of it.
pub(super) fn report_ready(report: &MountReport) -> Result<(), Failure> {
    say(&Line::Ready(report.clone()));
    let path = Path::new("/dev/null");
    let null = OpenOptions::new().write(true).open(path);
    let null = null.map_err(|error| Failure::from_io(&error, "open", path))?;
    rustix::stdio::dup2_stdout(&null).map_err(|error| Failure::from_io(&error.into(), "redirect to", path))
}

fn say(line: &Line) {
    let Ok(text) = serde_json::to_string(line) else { return };
    let mut stdout = std::io::stdout().lock();
    // A parent that was interrupted hears nothing; the mount stays all the same.
    drop(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
}

fn open_log(path: &Path) -> Result<File, Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    let open = || {
        if std::fs::metadata(path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
            std::fs::rename(path, path.with_extension("log.old"))?;
        }
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)
    };
    open().map_err(|error| Failure::from_io(&error, "open", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::FsAddress;
    use crate::cli::{Cli, Command as Sub};
    use crate::output::Format;
    use crate::state::StateDir;
    use clap::Parser;

    #[test]
    fn the_child_is_told_the_same_as_the_parent() {
        let context = Context {
            state: StateDir::new("/s".into()),
            config_dir: "/c".into(),
            environment: [].into(),
            format: Format::Text,
        };
        let plan = MountPlan {
            address: FsAddress::parse("file:///b#home").unwrap(),
            purpose: Purpose::Write,
            absent: Absent::Create,
            mount_point: Some("/-m".into()),
            flags: vec![("store".into(), "s3://b?a=b".into())],
        };
        let line = |plan: &MountPlan, process: &str| {
            let words = std::iter::once(OsString::from("cbfs")).chain(arguments(&context, plan, process));
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!(cli.global.state_dir.as_deref(), Some(Path::new("/s")));
            assert_eq!(cli.global.config_dir.as_deref(), Some(Path::new("/c")));
            let Sub::Mount(args) = cli.command else { panic!() };
            args
        };
        let args = line(&plan, "--detached");
        assert!(args.create && args.process.detached && !args.read_only && !args.process.foreground);
        assert_eq!((args.fs.as_str(), args.dir.as_deref()), ("file:///b#home", Some(Path::new("/-m"))));
        assert_eq!(args.set, plan.flags);
        let slave =
            MountPlan { purpose: Purpose::Show("latest".into()), absent: Absent::Refuse, mount_point: None, ..plan };
        let args = line(&slave, held_option(Stays::Background));
        assert!(args.read_only && !args.create && args.dir.is_none());
        assert!(args.process.held == Some(Stays::Background) && !args.process.detached);
        let args = line(&slave, held_option(Stays::Foreground));
        assert_eq!(args.process.held, Some(Stays::Foreground));
    }
}
