//! How long single operations take.

use serde::Serialize;
use std::time::Duration;

/// All of them, of one kind.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    nanoseconds: Vec<u64>,
}

/// What matters of them; times in ms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many.
    pub count: usize,
    /// Half are shorter.
    pub p50: f64,
    /// One of 100 is longer.
    pub p99: f64,
    /// One of 1000 is longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// Longer than [`PAUSE_LIMIT_MS`].
    pub pauses: usize,
}

/// What no operation should wait for a checkpoint or a snapshot, in ms.
pub const PAUSE_LIMIT_MS: f64 = 10.0;

impl Latencies {
    /// Adds one.
    pub fn add(&mut self, one: Duration) {
        self.nanoseconds.push(u64::try_from(one.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What matters; `None` of none.
    pub fn summary(&self) -> Option<Summary> {
        let mut sorted = self.nanoseconds.clone();
        sorted.sort_unstable();
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        // Nearest rank: the smallest one that so many thousandths do not exceed.
        let rank = |thousandths: usize| (sorted.len() * thousandths).div_ceil(1000).max(1) - 1;
        let at = |thousandths: usize| sorted.get(rank(thousandths)).copied().map(ms);
        Some(Summary {
            count: sorted.len(),
            p50: at(500)?,
            p99: at(990)?,
            p999: at(999)?,
            max: at(1000)?,
            pauses: sorted.iter().filter(|one| ms(**one) > PAUSE_LIMIT_MS).count(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let mut all = Latencies::default();
        for ms in (1..=1000).rev() {
            all.add(Duration::from_millis(ms));
        }
        let expected = Summary { count: 1000, p50: 500.0, p99: 990.0, p999: 999.0, max: 1000.0, pauses: 990 };
        assert_eq!(all.summary(), Some(expected));
        assert_eq!(Latencies::default().summary(), None);
    }
}
