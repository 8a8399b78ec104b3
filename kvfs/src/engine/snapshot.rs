//! Taking snapshots: one record, then the layer is sealed there.

use super::{Engine, LayerChanges};
use crate::error::FsError;
use crate::ids::Xid;
use crate::layer::{Layer, Seal};
use crate::op::{Op, Payload, Record, SnapshotRequest};
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

/// Sealed layers at most, those of snapshots that were given up included: each costs every look-up something.
const SEALED_HARD_MAX: usize = 32;

/// Why a snapshot is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotRefusal {
    /// Too many wait to be published.
    #[error("{0} snapshots are already waiting to be published")]
    QueueFull(usize),
    /// The filesystem could not take it.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// A snapshot that is taken and not yet published.
#[derive(Clone, Debug)]
pub struct PendingSnapshot {
    /// What was asked.
    pub request: SnapshotRequest,
    /// Its last record.
    pub xid: Xid,
    /// The layer is sealed: it can be collected.
    pub sealed: bool,
}

impl Engine {
    /// Takes a snapshot of this instant; it survives power loss on return. Sealing goes on in the background. Snapshots
    /// that were `given_up` do not count as waiting: what they changed goes with the next one.
    pub fn take_snapshot(&self, request: SnapshotRequest, given_up: &BTreeSet<Uuid>) -> Result<Xid, SnapshotRefusal> {
        let pending = self.pending_snapshots();
        let waiting = pending.iter().filter(|p| !given_up.contains(&p.request.id)).count();
        if waiting >= self.options.sealed_max || pending.len() >= SEALED_HARD_MAX {
            return Err(SnapshotRefusal::QueueFull(waiting));
        }
        self.check_writable()?;
        self.purge_waiting();
        self.await_room()?;
        let seal = Seal { request: request.clone(), epoch: self.identity.epoch };
        let time = request.requested;
        let record = Record { time, op: Op::Snapshot(request), payload: Payload::None, requested: None };
        let body = super::commit::encode(&record)?;
        // What is published needs no room any more.
        let xid = self.insist(|| {
            let state = self.commit.lock();
            let xid = self.journal.append(&body).map_err(FsError::from)?;
            self.freeze_at(xid, &state, Some(seal.clone()))?;
            Ok(xid)
        })?;
        self.want_checkpoint();
        self.flush()?;
        Ok(xid)
    }

    /// The snapshots that are not yet published, oldest first.
    pub fn pending_snapshots(&self) -> Vec<PendingSnapshot> {
        let tiers = self.stack.load();
        let published = tiers.base.xid();
        let mut pending: Vec<PendingSnapshot> = unpublished(&tiers.layers, published)
            .filter_map(|layer| {
                let meta = layer.meta();
                let seal = meta.sealed?;
                Some(PendingSnapshot { request: seal.request, xid: meta.applied, sealed: true })
            })
            .collect();
        for frozen in tiers.frozen.iter().rev() {
            if let Some(seal) = &frozen.mark.seal
                && !pending.iter().any(|p| p.xid == frozen.mark.applied)
            {
                let request = seal.request.clone();
                pending.push(PendingSnapshot { request, xid: frozen.mark.applied, sealed: false });
            }
        }
        pending
    }

    /// What a sealed, unpublished snapshot changes against an older one: the base, or one above it whose last record is
    /// `above`. `None` if there is no such snapshot.
    pub fn changes_of(&self, snapshot: Uuid, above: Xid) -> Option<LayerChanges> {
        let tiers = self.stack.load();
        let layers: Vec<Arc<Layer>> = unpublished(&tiers.layers, above.max(tiers.base.xid())).cloned().collect();
        let at = layers.iter().position(|l| l.meta().sealed.is_some_and(|s| s.request.id == snapshot))?;
        let mut upto: Vec<Arc<Layer>> = layers.into_iter().take(at + 1).collect();
        upto.reverse();
        LayerChanges::new(upto, above, Arc::clone(&self.data))
    }
}

/// Sealed layers above the base, oldest first.
fn unpublished(layers: &[Arc<Layer>], published: Xid) -> impl Iterator<Item = &Arc<Layer>> {
    layers.iter().rev().filter(move |layer| {
        let meta = layer.meta();
        meta.sealed.is_some() && meta.applied > published
    })
}
