//! The agent's rows in the node store.

use async_trait::async_trait;
use cloud_mgmt::ledger::{Intent, IntentError, IntentStore};
use kvfs::node::{NodeChanges, NodeStore};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The manifest of the base under the local layers; absent: the empty base.
pub const BASE: &str = "agent/base";
/// Set once this node found itself deposed.
pub const DEPOSED: &str = "agent/deposed";
const INTENT: &str = "agent/intent";

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
