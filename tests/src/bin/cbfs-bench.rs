//! cbfs-bench: prints how fast CBFS is beside the host's filesystem, a FUSE filesystem in memory, and `JuiceFS`.

use anyhow::{Context, Result, bail};
use cbfs_tests::bench::limits::{BASE, CBFS, HOST, NULL};
use cbfs_tests::bench::snapshot::{self, Amounts};
use cbfs_tests::bench::{
    Ending, Memory, Pause, Plan, Restart, Results, Scale, Site, Tree, Workload, clean_up_when_ended, measure,
    serve_null,
};
use cbfs_tests::source::Extent;
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use std::env;
use std::fmt::Display;
use std::fs;
use std::io::{Write, stderr, stdout};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Measures CBFS against other filesystems and prints markdown tables.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  cargo run --release -p cbfs-tests --bin cbfs-bench -- run --dir /var/tmp\n\n\
                        Needs root, /dev/fuse and a cbfs program of the same profile (cargo build --release -p cbfs-cli).\n\
                        What the figures mean is in docs/performance.md.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure times of single steps
    Run(Box<Run>),
    /// Print the tables of one or more files of `run --json`, their rounds together
    Show {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Measure the daemon's memory with many files, and while they change
    Memory(MemoryArgs),
    /// Measure how long operations wait while checkpoints and snapshots happen
    Pause(PauseArgs),
    /// Measure the time to the first answer after kill -9
    Restart(RestartArgs),
    /// Measure whether cost grows with the number of files
    Scale(ScaleArgs),
    /// Measure snapshots, beside tar and restic on the same S3 server
    Snapshot(Box<SnapshotArgs>),
    /// Send standard input to an S3 server: the end of the pipe that snapshots are compared with
    #[command(hide = true)]
    Upload {
        #[arg(long)]
        server: SocketAddr,
        #[arg(long)]
        bucket: String,
        #[arg(long)]
        key: String,
    },
    /// Serve a filesystem in memory until it is unmounted
    Null {
        /// An empty directory
        dir: PathBuf,
    },
}

#[derive(Args, Debug)]
struct Place {
    /// A directory on the filesystem to compare with; everything is below it [default: the one for temporary files]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Write all figures to this file, those of `run` after each round
    #[arg(long)]
    json: Option<PathBuf>,
    /// Wait at most so many seconds for work in the background, where that would disturb what is measured next
    #[arg(long, default_value_t = 15)]
    settle: u64,
}

#[derive(Args, Debug)]
struct Run {
    #[command(flatten)]
    place: Place,
    /// Rounds; the medians count
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Steps or groups of steps, with commas [default: all]
    #[arg(long, value_delimiter = ',')]
    steps: Vec<String>,
    /// Targets, with commas: host null cbfs juicefs juicefs-writeback (the last two are installed on first use)
    #[arg(long, value_delimiter = ',', default_values_t = [HOST, NULL, CBFS].map(str::to_owned))]
    targets: Vec<String>,
    /// Measure CBFS with a published base of so many files below it as well
    #[arg(long, value_name = "FILES")]
    base: Option<usize>,
    /// The source tree: `part` of the kernel's sources, `full`, `none`, or a directory
    #[arg(long, default_value = "part")]
    tree: String,
    #[command(flatten)]
    workload: Workload,
}

#[derive(Args, Debug)]
struct MemoryArgs {
    #[command(flatten)]
    place: Place,
    /// Files
    #[arg(long, default_value_t = 1_000_000)]
    files: usize,
    /// Minutes of changes
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
}

#[derive(Args, Debug)]
struct PauseArgs {
    #[command(flatten)]
    place: Place,
    /// Seconds on each target
    #[arg(long, default_value_t = 300.0)]
    seconds: f64,
    /// Seconds from one snapshot to the next
    #[arg(long, default_value_t = 7.0)]
    snapshot_every: f64,
}

#[derive(Args, Debug)]
struct RestartArgs {
    #[command(flatten)]
    place: Place,
    /// Files
    #[arg(long, default_value_t = 1_000_000)]
    files: usize,
    /// MiB written since the last checkpoint; at 128, writers wait
    #[arg(long, default_value_t = 120)]
    journal_mib: usize,
    /// How often
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[derive(Args, Debug)]
struct ScaleArgs {
    #[command(flatten)]
    place: Place,
    /// Numbers of files, growing, with commas
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    files: Vec<usize>,
    /// Creations at each size
    #[arg(long, default_value_t = 5000)]
    samples: usize,
    /// Snapshots at each size
    #[arg(long, default_value_t = 5)]
    cuts: usize,
}

#[derive(Args, Debug)]
struct SnapshotArgs {
    #[command(flatten)]
    place: Place,
    /// Steps, with commas: first incremental slowdown requests idle memory growth cut [default: all]
    #[arg(long, value_delimiter = ',')]
    steps: Vec<String>,
    /// The source tree: `part` of the kernel's sources, `full`, `none`, or a directory
    #[arg(long, default_value = "part")]
    tree: String,
    #[command(flatten)]
    amounts: Amounts,
}

/// The allocator of the daemon: the filesystem in memory is to be no slower for another one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Null { dir } => serve_null(&dir),
        Command::Run(run) => run.print(),
        Command::Show { files } => show(&files),
        Command::Memory(args) => {
            let churn = Duration::try_from_secs_f64(args.minutes * 60.0).context("--minutes")?;
            args.place.print(|site| Memory::measure(site, args.files, churn))
        }
        Command::Pause(args) => {
            let each = Duration::try_from_secs_f64(args.seconds).context("--seconds")?;
            let every = Duration::try_from_secs_f64(args.snapshot_every).context("--snapshot-every")?;
            args.place.print(|site| Pause::measure(site, each, every))
        }
        Command::Restart(args) => {
            args.place.print(|site| Restart::measure(site, args.files, args.rounds, args.journal_mib))
        }
        Command::Snapshot(args) => args.print(),
        Command::Upload { server, bucket, key } => snapshot::upload(server, &bucket, &key),
        Command::Scale(args) => args.place.print(|site| Scale::measure(site, &args.files, args.samples, args.cuts)),
    }
}

fn show(files: &[PathBuf]) -> Result<()> {
    let run = |path: &PathBuf| {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not of `run --json`", path.display()))
    };
    let runs = files.iter().map(run).collect::<Result<Vec<Results>>>()?;
    write!(stdout().lock(), "{}", Results::together(runs)?)?;
    Ok(())
}

fn progress(ending: &Ending, what: &str) {
    ending.stop_if_begun();
    // Without anybody who listens, the measurement still goes on.
    let _ = writeln!(stderr(), "{what}");
}

impl Place {
    /// A directory that goes away, and holds whatever the measurement makes.
    fn make(&self) -> Result<(TempDir, Ending)> {
        let below = self.dir.clone().unwrap_or_else(env::temp_dir);
        let below = fs::canonicalize(&below).with_context(|| format!("no directory {}", below.display()))?;
        let dir = tempfile::Builder::new().prefix("cbfs-bench-").tempdir_in(&below).context("no place to measure")?;
        let temporary = dir.path().join("temporary");
        fs::create_dir(&temporary)?;
        // Buckets and servers too have their files on the disk that is measured.
        if let Err(other) = tempfile::env::override_temp_dir(&temporary) {
            bail!("temporary files go to {} already", other.display());
        }
        let ending = clean_up_when_ended(dir.path())?;
        Ok((dir, ending))
    }

    fn site<'a>(&self, dir: &'a Path, progress: &'a mut dyn FnMut(&str)) -> Site<'a> {
        Site { dir, settle: Duration::from_secs(self.settle), progress }
    }

    fn print<T: Display + Serialize>(&self, measure: impl FnOnce(Site<'_>) -> Result<T>) -> Result<()> {
        let (dir, ending) = self.make()?;
        let state = dir.path().join("state");
        fs::create_dir(&state)?;
        let figures = measure(self.site(&state, &mut |what| progress(&ending, what)))?;
        drop(ending);
        self.put(&figures)
    }

    fn keep<T: Serialize>(&self, figures: &T) -> Result<()> {
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(figures)?;
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn put<T: Display + Serialize>(&self, figures: &T) -> Result<()> {
        self.keep(figures)?;
        write!(stdout().lock(), "{figures}")?;
        Ok(())
    }
}

/// The tree that was asked for; its tar file is made in `place`, if it is not there yet.
fn tree_of(text: &str, place: &Path) -> Result<Option<Tree>> {
    match text {
        "none" => Ok(None),
        "part" => Tree::kernel(Extent::Part).map(Some),
        "full" => Tree::kernel(Extent::Full).map(Some),
        path => Tree::of(Path::new(path), place).map(Some),
    }
}

impl SnapshotArgs {
    fn print(self) -> Result<()> {
        let (dir, ending) = self.place.make()?;
        let needed = snapshot::Plan::needs_tree(&self.steps)?;
        let tree = if needed { tree_of(&self.tree, dir.path())? } else { None };
        let plan = snapshot::Plan { steps: self.steps, amounts: self.amounts, tree };
        let state = dir.path().join("state");
        fs::create_dir(&state)?;
        let mut tell = |what: &str| progress(&ending, what);
        let site = self.place.site(&state, &mut tell);
        let figures = snapshot::measure(site, &plan, &mut |so_far| self.place.keep(so_far))?;
        drop(ending);
        self.place.put(&figures)?;
        match figures.failures.len() {
            0 => Ok(()),
            count => bail!("{count} steps failed, see above"),
        }
    }
}

impl Run {
    fn print(self) -> Result<()> {
        let (dir, ending) = self.place.make()?;
        let mut targets = self.targets;
        if self.base.is_some() {
            targets.push(BASE.to_owned());
        }
        let tree = if Plan::needs_tree(&self.steps)? { tree_of(&self.tree, dir.path())? } else { None };
        let plan = Plan {
            rounds: self.rounds,
            targets,
            base_files: self.base.unwrap_or_default(),
            steps: self.steps,
            workload: Workload { tree, ..self.workload },
        };
        let results =
            measure(self.place.site(dir.path(), &mut |what| progress(&ending, what)), &plan, &mut |so_far| {
                self.place.keep(so_far)
            })?;
        drop(ending);
        self.place.put(&results)?;
        match results.failures.len() {
            0 => Ok(()),
            count => bail!("{count} steps failed, see above"),
        }
    }
}
