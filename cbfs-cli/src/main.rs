//! cbfs: the command line of CBFS.
//!
//! Parses, finds things, wires the libraries into a daemon, prints. Holds no logic of the filesystem or of the bucket;
//! output and exit codes are decided here alone.

mod address;
mod bucket;
mod cli;
mod commands;
mod context;
mod control;
mod daemon;
mod failure;
#[cfg(test)]
mod fuzz;
mod holder;
mod logging;
mod mounts;
mod output;
mod progress;
mod settings;
mod state;

use clap::Parser;
use failure::FailureKind;
use std::process::ExitCode;

/// A daemon frees on one thread what another has allocated, and goes between much memory and little: the allocator of
/// glibc gives pages back to the kernel and asks for them again all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = std::env::var_os("FAILPOINTS").map(|_| fail::FailScenario::setup());

    let cli = cli::Cli::parse();
    let process = match &cli.command {
        cli::Command::Mount(args) => Some(&args.process),
        _ => None,
    };
    let detached = process.is_some_and(|p| p.detached || p.held == Some(daemon::Stays::Background));
    let verbosity = match process {
        Some(p) if p.foreground || p.detached || p.held.is_some() => logging::Verbosity::Daemon,
        _ => logging::Verbosity::Command,
    };
    logging::start(verbosity);
    // A panic is a defect: its message is on stderr, its exit code is the one of the table.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| commands::run(cli))) {
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => {
            // The process that started this one has been told, and tells the user.
            if !detached {
                output::print_failure(&failure);
            }
            ExitCode::from(failure.kind.meaning().exit)
        }
        Err(_) => ExitCode::from(FailureKind::Bug.meaning().exit),
    }
}
