//! Which inodes use a pack: where to look for the bytes that are still needed of it.

use crate::ids::Ino;
use serde::{Deserialize, Serialize};

/// Ranges that a value lists at most; of more, the nearest become one.
pub const USER_RANGES_MAX: usize = 1024;
/// Inodes that no user needs to have between two ranges: less costs more to say than to look at.
const GAP_MIN: u64 = 8;

/// The users of a pack (index runs only): every inode that has bytes in it, and others between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackUsersValue {
    /// Raw bytes that files used when the pack was new.
    pub live: u64,
    /// Ascending ranges: inode numbers left out since the one before, and how many are in it.
    ranges: Vec<(u64, u64)>,
}

impl PackUsersValue {
    /// Of a pack of which files use `live` bytes.
    pub fn new(live: u64, users: UserRanges) -> Self {
        let mut end = 0;
        let relative = users.compacted(USER_RANGES_MAX).ranges.into_iter().map(|(first, last)| {
            let range = (first - end, last - first + 1);
            end = last + 1;
            range
        });
        Self { live, ranges: relative.collect() }
    }

    /// The ranges as first and last inode.
    pub fn ranges(&self) -> impl Iterator<Item = (Ino, Ino)> {
        self.ranges.iter().scan(0_u64, |end, (gap, count)| {
            let first = *end + gap;
            *end = first + count;
            Some((Ino(first), Ino(*end - 1)))
        })
    }

    /// Whether `ino` is in one of them.
    pub fn contains(&self, ino: Ino) -> bool {
        self.ranges().any(|(first, last)| (first..=last).contains(&ino))
    }

    /// Whether it keeps its own rules; checked on everything that is read.
    pub(super) fn is_sound(&self) -> bool {
        let sum = |end: u64, (gap, count): &(u64, u64)| end.checked_add(*gap)?.checked_add(*count);
        self.ranges.len() <= USER_RANGES_MAX
            && self.ranges.iter().all(|(_, count)| *count > 0)
            && self.ranges.iter().try_fold(0, sum).is_some()
    }
}

/// A set of inode numbers that may grow a little, so that it stays short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserRanges {
    /// First and last, ascending, never touching.
    ranges: Vec<(u64, u64)>,
}

impl UserRanges {
    /// Puts `ino` in. Costs little where numbers ascend. The greatest number there is cannot be in: it is no inode.
    pub fn insert(&mut self, ino: Ino) {
        self.insert_range(ino.0, ino.0);
    }

    /// Puts in what `users` has.
    pub fn extend(&mut self, users: &PackUsersValue) {
        users.ranges().for_each(|(first, last)| self.insert_range(first.0, last.0));
    }

    fn insert_range(&mut self, first: u64, last: u64) {
        let (first, last) = (first.min(u64::MAX - 1), last.min(u64::MAX - 1));
        let from = self.ranges.partition_point(|range| range.1.saturating_add(GAP_MIN) < first);
        let to = self.ranges.partition_point(|range| range.0 <= last.saturating_add(GAP_MIN));
        let touched = self.ranges.get(from..to.max(from)).unwrap_or_default();
        let joined = match (touched.first(), touched.last()) {
            (Some(low), Some(high)) => (low.0.min(first), high.1.max(last)),
            _ => (first, last),
        };
        self.ranges.splice(from..to.max(from), [joined]);
        if self.ranges.len() > 2 * USER_RANGES_MAX {
            *self = std::mem::take(self).compacted(USER_RANGES_MAX);
        }
    }

    /// The same in at most `max` ranges: those with the smallest gaps between them become one.
    fn compacted(mut self, max: usize) -> Self {
        let excess = self.ranges.len().saturating_sub(max);
        if excess == 0 {
            return self;
        }
        let gap = |pair: &[(u64, u64)]| match pair {
            [low, high] => high.0 - low.1,
            _ => 0,
        };
        let mut gaps: Vec<(u64, usize)> =
            self.ranges.windows(2).enumerate().map(|(at, pair)| (gap(pair), at + 1)).collect();
        gaps.select_nth_unstable(excess - 1);
        let closed: std::collections::BTreeSet<usize> = gaps.iter().take(excess).map(|(_, at)| *at).collect();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(max);
        for (at, range) in std::mem::take(&mut self.ranges).into_iter().enumerate() {
            match joined.last_mut() {
                Some(last) if closed.contains(&at) => last.1 = range.1,
                _ => joined.push(range),
            }
        }
        Self { ranges: joined }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn of(inos: impl IntoIterator<Item = u64>) -> PackUsersValue {
        let mut users = UserRanges::default();
        inos.into_iter().for_each(|ino| users.insert(Ino(ino)));
        PackUsersValue::new(7, users)
    }

    #[test]
    fn neighbours_are_one_range_and_distant_ones_are_not() {
        let users = of([5, 6, 7, 12, 1 << 40, (1 << 40) + 100]);
        let ranges: Vec<_> = users.ranges().map(|(first, last)| (first.0, last.0)).collect();
        assert_eq!(ranges, [(5, 12), (1 << 40, 1 << 40), ((1 << 40) + 100, (1 << 40) + 100)]);
        assert!(users.contains(Ino(9)) && !users.contains(Ino(13)) && !users.contains(Ino(4)));
    }

    #[test]
    fn of_too_many_ranges_the_nearest_become_one() {
        let count = 3 * USER_RANGES_MAX as u64;
        let users = of((0..count).map(|n| n * 100 + u64::from(n >= count / 2) * (1 << 30)));
        assert!(users.is_sound() && users.ranges().count() <= USER_RANGES_MAX);
        assert!(!users.contains(Ino(1 << 29)), "the widest gap stays");
        assert!((0..count).all(|n| users.contains(Ino(n * 100 + u64::from(n >= count / 2) * (1 << 30)))));
    }

    #[test]
    fn ranges_that_cannot_be_are_refused() {
        for ranges in [vec![(1, 0)], vec![(u64::MAX, 1)], vec![(1, u64::MAX)], vec![(1, 1); USER_RANGES_MAX + 1]] {
            assert!(!PackUsersValue { live: 1, ranges }.is_sound());
        }
    }

    proptest! {
        #[test]
        fn nobody_is_lost(inos in proptest::collection::vec(0_u64..60_000, 0..3000), more in proptest::collection::vec(0_u64..60_000, 0..50)) {
            let first = of(inos.iter().copied());
            let mut users = UserRanges::default();
            users.extend(&first);
            for ino in &more {
                users.insert(Ino(*ino));
            }
            let both = PackUsersValue::new(7, users);
            prop_assert!(both.is_sound());
            prop_assert!(inos.iter().chain(&more).all(|ino| both.contains(Ino(*ino))));
            let distinct: BTreeSet<_> = inos.iter().chain(&more).collect();
            if distinct.is_empty() {
                prop_assert_eq!(both.ranges().count(), 0);
            }
        }
    }
}
