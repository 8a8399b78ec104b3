//! `cbfs upgrade`

use super::live::{self, Prefer};
use crate::cli::UpgradeArgs;
use crate::context::Context;
use crate::control::Client;
use crate::control::api::DaemonStatus;
use crate::failure::{Failure, FailureKind};
use crate::output;
use serde::Serialize;
use std::time::{Duration, Instant};

/// A recovery that takes longer is none: what was done was checkpointed.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(300);
const LOOK_PAUSE: Duration = Duration::from_millis(50);

#[derive(Serialize)]
struct Upgraded {
    name: String,
    previous_version: String,
    previous_pid: u32,
    version: String,
    pid: u32,
}

pub(super) async fn run(context: &Context, args: UpgradeArgs) -> Result<(), Failure> {
    let client = live::client(context, &args.fs, Prefer::Master)?;
    let before = client.status().await?;
    client.upgrade().await?;
    let now = next_daemon(&client, before.pid).await?;
    let upgraded = Upgraded {
        name: now.filesystems.into_iter().next().map(|filesystem| filesystem.name).unwrap_or_default(),
        previous_version: before.version,
        previous_pid: before.pid,
        version: now.version,
        pid: now.pid,
    };
    let text = format!(
        "{} is served by version {} now, process {} (was {}, process {})",
        upgraded.name, upgraded.version, upgraded.pid, upgraded.previous_version, upgraded.previous_pid
    );
    output::print(context.format, &upgraded, &text)
}

async fn next_daemon(client: &Client, before: u32) -> Result<DaemonStatus, Failure> {
    let start = Instant::now();
    loop {
        match client.status().await {
            Ok(status) if status.pid != before => return Ok(status),
            // The old one is about to go, or breaks off as it goes.
            Ok(_) => {}
            Err(failure) if failure.kind == FailureKind::Unavailable => {}
            Err(failure) => return Err(failure.with_hint("cbfs status shows what became of the mount")),
        }
        if start.elapsed() > FOLLOWS_WITHIN {
            let what = format!("no daemon has followed within {}", humantime::format_duration(FOLLOWS_WITHIN));
            return Err(Failure::new(FailureKind::Unavailable, what).with_hint("see daemon.log in the instance"));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
