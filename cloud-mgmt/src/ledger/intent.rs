//! What a node is about to append, kept before it leaves (rule 2).

use super::record::Seq;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use uuid::Uuid;

/// The exact bytes of a record that may have been sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The filesystem.
    pub fs: Uuid,
    /// The record's position. Its bytes for this position never change.
    pub seq: Seq,
    /// The op in the record.
    pub op: Uuid,
    /// The record, encoded.
    pub bytes: Bytes,
}

/// The local disk did not do it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("ledger intent: {0}")]
pub struct IntentError(pub String);

/// Where a node keeps its one intent. One appender has it for itself.
#[async_trait]
pub trait IntentStore: Send + Sync + Debug {
    /// Replaces the intent. `Ok` means that it survives a power loss.
    async fn persist(&self, intent: &Intent) -> Result<(), IntentError>;
    /// The intent, if there is one.
    async fn load(&self) -> Result<Option<Intent>, IntentError>;
    /// Forgets it, because it is resolved; it may come back after a power loss, which is harmless.
    async fn clear(&self) -> Result<(), IntentError>;
}

/// For commands that keep no state: lives as long as the process. Fit only for operations that own no objects, because
/// whatever a dead process left unknown is then known to the ledger alone.
#[derive(Debug, Default)]
pub struct MemoryIntents(Mutex<Option<Intent>>);

#[async_trait]
impl IntentStore for MemoryIntents {
    async fn persist(&self, intent: &Intent) -> Result<(), IntentError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(intent.clone());
        Ok(())
    }

    async fn load(&self) -> Result<Option<Intent>, IntentError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn clear(&self) -> Result<(), IntentError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}

/// An intent that is on disk: the only thing that can be sent.
#[derive(Debug)]
pub(super) struct Persisted(Intent);

impl Persisted {
    pub(super) async fn persist(store: &dyn IntentStore, intent: Intent) -> Result<Self, IntentError> {
        store.persist(&intent).await?;
        Ok(Self(intent))
    }

    pub(super) async fn load(store: &dyn IntentStore) -> Result<Option<Self>, IntentError> {
        Ok(store.load().await?.map(Self))
    }

    pub(super) fn intent(&self) -> &Intent {
        &self.0
    }
}
