//! cbfs-bench: prints how fast CBFS is beside the host's filesystem and beside a FUSE filesystem in memory.

use anyhow::{Context, Result};
use cbfs_tests::bench::{Machine, Sizes, measure, serve_null};
use clap::{Parser, Subcommand};
use std::env;
use std::io::Write;
use std::path::PathBuf;

/// Measures CBFS against the host's filesystem and a FUSE filesystem in memory, and prints a markdown table.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  cargo run --release -p cbfs-tests --bin cbfs-bench -- run --dir /var/tmp\n\n\
                        Needs root, /dev/fuse and a cbfs program of the same profile (cargo build --release -p cbfs-cli).")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure
    Run(Run),
    /// Serve a filesystem in memory until it is unmounted
    Null {
        /// An empty directory
        dir: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Run {
    /// A directory on the filesystem to compare with [default: the directory for temporary files]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Rounds; the medians count
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Small files
    #[arg(long, default_value_t = 10_000)]
    files: usize,
    /// Files that are fsynced each
    #[arg(long, default_value_t = 500)]
    synced: usize,
    /// The large file, MiB
    #[arg(long, default_value_t = 1024)]
    large_mib: usize,
    /// Random reads, and as many writes
    #[arg(long, default_value_t = 10_000)]
    random: usize,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Null { dir } => serve_null(&dir),
        Command::Run(run) => run.print(),
    }
}

impl Run {
    fn print(self) -> Result<()> {
        let below = self.dir.unwrap_or_else(env::temp_dir);
        let dir = tempfile::Builder::new().prefix("cbfs-bench-").tempdir_in(&below).context("no place to measure")?;
        let sizes = Sizes { files: self.files, synced: self.synced, large_mib: self.large_mib, random: self.random };
        let mut errors = std::io::stderr();
        let table = measure(dir.path(), self.rounds, sizes, |what| drop(writeln!(errors, "{what}")))?;
        let mut output = std::io::stdout().lock();
        let Sizes { files, synced, large_mib, random } = sizes;
        writeln!(output, "{}; medians of {} rounds; ", Machine::this()?, self.rounds)?;
        writeln!(
            output,
            "{files} small files, {synced} fsynced ones, a file of {large_mib} MiB, {random} random blocks.\n"
        )?;
        write!(output, "{table}")?;
        Ok(())
    }
}
