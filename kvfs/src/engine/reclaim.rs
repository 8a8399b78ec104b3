//! Recycling data segments that nothing names any more.
//!
//! A segment goes in two steps. First it is found: full, and named by no tier; from then on no new reader can learn of it.
//! It is freed when the last reader of an older list of tiers is gone. Both steps happen under the turn to checkpoint:
//! a checkpoint names segments that no tier shows yet.

use super::Engine;
use super::publish::drop_published;
use crate::error::FsResult;
use crate::ids::SegmentNo;
use crate::layer::{self, Layer};
use crate::stack::Tiers;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A full store is not searched for room more often.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);
/// How long a write waits for room that another one makes.
const ROOM_WAIT: Duration = Duration::from_secs(2);

/// Segments that wait until the last reader of the tiers that named them is gone.
#[derive(Default)]
pub(super) struct Retired {
    waiting: VecDeque<Waiting>,
    /// Tokens of lists of tiers that somebody may still read.
    readers: Vec<Weak<()>>,
    /// Dropped layers whose directories are not removed yet, oldest first: a start would open them, so what they name
    /// stays, and none goes before an older one.
    layers: VecDeque<Arc<Layer>>,
    /// Segments that a write to LMDB named whose outcome nobody knows: they stay until the next start.
    doubtful: BTreeSet<SegmentNo>,
}

struct Waiting {
    segments: Vec<SegmentNo>,
    readers: Vec<Weak<()>>,
}

/// Attempts to make room: one that gained something may be followed by the next at once.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// When the last one began that has gained nothing so far.
    in_vain: Option<Instant>,
}

impl Attempts {
    /// Whether another one makes sense; it begins.
    pub(super) fn begin(&mut self, interval: Duration) -> bool {
        let is_early = self.in_vain.is_some_and(|then| then.elapsed() < interval);
        if !is_early {
            self.in_vain = Some(Instant::now());
        }
        !is_early
    }

    pub(super) fn end(&mut self, has_gained: bool) {
        if has_gained {
            self.in_vain = None;
        }
    }
}

impl Engine {
    /// Finds segments that no tier names, and frees those whose readers are gone. The caller has the turn to checkpoint.
    pub(super) fn reclaim(&self) {
        let mut retired = self.retired.lock();
        self.free_unread(&mut retired);
        retired.remove_layers();
        let waiting: BTreeSet<SegmentNo> = retired.waiting.iter().flat_map(|w| w.segments.iter().copied()).collect();
        let left: BTreeSet<SegmentNo> = retired.layers.iter().flat_map(|layer| layer.live_segments()).collect();
        let stays = |segment: &SegmentNo| {
            waiting.contains(segment) || left.contains(segment) || retired.doubtful.contains(segment)
        };
        let unnamed: Vec<SegmentNo> = self.unnamed().into_iter().filter(|segment| !stays(segment)).collect();
        if unnamed.is_empty() {
            return;
        }
        // A new token: whoever reads an older list may hold places in these segments, whoever reads a newer one does not.
        let old = self.change_tiers(|tiers| tiers.readers = Arc::default());
        retired.readers.push(Arc::downgrade(&old.readers));
        drop(old);
        retired.readers.retain(|reader| reader.strong_count() > 0);
        let readers = retired.readers.clone();
        retired.waiting.push_back(Waiting { segments: unnamed, readers });
        self.free_unread(&mut retired);
    }

    /// Frees what only cached layers and dead extents hold, and empties what is mostly dead; `false` if that was tried a moment
    /// ago, in vain. Holds no lock on inodes.
    pub(super) fn make_room(&self) -> bool {
        let before = self.data.used_bytes();
        // Whoever comes meanwhile waits for what comes of it; not for long: the threads that serve the mount are few.
        let Some(mut attempts) = self.room.try_lock_for(ROOM_WAIT) else { return false };
        if self.data.used_bytes() < before {
            return true;
        }
        if !attempts.begin(ROOM_INTERVAL) {
            return false;
        }
        let done = self.drop_cached_layers().and_then(|()| self.checkpoint_now());
        if let Err(error) = done {
            tracing::warn!(%error, "no room could be made");
            return false;
        }
        {
            let _turn = self.checkpointing.lock();
            self.reclaim();
        }
        if self.data.used_bytes() >= before
            && let Err(error) = self.compact_for_room()
        {
            tracing::warn!(%error, "half-dead data segments could not be emptied");
        }
        attempts.end(self.data.used_bytes() < before);
        true
    }

    fn drop_cached_layers(&self) -> FsResult<()> {
        self.purge_waiting();
        self.pin_orphans()?;
        self.checkpoint_now()?;
        let _turn = self.checkpointing.lock();
        let mut dropped = Vec::new();
        drop(self.change_tiers(|tiers| {
            let published = tiers.base.xid();
            dropped = drop_published(tiers, published, 0);
        }));
        self.remove_layers(dropped);
        Ok(())
    }

    /// Removes the directories of layers that are in no tier any more. The caller has the turn to checkpoint.
    pub(super) fn remove_layers(&self, dropped: Vec<Arc<Layer>>) {
        let mut retired = self.retired.lock();
        retired.layers.extend(dropped);
        retired.remove_layers();
    }

    /// The overlay that named these is gone from the tiers, and its checkpoint may have moved what lay in them. If they wait to
    /// be freed, because nothing named them before the overlay did, they begin anew: readers of newer lists may have found them in
    /// it. The caller has the turn to checkpoint.
    pub(super) fn look_again_at(&self, segments: &[SegmentNo]) {
        for waiting in &mut self.retired.lock().waiting {
            waiting.segments.retain(|segment| !segments.contains(segment));
        }
    }

    /// They are not freed before the next start.
    pub(super) fn keep_doubtful(&self, segments: impl IntoIterator<Item = SegmentNo>) {
        self.retired.lock().doubtful.extend(segments);
    }

    /// Whether segments wait for their last reader.
    pub(super) fn has_retired(&self) -> bool {
        !self.retired.lock().waiting.is_empty()
    }

    fn free_unread(&self, retired: &mut Retired) {
        while retired.waiting.front().is_some_and(|w| w.readers.iter().all(|r| r.strong_count() == 0)) {
            let Some(done) = retired.waiting.pop_front() else { return };
            // Somebody who had an older list may have named one again meanwhile, in a record that was drafted on it. Nobody
            // has such a list any more, and what such a record named was taken out by its checkpoint (`look_again_at`): what is
            // not named now never will be.
            let named = named_segments(&self.stack.load());
            let free: Vec<SegmentNo> = done.segments.into_iter().filter(|segment| !named.contains(segment)).collect();
            self.data.free(&free);
        }
    }

    fn unnamed(&self) -> Vec<SegmentNo> {
        let full = self.data.sealed_segments();
        let without = |named: &BTreeSet<SegmentNo>| -> Vec<SegmentNo> {
            full.iter().copied().filter(|segment| !named.contains(segment)).collect()
        };
        if without(&named_segments(&self.stack.load())).is_empty() {
            return Vec::new();
        }
        // The fence: a write in flight holds the gate until its record names its segment.
        drop(self.stored_writes.write());
        without(&named_segments(&self.stack.load()))
    }
}

impl Retired {
    fn remove_layers(&mut self) {
        while let Some(layer) = self.layers.front() {
            if let Err(error) = layer::remove(layer.path()) {
                tracing::warn!(%error, "a published layer could not be removed; it is tried again");
                return;
            }
            self.layers.pop_front();
        }
    }
}

/// Every segment that some tier names, or will when its checkpoint is tried again.
pub(super) fn named_segments(tiers: &Tiers) -> BTreeSet<SegmentNo> {
    let mut named = named_in_memory(tiers);
    named.extend(tiers.layers.iter().flat_map(|layer| layer.live_segments()));
    named
}

/// Those among them that are not, or not only, named by layers.
pub(super) fn named_in_memory(tiers: &Tiers) -> BTreeSet<SegmentNo> {
    let mut named = BTreeSet::new();
    named.extend(tiers.active.iter().flat_map(|overlay| overlay.segments()));
    named.extend(tiers.frozen.iter().flat_map(|frozen| frozen.overlay.segments()));
    named.extend(tiers.frozen.iter().flat_map(|frozen| frozen.prepared_segments()));
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{Instance, options};
    use crate::fs::FileSystem;

    /// A record that was drafted on older tiers names a segment again that was found unnamed meanwhile.
    #[test]
    fn what_is_named_again_when_the_last_reader_goes_is_not_freed() {
        let instance = Instance::new(options());
        let (engine, file) = (&instance.engine, instance.make("file"));
        let bytes = vec![7; 400_000];
        instance.write(file, 0, &bytes[..100_000]);
        instance.write(file, 100_000, &bytes[100_000..]);
        let full = engine.data.sealed_segments();
        assert!(!full.is_empty(), "vacuous: no segment is full");

        let mut retired = engine.retired.lock();
        retired.waiting.push_back(Waiting { segments: full.clone(), readers: Vec::new() });
        engine.free_unread(&mut retired);
        drop(retired);
        assert_eq!(engine.data.sealed_segments(), full);
        assert_eq!(instance.fs.read(file, 0, 400_000).unwrap(), bytes);
    }
    /// Room is made by one for all. Whoever waits for it longer than writers may is told that there is none.
    #[test]
    fn nobody_waits_for_ever_for_room_that_another_one_makes() {
        let instance = Instance::new(options());
        let engine = Arc::clone(&instance.engine);
        let maker = instance.engine.room.lock();
        let (answer, answers) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || answer.send(engine.make_room()));
        assert_eq!(answers.recv_timeout(Duration::from_secs(60)), Ok(false), "while it is still being made");
        drop(maker);
        waiting.join().unwrap().unwrap();
        assert!(instance.engine.make_room(), "who comes later makes some");
    }
}
