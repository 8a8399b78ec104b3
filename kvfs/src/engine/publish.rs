//! A snapshot was published: the base moves up.

use super::Engine;
use crate::base::Base;
use crate::error::FsResult;
use crate::ids::{Ino, PackNo};
use crate::layer::Layer;
use crate::node::NodeChanges;
use crate::schema::key::Parts;
use crate::schema::{Key, Place, Space, Value};
use crate::stack::{Change, ChangeList, Tiers};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The inode under which all orphan marks lie.
const ORPHANS: Ino = Ino(0);

impl Engine {
    /// Makes `base` what the local tiers stand on; `rows` become durable first, and together. Layers that the base
    /// contains stay as a cache for a while and then go.
    pub fn publish(&self, base: Arc<dyn Base>, rows: &NodeChanges) -> FsResult<()> {
        self.purge_waiting();
        if self.pin_orphans()? > 0 {
            // Before the layers that they come from go: a replay may meet later writes to them.
            self.checkpoint_now()?;
        }
        self.node.persist(rows)?;
        fail::fail_point!("kvfs::publish::before_swap");
        let published = base.xid();
        let mut dropped: Vec<Arc<Layer>> = Vec::new();
        let kept = self.options.published_kept;
        let turn = self.checkpointing.lock();
        drop(self.change_tiers(|tiers| {
            tiers.base = base;
            dropped = drop_published(tiers, published, kept);
        }));
        self.remove_layers(dropped);
        self.reclaim();
        drop(turn);
        Ok(())
    }

    /// Copies what unlinked, perhaps still open inodes have into the overlay, their marks included: the new base will not
    /// know them. Needs no journal: nothing about them changes. Answers how many there are.
    pub(super) fn pin_orphans(&self) -> FsResult<usize> {
        let mut pinned = 0;
        let marks = {
            let tiers = self.stack.load();
            tiers.view().scan(ORPHANS, Space::Orphan, &Key::first_of(ORPHANS, Space::Orphan), usize::MAX)?
        };
        for (mark, _) in marks {
            let Some(ino) = Parts::parse(mark.as_bytes()).map(|parts| parts.subject()) else { continue };
            let _locked = self.stack.locks().lock(&[ino]);
            let tiers = self.stack.load();
            let view = tiers.view();
            let Some(inode) = view.inode(ino)?.filter(|inode| inode.nlink == 0) else { continue };
            let mut list = ChangeList::default();
            list.changes.push(Change::Put(Key::inode(ino), Value::Inode(inode)));
            list.changes.push(Change::Put(Key::orphan(ino), Value::Orphan));
            for space in [Space::Window, Space::Xattr] {
                let rows = view.scan(ino, space, &Key::first_of(ino, space), usize::MAX)?;
                list.changes.extend(rows.into_iter().map(|(key, value)| Change::Put(key, value)));
            }
            let _state = self.commit.lock();
            self.active()?.apply(&list, self.journal.last());
            pinned += 1;
        }
        Ok(pinned)
    }
}

impl Engine {
    /// Packs of the bucket that unlinked, perhaps still open files read.
    pub fn orphan_packs(&self) -> FsResult<BTreeSet<PackNo>> {
        let mut packs = BTreeSet::new();
        for ino in self.orphans()? {
            let tiers = self.stack.load();
            let rows = tiers.view().scan(ino, Space::Window, &Key::first_of(ino, Space::Window), usize::MAX)?;
            for (_, value) in rows {
                let Value::Window(window) = value else { continue };
                packs.extend(window.extents.iter().filter_map(|extent| match &extent.place {
                    Place::Frame { frame, .. } => Some(frame.pack),
                    _ => None,
                }));
            }
        }
        Ok(packs)
    }
}

/// Takes published layers beyond `kept` out of the list, and returns them oldest first.
pub(super) fn drop_published(tiers: &mut Tiers, published: crate::ids::Xid, kept: usize) -> Vec<Arc<Layer>> {
    let contained = |layer: &Arc<Layer>| {
        let meta = layer.meta();
        meta.sealed.is_some() && meta.applied <= published
    };
    let count = tiers.layers.iter().filter(|l| contained(l)).count();
    let mut dropped = Vec::new();
    for _ in kept..count {
        // Never the top one: it is written, or about to be followed.
        if tiers.layers.len() > 1 && tiers.layers.last().is_some_and(contained) {
            dropped.extend(tiers.layers.pop());
        }
    }
    dropped
}
