//! Snapshots of the timer: one whenever the interval is over and something has changed.

use super::{Agent, rows};
use crate::error::AgentError;
use crate::snapshot::Job;
use crate::status::{CancelReason, Role, SnapshotState};
use jiff::Timestamp;
use kvfs::op::SnapshotKind;
use std::time::Duration;

/// Periodic snapshots on their way, at most: one that is packed or sent, and one that may take its place.
const OPEN_MAX: usize = 2;
/// One that could not be taken is tried again after this, or after the interval if that is shorter.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Whether the interval is over, and where it began if not at `last`: a clock that was set back begins a new one.
fn due(now: Timestamp, last: Timestamp, interval: Duration) -> (bool, Timestamp) {
    match Duration::try_from(now.duration_since(last)) {
        Ok(since) => (since >= interval, last),
        Err(_) => (false, now),
    }
}

impl Agent {
    /// Where the first interval of this process life begins: at the newest snapshot, or when this instance was first
    /// used. So a machine that is never up for a whole interval takes its snapshots all the same.
    pub(super) fn begin_interval(&self) -> Result<(), AgentError> {
        let now = self.now();
        let newest = self.snapshots()?.iter().filter(|s| s.state != SnapshotState::Failed).map(|s| s.requested).max();
        let began = match newest {
            Some(taken) => taken,
            None => rows::first_used(&self.node, now)?,
        };
        self.state.lock().interval_began = Some(began.min(now));
        Ok(())
    }

    /// Takes a snapshot if it is time for one.
    pub(super) fn periodic_snapshot(&self) -> Result<(), AgentError> {
        let Some(interval) = self.setup.options.snapshot_interval else { return Ok(()) };
        let now = self.now();
        {
            let mut state = self.state.lock();
            let began = state.interval_began.unwrap_or(now);
            let (due, began) = due(now, began, interval);
            state.interval_began = Some(if due { now } else { began });
            if !due || state.role != Role::Master {
                return Ok(());
            }
        }
        let taken = self.take_periodic();
        if taken.is_err() {
            let wait = interval.saturating_sub(AGAIN_AFTER.min(interval));
            self.state.lock().interval_began = now.checked_sub(wait).ok();
        }
        taken
    }

    fn take_periodic(&self) -> Result<(), AgentError> {
        let _turn = self.requesting.lock();
        let jobs = self.all_jobs()?;
        if !self.has_changed(&jobs)? {
            tracing::debug!("nothing has changed: no periodic snapshot");
            return Ok(());
        }
        let waiting = jobs.iter().filter(|job| job.kind == SnapshotKind::Periodic && !job.state.is_final()).count();
        if waiting >= OPEN_MAX {
            tracing::warn!(waiting, "no periodic snapshot: earlier ones are not published yet");
            return Ok(());
        }
        let id = self.take_snapshot(None, None, SnapshotKind::Periodic)?;
        tracing::info!(snapshot = %id, "periodic snapshot");
        Ok(())
    }

    /// Whether anything happened since the newest snapshot that is published, or will be.
    fn has_changed(&self, jobs: &[Job]) -> Result<bool, AgentError> {
        let base = self.state.lock().base.as_ref().map_or(0, |base| base.xid);
        let covers = |job: &&Job| {
            !job.state.is_final()
                || job.state == SnapshotState::Complete
                || job.cancelled == Some(CancelReason::Unchanged)
        };
        let newest = jobs.iter().filter(covers).map(|job| job.xid).max().unwrap_or(0).max(base);
        Ok(self.engine()?.last_xid().0 > newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_interval_is_over_once_and_follows_a_clock_that_goes_back() {
        let interval = Duration::from_secs(60);
        assert_eq!(due(at(159), at(100), interval), (false, at(100)));
        assert_eq!(due(at(160), at(100), interval), (true, at(100)));
        // After a week of sleep it is over once, not ten thousand times: the next one begins now.
        assert_eq!(due(at(700_000), at(100), interval), (true, at(100)));
        assert_eq!(due(at(50), at(100), interval), (false, at(50)));
    }
}
