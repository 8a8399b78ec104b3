//! The life of a daemon: lock, open, mount, listen, report, wait, unmount, close.

use super::background::{redirect_log, report_ready};
use super::plan::{MountPlan, MountReport, Ready};
use super::prepare;
use super::service::{AgentService, is_refusal};
use super::stop::Signals;
use crate::bucket;
use crate::context::Context;
use crate::control::{Service, server, socket};
use crate::failure::{Failure, FailureKind};
use crate::mounts;
use crate::settings::{Settings, keys};
use crate::state::lock::InstanceLock;
use crate::state::{Instance, LocalRole};
use cloud_mgmt::store::url::StoreUrl;
use kvfs::fuse::{Mount, MountOptions, OpenMode, mount};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use toa::{Agent, AgentOptions, AgentSetup, SnapshotSelector};
use tokio_util::sync::CancellationToken;

/// What is left to end by itself when the daemon ends: nothing that matters is in it.
const RUNTIME_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Serves a mount until it ends.
pub fn run(context: &Context, plan: MountPlan, ready: Ready) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("cbfs-async")
        .build()
        .map_err(|error| Failure::from_io(&error, "start", Path::new("the runtime")))?;
    let result = runtime.block_on(live(context, plan, ready));
    runtime.shutdown_timeout(RUNTIME_ENDS_WITHIN);
    result
}

async fn live(context: &Context, plan: MountPlan, ready: Ready) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    let instance = prepare::instance(context, &plan).await?;
    let lock = InstanceLock::take(instance.dir())?;
    let in_background = matches!(ready, Ready::Pipe);
    if in_background {
        redirect_log(&instance.log())?;
    }
    let result = live_in(context, &plan, instance, &mut signals, ready).await;
    if let Err(failure) = &result
        && in_background
    {
        tracing::error!(kind = %failure.kind, "{failure}");
    }
    drop(lock);
    result
}

/// With the instance's lock held.
async fn live_in(
    context: &Context,
    plan: &MountPlan,
    instance: Instance,
    signals: &mut Signals,
    ready: Ready,
) -> Result<(), Failure> {
    // Read again: before the lock was ours its holder may have changed it.
    let mut instance = Instance::open(instance.dir().to_owned())?;
    let config = instance.config()?;
    let settings = context.settings(instance.name(), &config.settings, &plan.flags)?;
    let mount_point = mount_point(plan, &settings, &instance)?;
    mounts::clear_dead_mount(&mount_point)?;
    mounts::check_mount_point(&mount_point)?;
    let url = bucket::parse_store(&instance.local().store)?;

    let agent = match open_agent(&mut instance, &settings, &url).await {
        Ok(agent) => agent,
        Err(failure) => {
            give_up(instance, &failure);
            return Err(failure);
        }
    };
    let opened = Opened { agent: Arc::clone(&agent), instance, settings, url, mount_point };
    let served = serve(opened, signals, ready).await;
    let closed = agent.close().await.map_err(Failure::from);
    served.and(closed)
}

/// The directory to mount on: named, set, or the last one.
fn mount_point(plan: &MountPlan, settings: &Settings, instance: &Instance) -> Result<PathBuf, Failure> {
    let set = || settings.text(keys::MOUNT_POINT).map(|text| mounts::absolute(Path::new(text))).transpose();
    let last = || instance.local().mount_point.clone();
    match &plan.mount_point {
        Some(dir) => Ok(dir.clone()),
        None => set()?.or_else(last).ok_or_else(|| {
            Failure::invalid(format!("no directory to mount {} on", plan.address))
                .with_hint(format!("cbfs mount {} DIR", plan.address))
        }),
    }
}

async fn open_agent(instance: &mut Instance, settings: &Settings, url: &StoreUrl) -> Result<Arc<Agent>, Failure> {
    let local = instance.local();
    // A master that served before needs no store. All others do, and are told at once if it is away.
    if local.role != LocalRole::Master || !local.served {
        bucket::check_reachable(url, instance.name()).await?;
    }
    let limits = settings.limits()?;
    let setup = AgentSetup {
        store: bucket::connect_daemon(url, limits.upload_concurrency).await?,
        name: instance.name().clone(),
        config: instance.config()?,
        instance_dir: instance.dir().to_owned(),
        host: host(),
        options: AgentOptions {
            check_interval: limits.check_interval,
            proxy_max_bytes: limits.proxy_max_bytes,
            kvs_max_bytes: limits.kvs_max_bytes,
            fetch_timeout: limits.fetch_timeout,
            upload_concurrency: limits.upload_concurrency,
        },
        runtime: tokio::runtime::Handle::current(),
    };
    let role = local.role;
    if role == LocalRole::Slave {
        let selector = match local.snapshot.as_deref() {
            None | Some("latest") => SnapshotSelector::Latest,
            Some(snapshot) => SnapshotSelector::Named(snapshot.to_owned()),
        };
        return Ok(Agent::open_slave(setup, selector).await?);
    }
    let opened = Agent::open_master(setup).await.map_err(Failure::from);
    match &opened {
        Ok(agent) if role == LocalRole::Promoting => instance.update(|local| {
            local.role = LocalRole::Master;
            local.snapshot = None;
            local.promoted_to = agent.status().epoch;
        })?,
        Err(failure) if role == LocalRole::Promoting && is_refusal(failure.kind) => {
            tracing::warn!("the promotion that was begun did not happen: this is a slave as before");
            instance.update(|local| local.role = LocalRole::Slave)?;
        }
        _ => {}
    }
    opened
}

/// An instance that was refused before it ever served is not left behind to be taken for a master later. Without a sure
/// answer it stays: the ledger may say that it is one.
fn give_up(instance: Instance, failure: &Failure) {
    if !instance.local().served && is_refusal(failure.kind) {
        let dir = instance.dir().to_owned();
        if let Err(error) = instance.remove_unserved() {
            tracing::warn!(%error, instance = %dir.display(), "an instance of no use stays");
        }
    }
}

/// How long requests may go on after the mount has gone.
const CONTROL_LINGERS: Duration = Duration::from_secs(2);

/// An agent with all that its mount needs.
struct Opened {
    agent: Arc<Agent>,
    instance: Instance,
    settings: Settings,
    url: StoreUrl,
    mount_point: PathBuf,
}

/// From the mount to the unmount.
async fn serve(opened: Opened, signals: &mut Signals, ready: Ready) -> Result<(), Failure> {
    let Opened { agent, mut instance, settings, url, mount_point } = opened;
    let listener = socket::listen(&instance.socket())?;
    let mount = Arc::new(mount_agent(&agent, &instance, &mount_point)?);
    instance.update(|local| {
        local.mount_point = Some(mount_point);
        local.served = true;
    })?;

    let end = CancellationToken::new();
    let service = Arc::new(AgentService {
        agent,
        url,
        name: instance.name().clone(),
        settings: settings.lines().to_vec(),
        facts: instance.clone(),
        local: instance.clone().into(),
        end: end.clone(),
    });
    let served_until = CancellationToken::new();
    let control = tokio::spawn(server::serve(listener, service.clone(), served_until.clone()));

    let report = report(&service.status(), &instance)?;
    tracing::info!(name = %report.name, mount_point = %report.mount_point.display(), "{report}");
    match ready {
        Ready::Call(call) => call(&report)?,
        Ready::Pipe => report_ready(&report)?,
    }
    tell_service_manager(sd_notify::NotifyState::Ready);

    signals.wait_for_end(&mount, &end).await;
    tell_service_manager(sd_notify::NotifyState::Stopping);
    served_until.cancel();
    let unmounted = tokio::task::spawn_blocking(move || mount.unmount()).await;
    unmounted.map_err(|error| Failure::new(FailureKind::Bug, format!("unmount: {error}")))??;
    let abort = control.abort_handle();
    // A client that does not hang up must not keep the checkpoint waiting.
    match tokio::time::timeout(CONTROL_LINGERS, control).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the control API has ended"),
        Ok(Err(error)) => tracing::warn!(%error, "the control API broke off"),
        Err(_) => abort.abort(),
    }
    Ok(())
}

fn mount_agent(agent: &Arc<Agent>, instance: &Instance, dir: &Path) -> Result<Mount, Failure> {
    let open = match instance.local().role {
        LocalRole::Master => OpenMode::Stateless,
        LocalRole::Slave | LocalRole::Promoting => OpenMode::Answered,
    };
    let mount = mount(agent.file_system(), dir, MountOptions::new(format!("cbfs:{}", instance.name()), open))?;
    let invalidator = mount.invalidator();
    agent.set_invalidate(Box::new(move || {
        if let Err(error) = invalidator.all() {
            tracing::warn!(%error, "the kernel's caches could not be voided");
        }
    }));
    Ok(mount)
}

fn report(status: &crate::control::api::FilesystemStatus, instance: &Instance) -> Result<MountReport, Failure> {
    let missing = || Failure::new(FailureKind::Bug, "the agent says nothing of itself");
    let agent = status.agent.as_ref().ok_or_else(missing)?;
    Ok(MountReport {
        name: status.name.clone(),
        store: status.store.clone(),
        mount_point: status.mount_point.clone().ok_or_else(missing)?,
        instance: instance.dir().to_owned(),
        role: status.role,
        access: agent.access,
        epoch: agent.epoch,
        pid: std::process::id(),
    })
}

fn tell_service_manager(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        tracing::debug!(%error, "no service manager listens");
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
