//! `cbfs export`

use crate::address::FsAddress;
use crate::bucket;
use crate::cli::ExportArgs;
use crate::context::Context;
use crate::failure::{Failure, FailureKind};
use crate::output::{self, Format, size};
use crate::progress::ExportProgress;
use cloud_mgmt::admin;
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::{NamedTempFile, TempDir};
use toa::SnapshotSelector;
use toa::export::{ExportError, ExportSetup, ExportSummary, ExportWatch};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

/// The tar leaves in pieces of this size, bytes.
const BUFFER_BYTES: usize = 1 << 20;
/// What a program ends with whose reader has gone: 128 and SIGPIPE.
const CLOSED_PIPE: u8 = 128 + 13;
/// How long a stopped export may take to say in the tar that it is not complete.
const STOPS_WITHIN: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Exported {
    name: String,
    snapshot: Uuid,
    output: PathBuf,
    #[serde(flatten)]
    summary: ExportSummary,
}

pub(super) async fn run(context: &Context, args: ExportArgs) -> Result<ExitCode, Failure> {
    let output = Output::open(args.output.as_deref(), context.format)?;
    let address = bucket::canonical(FsAddress::parse(&args.fs)?)?;
    let url = bucket::store_of(&address, &context.state, &context.node_settings()?)?;
    let store = bucket::connect(&url).await?;
    let name = admin::resolve(&store, &address.name).await?;
    let config = admin::read_config(&store, &name).await?;
    let limits = context.settings(&name, &config.settings, &[])?.limits()?;
    let snapshot = match address.snapshot.as_deref() {
        None | Some("latest") => SnapshotSelector::Latest,
        Some(text) => SnapshotSelector::Named(text.to_owned()),
    };
    let scratch = scratch()?;
    let setup = ExportSetup {
        // From here on nobody waits for an answer within seconds.
        store: bucket::connect_daemon(&url, limits.upload_concurrency).await?,
        name: name.clone(),
        config,
        snapshot,
        scratch: scratch.path().to_owned(),
        fetch_timeout: limits.fetch_timeout,
        runtime: Handle::current(),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (file, stopping) = (output.file()?, Arc::clone(&stop));
    let mut work = tokio::task::spawn_blocking(move || export(setup, file, stopping));
    let done = tokio::select! {
        done = &mut work => done,
        code = stopped() => {
            stop.store(true, Ordering::Relaxed);
            // It may be waiting for a reader that never comes back.
            drop(tokio::time::timeout(STOPS_WITHIN, work).await);
            return Ok(ExitCode::from(code?));
        }
    };
    drop(scratch);
    match done.map_err(|error| Failure::new(FailureKind::Bug, format!("export: {error}")))? {
        Ok((snapshot, summary)) => {
            if let Some(output) = output.keep()? {
                let exported = Exported { name: name.to_string(), snapshot, output, summary };
                output::print(context.format, &exported, &exported)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if error.is_closed_pipe() => Ok(ExitCode::from(CLOSED_PIPE)),
        Err(ExportError::Output(error)) => Err(Failure::from_io(&error, "write", output.name())),
        Err(error) => Err(error.into()),
    }
}

impl std::fmt::Display for Exported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, snapshot, output, summary } = self;
        let ExportSummary { members, bytes, .. } = summary;
        write!(f, "exported snapshot {snapshot} of {name} to {}: {members} members, ", output.display())?;
        f.write_str(&size(*bytes))
    }
}

fn export(setup: ExportSetup, file: File, stopping: Arc<AtomicBool>) -> Result<(Uuid, ExportSummary), ExportError> {
    let export = toa::export::open(setup)?;
    let mut watch = Watch { bar: ExportProgress::new(export.snapshot().bytes), stopping };
    let summary = export.write(&mut BufWriter::with_capacity(BUFFER_BYTES, file), &mut watch)?;
    Ok((export.snapshot().id, summary))
}

struct Watch {
    bar: ExportProgress,
    stopping: Arc<AtomicBool>,
}

impl ExportWatch for Watch {
    fn done(&mut self, bytes: u64) {
        self.bar.advance(bytes);
    }

    fn skipped(&mut self, path: &[u8]) {
        self.bar.say(&format!("skipped {}: a tar holds no sockets", path.escape_ascii()));
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// The exit code of the signal that comes first.
async fn stopped() -> Result<u8, Failure> {
    let on = |kind| signal(kind).map_err(|error| Failure::from_io(&error, "catch", Path::new("signals")));
    let mut hangup = on(SignalKind::hangup())?;
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut terminate = on(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = hangup.recv() => 128 + 1,
        _ = interrupt.recv() => 128 + 2,
        _ = terminate.recv() => 128 + 15,
    })
}

/// For parts of the index; goes with the command.
fn scratch() -> Result<TempDir, Failure> {
    let made = tempfile::Builder::new().prefix("cbfs-export-").tempdir();
    made.map_err(|error| Failure::from_io(&error, "make a directory in", &std::env::temp_dir()))
}

/// Where the tar goes.
enum Output {
    Stdout,
    /// A device or a pipe with a name.
    Special(PathBuf, File),
    /// A file, which gets its name when it is complete. For its owner alone: it holds what only root may read.
    File(PathBuf, NamedTempFile),
}

impl Output {
    fn open(path: Option<&Path>, format: Format) -> Result<Self, Failure> {
        let Some(path) = path else {
            let redirect = "cbfs export FS | zstd > FILE, or --output FILE";
            if std::io::stdout().is_terminal() {
                return Err(Failure::invalid("a tar is not written to a terminal").with_hint(redirect));
            }
            if format == Format::JsonLines {
                let what = "standard output is for the tar, and cannot have JSON too";
                return Err(Failure::invalid(what).with_hint("name a file with --output, or leave out --json"));
            }
            return Ok(Self::Stdout);
        };
        let failed = |operation: &'static str| move |error| Failure::from_io(&error, operation, path);
        match path.metadata() {
            Ok(meta) if meta.is_dir() => Err(Failure::invalid(format!("{} is a directory", path.display()))),
            Ok(meta) if !meta.is_file() => File::options()
                .write(true)
                .open(path)
                .map(|file| Self::Special(path.into(), file))
                .map_err(failed("open")),
            _ => {
                let beside = tempfile::Builder::new().prefix(".cbfs-export-").tempfile_in(parent(path));
                beside.map(|file| Self::File(path.into(), file)).map_err(failed("create"))
            }
        }
    }

    fn name(&self) -> &Path {
        match self {
            Self::Stdout => Path::new("standard output"),
            Self::Special(path, _) | Self::File(path, _) => path,
        }
    }

    fn file(&self) -> Result<File, Failure> {
        match self {
            // Not through std's own buffer, which ends at every newline.
            Self::Stdout => std::io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Self::Special(_, file) => file.try_clone(),
            Self::File(_, file) => file.as_file().try_clone(),
        }
        .map_err(|error| Failure::from_io(&error, "open", self.name()))
    }

    /// Gives a complete file its name, durably; answers the path that was written to, if there is one.
    fn keep(self) -> Result<Option<PathBuf>, Failure> {
        let (path, file) = match self {
            Self::Stdout => return Ok(None),
            Self::Special(path, _) => return Ok(Some(path)),
            Self::File(path, file) => (path, file),
        };
        let failed = |error| Failure::from_io(&error, "write", &path);
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        File::open(parent(&path)).and_then(|dir| dir.sync_all()).map_err(failed)?;
        Ok(Some(path))
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
