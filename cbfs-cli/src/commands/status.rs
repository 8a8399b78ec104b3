//! `cbfs status`

use super::live;
use crate::cli::StatusArgs;
use crate::context::Context;
use crate::control::Client;
use crate::control::api::{AccessView, FilesystemStatus, HeldView, Role};
use crate::failure::Failure;
use crate::output::{self, Format, Table, or_dash};
use crate::settings::SettingView;
use crate::state::{Instance, LocalRole};

pub(super) async fn run(context: &Context, args: StatusArgs) -> Result<(), Failure> {
    let instances = match &args.fs {
        None => context.state.instances()?,
        Some(target) => {
            let found = live::instances(context, target)?;
            if found.is_empty() {
                return Err(Failure::not_found(format!("this node has no instance of {target}"))
                    .with_hint("cbfs status shows what it has; cbfs list STORE what there is"));
            }
            found
        }
    };
    let mut all = Vec::with_capacity(instances.len());
    for instance in &instances {
        let mut status = status_of(instance).await;
        if args.config {
            status.settings = Some(settings_of(context, instance, &status).await?);
        }
        all.push(status);
    }
    output::print_list(context.format, &all, table)?;
    if args.config && context.format == Format::Text {
        return print_settings(context, &all);
    }
    Ok(())
}

/// The daemon's word, or what its directory says where none answers.
async fn status_of(instance: &Instance) -> FilesystemStatus {
    let pid = instance.pid();
    if pid.is_some() {
        let client = Client::new(instance.socket(), instance.name());
        match client.status().await {
            Ok(mut status) if !status.filesystems.is_empty() => return status.filesystems.swap_remove(0),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the daemon does not answer"),
        }
    }
    let local = instance.local();
    FilesystemStatus {
        name: local.name.clone(),
        store: local.store.clone(),
        role: if local.role == LocalRole::Master { Role::Master } else { Role::Slave },
        selector: local.snapshot.clone(),
        mount_point: local.mount_point.clone(),
        instance: instance.dir().to_owned(),
        running: false,
        pid,
        version: None,
        agent: None,
        held: None,
        requests: None,
        settings: None,
    }
}

/// What the daemon uses; where none runs, what it would.
async fn settings_of(
    context: &Context,
    instance: &Instance,
    status: &FilesystemStatus,
) -> Result<Vec<SettingView>, Failure> {
    if status.running {
        return Ok(Client::new(instance.socket(), instance.name()).settings().await?.settings);
    }
    let settings = context.settings(instance.name(), &instance.config()?.settings, &[])?;
    Ok(settings.lines().to_vec())
}

fn table(all: &[FilesystemStatus]) -> Table {
    let mut table = Table::new(&["NAME", "MOUNT POINT", "ROLE", "STATE", "EPOCH", "SNAPSHOT", "QUEUED", "NOTE"]);
    for status in all {
        let agent = status.agent.as_ref();
        let state = match agent.map(|agent| agent.access) {
            Some(AccessView::ReadWrite) => "read-write",
            Some(AccessView::ReadOnly) => "read-only",
            None if status.pid.is_some() => "no answer",
            None => "not mounted",
        };
        let role = match status.role {
            Role::Master => "master",
            Role::Slave => "slave",
            Role::Deposed => "deposed",
        };
        let note = match agent {
            Some(agent) if agent.problem.is_some() => agent.problem.clone().unwrap_or_default(),
            Some(agent) if agent.store_reachable == Some(false) => "the store does not answer".to_owned(),
            _ => status.held.as_ref().map(held_note).unwrap_or_default(),
        };
        table.row([
            status.name.clone(),
            or_dash(status.mount_point.as_ref().map(|path| path.display())),
            role.to_owned(),
            state.to_owned(),
            or_dash(agent.map(|agent| agent.epoch)),
            or_dash(agent.and_then(|agent| agent.snapshot)),
            or_dash(agent.map(|agent| agent.queued)),
            note,
        ]);
    }
    table
}

/// What a person should know of how the mount is kept.
fn held_note(held: &HeldView) -> String {
    if let Some(reason) = &held.unheld {
        return format!("ends with its daemon: {reason}");
    }
    match (held.restarts, held.restarted, &held.restart_reason) {
        (0, _, _) => String::new(),
        (count, Some(at), Some(reason)) => format!("restarts: {count}, last at {at:.0}: {reason}"),
        (count, _, _) => format!("restarts: {count}"),
    }
}

fn print_settings(context: &Context, all: &[FilesystemStatus]) -> Result<(), Failure> {
    for status in all {
        let mut table = Table::new(&["SETTING", "VALUE", "SOURCE"]);
        for line in status.settings.iter().flatten() {
            table.row([line.key.clone(), or_dash(line.value.clone()), line.source.clone()]);
        }
        output::print_text(&format!("\n{}\n{table}", status.name))?;
    }
    if all.is_empty() {
        let settings = context.node_settings()?;
        let mut table = Table::new(&["SETTING", "VALUE", "SOURCE"]);
        for line in settings.lines() {
            table.row([line.key.clone(), or_dash(line.value.clone()), line.source.clone()]);
        }
        output::print_text(&table)?;
    }
    Ok(())
}
