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

use super::reclaim::Attempts;
use super::{Engine, checkpoint};
use crate::data::Room;
use crate::error::{FsError, FsResult};
use crate::ids::SegmentNo;
use crate::layer::Layer;
use crate::schema::Value;
use crate::stack::Tiers;
use choice::{Candidate, InUse};
use rows::{rows_to_move, survey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Pieces behind a checkpoint: about as much as it wrote itself.
const PIECES: usize = 4;
/// A full store is not searched through more often, in vain.
const FORCED_INTERVAL: Duration = Duration::from_secs(10);

/// How far the current pass is. Changed under the turn to checkpoint.
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
        /// `None`: what is worth it when it comes to the choice.
        in_use: Option<InUse>,
    },
    Moves {
        from: Vec<u8>,
        moved: u64,
    },
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

    fn survey(&mut self, full: Vec<SegmentNo>, in_use: Option<InUse>) {
        let full = full.into_iter().collect();
        self.stage = Stage::Survey { from: Vec::new(), used: BTreeMap::new(), full, in_use };
    }
}

impl Engine {
    /// Goes on with the pass, or begins one if it is due: a piece, or some if nobody waits for the next checkpoint. A
    /// failure ends the pass and nothing else.
    pub(super) fn compact_some(&self, pieces: Pieces) {
        let pieces = if pieces == Pieces::One { 1 } else { PIECES };
        for _ in 0..pieces {
            match self.compact_piece() {
                Ok(Progress::More) => {}
                Ok(Progress::Done) => return,
                Err(error) => return self.rest_after(&error),
            }
            if self.active().map_or(true, |active| active.bytes() > self.options.overlay_bytes_max) {
                return;
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
            if let Some(top) = self.stack.load().layers.first() {
                compaction.follow(top.meta().number);
            }
            compaction.survey(self.data.sealed_segments(), Some(InUse(percent_max)));
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
        let tiers = self.stack.load();
        let mut compaction = self.compaction.lock();
        compaction.stage = Stage::Rest;
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
                compaction.survey(self.data.sealed_segments(), None);
                Ok(Progress::More)
            }
            Stage::Survey { from, mut used, full, in_use } => {
                if let Some(from) = survey(top, &from, &mut used)? {
                    compaction.stage = Stage::Survey { from, used, full, in_use };
                    return Ok(Progress::More);
                }
                let mut candidates = self.candidates(&tiers, &used);
                candidates.retain(|candidate| full.contains(&candidate.segment));
                self.choose(&mut compaction, candidates, self.held(&tiers), in_use)
            }
            Stage::Moves { from, moved } => {
                let (piece, next) = self.move_piece(&mut compaction, top, &from)?;
                let moved = moved + piece;
                if let Some(from) = next {
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
        in_use: Option<InUse>,
    ) -> FsResult<Progress> {
        let free = self.free_bytes_for(Room::Reserve)?;
        candidates.retain(|candidate| compaction.emptying.is_readable(candidate.segment));
        let in_use = in_use.unwrap_or_else(|| InUse::worth_it(free, held));
        let chosen = choice::choose(candidates, in_use, free / 2);
        let is_worth_it = !chosen.is_empty();
        compaction.emptying.begin(chosen);
        if !is_worth_it {
            self.settle(compaction, held);
            return Ok(Progress::Done);
        }
        compaction.stage = Stage::Moves { from: Vec::new(), moved: 0 };
        Ok(Progress::More)
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
        let free = self.free_bytes_for(Room::Reserve).unwrap_or(0);
        compaction.due = Some(choice::due(held, free, self.options.compact_floor_bytes));
    }

    /// Moves what the rows from `from` on have in segments that are being emptied; answers how many bytes, and where to go on.
    fn move_piece(&self, compaction: &mut Compaction, top: &Layer, from: &[u8]) -> FsResult<(u64, Option<Vec<u8>>)> {
        let (mut rows, next) = rows_to_move(top, from, &compaction.emptying)?;
        let mut moved = 0;
        for (_, (_, value)) in &mut rows {
            if let Value::Window(window) = value {
                moved += compaction.emptying.relocate(&self.data, window)?;
            }
        }
        if moved > 0 {
            fail::fail_point!("kvfs::compact::moved");
            checkpoint::flush_spilled(&self.data).map_err(|error| self.poison(error))?;
            checkpoint::write(top, &rows, &top.meta().mark())?;
        }
        Ok((moved, next))
    }

    fn finish(&self, compaction: &mut Compaction, tiers: Arc<Tiers>, moved: u64) {
        let segments = compaction.emptying.segments().len();
        tracing::info!(segments, bytes = moved, "data segments were emptied");
        let left = self.candidates(&tiers, &BTreeMap::new()).into_iter();
        let left = left.filter(|candidate| !compaction.emptying.segments().contains(&candidate.segment));
        let held = left.map(|candidate| candidate.bytes).sum();
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
