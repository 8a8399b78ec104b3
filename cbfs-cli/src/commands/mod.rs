//! One file for each command.

mod completions;
mod create;
mod delete;
mod export;
mod list;
mod live;
mod man;
mod mount;
mod promote;
mod show;
mod snapshot;
mod status;
mod unmount;
mod upgrade;
mod verify;

use crate::cli::{Cli, Command};
use crate::context::Context;
use crate::failure::Failure;
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;

/// Runs the command.
pub fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let context = Context::new(&cli.global)?;
    match cli.command {
        // What it becomes may end with the code of another process.
        Command::Mount(args) => mount::run(&context, args),
        // What stops it decides its code.
        Command::Export(args) => wait_for(export::run(&context, args)),
        other => run_to_end(&context, other).map(|()| ExitCode::SUCCESS),
    }
}

fn run_to_end(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(args) => wait_for(create::run(context, args)),
        Command::List(args) => wait_for(list::run(context, args)),
        Command::Show(args) => wait_for(show::run(context, args)),
        Command::Delete(args) => wait_for(delete::run(context, args)),
        Command::Mount(args) => mount::run(context, args).map(drop),
        Command::Export(args) => wait_for(export::run(context, args)).map(drop),
        Command::Unmount(args) => wait_for(unmount::run(context, args)),
        Command::Upgrade(args) => wait_for(upgrade::run(context, args)),
        Command::Status(args) => wait_for(status::run(context, args)),
        Command::Snapshot(args) => wait_for(snapshot::run(context, args)),
        Command::Promote(args) => wait_for(promote::run(context, args)),
        Command::Verify(args) => wait_for(verify::run(context, args)),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

/// Runs what waits for the network or a daemon.
fn wait_for<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::from_io(&error, "start", Path::new("the runtime")))?;
    let result = runtime.block_on(work);
    // A look-up of a name or a credential process that hangs must not hold up the answer.
    runtime.shutdown_background();
    result
}
