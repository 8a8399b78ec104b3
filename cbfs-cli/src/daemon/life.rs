//! The life of a daemon: lock, open, mount, listen, report, wait, unmount, close. One that follows another finds the
//! lock taken and the mount there, and must not look at the mount before it serves it: it would wait for itself.

use super::alerts;
use super::background::{redirect_log, report_ready};
use super::holding::Holding;
use super::kept::{self, KeptMount};
use super::plan::{MountPlan, MountReport, Ready, Stays};
use super::prepare;
use super::service::{AgentService, is_refusal};
use super::stop::{End, Signals, Wishes};
use crate::bucket;
use crate::context::Context;
use crate::control::{Service, server, socket};
use crate::failure::{Failure, FailureKind};
use crate::holder::{HANDED_OVER, Link, Restarts, Welcomed};
use crate::mounts;
use crate::settings::{Restart, Settings, keys};
use crate::state::lock::InstanceLock;
use crate::state::{Instance, LocalRole};
use cloud_mgmt::store::RequestCounter;
use cloud_mgmt::store::url::StoreUrl;
use kvfs::engine::Opening;
use kvfs::fuse::{Connection, Mount, MountOptions, OpenMode, Remembered, mount, serve as serve_connection};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use toa::{Agent, AgentOptions, AgentSetup, SnapshotSelector};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What is left to end by itself when the daemon ends: nothing that matters is in it.
const RUNTIME_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Serves a mount until it ends.
pub fn run(context: &Context, plan: MountPlan, ready: (Ready, Stays), welcomed: Welcomed) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("cbfs-async")
        .build()
        .map_err(|error| Failure::from_io(&error, "start", Path::new("the runtime")))?;
    let result = runtime.block_on(live(context, plan, ready, welcomed));
    runtime.shutdown_timeout(RUNTIME_ENDS_WITHIN);
    result
}

async fn live(
    context: &Context,
    plan: MountPlan,
    (ready, stays): (Ready, Stays),
    welcomed: Welcomed,
) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    let Welcomed { life, restarts, kept, link } = welcomed;
    let kept = kept.map(|(text, descriptors)| KeptMount::read(&text, descriptors)).transpose()?;
    let (instance, lock, mounted) = if let Some(KeptMount { connection, lock, instance, shown }) = kept {
        let lock = InstanceLock::resume(&instance, lock)?;
        (Instance::open(instance)?, lock, Mounted::Before { connection, shown })
    } else {
        let instance = prepare::instance(context, &plan).await?;
        let lock = InstanceLock::take(instance.dir())?;
        // Read again: before the lock was ours its holder may have changed it.
        (Instance::open(instance.dir().to_owned())?, lock, Mounted::NotYet)
    };
    let in_background = stays == Stays::Background;
    if in_background {
        redirect_log(&instance.log())?;
    }
    let log = in_background.then(|| instance.log());
    let post = Post { lock, link, life, restarts, ready, log };
    let result = live_in(context, &plan, (instance, mounted), &mut signals, post).await;
    if let Err(failure) = &result
        && in_background
    {
        tracing::error!(kind = %failure.kind, hint = failure.hint, "{failure}");
    }
    result
}

/// Whether the mount is there.
enum Mounted {
    /// It is to be made.
    NotYet,
    /// An earlier daemon made it; a slave shows that snapshot.
    Before { connection: Connection, shown: Option<Uuid> },
}

impl Mounted {
    /// The number of an earlier daemon's connection.
    fn number(&self) -> Option<u32> {
        match self {
            Mounted::NotYet => None,
            Mounted::Before { connection, .. } => Some(connection.facts().number),
        }
    }
}

/// What a daemon has from its holder and of its instance.
struct Post {
    lock: InstanceLock,
    link: Link,
    life: u32,
    restarts: Restarts,
    ready: Ready,
    log: Option<PathBuf>,
}

/// With the instance's lock held.
async fn live_in(
    context: &Context,
    plan: &MountPlan,
    (mut instance, mounted): (Instance, Mounted),
    signals: &mut Signals,
    post: Post,
) -> Result<(), Failure> {
    let config = instance.config()?;
    let settings = context.settings(instance.name(), &config.settings, &plan.flags)?;
    let mount_point = match &mounted {
        Mounted::Before { connection, .. } => connection.facts().path.clone(),
        Mounted::NotYet => {
            let dir = mount_point(plan, &settings, &instance)?;
            mounts::clear_dead_mount(&dir)?;
            mounts::check_mount_point(&dir)?;
            dir
        }
    };
    let url = bucket::parse_store(&instance.local().store)?;
    let (agent, requests) = match open_agent(&mut instance, &settings, &url, &mounted).await {
        Ok(opened) => opened,
        Err(failure) => {
            let root = instance.dir().display().to_string();
            give_up(instance, &failure);
            return Err(if failure.kind == FailureKind::NoSpace {
                failure.with_hint(format!("nothing is lost: make room below {root}, then mount again"))
            } else {
                failure
            });
        }
    };
    let opened = Opened { agent: Arc::clone(&agent), requests, instance, settings, url, mount_point, mounted, post };
    let served = serve(opened, signals).await;
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

async fn open_agent(
    instance: &mut Instance,
    settings: &Settings,
    url: &StoreUrl,
    mounted: &Mounted,
) -> Result<(Arc<Agent>, Arc<RequestCounter>), Failure> {
    let local = instance.local();
    let (opening, shown) = match mounted {
        Mounted::NotYet => (Opening::Fresh, None),
        Mounted::Before { connection, shown } => {
            (Opening::Resumed { connection: connection.facts().number }, shown.as_ref())
        }
    };
    // A master that served before needs no store. All others do, and are told at once if it is away.
    if local.role != LocalRole::Master || !local.served {
        bucket::check_reachable(url, instance.name()).await?;
    }
    let limits = settings.limits()?;
    let (store, requests) = bucket::connect_counted(url, limits.upload_concurrency).await?;
    let setup = AgentSetup {
        store,
        name: instance.name().clone(),
        config: instance.config()?,
        instance_dir: instance.dir().to_owned(),
        host: host(),
        options: AgentOptions {
            check_interval: limits.check_interval,
            proxy_max_bytes: limits.proxy_max_bytes,
            kvs_max_bytes: limits.kvs_max_bytes,
            journal_max_bytes: limits.journal_max_bytes,
            fetch_timeout: limits.fetch_timeout,
            upload_concurrency: limits.upload_concurrency,
            snapshot_interval: limits.snapshot_interval,
            failure: limits.failure,
            listing: limits.listing,
            run_part_bytes: toa::collect::RUN_PART_BYTES,
            summary_every_records: cloud_mgmt::ledger::SUMMARY_EVERY_RECORDS,
            evacuation_bytes_min: toa::EVACUATION_BYTES_MIN,
        },
        alerts: alerts::by_command(settings.text(keys::ALERT_COMMAND))?,
        runtime: tokio::runtime::Handle::current(),
        opening,
    };
    let role = local.role;
    if role == LocalRole::Slave {
        let selector = match (shown, local.snapshot.as_deref()) {
            (Some(id), _) => SnapshotSelector::Named(id.to_string()),
            (None, None | Some("latest")) => SnapshotSelector::Latest,
            (None, Some(snapshot)) => SnapshotSelector::Named(snapshot.to_owned()),
        };
        return Ok((Agent::open_slave(setup, selector).await?, requests));
    }
    let opened = Agent::open_master(setup).await.map_err(Failure::from);
    match &opened {
        Ok(agent) if role == LocalRole::Promoting => instance.update(|local| {
            local.took_over(agent.status().epoch);
            if shown != agent.status().snapshot.as_ref() {
                local.moved = mounted.number();
            }
        })?,
        Err(failure) if role == LocalRole::Promoting && is_refusal(failure.kind) => {
            tracing::warn!("the promotion that was begun did not happen: this is a slave as before");
            instance.update(|local| local.role = LocalRole::Slave)?;
            if matches!(mounted, Mounted::Before { .. }) {
                // Its open files go on as they were.
                return Box::pin(open_agent(instance, settings, url, mounted)).await;
            }
        }
        _ => {}
    }
    opened.map(|agent| (agent, requests))
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
    requests: Arc<RequestCounter>,
    instance: Instance,
    settings: Settings,
    url: StoreUrl,
    mount_point: PathBuf,
    mounted: Mounted,
    post: Post,
}

/// From the mount to the unmount.
async fn serve(opened: Opened, signals: &mut Signals) -> Result<(), Failure> {
    let Opened { agent, requests, mut instance, settings, url, mount_point, mounted, post } = opened;
    let listener = socket::listen(&instance.socket())?;
    let restart = settings.restart()?;
    let resumed = mounted.number();
    let mount = Arc::new(mount_agent(&agent, &instance, &mount_point, mounted, post.life)?);
    if post.life == 0 {
        instance.update(|local| {
            local.mount_point = Some(mount_point);
            local.served = true;
        })?;
    }
    let Post { lock, link, life, restarts, ready, log } = post;
    let not_left = match (mount.connection(), restart) {
        (None, _) => Some("this kernel is older than Linux 6.9"),
        (_, Restart::Off) => Some("daemon.restart is off"),
        (Some(connection), Restart::On) => {
            if life == 0 {
                kept::leave(&link, connection, &lock, &instance, agent.status().snapshot)?;
            }
            None
        }
    };
    let holding = Arc::new(Holding::new(link.clone(), restarts, not_left));
    let watching = tokio::spawn(Arc::clone(&holding).watch(Arc::clone(&agent)));

    let wishes = Wishes::default();
    let service = Arc::new(AgentService {
        agent: Arc::clone(&agent),
        url,
        name: instance.name().clone(),
        settings: settings.lines().to_vec(),
        facts: instance.clone(),
        local: instance.clone().into(),
        resumed,
        end: wishes.end.clone(),
        hand_over: wishes.hand_over.clone(),
        holding,
        requests,
    });
    let served_until = CancellationToken::new();
    let control = tokio::spawn(server::serve(listener, service.clone(), served_until.clone()));

    let report = report(&service.status(), &instance)?;
    tracing::info!(name = %report.name, mount_point = %report.mount_point.display(), life, "{report}");
    match ready {
        Ready::Call(call) => call(&report)?,
        Ready::Pipe => report_ready(&report)?,
        Ready::Silent => {}
    }
    link.serving(log);

    let end = signals.wait_for_end(&mount, &wishes).await;
    watching.abort();
    served_until.cancel();
    if end == End::HandOver {
        end_control(control).await;
        make_room(&agent, &link).await;
    }
    link.stopping();
    let unmounted = tokio::task::spawn_blocking(move || mount.unmount()).await;
    unmounted.map_err(|error| Failure::new(FailureKind::Bug, format!("unmount: {error}")))??;
    end_control(control).await;
    Ok(())
}

/// A client that does not hang up must not keep the checkpoint waiting.
async fn end_control(control: tokio::task::JoinHandle<std::io::Result<()>>) {
    let abort = control.abort_handle();
    match tokio::time::timeout(CONTROL_LINGERS, control).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the control API has ended"),
        Ok(Err(error)) => tracing::warn!(%error, "the control API broke off"),
        Err(_) => abort.abort(),
    }
}

/// Ends this process so that the next one can go on. It is the end that `kill -9` makes, at a good moment: what is under
/// way was not answered and is sent again, what was committed is in the journal, and most of that in the layers.
async fn make_room(agent: &Arc<Agent>, link: &Link) -> ! {
    if let Err(error) = agent.checkpoint().await {
        tracing::warn!(%error, "the checkpoint before the change failed: the next daemon has more to recover");
    }
    link.handing_over("an upgrade was asked for");
    std::process::exit(i32::from(HANDED_OVER));
}

fn mount_agent(
    agent: &Arc<Agent>,
    instance: &Instance,
    dir: &Path,
    mounted: Mounted,
    life: u32,
) -> Result<Mount, Failure> {
    let open = match instance.local().role {
        LocalRole::Master => OpenMode::Stateless,
        LocalRole::Slave | LocalRole::Promoting => OpenMode::Answered,
    };
    let mut options = MountOptions::new(format!("cbfs:{}", instance.name()), open);
    if mounted.number().is_some_and(|number| instance.local().moved == Some(number)) {
        options.remembered = Remembered::Void;
    }
    let mount = match mounted {
        Mounted::NotYet => mount(agent.file_system(), dir, options)?,
        Mounted::Before { connection, .. } => serve_connection(agent.file_system(), connection, life, &options)?,
    };
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

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
