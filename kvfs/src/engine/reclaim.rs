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

/// Segments that wait until the last reader of the tiers that named them is gone.
#[derive(Default)]
pub(super) struct Retired {
    waiting: VecDeque<Waiting>,
    /// Tokens of lists of tiers that somebody may still read.
    readers: Vec<Weak<()>>,
    /// Dropped layers whose directories are not removed yet, oldest first: a start would open them, so what they name
    /// stays, and none goes before an older one.
    layers: VecDeque<Arc<Layer>>,
}

struct Waiting {
    segments: Vec<SegmentNo>,
    readers: Vec<Weak<()>>,
}

impl Engine {
    /// Finds segments that no tier names, and frees those whose readers are gone. The caller has the turn to checkpoint.
    pub(super) fn reclaim(&self) {
        let mut retired = self.retired.lock();
        self.free_unread(&mut retired);
        retired.remove_layers();
        let waiting: BTreeSet<SegmentNo> = retired.waiting.iter().flat_map(|w| w.segments.iter().copied()).collect();
        let left: BTreeSet<SegmentNo> = retired.layers.iter().flat_map(|layer| layer.live_segments()).collect();
        let is_free = |segment: &SegmentNo| !waiting.contains(segment) && !left.contains(segment);
        let unnamed: Vec<SegmentNo> = self.unnamed().into_iter().filter(is_free).collect();
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

    /// Frees what only cached layers and dead extents hold; `false` if that was tried a moment ago. Holds no lock on
    /// inodes.
    pub(super) fn make_room(&self) -> bool {
        {
            let mut made = self.room_made.lock();
            if made.is_some_and(|then| then.elapsed() < ROOM_INTERVAL) {
                return false;
            }
            *made = Some(Instant::now());
        }
        let done = self.drop_cached_layers().and_then(|()| self.checkpoint_now());
        if let Err(error) = done {
            tracing::warn!(%error, "no room could be made");
            return false;
        }
        let _turn = self.checkpointing.lock();
        self.reclaim();
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

    /// Whether segments wait for their last reader.
    pub(super) fn has_retired(&self) -> bool {
        !self.retired.lock().waiting.is_empty()
    }

    fn free_unread(&self, retired: &mut Retired) {
        while retired.waiting.front().is_some_and(|w| w.readers.iter().all(|r| r.strong_count() == 0)) {
            let Some(done) = retired.waiting.pop_front() else { return };
            // Somebody who had an older list may have named one again meanwhile, in a record that was drafted on it. Nobody
            // has such a list any more: what is not named now never will be.
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
    let mut named = BTreeSet::new();
    named.extend(tiers.active.iter().flat_map(|overlay| overlay.segments()));
    named.extend(tiers.frozen.iter().flat_map(|frozen| frozen.overlay.segments()));
    named.extend(tiers.frozen.iter().flat_map(|frozen| frozen.prepared_segments()));
    named.extend(tiers.layers.iter().flat_map(|layer| layer.live_segments()));
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::EmptyBase;
    use crate::data::DataOptions;
    use crate::engine::{EngineIdentity, EngineOptions, EngineSetup, InstanceDirs, Opening, create_instance};
    use crate::fs::{Caller, FileSystem, Fs, NewNode, SystemClock};
    use crate::ids::{Epoch, Ino};
    use crate::node::NodeStore;
    use crate::op::Privileges;
    use crate::schema::{FileKind, Time};
    use crate::stack::Stack;
    use uuid::Uuid;

    /// A record that was drafted on older tiers names a segment again that was found unnamed meanwhile.
    #[test]
    fn what_is_named_again_when_the_last_reader_goes_is_not_freed() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = InstanceDirs::new(dir.path());
        let node = Arc::new(NodeStore::open(&dirs.node()).unwrap());
        create_instance(&dirs, &node, EngineIdentity { fs: Uuid::from_u128(1), epoch: Epoch(1) }, &EmptyBase).unwrap();
        let data = DataOptions { segment_bytes: 128 << 10, spares: 0, max_bytes: None };
        let options =
            EngineOptions { data, checkpoint_interval: Duration::from_secs(3600), ..EngineOptions::default() };
        let stack = Arc::new(Stack::read_only(Arc::new(EmptyBase)));
        let opening = Opening::Fresh;
        let setup = EngineSetup { dirs, node, stack, owner: (0, 0), now: Time::default(), options, opening };
        let engine = Engine::open(setup).unwrap();
        let fs = Fs::new(Arc::clone(&engine), Arc::new(SystemClock));
        let new = NewNode { kind: FileKind::Regular, mode: 0o644, umask: 0, rdev: 0, target: &[] };
        let file = fs.make(Caller { uid: 0, gid: 0 }, Ino::ROOT, b"file", &new).unwrap().ino;
        let bytes = vec![7; 400_000];
        fs.write(file, 0, &bytes[..100_000], Privileges::Keep).unwrap();
        fs.write(file, 100_000, &bytes[100_000..], Privileges::Keep).unwrap();
        let full = engine.data.sealed_segments();
        assert!(!full.is_empty(), "vacuous: no segment is full");

        let mut retired = engine.retired.lock();
        retired.waiting.push_back(Waiting { segments: full.clone(), readers: Vec::new() });
        engine.free_unread(&mut retired);
        drop(retired);
        assert_eq!(engine.data.sealed_segments(), full);
        assert_eq!(fs.read(file, 0, 400_000).unwrap(), bytes);
    }
}
