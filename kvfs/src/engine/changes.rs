//! The sealed layers of a snapshot as one set of changes.

use crate::base::{Totals, Visit};
use crate::changes::ChangeSet;
use crate::data::DataStore;
use crate::error::FsResult;
use crate::ids::{Epoch, Ino, Xid};
use crate::layer::{Layer, LayerMeta, Seal};
use crate::op::SnapshotRequest;
use crate::schema::{BlobRef, Key};
use crate::stack::{Tier, merge_batch};
use bytes::Bytes;
use std::sync::Arc;

/// Entries that a scan takes from each of several layers at a time: about as many as the agent takes, so that none is read
/// twice.
const BATCH: usize = 1024;

/// See [`ChangeSet`].
pub struct LayerChanges {
    /// Newest first; never empty.
    layers: Vec<Arc<Layer>>,
    meta: LayerMeta,
    seal: Seal,
    from: Xid,
    data: Arc<DataStore>,
}

impl LayerChanges {
    pub(super) fn new(layers: Vec<Arc<Layer>>, from: Xid, data: Arc<DataStore>) -> Option<Self> {
        let meta = layers.first()?.meta();
        let seal = meta.sealed.clone()?;
        Some(Self { layers, meta, seal, from, data })
    }

    /// The only layer, if it is one: nothing is above it that could hide or change what it says, so its bytes go out as
    /// they are stored.
    fn alone(&self) -> Option<&Layer> {
        match self.layers.as_slice() {
            [layer] => Some(layer),
            _ => None,
        }
    }

    fn tiers(&self) -> Vec<&dyn Tier> {
        self.layers.iter().map(|layer| layer.as_ref() as &dyn Tier).collect()
    }
}

impl ChangeSet for LayerChanges {
    fn request(&self) -> &SnapshotRequest {
        &self.seal.request
    }
    fn epoch(&self) -> Epoch {
        self.seal.epoch
    }
    fn xid_from(&self) -> Xid {
        self.from
    }
    fn xid(&self) -> Xid {
        self.meta.applied
    }
    fn ino_end(&self) -> Ino {
        self.meta.ino_end
    }
    fn totals(&self) -> Totals {
        self.meta.totals
    }

    fn scan(&self, from: &[u8], end: &[u8], visit: &mut Visit<'_>) -> FsResult<()> {
        if let Some(layer) = self.alone() {
            return layer.scan(from, end, visit);
        }
        let tiers = self.tiers();
        let mut from = from.to_vec();
        loop {
            let batch = merge_batch(&tiers, &from, end, BATCH)?;
            for (key, (xid, value)) in batch.entries {
                if visit(key.as_bytes(), &value.encode(xid)).is_break() {
                    return Ok(());
                }
            }
            match batch.next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    fn get(&self, key: &[u8]) -> FsResult<Option<Bytes>> {
        let Some(key) = Key::from_bytes(key) else { return Ok(None) };
        if let Some(layer) = self.alone() {
            return layer.read(key.as_bytes(), Bytes::copy_from_slice);
        }
        // One key only: the merge of all layers at that key has it, with cuts combined.
        let mut end = key.as_bytes().to_vec();
        end.push(0);
        let merged = merge_batch(&self.tiers(), key.as_bytes(), &end, 2)?;
        Ok(merged.entries.into_iter().next().map(|(_, (xid, value))| value.encode(xid)))
    }

    fn read_blob(&self, blob: &BlobRef) -> FsResult<Bytes> {
        Ok(self.data.read_all(blob)?)
    }
}
