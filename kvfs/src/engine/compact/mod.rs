//! Compaction: what is left in half-dead data segments moves together, so that the segments come back.
//!
//! A segment is recycled when nothing in it is used, and overwriting at random leaves a little in each. A pass over the
//! top layer, in pieces between the checkpoints:
//!
//! ```text
//! rest ─► survey: bytes that the layer uses of each segment ─► choice (choice.rs) ─► moves ─► rest
//! ```
//! A move gives the same bytes another place: written to the segment that is filled now, flushed, then the same key with
//! the same stamp in one LMDB transaction, so no journal record is needed and a crash anywhere leaves the one place or
//! the other. Checkpoints move what they bring from these segments as well. Emptied segments then go the way of all
//! (reclaim.rs): nothing is freed while a tier names it or a reader may.
//!
//! Sealed layers are never written. What only they use comes back when they go.

mod choice;
mod emptying;
mod rows;
#[cfg(test)]
mod tests;

pub(super) use emptying::Emptying;

use super::reclaim::{Attempts, named_in_memory};
use super::rewrite::Moved;
use super::{Engine, checkpoint};
use crate::data::Room;
use crate::error::{FsError, FsResult};
use crate::ids::SegmentNo;
use crate::layer::Layer;
use crate::schema::Value;
use crate::stack::Tiers;
use choice::{Candidate, InUse};
use rows::{rows_to_move, segments_of, survey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Pieces behind a checkpoint: about as much as it wrote itself, also if writers wait for the next one. They are slowed down, or
/// the disk would be full first.
const PIECES: usize = 4;
/// A full store is not searched through more often, in vain.
const FORCED_INTERVAL: Duration = Duration::from_secs(10);

/// How far the current pass is. Its stage changes under the turn to checkpoint.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// Number of the layer that all this is about.
    layer: u64,
    stage: Stage,
    emptying: Emptying,
    /// A survey is due when the layer holds so many bytes; `None`: the floor.
    due: Option<u64>,
    /// In a full store.
    forced: Attempts,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Rest,
    Survey {
        from: Vec<u8>,
        used: BTreeMap<SegmentNo, u64>,
        /// Segments that were full when it began: of newer ones it may have missed the most.
        full: BTreeSet<SegmentNo>,
        goal: Goal,
    },
    Moves {
        from: Vec<u8>,
        moved: Moved,
    },
}

/// What a pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// What is worth it when it comes to the choice.
    Ordinary,
    /// Whatever is in use by so much at most; it may take the reserve.
    Room(InUse),
}

/// Whether there is more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    More,
    Done,
}

impl Compaction {
    pub(super) fn emptying(&mut self) -> &mut Emptying {
        &mut self.emptying
    }

    /// What was known of another layer is void.
    pub(super) fn follow(&mut self, layer: u64) {
        if self.layer != layer {
            *self = Self { layer, forced: std::mem::take(&mut self.forced), ..Self::default() };
        }
    }

    fn survey(&mut self, full: BTreeSet<SegmentNo>, goal: Goal) {
        self.stage = Stage::Survey { from: Vec::new(), used: BTreeMap::new(), full, goal };
    }
}

impl Engine {
    /// Goes on with the pass, or begins one if it is due: a piece, or some behind a checkpoint. A failure ends the pass and nothing
    /// else.
    pub(super) fn compact_some(&self, pieces: Pieces) {
        let pieces = if pieces == Pieces::One { 1 } else { PIECES };
        for _ in 0..pieces {
            match self.compact_piece() {
                Ok(Progress::More) => {}
                Ok(Progress::Done) => return,
                Err(error) => return self.rest_after(&error),
            }
        }
    }

    /// Empties every segment that is in use by at most so many percent, now, on this thread: of those which only the open
    /// layer uses. Nothing that a file shows changes.
    pub fn compact(&self, percent_max: u64) -> FsResult<()> {
        self.checkpoint_now()?;
        {
            let _turn = self.checkpointing.lock();
            let mut compaction = self.compaction.lock();
            let tiers = self.stack.load();
            if let Some(top) = tiers.layers.first() {
                compaction.follow(top.meta().number);
            }
            compaction.survey(self.settled_segments(&tiers), Goal::Room(InUse(percent_max)));
        }
        while self.compact_piece()? == Progress::More {}
        // Moves what is in memory.
        self.checkpoint_now()?;
        let _turn = self.checkpointing.lock();
        self.reclaim();
        Ok(())
    }

    /// [`Engine::compact`] in a full store, unless that was tried a moment ago, in vain.
    pub(super) fn compact_for_room(&self) -> FsResult<()> {
        if !self.compaction.lock().forced.begin(FORCED_INTERVAL) {
            return Ok(());
        }
        let before = self.data.used_bytes();
        self.compact(choice::TIGHT.0)?;
        self.compaction.lock().forced.end(self.data.used_bytes() < before);
        Ok(())
    }

    fn rest_after(&self, error: &FsError) {
        tracing::warn!(%error, "compaction of data segments stopped; it is tried again later");
        let _turn = self.checkpointing.lock();
        let tiers = self.stack.load();
        let mut compaction = self.compaction.lock();
        compaction.stage = Stage::Rest;
        compaction.emptying.end();
        self.settle(&mut compaction, self.held(&tiers));
    }

    fn compact_piece(&self) -> FsResult<Progress> {
        if self.check_writable().is_err() {
            return Ok(Progress::Done);
        }
        let _turn = self.checkpointing.lock();
        let mut compaction = self.compaction.lock();
        let tiers = self.stack.load();
        let Some(top) = tiers.layers.first().filter(|top| top.meta().sealed.is_none()) else {
            return Ok(Progress::Done);
        };
        compaction.follow(top.meta().number);
        match std::mem::take(&mut compaction.stage) {
            Stage::Rest => {
                let due = compaction.due.unwrap_or(self.options.compact_floor_bytes);
                // The first sum is at hand, and never less.
                if self.data.used_bytes() < due || self.held(&tiers) < due {
                    return Ok(Progress::Done);
                }
                compaction.survey(self.settled_segments(&tiers), Goal::Ordinary);
                Ok(Progress::More)
            }
            Stage::Survey { from, mut used, full, goal } => {
                if let Some(from) = survey(top, &from, &mut used)? {
                    compaction.stage = Stage::Survey { from, used, full, goal };
                    return Ok(Progress::More);
                }
                let mut candidates = self.candidates(&tiers, &used);
                candidates.retain(|candidate| full.contains(&candidate.segment));
                self.choose(&mut compaction, candidates, self.held(&tiers), goal)
            }
            Stage::Moves { from, mut moved } => {
                let (piece, next) = self.move_piece(&mut compaction, top, &from)?;
                moved.add(piece);
                if let Some(from) = next.filter(|_| !moved.lacks_room) {
                    compaction.stage = Stage::Moves { from, moved };
                    return Ok(Progress::More);
                }
                self.finish(&mut compaction, tiers, moved);
                Ok(Progress::Done)
            }
        }
    }

    fn choose(
        &self,
        compaction: &mut Compaction,
        mut candidates: Vec<Candidate>,
        held: u64,
        goal: Goal,
    ) -> FsResult<Progress> {
        candidates.retain(|candidate| compaction.emptying.is_readable(candidate.segment));
        // Others write as well while a pass is under way; the reserve has no others.
        let (in_use, room, bytes) = match goal {
            Goal::Ordinary => {
                let free = self.free_bytes_for(Room::Ordinary)?;
                (InUse::worth_it(free, held), Room::Ordinary, free / 2)
            }
            Goal::Room(in_use) => (in_use, Room::Reserve, self.free_bytes_for(Room::Reserve)?),
        };
        let chosen = choice::choose(candidates, in_use, bytes);
        if chosen.is_empty() {
            compaction.emptying.end();
            self.settle(compaction, held);
            return Ok(Progress::Done);
        }
        compaction.emptying.begin(chosen, room);
        compaction.stage = Stage::Moves { from: Vec::new(), moved: Moved::default() };
        Ok(Progress::More)
    }

    /// Full segments without those that memory names: the rows of their newest bytes are not in the layer yet.
    fn settled_segments(&self, tiers: &Tiers) -> BTreeSet<SegmentNo> {
        let in_memory = named_in_memory(tiers);
        self.data.sealed_segments().into_iter().filter(|segment| !in_memory.contains(segment)).collect()
    }

    /// Full segments that the top layer uses and none below.
    fn candidates(&self, tiers: &Tiers, used: &BTreeMap<SegmentNo, u64>) -> Vec<Candidate> {
        let Some((top, below)) = tiers.layers.split_first() else { return Vec::new() };
        let named: BTreeSet<SegmentNo> = top.live_segments().into_iter().collect();
        let elsewhere: BTreeSet<SegmentNo> = below.iter().flat_map(|layer| layer.live_segments()).collect();
        let full = self.data.sealed_sizes().into_iter();
        let own = full.filter(|(segment, _)| named.contains(segment) && !elsewhere.contains(segment));
        own.map(|(segment, bytes)| Candidate { segment, bytes, used: used.get(&segment).copied().unwrap_or_default() })
            .collect()
    }

    /// Bytes of these segments.
    fn held(&self, tiers: &Tiers) -> u64 {
        self.candidates(tiers, &BTreeMap::new()).iter().map(|candidate| candidate.bytes).sum()
    }

    fn settle(&self, compaction: &mut Compaction, held: u64) {
        let free = self.free_bytes_for(Room::Ordinary).unwrap_or(0);
        compaction.due = Some(choice::due(held, free, self.options.compact_floor_bytes));
    }

    /// Moves what the rows from `from` on have in segments that are being emptied; answers where to go on, too.
    fn move_piece(&self, compaction: &mut Compaction, top: &Layer, from: &[u8]) -> FsResult<(Moved, Option<Vec<u8>>)> {
        let (mut rows, next) = rows_to_move(top, from, &compaction.emptying)?;
        let mut moved = Moved::default();
        for (_, (_, value)) in &mut rows {
            if let Value::Window(window) = value {
                moved.add(compaction.emptying.relocate(&self.data, window)?);
            }
        }
        if moved.bytes > 0 {
            checkpoint::flush_spilled(&self.data).map_err(|error| self.poison(error))?;
            checkpoint::write(top, &rows, &top.meta().mark())
                .inspect_err(|_| self.keep_doubtful(segments_of(&rows)))?;
        }
        Ok((moved, next))
    }

    fn finish(&self, compaction: &mut Compaction, tiers: Arc<Tiers>, moved: Moved) {
        let held = self.held(&tiers);
        let named: BTreeSet<SegmentNo> = tiers.layers.iter().flat_map(|layer| layer.live_segments()).collect();
        let emptied = compaction.emptying.segments().difference(&named).count();
        tracing::debug!(segments = emptied, bytes = moved.bytes, "data segments were emptied");
        if moved.lacks_room {
            // The next choice is of what fits.
            compaction.emptying.end();
        }
        // Whoever reads these tiers holds up the segments.
        drop(tiers);
        self.reclaim();
        self.settle(compaction, held);
    }
}

/// How much is done at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pieces {
    One,
    Some,
}
