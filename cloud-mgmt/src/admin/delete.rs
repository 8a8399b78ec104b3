//! Deleting a filesystem, and taking that back.

use super::error::AdminError;
use super::show::read_config;
use crate::ledger::{Appender, History, Ledger, MemoryIntents, Writer};
use crate::names::FsName;
use crate::store::{ObjectMeta, ObjectStore};
use std::sync::Arc;

/// Whether to do it or only to tell what it would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteMode {
    /// Changes nothing.
    DryRun,
    /// Does it.
    Really,
}

/// What a deletion did, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteReport {
    /// The filesystem.
    pub name: FsName,
    /// Packs, runs and listings that are condemned, now or before.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The last snapshot's runs: they stay for ever as the record of existence, with the config and the ledger.
    pub kept: Vec<String>,
}

/// Deletes a filesystem: a delete record, which stops a live master, then every pack, run and listing is condemned except the last
/// snapshot's runs. Bytes go when the collector of garbage purges them after its grace time; until then
/// [`undelete`] brings all of it back. May be repeated: it then does what is left to do.
pub async fn delete(store: &Arc<dyn ObjectStore>, name: &FsName, mode: DeleteMode) -> Result<DeleteReport, AdminError> {
    read_config(store, name).await?;
    let appender = appender(store, name);
    if mode == DeleteMode::Really {
        appender.delete("deleted by a user").await?;
    }
    // Listed after the delete record: a master that still uploads can add orphans, never publish them.
    let history = appender.ledger().history().await?;
    let objects = doomed(store, &history).await?;
    if mode == DeleteMode::Really {
        let fresh = objects.iter().filter(|meta| history.condemned_by(&meta.name).is_none());
        let fresh: Vec<_> = fresh.map(|meta| meta.name.clone()).collect();
        appender.condemn(&fresh, "the filesystem is deleted").await?;
    }
    Ok(DeleteReport {
        name: name.clone(),
        objects: objects.len() as u64,
        bytes: objects.iter().map(|meta| meta.size).sum(),
        kept: kept(&history),
    })
}

/// Takes a deletion back, if no byte is gone yet.
pub async fn undelete(store: &Arc<dyn ObjectStore>, name: &FsName) -> Result<(), AdminError> {
    read_config(store, name).await?;
    appender(store, name).undelete().await?;
    Ok(())
}

fn appender(store: &Arc<dyn ObjectStore>, name: &FsName) -> Appender {
    let ledger = Ledger::new(store.clone(), name.clone());
    Appender::new(ledger, Arc::new(MemoryIntents::default()), Writer::ephemeral())
}

fn kept(history: &History) -> Vec<String> {
    let newest = history.newest_snapshot();
    newest.iter().flat_map(|newest| &newest.snapshot.runs).map(|run| run.object.clone()).collect()
}

async fn doomed(store: &Arc<dyn ObjectStore>, history: &History) -> Result<Vec<ObjectMeta>, AdminError> {
    let kept = kept(history);
    let mut objects = store.list(&history.fs().pack_prefix()).await?;
    objects.extend(store.list(&history.fs().run_prefix()).await?);
    objects.extend(store.list(&history.fs().listing_prefix()).await?);
    objects.retain(|meta| !kept.contains(&meta.name));
    Ok(objects)
}
