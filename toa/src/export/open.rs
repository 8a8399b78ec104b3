//! From a bucket to a snapshot that can be read.

use super::Export;
use crate::agent::{SnapshotSelector, check_snapshot_features, select};
use crate::base::{Objects, ObjectsOptions, RunBase};
use crate::error::AgentError;
use crate::proxy::{Proxy, ProxyOptions};
use cloud_mgmt::config::{AccessMode, FsConfig};
use cloud_mgmt::ledger::{Ledger, LedgerError};
use cloud_mgmt::names::FsName;
use cloud_mgmt::store::ObjectStore;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// What of the index is kept on the local disk, at most, bytes.
const SCRATCH_BYTES: u64 = 1 << 30;
/// Frames that were read one by one, in memory.
const FRAME_CACHE_BYTES: usize = 8 << 20;
/// What was just fetched.
const RECENT_CACHE_BYTES: usize = 16 << 20;

/// Everything that an export needs.
#[derive(Clone, Debug)]
pub struct ExportSetup {
    /// The bucket.
    pub store: Arc<dyn ObjectStore>,
    /// The filesystem in it.
    pub name: FsName,
    /// Its configuration.
    pub config: FsConfig,
    /// Which snapshot.
    pub snapshot: SnapshotSelector,
    /// An empty directory for parts of the index; the caller removes it.
    pub scratch: PathBuf,
    /// One fetch with all its attempts.
    pub fetch_timeout: Duration,
    /// Where asynchronous calls run.
    pub runtime: Handle,
}

/// Finds the snapshot in the ledger and opens its index. Blocks; not for async tasks.
pub fn open(setup: ExportSetup) -> Result<Export, AgentError> {
    setup.config.check_features(AccessMode::ReadOnly)?;
    let ledger = Ledger::new(Arc::clone(&setup.store), setup.name.clone());
    let history = setup.runtime.block_on(ledger.history())?;
    if let Some(deletion) = history.deletion() {
        let fs = setup.name.to_string();
        return Err(LedgerError::Deleted { fs, deletion: Box::new(deletion.clone()) }.into());
    }
    let entry = select(&setup.name, &history, &setup.snapshot)?;
    check_snapshot_features(Some(&entry), AccessMode::ReadOnly)?;
    let proxy = Proxy::open(&setup.scratch, ProxyOptions { max_bytes: SCRATCH_BYTES })?;
    let options = ObjectsOptions {
        fetch_timeout_ms: setup.fetch_timeout.as_millis() as u64,
        frame_cache_bytes: FRAME_CACHE_BYTES,
        recent_cache_bytes: RECENT_CACHE_BYTES,
        ..ObjectsOptions::default()
    };
    let objects = Objects::new(proxy, setup.store, setup.runtime, options);
    let base = RunBase::open(&objects, &entry)?.waiting();
    Ok(Export { entry, base, objects, fetch_timeout: setup.fetch_timeout })
}
