//! Promotion: a mounted slave becomes the master.

use super::open::{as_base, check_snapshot_features, engine_setup, open_base, prepare_instance};
use super::{Agent, blocking, rows};
use crate::error::AgentError;
use crate::status::Role;
use cloud_mgmt::config::AccessMode;
use kvfs::engine::Engine;
use std::sync::Arc;
use std::time::Duration;

/// How long a person waits for the ledger's answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// See [`Agent::promote`].
pub(super) async fn promote(agent: &Arc<Agent>, epoch: u32) -> Result<u32, AgentError> {
    let _turn = agent.promoting.lock().await;
    let role = agent.state.lock().role;
    if role != Role::Slave {
        let tag = &agent.setup.name.tag;
        let what = match role {
            Role::Master => format!("this mount of {tag} is its master already"),
            _ => format!("this node was deposed as master of {tag}: its changes are still here"),
        };
        let hint = Some(format!("mount {tag}@latest with another state directory, and promote that"));
        return Err(AgentError::Role { what, hint });
    }
    let ready = Arc::clone(agent);
    blocking(move || prepare_reign(&ready)).await?;
    // Cut off in the middle, the intent stays on disk, and the next attempt finds out what became of it.
    let append = tokio::time::timeout(ANSWER_WITHIN, agent.appender.promote(epoch)).await;
    let waited = || AgentError::TimedOut { what: format!("promotion to epoch {}", epoch + 1), seconds: 8 };
    append.map_err(|_| waited())??;
    fail::fail_point!("toa::promote::after_epoch");
    let agent = Arc::clone(agent);
    blocking(move || begin_reign(&agent, epoch + 1)).await
}

/// Whether this node could reign, before it takes the reign from anybody: formats, room for the index.
fn prepare_reign(agent: &Arc<Agent>) -> Result<(), AgentError> {
    agent.setup.config.check_features(AccessMode::ReadWrite)?;
    let history = agent.setup.runtime.block_on(agent.appender.ledger().history())?;
    rows::check_tip(&agent.node, &history)?;
    let newest = history.newest_snapshot().map(|published| published.snapshot);
    check_snapshot_features(newest.as_deref(), AccessMode::ReadWrite)?;
    match open_base(&agent.objects, newest.as_deref())? {
        Some(base) => Ok(base.make_local()?),
        None => Ok(()),
    }
}

/// The ledger says that this node is master of `epoch`: its base is the newest snapshot below.
fn begin_reign(agent: &Arc<Agent>, epoch: u32) -> Result<u32, AgentError> {
    let history = agent.setup.runtime.block_on(agent.appender.ledger().history())?;
    let entry = history.newest_snapshot().map(|published| published.snapshot);
    let shown = agent.state.lock().base.clone();
    let same = shown.as_ref().map(|s| s.id) == entry.as_ref().map(|e| e.id);
    let base = if same { agent.run_base.lock().clone() } else { open_base(&agent.objects, entry.as_deref())? };
    prepare_instance(&agent.setup, &agent.node, (epoch, entry.as_deref()), base.as_ref())?;
    let stack = Arc::clone(agent.fs.stack());
    let mut tiers = stack.load().duplicate();
    tiers.base = as_base(base.as_ref());
    let shown_before = stack.swap(tiers);
    let opened = Engine::open(engine_setup(&agent.setup, &agent.node, Arc::clone(&stack)));
    let engine = opened.inspect_err(|_| {
        // The slave goes on as it was, and nothing keeps the files of the failed attempt open.
        stack.swap(shown_before.duplicate());
    })?;
    agent.fs.attach(engine);
    *agent.run_base.lock() = base;
    {
        let mut state = agent.state.lock();
        (state.role, state.epoch, state.confirmed) = (Role::Master, epoch, true);
        state.base = entry;
    }
    Agent::start_worker(agent)?;
    if !same {
        agent.invalidate();
    }
    tracing::info!(epoch, "this node is the master now");
    Ok(epoch)
}
