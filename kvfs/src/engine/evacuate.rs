//! Taking the bytes that are still used out of a pack, so that nothing uses it any more.
//!
//! The bytes come back to this machine by records of the journal, as if they were written again, and leave with the next
//! snapshot into a new pack. So nothing can be lost by it: whatever names the pack until then, a layer, an open file, an
//! operation under way, goes on naming bytes that are there, and the pack counts as dead by the same sums as ever.

use super::Engine;
use crate::error::{FsError, FsResult};
use crate::ids::{Ino, PackNo};
use crate::op::{Evacuation, Op};
use crate::schema::key::Parts;
use crate::schema::{Extent, Key, Place, Space, Time, Value, WINDOW_BYTES};
use bytes::Bytes;

/// Windows that are looked at together.
const WINDOWS_AT_ONCE: usize = 64;
/// Fetches in a row after which the operation must have got on.
const FETCHES_MAX: usize = 64;

impl Engine {
    /// Brings bytes of `ino` that lie in `pack` back to this machine, about `bytes_max` at most; answers how many. What a
    /// layer, cached or not, shows from local data is not touched, whatever the base has of it. Blocks, for what has to be
    /// fetched as well; acknowledged on return, durable with the next flush. Changes nothing that the file shows, its times
    /// included.
    pub fn evacuate(&self, ino: Ino, pack: PackNo, bytes_max: u64) -> FsResult<u64> {
        let mut moved = 0;
        let mut from = Key::first_of(ino, Space::Window);
        loop {
            let rows = fetching(|| {
                let tiers = self.stack().load();
                tiers.view().scan(ino, Space::Window, &from, WINDOWS_AT_ONCE)
            })?;
            let Some((last, _)) = rows.last() else { return Ok(moved) };
            from = Key::window(ino, number(last).saturating_add(1));
            for (key, value) in rows {
                let Value::Window(window) = value else { continue };
                for extent in &window.extents {
                    let Some(evacuation) = evacuation_of(ino, number(&key), extent, pack) else { continue };
                    if moved >= bytes_max {
                        return Ok(moved);
                    }
                    moved += self.bring_back(evacuation)?;
                }
            }
        }
    }

    /// Answers how many bytes came.
    fn bring_back(&self, evacuation: Evacuation) -> FsResult<u64> {
        let Some(bytes) = fetching(|| self.packed_bytes(&evacuation))? else { return Ok(0) };
        self.admit()?;
        fetching(|| {
            let placed = self.place_bulk(&bytes)?;
            let _locked = self.stack().locks().lock(&[evacuation.ino]);
            // It leaves no time on anything.
            self.run_write(Time::default(), Op::Evacuate(evacuation), placed)
        })?;
        Ok(u64::from(evacuation.len))
    }

    /// The bytes, if the file still shows them from there: a base that has moved up may not know the pack any more.
    fn packed_bytes(&self, evacuation: &Evacuation) -> FsResult<Option<Bytes>> {
        let Evacuation { ino, offset, len, frame, within } = evacuation;
        let tiers = self.stack().load();
        let window = tiers.view().window(*ino, offset / WINDOW_BYTES)?;
        let place = Place::Frame { frame: *frame, within: *within };
        let is_same = |extent: &Extent| {
            (u64::from(extent.start), extent.len) == (offset % WINDOW_BYTES, *len) && extent.place == place
        };
        if !window.extents.iter().any(is_same) {
            return Ok(None);
        }
        let raw = tiers.base.read_frame(frame)?;
        let (first, end) = (*within as usize, *within as usize + *len as usize);
        if end > raw.len() {
            return Err(FsError::corrupt("an extent is longer than its bytes"));
        }
        Ok(Some(raw.slice(first..end)))
    }
}

fn number(window: &Key) -> u64 {
    Parts::parse(window.as_bytes()).and_then(|parts| parts.number()).unwrap_or_default()
}

/// How the bytes of `extent` come back, if they lie in `pack`.
fn evacuation_of(ino: Ino, window: u64, extent: &Extent, pack: PackNo) -> Option<Evacuation> {
    match &extent.place {
        Place::Frame { frame, within } if frame.pack == pack => {
            let offset = window.checked_mul(WINDOW_BYTES)?.checked_add(u64::from(extent.start))?;
            Some(Evacuation { ino, offset, len: extent.len, frame: *frame, within: *within })
        }
        _ => None,
    }
}

/// Repeats `operation` with what it needs fetched, on a thread that may wait.
fn fetching<T>(operation: impl Fn() -> FsResult<T>) -> FsResult<T> {
    let mut fetched = 0;
    loop {
        match operation() {
            Err(FsError::NotResident(need)) if fetched < FETCHES_MAX => {
                need.fetch().map_err(FsError::from)?;
                fetched += 1;
            }
            settled => return settled,
        }
    }
}
