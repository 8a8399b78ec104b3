//! Recycling data segments that nothing names any more.

use super::Engine;
use crate::ids::SegmentNo;
use crate::stack::Tiers;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};

/// Segments that wait until the last reader of the tiers that named them is gone.
#[derive(Default)]
pub(super) struct Retired {
    waiting: VecDeque<Waiting>,
    /// Lists of tiers that somebody may still read.
    readers: Vec<Weak<Tiers>>,
}

struct Waiting {
    segments: Vec<SegmentNo>,
    readers: Vec<Weak<Tiers>>,
}

impl Engine {
    /// Finds segments that no tier names, and frees those found earlier whose readers are gone.
    pub(super) fn reclaim(&self) {
        let mut retired = self.retired.lock();
        while retired.waiting.front().is_some_and(|w| w.readers.iter().all(|r| r.strong_count() == 0)) {
            if let Some(done) = retired.waiting.pop_front() {
                self.data.free(&done.segments);
            }
        }
        let waiting: BTreeSet<SegmentNo> = retired.waiting.iter().flat_map(|w| w.segments.iter().copied()).collect();
        let unnamed: Vec<SegmentNo> = self.unnamed().into_iter().filter(|s| !waiting.contains(s)).collect();
        retired.readers.retain(|reader| reader.strong_count() > 0);
        if unnamed.is_empty() {
            return;
        }
        // A new list: whoever reads the old one may hold places in these segments, whoever reads the new one does not.
        let old = self.change_tiers(|_| {});
        retired.readers.push(Arc::downgrade(&old));
        let readers = retired.readers.clone();
        retired.waiting.push_back(Waiting { segments: unnamed, readers });
    }

    /// Remembers a list of tiers that was replaced.
    pub(super) fn retire(&self, old: &Arc<Tiers>) {
        self.retired.lock().readers.push(Arc::downgrade(old));
    }

    fn unnamed(&self) -> Vec<SegmentNo> {
        // Full ones first, then the fence: a write in flight holds the gate until its record names its segment.
        let full = self.data.sealed_segments();
        drop(self.stored_writes.write());
        let tiers = self.stack.load();
        let named = named_segments(&tiers);
        full.into_iter().filter(|segment| !named.contains(segment)).collect()
    }
}

/// Every segment that some tier names.
pub(super) fn named_segments(tiers: &Tiers) -> BTreeSet<SegmentNo> {
    let mut named = BTreeSet::new();
    named.extend(tiers.active.iter().flat_map(|overlay| overlay.segments()));
    named.extend(tiers.frozen.iter().flat_map(|frozen| frozen.overlay.segments()));
    named.extend(tiers.layers.iter().flat_map(|layer| layer.live_segments()));
    named
}
