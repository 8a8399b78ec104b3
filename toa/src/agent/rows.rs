//! The agent's rows in the node store.

use crate::error::AgentError;
use async_trait::async_trait;
use cloud_mgmt::ledger::{History, Intent, IntentError, IntentStore};
use jiff::Timestamp;
use kvfs::FsError;
use kvfs::node::{NodeChanges, NodeStore};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// The manifest of the base under the local layers; absent: the empty base.
pub const BASE: &str = "agent/base";
/// Set once this node found itself deposed.
pub const DEPOSED: &str = "agent/deposed";
const INTENT: &str = "agent/intent";
/// Who this instance is in the ledger: two instances of one machine are two nodes there.
const NODE: &str = "agent/node";
/// When this instance was first used by a version that knows periodic snapshots.
const FIRST_USED: &str = "agent/first-used";
/// The end of the ledger as this instance saw it last.
const TIP: &str = "agent/tip";

/// The instance's id in the ledger, made at its first use.
pub fn node_id(node: &NodeStore) -> Result<Uuid, FsError> {
    if let Some(id) = node.get(NODE)? {
        return Ok(id);
    }
    let id = Uuid::new_v4();
    node.persist_row(NODE, &id)?;
    Ok(id)
}

/// When the instance was first used; now, if nobody has written that down.
pub fn first_used(node: &NodeStore, now: Timestamp) -> Result<Timestamp, FsError> {
    if let Some(at) = node.get(FIRST_USED)? {
        return Ok(at);
    }
    node.persist_row(FIRST_USED, &now)?;
    Ok(now)
}

/// Whether a ledger record was begun whose fate is not known.
pub fn has_intent(node: &NodeStore) -> Result<bool, FsError> {
    Ok(node.get::<Intent>(INTENT)?.is_some())
}

/// The end of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tip {
    seq: u64,
    hash: String,
}

/// Refuses a ledger that goes back behind what this instance has seen (an empty or older copy of the store), and
/// remembers its end.
pub fn check_tip(node: &NodeStore, history: &History) -> Result<(), AgentError> {
    let now = Tip { seq: history.tail_seq().0, hash: history.tail_hash().to_owned() };
    let seen: Option<Tip> = node.get(TIP)?;
    if let Some(seen) = &seen
        && (now.seq < seen.seq || (now.seq == seen.seq && now.hash != seen.hash))
    {
        return Err(AgentError::LedgerWentBack { fs: history.fs().to_string(), seen: seen.seq, found: now.seq });
    }
    if seen.as_ref() != Some(&now) {
        node.persist_row(TIP, &now)?;
    }
    Ok(())
}

/// Who deposed this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeposedRow {
    /// What is told to people.
    pub reason: String,
}

/// The one ledger intent of this node (rule 2 of the ledger).
#[derive(Debug)]
pub struct NodeIntents {
    node: Arc<NodeStore>,
}

impl NodeIntents {
    /// The intent in `node`.
    pub fn new(node: Arc<NodeStore>) -> Self {
        Self { node }
    }
}

/// The calls block for one local flush and are not moved to another thread: an append that is cut off must not leave a
/// write of its intent running behind it.
#[async_trait]
impl IntentStore for NodeIntents {
    async fn persist(&self, intent: &Intent) -> Result<(), IntentError> {
        self.node.persist_row(INTENT, intent).map_err(|error| IntentError(error.to_string()))
    }

    async fn load(&self) -> Result<Option<Intent>, IntentError> {
        self.node.get(INTENT).map_err(|error| IntentError(error.to_string()))
    }

    async fn clear(&self) -> Result<(), IntentError> {
        let mut changes = NodeChanges::default();
        changes.remove(INTENT);
        self.node.persist(&changes).map_err(|error| IntentError(error.to_string()))
    }
}
