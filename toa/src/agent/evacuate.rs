//! Evacuation: packs of which less than half of what was used is used still are emptied, so that they can go.
//!
//! What is left in such a pack comes back to this machine as if it were written again (see `kvfs::engine`), leaves with the
//! next snapshot, and the old pack is dead by then. After each snapshot as much may move as a fifth of what was uploaded:
//! what moves is uploaded again and counts again, so that it comes to a quarter of what the filesystem itself changes.
//! Bytes that a cached layer still shows from local data wait until that layer is gone.

use super::Agent;
use super::worker::Duty;
use crate::base::RunBase;
use crate::error::AgentError;
use crate::status::Role;
use kvfs::base::{Base, BaseError};
use kvfs::engine::Engine;
use kvfs::ids::PackNo;
use kvfs::schema::key::Parts;
use kvfs::schema::{Key, PackUsersValue, Place, Space, Value};
use kvfs::{FsError, Ino};
use parking_lot::Mutex;
use std::ops::ControlFlow;

/// Below so many bytes nothing moves: many small snapshots must not cost a request for the bucket each.
pub const EVACUATION_BYTES_MIN: u64 = 1 << 20;
/// What is uploaded, by what may move.
const UPLOADED_PER_MOVED: u64 = 5;
/// The local disk must have so many times the room of what may move.
const ROOM: u64 = 4;
/// Inodes that are looked for at a time.
const INODES_AT_ONCE: usize = 1024;
/// Records of the index that are read before somebody looks whether the agent is to end.
const RECORDS_AT_ONCE: u64 = 64 << 10;
/// Records of the index that are read after one snapshot at most: the users of some packs lie far apart.
const RECORDS_PER_ROUND: u64 = 4 << 20;
/// Bytes of one file that are moved before somebody looks whether the agent is to end.
const BYTES_AT_ONCE: u64 = 8 << 20;

/// What may move now.
#[derive(Default)]
pub(super) struct Evacuating(Mutex<Allowance>);

#[derive(Default)]
struct Allowance {
    /// Stored bytes, as they count in an upload. In memory alone: what a restart forgets is little.
    bytes: u64,
    /// Whether the newest base has not been looked at.
    is_due: bool,
}

impl Evacuating {
    /// A snapshot was published. What is not used up is kept up to what is needed to begin.
    fn earn(&self, uploaded: u64, bytes_min: u64) {
        let mut allowance = self.0.lock();
        let earned = uploaded / UPLOADED_PER_MOVED;
        allowance.bytes = (allowance.bytes + earned).min(earned.max(bytes_min));
        allowance.is_due = true;
    }

    /// What may move, once for each base.
    fn take(&self, bytes_min: u64) -> Option<u64> {
        let mut allowance = self.0.lock();
        let due = std::mem::take(&mut allowance.is_due);
        (due && allowance.bytes >= bytes_min).then_some(allowance.bytes)
    }

    fn spend(&self, bytes: u64) {
        let mut allowance = self.0.lock();
        allowance.bytes = allowance.bytes.saturating_sub(bytes);
    }
}

/// A pack that is worth emptying.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HalfDead {
    pack: PackNo,
    /// Raw bytes in use.
    live: u64,
    /// Raw and stored size of the whole pack.
    raw: u64,
    stored: u64,
    users: PackUsersValue,
}

impl HalfDead {
    /// About so many stored bytes are `raw` ones, and not fewer.
    fn stored_of(&self, raw: u64) -> u64 {
        scaled(raw, self.stored, self.raw).saturating_add(u64::from(raw > 0))
    }

    fn raw_of(&self, stored: u64) -> u64 {
        scaled(stored, self.raw, self.stored)
    }
}

fn scaled(bytes: u64, by: u64, of: u64) -> u64 {
    (u128::from(bytes) * u128::from(by) / u128::from(of.max(1))).min(u128::from(u64::MAX)) as u64
}

impl Agent {
    /// A snapshot that uploaded packs of so many bytes has become the base.
    pub(super) fn earn_evacuation(&self, uploaded: u64) {
        self.evacuating.earn(uploaded, self.setup.options.evacuation_bytes_min);
        self.worker.hand_to(Duty::Evacuate);
    }

    /// Empties half-dead packs of the base, as far as that is allowed now. What fails is tried again after the next
    /// snapshot: nothing depends on it but room in the bucket.
    pub(super) fn evacuate_ready(&self) -> Result<(), AgentError> {
        let Some(allowed) = self.evacuating.take(self.setup.options.evacuation_bytes_min) else { return Ok(()) };
        let base = self.run_base.lock().clone();
        let (Some(engine), Some(base), Role::Master) = (self.fs.engine(), base, self.state.lock().role) else {
            return Ok(());
        };
        match self.evacuate(&engine, &base.waiting(), allowed) {
            Err(AgentError::Stopping) => Err(AgentError::Stopping),
            Err(error) => {
                tracing::warn!(%error, "half-dead packs stay as they are until after the next snapshot");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn evacuate(&self, engine: &Engine, base: &RunBase, allowed: u64) -> Result<(), AgentError> {
        let mut round = Round { engine, base, records: RECORDS_PER_ROUND };
        let mut left = allowed;
        for half_dead in half_dead(base)? {
            let bytes = half_dead.raw_of(left).max(1).min(half_dead.live);
            if left == 0 || round.records == 0 || engine.free_bytes()? < bytes.saturating_mul(ROOM) {
                break;
            }
            let mut moved = 0;
            let done = self.empty(&mut round, &half_dead, bytes, &mut moved);
            let stored = half_dead.stored_of(moved);
            self.evacuating.spend(stored);
            left = left.saturating_sub(stored);
            let HalfDead { pack, live, raw, .. } = half_dead;
            if moved > 0 {
                tracing::info!(pack = pack.0, moved, live, raw, "bytes moved out of a half-dead pack");
            }
            match done {
                Err(AgentError::Fs(FsError::Corrupt(what))) => {
                    tracing::warn!(pack = pack.0, %what, "a half-dead pack cannot be emptied");
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Moves about `bytes_max` raw bytes out of a pack at most; counts them in `moved`, whatever comes of it.
    fn empty(&self, round: &mut Round<'_>, from: &HalfDead, bytes_max: u64, moved: &mut u64) -> Result<(), AgentError> {
        for (first, last) in from.users.ranges() {
            let mut next = Some(first);
            while let Some(first) = next {
                let found = users_in(round.base, from.pack, (first, last))?;
                round.records = round.records.saturating_sub(found.records);
                next = found.next;
                for ino in found.inos {
                    self.take_out(round.engine, (ino, from.pack), bytes_max, moved)?;
                }
                if self.worker.is_stopping() {
                    return Err(AgentError::Stopping);
                }
                if round.records == 0 || *moved >= bytes_max {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One file, in pieces: somebody may want to stop.
    fn take_out(
        &self,
        engine: &Engine,
        (ino, pack): (Ino, PackNo),
        bytes_max: u64,
        moved: &mut u64,
    ) -> Result<(), AgentError> {
        while *moved < bytes_max {
            if self.worker.is_stopping() {
                return Err(AgentError::Stopping);
            }
            match engine.evacuate(ino, pack, (bytes_max - *moved).min(BYTES_AT_ONCE))? {
                0 => return Ok(()),
                bytes => *moved += bytes,
            }
        }
        Ok(())
    }
}

/// One look at all half-dead packs.
struct Round<'a> {
    engine: &'a Engine,
    base: &'a RunBase,
    /// Records of the index that may still be read.
    records: u64,
}

/// Packs of which less than half of what files used in the beginning is used, the cheapest first.
fn half_dead(base: &RunBase) -> Result<Vec<HalfDead>, AgentError> {
    let mut used = Vec::new();
    scan(base, (&Key::pack(PackNo(0)), &Key::pack(PackNo(u64::MAX))), |parts, value| {
        if let (Some(number), Value::Pack(pack)) = (parts.number(), value)
            && pack.live > 0
        {
            used.push((PackNo(number), pack));
        }
        ControlFlow::Continue(())
    })?;
    let mut found = Vec::new();
    for (number, pack) in used {
        let users = base.get(Key::pack_users(number).as_bytes())?;
        if let Some(Ok((_, Value::PackUsers(users)))) = users.as_deref().map(Value::decode)
            && pack.live.saturating_mul(2) < users.live
        {
            found.push(HalfDead { pack: number, live: pack.live, raw: pack.raw, stored: pack.size, users });
        }
    }
    found.sort_by_key(|half_dead| half_dead.stored_of(half_dead.live));
    Ok(found)
}

/// Inodes that have bytes in a pack.
struct Users {
    inos: Vec<Ino>,
    /// Where to go on; `None` at the end.
    next: Option<Ino>,
    /// Records that were read.
    records: u64,
}

/// The first inodes of `first ..= last` that have bytes in `pack`.
fn users_in(base: &RunBase, pack: PackNo, (first, last): (Ino, Ino)) -> Result<Users, AgentError> {
    let mut users = Users { inos: Vec::new(), next: None, records: 0 };
    let mut current = first;
    scan(base, (&Key::inode(first), &Key::end_of_inode(last)), |parts, value| {
        users.records += 1;
        if parts.ino != current && (users.records > RECORDS_AT_ONCE || users.inos.len() >= INODES_AT_ONCE) {
            users.next = Some(parts.ino);
            return ControlFlow::Break(());
        }
        current = parts.ino;
        if let (Space::Window, Value::Window(window)) = (parts.space, value) {
            let is_in = |place: &Place| matches!(place, Place::Frame { frame, .. } if frame.pack == pack);
            if users.inos.last() != Some(&current) && window.extents.iter().any(|extent| is_in(&extent.place)) {
                users.inos.push(current);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(users)
}

/// Shows the live records in `[from, end)`, decoded.
fn scan(
    base: &RunBase,
    (from, end): (&Key, &Key),
    mut visit: impl FnMut(Parts<'_>, Value) -> ControlFlow<()>,
) -> Result<(), AgentError> {
    let mut failed = None;
    base.scan(from.as_bytes(), end.as_bytes(), &mut |key, value| {
        if let (Some(parts), Ok((_, value))) = (Parts::parse(key), Value::decode(value)) {
            return visit(parts, value);
        }
        failed = Some(FsError::from(BaseError::Corrupt("the index: a record does not decode".into())));
        ControlFlow::Break(())
    })?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_is_a_quarter_of_what_changes() {
        let evacuating = Evacuating::default();
        let (changed, mut moved_before, mut moved) = (1_000_000, 0, 0);
        for _ in 0..200 {
            evacuating.earn(changed + moved_before, 1000);
            moved_before = evacuating.take(1000).unwrap_or(0);
            evacuating.spend(moved_before);
            moved += moved_before;
        }
        assert!((moved as f64 / (200 * changed) as f64 - 0.25).abs() < 0.01, "{moved}");
    }

    #[test]
    fn small_snapshots_save_up_for_one_round_and_none_comes_twice() {
        let evacuating = Evacuating::default();
        for _ in 0..9 {
            evacuating.earn(500, 1000);
            assert_eq!(evacuating.take(1000), None);
        }
        evacuating.earn(500, 1000);
        assert_eq!(evacuating.take(1000), Some(1000));
        assert_eq!(evacuating.take(1000), None, "the same base");
        evacuating.earn(500, 1000);
        assert_eq!(evacuating.take(1000), Some(1000), "no more is saved than it takes to begin");
        evacuating.spend(2000);
        evacuating.earn(50_000, 1000);
        assert_eq!(evacuating.take(1000), Some(10_000));
    }
}
