//! What is in a store.

use super::error::AdminError;
use super::show::read_config;
use crate::ledger::{Entry, Ledger, Seq, SnapshotEntry, State};
use crate::names::FsName;
use crate::store::ObjectStore;
use futures::{StreamExt, stream};
use std::sync::Arc;

/// Filesystems looked at at the same time.
const FILESYSTEMS_IN_FLIGHT: usize = 8;

/// Whether deleted filesystems are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletedFilter {
    /// Only those that are not deleted.
    Hide,
    /// All.
    Show,
}

/// A filesystem at a glance: what its config and the last record of its ledger say.
#[derive(Clone, Debug, PartialEq)]
pub struct FsSummary {
    /// Its name.
    pub name: FsName,
    /// When it was created; `None` if the config cannot be used.
    pub created: Option<jiff::Timestamp>,
    /// The sum of its ledger (`state.deleted_seq` tells whether it is deleted).
    pub state: State,
    /// Position of the last record.
    pub tail: Seq,
    /// The newest snapshot.
    pub newest: Option<Box<SnapshotEntry>>,
    /// Why this version cannot use it, in words; the other fields then hold what could be read.
    pub problem: Option<String>,
}

impl FsSummary {
    /// Whether a delete record is in force.
    pub fn is_deleted(&self) -> bool {
        self.state.deleted_seq.is_some()
    }
}

/// All filesystems of a store, sorted by name. One that cannot be read is listed with its problem; only a store that does
/// not answer is an error.
pub async fn list(store: &Arc<dyn ObjectStore>, deleted: DeletedFilter) -> Result<Vec<FsSummary>, AdminError> {
    let names = names(store).await?;
    let summaries: Vec<_> = stream::iter(names)
        .map(|name| summarize(store, name))
        .buffered(FILESYSTEMS_IN_FLIGHT)
        .filter(|summary| {
            let wanted = deleted == DeletedFilter::Show || !summary.is_deleted();
            std::future::ready(wanted)
        })
        .collect()
        .await;
    Ok(summaries)
}

/// Names of all filesystems, sorted.
pub(super) async fn names(store: &Arc<dyn ObjectStore>) -> Result<Vec<FsName>, AdminError> {
    let objects = store.list_here("").await?;
    let mut names: Vec<_> = objects.iter().filter_map(|meta| FsName::from_config_object(&meta.name)).collect();
    names.sort_unstable();
    Ok(names)
}

/// The sum of a ledger, from its last record.
pub(super) async fn state_of(store: &Arc<dyn ObjectStore>, name: &FsName) -> Result<State, AdminError> {
    let tail = Ledger::new(store.clone(), name.clone()).tail(Seq(0)).await?;
    Ok(tail.map(|tail| tail.record.state.clone()).unwrap_or_default())
}

async fn summarize(store: &Arc<dyn ObjectStore>, name: FsName) -> FsSummary {
    let mut summary = FsSummary {
        name: name.clone(),
        created: None,
        state: State::default(),
        tail: Seq(0),
        newest: None,
        problem: None,
    };
    if let Err(error) = fill(store, &mut summary).await {
        summary.problem = Some(error.to_string());
    }
    summary
}

async fn fill(store: &Arc<dyn ObjectStore>, summary: &mut FsSummary) -> Result<(), AdminError> {
    // The ledger first: whether it is deleted must be known even if its config is from a newer version.
    let ledger = Ledger::new(store.clone(), summary.name.clone());
    if let Some(tail) = ledger.tail(Seq(0)).await? {
        summary.tail = tail.record.seq;
        summary.state = tail.record.state.clone();
    }
    summary.created = Some(read_config(store, &summary.name).await?.created);
    if let Some(seq) = summary.state.snapshot_seq
        && let Entry::Snapshot(snapshot) = ledger.read(seq).await?.entry
    {
        summary.newest = Some(snapshot);
    }
    Ok(())
}
