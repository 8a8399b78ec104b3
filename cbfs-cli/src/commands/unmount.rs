//! `cbfs unmount`

use crate::cli::UnmountArgs;
use crate::context::Context;
use crate::control::Client;
use crate::failure::{Failure, FailureKind};
use crate::mounts;
use crate::output;
use crate::state::{Instance, lock};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct UnmountedFrom {
    name: String,
    mount_point: PathBuf,
}

pub(super) async fn run(context: &Context, args: UnmountArgs) -> Result<(), Failure> {
    let dir = mounts::absolute(&args.dir)?;
    let name = mounted_at(&dir)?.ok_or_else(|| {
        Failure::not_found(format!("{} is not a mount point of cbfs", dir.display())).with_hint("cbfs status")
    })?;
    match daemon_of(context, &name, &dir)? {
        Some(instance) => {
            let client = Client::new(instance.socket(), instance.name());
            // The lock may still have the name of one that was killed.
            let pid = client.status().await?.pid;
            client.shut_down().await?;
            // A checkpoint of what was written may take its time; until the lock is free nobody can mount it again.
            lock::wait_released(instance.dir().to_owned(), pid).await;
        }
        None => mounts::unmount_without_daemon(&dir)?,
    }
    if mounted_at(&dir)?.as_ref() == Some(&name) {
        return Err(Failure::new(FailureKind::Busy, format!("{} is still mounted", dir.display())));
    }
    let text = format!("unmounted {}", dir.display());
    output::print(context.format, &UnmountedFrom { name, mount_point: dir }, &text)
}

/// The filesystem mounted exactly there.
fn mounted_at(dir: &Path) -> Result<Option<String>, Failure> {
    let table = mounts::table()?;
    let line = mounts::covering(&table, dir).filter(|line| line.mount_point == dir);
    Ok(line.and_then(|line| line.filesystem()).map(ToOwned::to_owned))
}

fn daemon_of(context: &Context, name: &str, dir: &Path) -> Result<Option<Instance>, Failure> {
    let here =
        |i: &Instance| i.local().name == name && i.local().mount_point.as_deref() == Some(dir) && i.pid().is_some();
    Ok(context.state.instances()?.into_iter().find(here))
}
