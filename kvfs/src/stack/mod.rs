//! The stack of tiers: overlays, layers, base; newest first.
//!
//! Readers take a [`Tiers`] and see one consistent, immutable list; writers swap it. What a tier hides of the tiers
//! below: the same key; from an inode tombstone on, the inode's windows and xattrs; from a cut on, later windows.

mod locks;
mod merge;
mod overlay;
mod tier;
mod view;

pub use locks::{Extended, LockTable, Locked};
pub use merge::{Batch, merge_batch};
pub use overlay::Overlay;
pub use tier::{BaseTier, Found, Tier};
pub use view::View;

use crate::base::Base;
use crate::ids::{Ino, SegmentNo, Xid};
use crate::layer::{CheckpointMark, Layer};
use crate::schema::{Place, Value};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::Arc;

/// An overlay that takes no more writes and waits for its checkpoint.
#[derive(Debug)]
pub struct Frozen {
    /// What is in it.
    pub overlay: Arc<Overlay>,
    /// Up to where the checkpoint goes.
    pub mark: CheckpointMark,
    /// Its entries as they will be written, once they are made.
    pub prepared: Mutex<Option<Vec<Found>>>,
}

impl Frozen {
    /// Segments that the entries name as they will be written; none before they are made.
    pub(crate) fn prepared_segments(&self) -> Vec<SegmentNo> {
        let prepared = self.prepared.lock();
        let windows = prepared.iter().flatten().filter_map(|(_, (_, value))| match value {
            Value::Window(window) => Some(window),
            _ => None,
        });
        let places = windows.flat_map(|window| &window.extents).filter_map(|extent| match &extent.place {
            Place::Segment { blob, .. } => Some(blob.segment),
            _ => None,
        });
        places.collect()
    }
}

/// One consistent list of tiers.
pub struct Tiers {
    /// The memory that operations change; `None` where nothing can be written.
    pub active: Option<Arc<Overlay>>,
    /// Newest first; at most two.
    pub frozen: Vec<Arc<Frozen>>,
    /// Newest first: the top layer, the sealed ones, and published ones that are still kept as a cache.
    pub layers: Vec<Arc<Layer>>,
    /// What everything stands on.
    pub base: Arc<dyn Base>,
    /// Shared by this list and those made from it, until segments are taken out of use: as long as it lives, somebody may
    /// read them.
    pub readers: Arc<()>,
}

/// The current [`Tiers`], swapped as a whole.
pub struct Stack {
    tiers: ArcSwap<Tiers>,
    locks: LockTable,
}

impl Stack {
    /// A stack that only reads: a slave's.
    pub fn read_only(base: Arc<dyn Base>) -> Self {
        Self { tiers: ArcSwap::from_pointee(Tiers::read_only(base)), locks: LockTable::default() }
    }

    /// Locks on its inodes.
    pub fn locks(&self) -> &LockTable {
        &self.locks
    }

    /// The list as of now. Blobs and frames that it names stay readable for as long as it is held.
    pub fn load(&self) -> Arc<Tiers> {
        self.tiers.load_full()
    }

    /// Replaces the list; returns the old one, for the caller to see when its last reader is gone.
    pub fn swap(&self, tiers: Tiers) -> Arc<Tiers> {
        self.tiers.swap(Arc::new(tiers))
    }
}

impl Tiers {
    /// A base and nothing else.
    pub fn read_only(base: Arc<dyn Base>) -> Self {
        Self { active: None, frozen: Vec::new(), layers: Vec::new(), base, readers: Arc::default() }
    }

    /// The same list once more, to be changed.
    pub fn duplicate(&self) -> Tiers {
        Tiers {
            active: self.active.clone(),
            frozen: self.frozen.clone(),
            layers: self.layers.clone(),
            base: Arc::clone(&self.base),
            readers: Arc::clone(&self.readers),
        }
    }

    /// A view of this list.
    pub fn view(&self) -> View<'_> {
        View::new(self)
    }

    /// The tiers, newest first, that can know `ino` (an orphan mark's inode for marks). Numbers only grow: what is born
    /// in memory is in no layer, what is born in a layer is in none below.
    pub(crate) fn knowing<'t>(&'t self, ino: Ino, base: &'t BaseTier<'t>) -> impl Iterator<Item = &'t dyn Tier> {
        let memory = self.active.iter().chain(self.frozen.iter().map(|frozen| &frozen.overlay));
        let birth = self.layers.iter().position(|layer| ino >= layer.ino_floor());
        let layers = self.layers.get(..birth.map_or(self.layers.len(), |at| at + 1)).unwrap_or_default();
        let below = (birth.is_none() && ino < base.ino_end()).then_some(base as &dyn Tier);
        let memory = memory.map(|overlay| overlay.as_ref() as &dyn Tier);
        let layers = layers.iter().filter(move |layer| ino < layer.ino_end()).map(|layer| layer.as_ref() as &dyn Tier);
        memory.chain(layers).chain(below)
    }
}

/// What a write leaves in the overlay.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A key's new value (a tombstone included).
    Put(crate::schema::Key, Value),
    /// A part of a window that the memory tier has: see [`crate::schema::WindowValue::splice`].
    Splice {
        /// The window's key.
        key: crate::schema::Key,
        /// First byte in the window.
        from: u32,
        /// The byte behind the last one.
        to: u32,
        /// What fills it; `None` is a hole.
        new: Option<crate::schema::Extent>,
    },
    /// Windows from this one on are gone.
    Cut(Ino, u64),
    /// The inode is gone, with its windows and xattrs.
    Wipe(Ino),
}

/// Changes of one journal record, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangeList {
    /// See the type.
    pub changes: Vec<Change>,
    /// Change of the number of inodes.
    pub inodes: i64,
    /// Change of the sum of file sizes, bytes.
    pub bytes: i64,
}

/// A record number with a value: what tiers hold.
pub type Stamped = (Xid, Value);
