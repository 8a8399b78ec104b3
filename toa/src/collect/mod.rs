//! Collecting: from what changed since the last snapshot to packs and an index run.
//!
//! One ordered pass over a [`ChangeSet`]: file bytes that are on this machine only go into packs, and the records come
//! out in key order with every local place replaced by a frame of a pack. Bytes that are in a pack already are never
//! shipped again. Collecting reads persisted layers only (I2) and may be begun again at any time: packs get new names
//! with every attempt, nothing else is written.

mod error;
mod file;
mod links;
mod members;
mod merge;
mod packer;
mod paths;
mod records;
mod rows;
mod split;
mod usage;
mod walk;

pub use error::{CollectError, CollectErrorKind};
pub use merge::{Bottom, RUNS_MAX, RunRecords, merge_runs, plan_merge};
pub use split::{
    MergePlan, PartRecords, PartSink, RUN_PART_BYTES, RunSplitter, StackedPart, StackedParts, cursor_records,
    merge_stack, plan_stack,
};

use crate::pack::{PACK_BYTES_TARGET, PackSummary};
use kvfs::base::Base;
use kvfs::changes::ChangeSet;
use kvfs::ids::PackNo;
use kvfs::schema::{BlobRef, FrameRef, WINDOW_BYTES};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Where finished packs go.
pub trait PackSink {
    /// The file to write pack `pack` into; an older file there is replaced.
    fn path(&mut self, pack: PackNo) -> Result<PathBuf, CollectError>;
    /// The open pack will have up to `bytes` in all: the sink makes room, or refuses.
    fn growing(&mut self, _bytes: u64) -> Result<(), CollectError> {
        Ok(())
    }
    /// The object name of `pack` as its record in the index shall say it.
    fn object(&self, pack: PackNo) -> String;
    /// `pack` is complete at `path`, and not durable yet; it may be synced, uploaded and removed from here on.
    fn staged(&mut self, pack: &PackSummary, path: &Path) -> Result<(), CollectError>;
}

/// Where records go, in key order.
pub trait RecordSink {
    /// Appends a record; keys come strictly ascending.
    fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), CollectError>;
    /// Learns that local bytes now have a second home in a pack. Called before the record that names it.
    fn moved(&mut self, _moved: &Moved) -> Result<(), CollectError> {
        Ok(())
    }
}

/// Local bytes and the place in a pack that holds the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The local blob.
    pub blob: BlobRef,
    /// First byte in the blob.
    pub blob_within: u32,
    /// Number of bytes.
    pub len: u32,
    /// The frame.
    pub frame: FrameRef,
    /// First byte in the decompressed frame.
    pub frame_within: u32,
}

/// How large things become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A pack is closed at about this size, bytes; only a single large member makes one larger than 1.25 times it.
    pub pack_bytes_target: u64,
    /// Data of one tar member at most; the rest of a larger file goes into part members, bytes. At least one window.
    pub member_bytes_max: u64,
    /// Dead packs that one snapshot tells of at most; the next ones tell of the rest.
    pub packs_dead_max: usize,
    /// A part of a run is closed at about this size, bytes.
    pub run_part_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pack_bytes_target: PACK_BYTES_TARGET,
            member_bytes_max: PACK_BYTES_TARGET,
            packs_dead_max: 400,
            run_part_bytes: RUN_PART_BYTES,
        }
    }
}

impl Limits {
    fn member_bytes(&self) -> u64 {
        self.member_bytes_max.max(WINDOW_BYTES)
    }
}

/// Packs that open, unlinked files still read. The caller knows them; marks in the change set are found without it.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    /// Read now: not reported dead, even when no file of the snapshot uses them any more. They are once nobody reads them.
    pub held: BTreeSet<PackNo>,
}

/// What to collect.
#[derive(Clone, Copy)]
pub struct CollectInput<'a> {
    /// The changes.
    pub changes: &'a dyn ChangeSet,
    /// The snapshot below them: `base.xid() == changes.xid_from()`.
    pub base: &'a dyn Base,
    /// The filesystem, for the packs' headers.
    pub fs: Uuid,
    /// The first pack number that was never used.
    pub next_pack: PackNo,
    /// See [`Pins`].
    pub pins: &'a Pins,
    /// See [`Limits`].
    pub limits: Limits,
}

/// What came out. All packs are staged, all records pushed; the caller finishes the run.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// New packs in order.
    pub packs: Vec<NewPack>,
    /// No pack has this number or a higher one.
    pub pack_end: PackNo,
    /// Packs that this snapshot does not use and no earlier one told of.
    pub packs_dead: Vec<DeadPack>,
    /// Records pushed.
    pub records: u64,
}

/// A pack that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPack {
    /// Its numbers.
    pub summary: PackSummary,
    /// Its object name.
    pub object: String,
}

/// A pack that no file uses any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadPack {
    /// Its number.
    pub number: PackNo,
    /// Its object name.
    pub object: String,
}

/// Collects a snapshot. Blocks: reads local blobs, and fetches what it needs of the base.
pub fn collect(
    input: CollectInput<'_>,
    packs: &mut dyn PackSink,
    records: &mut dyn RecordSink,
) -> Result<Collected, CollectError> {
    walk::Walk::new(input, packs, records).run()
}
