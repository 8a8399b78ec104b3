//! A full host disk. Whoever must write all the same (a checkpoint, the removal of a file, a start) gets the ballast; as long
//! as that is away nothing is taken that needs room, so that what is left of it is spent on making room.

use super::Engine;
use crate::error::{FsError, FsResult};
use crate::op::Op;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Room for the ballast is looked for so often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Of so many looks, one makes room itself: with checkpoints and a search through the open layer.
const LOOKS_FOR_EACH_SEARCH: u64 = 10;

/// When somebody last looked for room for the ballast, and how often so far.
#[derive(Debug, Default)]
pub(super) struct Looks(Mutex<(Option<Instant>, u64)>);

impl Looks {
    /// The number of this look, if it is due.
    fn next(&self) -> Option<u64> {
        let mut looks = self.0.lock();
        if looks.0.is_some_and(|then| then.elapsed() < LOOK_INTERVAL) {
            return None;
        }
        let number = looks.1;
        *looks = (Some(Instant::now()), number + 1);
        Some(number)
    }
}

impl Engine {
    /// Why nothing is taken that needs room, if so: the host's disk was full.
    pub fn shortage(&self) -> Option<String> {
        if !self.ballast.is_away() {
            return None;
        }
        let mib = self.ballast.wanted().unwrap_or_default().div_ceil(1 << 20);
        let dir = self.dirs.root().display();
        Some(format!("the local disk is full: until {mib} MiB are free below {dir}, only removing goes on"))
    }

    /// Bytes that must be free on the disk for the shortage to end, if there is one.
    pub fn room_wanted(&self) -> Option<u64> {
        if !self.ballast.is_away() {
            return None;
        }
        self.ballast.wanted().ok().map(|bytes| bytes.saturating_sub(self.ballast.held()))
    }

    /// Does what has to be done, on a full disk with the ballast's room.
    pub(super) fn insist<T>(&self, attempt: impl Fn() -> FsResult<T>) -> FsResult<T> {
        loop {
            match attempt() {
                Err(FsError::NoSpace) if self.ballast.give_up() => self.notify(),
                done => return done,
            }
        }
    }

    /// What an operation needs; ENOSPC for room, while the ballast is away.
    pub(super) fn admit_op(&self, op: &Op) -> FsResult<Need> {
        let need = need_of(op);
        if need == Need::Room && self.ballast.is_away() { Err(FsError::NoSpace) } else { Ok(need) }
    }

    /// The end of the shortage, if there is room for the ballast again. Nothing is kept from it: no spare segment, no cached layer,
    /// no half-dead segment.
    pub(super) fn end_shortage(&self) {
        if !self.ballast.is_away() {
            return;
        }
        let Some(look) = self.shortage_looks.next() else { return };
        if look.is_multiple_of(LOOKS_FOR_EACH_SEARCH) {
            // Whoever needs room is refused, and does not look for some.
            self.make_room();
        }
        let done = self.drop_spares().and_then(|()| self.restore_ballast());
        match done {
            Ok(true) => {
                tracing::info!("there is room on the local disk again");
                self.journal.allow_spares();
                if let Err(error) = self.data.allow_spares() {
                    tracing::warn!(%error, "spare segments");
                }
                self.notify();
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the ballast cannot be made"),
        }
    }

    /// At a start. If it was given up and there is no room for it, there is a shortage from the beginning; if there never was one,
    /// it goes without. Whatever else is wrong with it keeps nobody from mounting.
    pub(super) fn hold_ballast(&self) {
        if let Err(error) = self.restore_ballast() {
            tracing::warn!(%error, "the ballast cannot be made: going on without");
            self.ballast.do_without();
        }
        if let Some(shortage) = self.shortage() {
            tracing::warn!("{shortage}");
        }
    }

    /// Until the end of the shortage. The worker's alone, which makes that end, too.
    fn drop_spares(&self) -> FsResult<()> {
        self.journal.hold_spares()?;
        Ok(self.data.drop_spares()?)
    }

    fn restore_ballast(&self) -> FsResult<bool> {
        let object = || self.dirs.root().join("ballast").display().to_string();
        self.ballast.restore().map_err(|error| FsError::os(&object(), &error))
    }
}

/// What an operation needs of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Room, for good.
    Room,
    /// No more than its record, for a while.
    Record,
}

fn need_of(op: &Op) -> Need {
    match op {
        Op::Make { .. }
        | Op::MakeWithAcls { .. }
        | Op::Link { .. }
        | Op::Write { .. }
        | Op::SetXattr { .. }
        | Op::CopyRange { .. }
        | Op::Evacuate(_) => Need::Room,
        // Of names and inodes that are there, or what a start and a snapshot need.
        Op::Unlink { .. }
        | Op::Rmdir { .. }
        | Op::Rename { .. }
        | Op::SetAttributes { .. }
        | Op::SetAcl { .. }
        | Op::RemoveXattr { .. }
        | Op::Allocate { .. }
        | Op::Purge { .. }
        | Op::PurgeAll { .. }
        | Op::Root(_)
        | Op::Epoch { .. }
        | Op::Snapshot(_) => Need::Record,
    }
}
