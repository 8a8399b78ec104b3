//! Where a file has data, as a tar says it: whole blocks, and not too many ranges.

use crate::tar::Range;

/// Ranges are widened to blocks of this size at least: smaller holes are written as zeros, which costs less than saying
/// where they are, and no filesystem keeps them.
const GRAIN_BYTES: u64 = 4096;
/// Ranges of one file at most, so that a map never takes much memory.
const RANGES_MAX: usize = 1 << 16;

/// Grows by extents in order.
#[derive(Debug)]
pub(super) struct Ranges {
    size: u64,
    grain: u64,
    max: usize,
    found: Vec<Range>,
}

impl Ranges {
    /// Of a file of `size` bytes.
    pub fn new(size: u64) -> Self {
        Self { size, grain: GRAIN_BYTES, max: RANGES_MAX, found: Vec::new() }
    }

    /// Adds bytes behind all others.
    pub fn add(&mut self, offset: u64, len: u64) {
        self.join(Range { offset, len });
        while self.found.len() > self.max {
            self.grain *= 2;
            for range in std::mem::take(&mut self.found) {
                self.join(range);
            }
        }
    }

    fn join(&mut self, range: Range) {
        let from = range.offset / self.grain * self.grain;
        let end = range.end().next_multiple_of(self.grain).min(self.size);
        match self.found.last_mut() {
            Some(last) if last.end() >= from => last.len = end.max(last.end()) - last.offset,
            _ => self.found.push(Range { offset: from, len: end - from }),
        }
    }

    /// Ordered, not touching, all but the last of whole blocks.
    pub fn finish(self) -> Vec<Range> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(size: u64, max: usize, extents: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut ranges = Ranges { max, ..Ranges::new(size) };
        for (offset, len) in extents {
            ranges.add(*offset, *len);
        }
        ranges.finish().into_iter().map(|range| (range.offset, range.len)).collect()
    }

    #[test]
    fn extents_are_widened_to_blocks_within_the_file() {
        assert_eq!(ranges(100_000, 9, &[(10, 5), (20, 5)]), [(0, 4096)]);
        assert_eq!(ranges(100_000, 9, &[(4095, 2), (20_000, 1)]), [(0, 8192), (16_384, 4096)]);
        assert_eq!(ranges(20_001, 9, &[(0, 4096), (20_000, 1)]), [(0, 4096), (16_384, 3617)]);
        assert_eq!(ranges(0, 9, &[]), []);
    }

    #[test]
    fn too_many_ranges_become_fewer_and_lose_nothing() {
        let extents: Vec<_> = (0..1000).map(|n| (n * 10_000 + n * n, 7)).collect();
        let size = 20_000_000;
        for max in [1, 2, 3, 50] {
            let found = ranges(size, max, &extents);
            assert!(found.len() <= max, "{}", found.len());
            for (offset, len) in &extents {
                assert!(found.iter().any(|(from, all)| from <= offset && offset + len <= from + all), "{offset}");
            }
            assert!(found.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0 && pair[0].1 % 512 == 0));
            assert!(found.iter().all(|(from, len)| from + len <= size));
        }
    }
}
