//! `cbfs snapshot`

use super::live::{self, Prefer};
use crate::cli::{
    SnapshotArgs, SnapshotCancelArgs, SnapshotCommand, SnapshotCreateArgs, SnapshotListArgs, SnapshotStatusArgs,
};
use crate::context::Context;
use crate::control::api::{CancelReason, Role, SnapshotRequest, SnapshotState, SnapshotView};
use crate::control::{Client, check_snapshot_name};
use crate::failure::{Failure, FailureKind};
use crate::output::{self, Format, Table, or_dash, size};
use crate::progress::SnapshotProgress;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Pause between two questions of `--wait`, first and last: a small snapshot is complete within some hundredths of a second.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(100);
/// How long `cancel` watches the wish being fulfilled.
const CANCEL_WITHIN: Duration = Duration::from_secs(5);
/// Every so many of them, the daemon is asked whether it is still the master.
const STATUS_EVERY: u32 = 10;

pub(super) async fn run(context: &Context, args: SnapshotArgs) -> Result<(), Failure> {
    match (args.command, args.create) {
        (Some(SnapshotCommand::Create(args)), _) | (None, Some(args)) => create(context, args).await,
        (Some(SnapshotCommand::Cancel(args)), _) => cancel(context, args).await,
        (Some(SnapshotCommand::List(args)), _) => list(context, args).await,
        (Some(SnapshotCommand::Status(args)), _) => status(context, args).await,
        (None, None) => Err(Failure::invalid("no filesystem is named").with_hint("cbfs snapshot --help")),
    }
}

async fn create(context: &Context, args: SnapshotCreateArgs) -> Result<(), Failure> {
    args.name.as_deref().map_or(Ok(()), check_snapshot_name)?;
    let client = live::client(context, &args.fs, Prefer::Master)?;
    let key = args.key.unwrap_or_else(Uuid::new_v4);
    let snapshot = client.request_snapshot(&SnapshotRequest { name: args.name }, key).await?;
    finish(context, &client, snapshot, Wait::from(args.wait)).await
}

async fn status(context: &Context, args: SnapshotStatusArgs) -> Result<(), Failure> {
    let client = live::client(context, &args.fs, Prefer::Master)?;
    let snapshot = client.snapshot(&args.snapshot).await?;
    finish(context, &client, snapshot, Wait::from(args.wait)).await
}

/// The wish is durable at once; it is fulfilled at once, too, unless the ledger has to be asked.
async fn cancel(context: &Context, args: SnapshotCancelArgs) -> Result<(), Failure> {
    let client = live::client(context, &args.fs, Prefer::Master)?;
    let mut snapshot = client.cancel_snapshot(&args.snapshot).await?;
    let id = snapshot.id.to_string();
    let until = Instant::now() + CANCEL_WITHIN;
    while !snapshot.state.is_final() && Instant::now() < until {
        tokio::time::sleep(POLL_MAX).await;
        snapshot = client.snapshot(&id).await?;
    }
    show(context, &snapshot)?;
    if snapshot.state.is_final() && snapshot.state != SnapshotState::Cancelled {
        let what = format!("snapshot {} is {}: it could not be cancelled any more", snapshot.id, snapshot.state.name());
        return Err(Failure::invalid(what));
    }
    Ok(())
}

async fn list(context: &Context, args: SnapshotListArgs) -> Result<(), Failure> {
    let client = live::client(context, &args.fs, Prefer::Master)?;
    output::print_list(context.format, &client.snapshots().await?.snapshots, table)
}

/// Whether to stay until the state is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Yes,
    No,
}

impl From<bool> for Wait {
    fn from(wait: bool) -> Self {
        if wait { Self::Yes } else { Self::No }
    }
}

/// Prints the last state that was waited for; a failed snapshot is a failure of the command.
async fn finish(context: &Context, client: &Client, snapshot: SnapshotView, wait: Wait) -> Result<(), Failure> {
    let snapshot = match wait {
        Wait::Yes => watch(client, snapshot).await?,
        Wait::No => snapshot,
    };
    show(context, &snapshot)?;
    if snapshot.state == SnapshotState::Cancelled {
        let what = format!("snapshot {} was cancelled: {}", snapshot.id, note(&snapshot));
        return Err(Failure::new(FailureKind::SnapshotFailed, what)
            .with_hint("take another one; it includes what this one had"));
    }
    if snapshot.state == SnapshotState::Failed {
        let why = snapshot.problem.as_deref().unwrap_or("no reason is known");
        return Err(Failure::new(FailureKind::SnapshotFailed, format!("snapshot {} failed: {why}", snapshot.id))
            .with_hint("take another one; it includes what this one had"));
    }
    Ok(())
}

fn show(context: &Context, snapshot: &SnapshotView) -> Result<(), Failure> {
    match context.format {
        Format::Text => output::print_text(&table(std::slice::from_ref(snapshot))),
        Format::JsonLines => output::print_list(context.format, std::slice::from_ref(snapshot), table),
    }
}

/// What a person should know of it beyond its state.
fn note(snapshot: &SnapshotView) -> String {
    if snapshot.cancelling {
        return "is being cancelled".to_owned();
    }
    let why = match snapshot.cancelled {
        Some(CancelReason::User) => "somebody asked for it".to_owned(),
        Some(CancelReason::Superseded { by }) => format!("{by} took its place"),
        Some(CancelReason::Unchanged) => "nothing had changed".to_owned(),
        None => String::new(),
    };
    let problem = snapshot.problem.clone().unwrap_or_default();
    let since = snapshot.failing_since.map(|since| format!("since {}", since.strftime("%F %T")));
    [why, since.unwrap_or_default(), problem].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ")
}

async fn watch(client: &Client, mut snapshot: SnapshotView) -> Result<SnapshotView, Failure> {
    let progress = SnapshotProgress::new();
    let id = snapshot.id.to_string();
    let mut pause = POLL_MIN;
    for polls in 0_u32.. {
        if snapshot.state.is_final() {
            break;
        }
        if polls.is_multiple_of(STATUS_EVERY) {
            refuse_deposed(client, &snapshot).await?;
        }
        progress.show(&snapshot);
        tokio::time::sleep(pause).await;
        pause = (pause * 5 / 4).min(POLL_MAX);
        snapshot = client.snapshot(&id).await?;
    }
    Ok(snapshot)
}

/// A deposed master publishes nothing any more: nobody must wait for it.
async fn refuse_deposed(client: &Client, snapshot: &SnapshotView) -> Result<(), Failure> {
    let status = client.status().await?;
    match status.filesystems.first() {
        Some(fs) if fs.role == Role::Deposed => {
            let problem = fs.agent.as_ref().and_then(|agent| agent.problem.clone());
            let why = problem.unwrap_or_else(|| "this node was deposed".to_owned());
            Err(Failure::new(FailureKind::Deposed, format!("snapshot {} is not published: {why}", snapshot.id))
                .with_hint(format!("cbfs status {}", fs.name)))
        }
        _ => Ok(()),
    }
}

fn table(snapshots: &[SnapshotView]) -> Table {
    let columns = ["SNAPSHOT", "NAME", "KIND", "STATE", "TAKEN", "EPOCH", "DONE", "UPLOADED", "NOTE"];
    let mut table = Table::new(&columns);
    for snapshot in snapshots {
        let done = snapshot.bytes_done.saturating_mul(100).checked_div(snapshot.bytes_total);
        table.row([
            snapshot.id.to_string(),
            or_dash(snapshot.name.clone()),
            snapshot.kind.name().to_owned(),
            snapshot.state.name().to_owned(),
            snapshot.requested.strftime("%F %T").to_string(),
            snapshot.epoch.to_string(),
            done.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%")),
            size(snapshot.uploaded),
            note(snapshot),
        ]);
    }
    table
}
