//! The running daemon that a user means: by name, UUID prefix, snapshot or a path inside the mount.

use crate::address::Target;
use crate::bucket;
use crate::context::Context;
use crate::control::Client;
use crate::failure::{Failure, FailureKind};
use crate::mounts;
use crate::state::{Instance, LocalRole};
use std::path::Path;

/// Which one, where several mounts of a filesystem run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefer {
    /// The one that writes.
    Master,
    /// The slave of the newest snapshot.
    Slave,
}

/// All instances, running or not, that a target means.
pub(super) fn instances(context: &Context, target: &str) -> Result<Vec<Instance>, Failure> {
    match Target::parse(target)? {
        Target::Path(path) => at_path(context, &path),
        Target::Named(address) => {
            let address = bucket::canonical(address)?;
            let mut found = context.state.of_address(&address)?;
            if let Some(snapshot) = &address.snapshot {
                found.retain(|instance| instance.local().snapshot.as_ref() == Some(snapshot));
            }
            Ok(found)
        }
    }
}

/// The client of the daemon that a target means.
pub(super) fn client(context: &Context, target: &str, prefer: Prefer) -> Result<Client, Failure> {
    let mut running = instances(context, target)?;
    running.retain(|instance| instance.pid().is_some());
    if prefer == Prefer::Slave && names_no_mount(target)? {
        // A look at the past must not become the master because nothing else is mounted.
        running.retain(|i| i.local().role != LocalRole::Slave || i.local().snapshot.as_deref() == Some("latest"));
    }
    running.sort_by_key(|instance| (rank(instance, prefer), std::cmp::Reverse(instance.local().promoted_to)));
    match running.first() {
        Some(instance) => Ok(Client::new(instance.socket(), instance.name())),
        None => Err(Failure::not_found(format!("{target} is not mounted on this node"))
            .with_hint(format!("cbfs mount {target} DIR; cbfs status shows what is mounted"))),
    }
}

/// Whether a target is a filesystem alone: no path, no snapshot.
fn names_no_mount(target: &str) -> Result<bool, Failure> {
    Ok(match Target::parse(target)? {
        Target::Named(address) => address.snapshot.is_none(),
        Target::Path(_) => false,
    })
}

fn rank(instance: &Instance, prefer: Prefer) -> u8 {
    let local = instance.local();
    match (prefer, local.role) {
        (Prefer::Master, LocalRole::Master) => 0,
        (Prefer::Slave, LocalRole::Slave) if local.snapshot.as_deref() == Some("latest") => 0,
        (_, LocalRole::Promoting) => 1,
        (_, LocalRole::Slave) => 2,
        (Prefer::Slave, LocalRole::Master) => 3,
    }
}

/// The instances last mounted where `path` lies.
fn at_path(context: &Context, path: &Path) -> Result<Vec<Instance>, Failure> {
    let path = mounts::absolute(path)?;
    let table = mounts::table()?;
    let not_ours =
        || Failure::not_found(format!("{} is not in a mount of cbfs", path.display())).with_hint("cbfs status");
    let line = mounts::covering(&table, &path).ok_or_else(not_ours)?;
    let name = line.filesystem().ok_or_else(not_ours)?;
    let mut found = context.state.instances()?;
    let here = |i: &Instance| i.local().mount_point.as_ref() == Some(&line.mount_point) && i.local().name == name;
    found.retain(here);
    if found.is_empty() {
        return Err(Failure::new(
            FailureKind::NotFound,
            format!("{} is a mount of {name}, but not by this node", line.mount_point.display()),
        )
        .with_hint("name the node's state directory with --state-dir"));
    }
    Ok(found)
}
