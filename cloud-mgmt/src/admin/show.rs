//! Everything about one filesystem.

use super::error::AdminError;
use crate::config::FsConfig;
use crate::ledger::{Condemnation, Deletion, History, Holder, Ledger, Published, Seq, State};
use crate::names::FsName;
use crate::store::ObjectStore;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// A filesystem as its config and its whole, verified ledger describe it.
#[derive(Clone, Debug, PartialEq)]
pub struct FsOverview {
    /// Its name.
    pub name: FsName,
    /// Its config.
    pub config: FsConfig,
    /// Position of the last record; 0 before the first.
    pub tail: Seq,
    /// The sum of the ledger.
    pub state: State,
    /// Who holds the newest epoch.
    pub holder: Option<Holder>,
    /// Live snapshots, oldest first.
    pub snapshots: Vec<Published>,
    /// Pinned snapshots and why.
    pub pins: BTreeMap<Uuid, String>,
    /// The newest properties.
    pub properties: BTreeMap<String, String>,
    /// The delete record in force.
    pub deletion: Option<Deletion>,
    /// Condemn records in force.
    pub condemned: BTreeMap<Seq, Condemnation>,
}

/// The config of a filesystem; [`AdminError::NotFound`] if there is none.
pub async fn read_config(store: &Arc<dyn ObjectStore>, name: &FsName) -> Result<FsConfig, AdminError> {
    match store.get(&name.config_object()).await {
        Ok(bytes) => Ok(FsConfig::parse(name, &bytes)?),
        Err(error) if error.is_not_found() => {
            Err(AdminError::NotFound { store: store.url().to_owned(), text: name.to_string() })
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads and verifies everything that the bucket says about a filesystem, deleted or not.
pub async fn show(store: &Arc<dyn ObjectStore>, name: &FsName) -> Result<FsOverview, AdminError> {
    let config = read_config(store, name).await?;
    let history = Ledger::new(store.clone(), name.clone()).history().await?;
    Ok(overview(config, &history))
}

fn overview(config: FsConfig, history: &History) -> FsOverview {
    FsOverview {
        name: history.fs().clone(),
        config,
        tail: history.tail_seq(),
        state: history.state().clone(),
        holder: history.holder().cloned(),
        snapshots: history.snapshots(),
        pins: history.pins().clone(),
        properties: history.properties().clone(),
        deletion: history.deletion().cloned(),
        condemned: history.condemned().clone(),
    }
}
