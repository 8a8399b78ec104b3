//! Which segments are worth emptying, and when to look for some.

use crate::ids::SegmentNo;
use std::collections::BTreeSet;

/// A full segment that only the top layer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub segment: SegmentNo,
    /// Its size.
    pub bytes: u64,
    /// What is used of it; more than there is if files share bytes, which part when they move.
    pub used: u64,
}

/// Up to which share of it in use a segment is emptied, percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InUse(pub u64);

/// Emptying two brings back one at least.
const ORDINARY: InUse = InUse(50);
/// Five for one: much to write, and better than no room.
pub(super) const TIGHT: InUse = InUse(80);

impl InUse {
    /// What is worth it with so many bytes `free` beside `held` ones.
    pub(super) fn worth_it(free: u64, held: u64) -> Self {
        if free < held / 8 { TIGHT } else { ORDINARY }
    }
}

/// The emptiest first, as many as find a place in `room` bytes.
pub(super) fn choose(mut candidates: Vec<Candidate>, in_use: InUse, room: u64) -> BTreeSet<SegmentNo> {
    candidates.retain(|candidate| candidate.used.saturating_mul(100) <= candidate.bytes.saturating_mul(in_use.0));
    candidates.sort_by_key(|candidate| candidate.used.saturating_mul(1 << 10) / candidate.bytes.max(1));
    let mut moved = 0_u64;
    let fits = |candidate: &Candidate| {
        moved = moved.saturating_add(candidate.used);
        moved <= room
    };
    candidates.into_iter().take_while(fits).map(|candidate| candidate.segment).collect()
}

/// At how many bytes in its segments the top layer is looked at again, with `held` there now and `free` left on the disk. A
/// survey reads the whole layer: it comes after a share of it was written, and the oftener the less room there is.
pub(super) fn due(held: u64, free: u64, floor: u64) -> u64 {
    held.saturating_add((held / 4).max(floor).min((free / 2).max(floor / 8)).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(segment: u64, used: u64) -> Candidate {
        Candidate { segment: SegmentNo(segment), bytes: 100, used }
    }

    fn chosen(in_use: InUse, room: u64) -> Vec<u64> {
        let candidates = [(1, 60), (2, 50), (3, 10), (4, 130), (5, 0), (6, 100)];
        let candidates = candidates.map(|(segment, used)| candidate(segment, used)).to_vec();
        choose(candidates, in_use, room).into_iter().map(|segment| segment.0).collect()
    }

    #[test]
    fn the_emptiest_come_first_and_full_ones_never() {
        assert_eq!(chosen(ORDINARY, 1000), [2, 3, 5]);
        assert_eq!(chosen(TIGHT, 1000), [1, 2, 3, 5]);
        assert_eq!(chosen(InUse(100), 1000), [1, 2, 3, 5, 6]);
        assert_eq!(chosen(TIGHT, 59), [3, 5], "the third would not find room");
        assert_eq!(chosen(TIGHT, 0), [5]);
    }

    #[test]
    fn a_full_disk_is_looked_at_oftener() {
        let floor = 1000;
        assert_eq!(due(0, 1 << 40, floor), 1000);
        assert_eq!(due(40_000, 1 << 40, floor), 50_000);
        assert_eq!(due(40_000, 2000, floor), 41_000);
        assert_eq!(due(40_000, 0, floor), 40_125, "and not all the time");
        assert_eq!((InUse::worth_it(4999, 40_000), InUse::worth_it(5000, 40_000)), (TIGHT, ORDINARY));
    }
}
