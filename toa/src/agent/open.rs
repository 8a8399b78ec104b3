//! Opening an agent: first use, restart, slave.

use super::evacuate::Evacuating;
use super::meter::Meter;
use super::rows::{self, DeposedRow, NodeIntents};
use super::{Agent, AgentOptions, AgentSetup, SnapshotSelector, State, attempt, follow, system_clock, worker};
use crate::base::{Objects, ObjectsOptions, RunBase};
use crate::error::AgentError;
use crate::proxy::{Proxy, ProxyOptions};
use crate::snapshot::JobRows;
use crate::status::Role;
use cloud_mgmt::config::{AccessMode, ConfigError, unknown_feature};
use cloud_mgmt::ledger::{Appender, History, Ledger, LedgerError, SnapshotEntry, Writer};
use cloud_mgmt::names::FsName;
use kvfs::acl::AclSupport;
use kvfs::base::{Base, EmptyBase};
use kvfs::data::DataOptions;
use kvfs::engine::{Engine, EngineIdentity, EngineOptions, EngineSetup, InstanceDirs, create_instance, identity_of};
use kvfs::fs::Fs;
use kvfs::node::NodeStore;
use kvfs::stack::Stack;
use kvfs::{Epoch, FsError};
use parking_lot::Mutex;
use std::sync::Arc;
use uuid::Uuid;

/// What every kind of agent has.
struct Parts {
    setup: AgentSetup,
    node: Arc<NodeStore>,
    proxy: Arc<Proxy>,
    objects: Arc<Objects>,
    appender: Appender,
}

impl Parts {
    fn open(setup: AgentSetup) -> Result<Self, AgentError> {
        let dirs = InstanceDirs::new(&setup.instance_dir);
        let node = Arc::new(NodeStore::open(&dirs.node())?);
        let proxy_dir = setup.instance_dir.join("proxy");
        let proxy = Proxy::open(&proxy_dir, ProxyOptions { max_bytes: setup.options.proxy_max_bytes })?;
        let fetch_timeout_ms = setup.options.fetch_timeout.as_millis() as u64;
        let options = ObjectsOptions { fetch_timeout_ms, ..ObjectsOptions::default() };
        let objects = Objects::new(Arc::clone(&proxy), Arc::clone(&setup.store), setup.runtime.clone(), options);
        let writer = Writer { node: rows::node_id(&node)?, incarnation: Uuid::new_v4(), host: setup.host.clone() };
        let ledger = Ledger::new(Arc::clone(&setup.store), setup.name.clone());
        let appender = Appender::new(ledger, Arc::new(NodeIntents::new(Arc::clone(&node))), writer)
            .summarizing_every(setup.options.summary_every_records);
        Ok(Self { setup, node, proxy, objects, appender })
    }

    /// The ledger as it is now; a filesystem that was deleted is refused.
    fn history(&self) -> Result<Arc<History>, AgentError> {
        // Every request has its limit; a long ledger takes as long as it takes.
        let history = self.setup.runtime.block_on(self.appender.ledger().history())?;
        rows::check_tip(&self.node, &history)?;
        match history.deletion() {
            None => Ok(history),
            Some(deletion) => {
                let fs = self.setup.name.to_string();
                Err(LedgerError::Deleted { fs, deletion: Box::new(deletion.clone()) }.into())
            }
        }
    }

    fn agent(self, role: Role, fs: Arc<Fs>, start: Start) -> Arc<Agent> {
        let state = State {
            role,
            epoch: start.epoch,
            confirmed: start.confirmed,
            base: start.entry,
            checked: None,
            interval_began: None,
            store_reachable: start.confirmed.then_some(true),
            problem: None,
            meter: Meter::default(),
        };
        Arc::new(Agent {
            jobs: JobRows::new(Arc::clone(&self.node)),
            setup: self.setup,
            node: self.node,
            proxy: self.proxy,
            objects: self.objects,
            appender: self.appender,
            fs,
            clock: system_clock(),
            state: Mutex::new(state),
            run_base: Mutex::new(start.base),
            worker: worker::Worker::default(),
            following: follow::Following::default(),
            attempt: attempt::Attempt::default(),
            evacuating: Evacuating::default(),
            line: Mutex::new(()),
            invalidate: Mutex::new(None),
            requesting: Mutex::new(()),
            promoting: tokio::sync::Mutex::new(()),
        })
    }
}

/// Where an agent starts.
struct Start {
    epoch: u32,
    confirmed: bool,
    entry: Option<Arc<SnapshotEntry>>,
    base: Option<Arc<RunBase>>,
}

/// A snapshot's base, or the empty one.
pub(super) fn open_base(
    objects: &Arc<Objects>,
    entry: Option<&SnapshotEntry>,
) -> Result<Option<Arc<RunBase>>, AgentError> {
    entry.map(|entry| RunBase::open(objects, entry).map(Arc::new)).transpose().map_err(Into::into)
}

/// The same for the filesystem core.
pub(super) fn as_base(base: Option<&Arc<RunBase>>) -> Arc<dyn Base> {
    match base {
        Some(base) => Arc::clone(base) as _,
        None => Arc::new(EmptyBase),
    }
}

/// The engine's sizes from the agent's.
pub(super) fn engine_setup(setup: &AgentSetup, node: &Arc<NodeStore>, stack: Arc<Stack>) -> EngineSetup {
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let AgentOptions { kvs_max_bytes, journal_max_bytes, .. } = setup.options;
    let data = DataOptions { max_bytes: kvs_max_bytes, ..DataOptions::default() };
    EngineSetup {
        dirs: InstanceDirs::new(&setup.instance_dir),
        node: Arc::clone(node),
        stack,
        owner,
        now: system_clock().now(),
        options: EngineOptions { data, journal_max_bytes, ..EngineOptions::default() },
        opening: setup.opening,
    }
}

/// See [`Agent::open_master`].
pub(super) fn master(setup: AgentSetup) -> Result<Arc<Agent>, AgentError> {
    setup.config.check_features(AccessMode::ReadWrite)?;
    let parts = Parts::open(setup)?;
    let agent = match identity_of(&parts.node)? {
        Some(identity) => restart(parts, identity)?,
        None => first_use(parts)?,
    };
    Agent::start_worker(&agent)?;
    Ok(agent)
}

/// The instance exists: everything that is needed is here, the bucket may be away (I8).
fn restart(parts: Parts, identity: EngineIdentity) -> Result<Arc<Agent>, AgentError> {
    let entry: Option<Arc<SnapshotEntry>> = parts.node.get::<SnapshotEntry>(rows::BASE)?.map(Arc::new);
    let base = open_base(&parts.objects, entry.as_deref())?;
    let stack = Arc::new(Stack::read_only(as_base(base.as_ref())));
    let engine = Engine::open(engine_setup(&parts.setup, &parts.node, stack))?;
    let deposed: Option<DeposedRow> = parts.node.get(rows::DEPOSED)?;
    if let Some(row) = &deposed {
        engine.make_read_only(&row.reason);
    }
    let role = if deposed.is_some() { Role::Deposed } else { Role::Master };
    let start = Start { epoch: identity.epoch.0, confirmed: false, entry, base };
    let fs = Arc::new(Fs::new(engine, system_clock()).with_acls(acls_of(&parts.setup)));
    Ok(parts.agent(role, fs, start))
}

/// Nobody has been master on this node yet: the ledger decides whether it may be.
fn first_use(parts: Parts) -> Result<Arc<Agent>, AgentError> {
    let history = parts.history()?;
    let state = history.state();
    let epoch = match state.master {
        None => parts.setup.runtime.block_on(parts.appender.claim_first_epoch()),
        // An earlier attempt of this node got that far and no further.
        Some(node) if node == parts.appender.writer().node => {
            parts.setup.runtime.block_on(parts.appender.resume_epoch(state.epoch))
        }
        Some(_) => return Err(held(&parts, &history)),
    };
    match epoch {
        Ok(_) => {}
        Err(LedgerError::EpochMismatch { .. }) => {
            let history = parts.history()?;
            return Err(held(&parts, &history));
        }
        Err(error) => return Err(error.into()),
    }
    let history = parts.history()?;
    let entry = history.newest_snapshot().map(|published| published.snapshot);
    check_snapshot_features(entry.as_deref(), AccessMode::ReadWrite)?;
    let base = open_base(&parts.objects, entry.as_deref())?;
    let epoch = history.state().epoch;
    prepare_instance(&parts.setup, &parts.node, (epoch, entry.as_deref()), base.as_ref())?;
    let stack = Arc::new(Stack::read_only(as_base(base.as_ref())));
    let engine = Engine::open(engine_setup(&parts.setup, &parts.node, stack))?;
    let start = Start { epoch, confirmed: true, entry, base };
    let fs = Arc::new(Fs::new(engine, system_clock()).with_acls(acls_of(&parts.setup)));
    Ok(parts.agent(Role::Master, fs, start))
}

/// Makes the local files of a new master: the base's index first, whole, so that no look-up needs the network.
pub(super) fn prepare_instance(
    setup: &AgentSetup,
    node: &Arc<NodeStore>,
    reign: (u32, Option<&SnapshotEntry>),
    base: Option<&Arc<RunBase>>,
) -> Result<(), AgentError> {
    let (epoch, entry) = reign;
    if let Some(base) = base {
        base.make_local()?;
    }
    if let Some(entry) = entry {
        node.persist_row(rows::BASE, entry)?;
    }
    let identity = EngineIdentity { fs: setup.name.id, epoch: Epoch(epoch) };
    let made = create_instance(&InstanceDirs::new(&setup.instance_dir), node, identity, as_base(base).as_ref());
    match made {
        Ok(()) => Ok(()),
        // An earlier attempt of the same reign made it.
        Err(FsError::Exists) if identity_of(node)? == Some(identity) => Ok(()),
        Err(FsError::Exists) => Err(AgentError::Role {
            what: format!("the local files are those of another reign than epoch {epoch}"),
            hint: Some(format!("mount {}@latest with another state directory, and promote that", setup.name.tag)),
        }),
        Err(error) => Err(error.into()),
    }
}

fn held(parts: &Parts, history: &History) -> AgentError {
    let holder = history.holder().map_or_else(
        || "nobody".to_owned(),
        |holder| {
            let name = if holder.host.is_empty() { holder.node.to_string() } else { holder.host.clone() };
            format!("node {name} ({}) since {:.0}", holder.node, holder.since)
        },
    );
    AgentError::Held { fs: parts.setup.name.tag.to_string(), epoch: history.state().epoch, holder }
}

/// See [`Agent::open_slave`].
pub(super) fn slave(setup: AgentSetup, selector: &SnapshotSelector) -> Result<Arc<Agent>, AgentError> {
    setup.config.check_features(AccessMode::ReadOnly)?;
    let parts = Parts::open(setup)?;
    let history = parts.history()?;
    let entry = select(&parts.setup.name, &history, selector)?;
    check_snapshot_features(Some(&entry), AccessMode::ReadOnly)?;
    let base = open_base(&parts.objects, Some(&entry))?;
    let stack = Arc::new(Stack::read_only(as_base(base.as_ref())));
    let epoch = history.state().epoch;
    let start = Start { epoch, confirmed: true, entry: Some(entry), base };
    let fs = Arc::new(Fs::read_only(stack, system_clock()).with_acls(acls_of(&parts.setup)));
    Ok(parts.agent(Role::Slave, fs, start))
}

/// A slave enforces what its master does.
fn acls_of(setup: &AgentSetup) -> AclSupport {
    if setup.config.has_acls() { AclSupport::Enforced } else { AclSupport::Absent }
}

/// Refuses a snapshot that needs what this version does not know.
pub(crate) fn check_snapshot_features(entry: Option<&SnapshotEntry>, mode: AccessMode) -> Result<(), AgentError> {
    let Some(entry) = entry else { return Ok(()) };
    match unknown_feature(&entry.features, mode) {
        None => Ok(()),
        Some(feature) => {
            let object = format!("snapshot {}", entry.id);
            Err(ConfigError::UnknownFeature { object, feature: feature.to_owned() }.into())
        }
    }
}

/// The live snapshot that is meant; of several with a name, the newest.
pub(crate) fn select(
    name: &FsName,
    history: &History,
    selector: &SnapshotSelector,
) -> Result<Arc<SnapshotEntry>, AgentError> {
    let fs = name.tag.to_string();
    let found = match selector {
        SnapshotSelector::Latest => history.newest_snapshot(),
        SnapshotSelector::Named(text) => {
            let id = Uuid::try_parse(text).ok();
            let mut fitting = history.snapshots();
            fitting.retain(|p| Some(p.snapshot.id) == id || p.snapshot.name.as_deref() == Some(text));
            fitting.pop()
        }
    };
    let what = match selector {
        SnapshotSelector::Latest => "snapshot yet".to_owned(),
        SnapshotSelector::Named(text) => format!("snapshot {text:?}"),
    };
    found.map(|published| published.snapshot).ok_or(AgentError::NoSnapshot { fs, what })
}
