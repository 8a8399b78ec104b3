//! How fast a snapshot goes: bytes on their way, and their rate over the last seconds.

use std::time::{Duration, Instant};

/// The rate is that of about so long a time.
const WINDOW: Duration = Duration::from_secs(5);
/// Measured no more often than this.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);

/// What is packed or sent now.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Sent of objects that are not complete in the bucket yet.
    sending: u64,
    packed: (u64, u64),
    /// All that was sent since this upload began.
    sent: u64,
    sample: Option<(Instant, u64)>,
    rate: Option<f64>,
}

impl Meter {
    /// Packing begins: nothing is written yet. What is being sent may be of another snapshot.
    pub fn begin(&mut self) {
        self.packed = (0, 0);
    }

    /// One more object of `bytes` is written.
    pub fn add_packed(&mut self, bytes: u64) {
        self.packed = (self.packed.0 + 1, self.packed.1 + bytes);
    }

    /// Objects and bytes that are written.
    pub fn packed(&self) -> (u64, u64) {
        self.packed
    }

    /// `bytes` more of an object are in the bucket.
    pub fn add_sent(&mut self, bytes: u64, now: Instant) {
        self.sending += bytes;
        self.sent += bytes;
        let Some((then, before)) = self.sample else {
            self.sample = Some((now, self.sent));
            return;
        };
        let past = now.saturating_duration_since(then);
        if past < SAMPLE_EVERY {
            return;
        }
        let seconds = past.as_secs_f64();
        let current = (self.sent - before) as f64 / seconds;
        // Old samples fade: after a window about two thirds of the rate are new.
        let fade = (-seconds / WINDOW.as_secs_f64()).exp();
        self.rate = Some(self.rate.map_or(current, |rate| rate * fade + current * (1.0 - fade)));
        self.sample = Some((now, self.sent));
    }

    /// An object of which `bytes` were counted is complete: its job counts it from now on.
    pub fn complete(&mut self, bytes: u64) {
        self.sending = self.sending.saturating_sub(bytes);
    }

    /// Nothing is on its way any more.
    pub fn pause(&mut self) {
        self.sending = 0;
        self.sample = None;
        self.rate = None;
    }

    /// Bytes sent of objects that are not complete.
    pub fn sending(&self) -> u64 {
        self.sending
    }

    /// Bytes a second.
    pub fn rate(&self) -> Option<u64> {
        self.rate.map(|rate| rate as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_what_is_sent() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let send = |meter: &mut Meter, from: u64, to: u64, bytes| {
            (from..to).for_each(|tick| meter.add_sent(bytes, start + Duration::from_secs(tick)));
        };
        send(&mut meter, 0, 10, 1000);
        assert_eq!(meter.rate(), Some(1000));
        send(&mut meter, 10, 60, 3000);
        let rate = meter.rate().unwrap();
        assert!((2990..=3000).contains(&rate), "{rate}");
        assert_eq!(meter.sending(), 160_000);
        meter.complete(160_000);
        assert_eq!(meter.sending(), 0);
        meter.pause();
        assert_eq!(meter.rate(), None);
    }
}
