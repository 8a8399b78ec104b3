//! Room in the proxy: packing waits there until something has left for the bucket (I7).

use super::Agent;
use super::attempt::Standing;
use super::worker::Duty;
use crate::collect::{CollectError, CollectErrorKind};
use crate::error::AgentError;
use crate::proxy::{ProxyError, ProxyErrorKind, StagedFile};
use uuid::Uuid;

impl Agent {
    /// Tries; when the proxy or the disk below it is full, waits until something has left it and tries again. Also where long work hears that
    /// the agent is being stopped.
    pub(super) fn with_room<T>(
        &self,
        snapshot: Uuid,
        mut run: impl FnMut() -> Result<T, ProxyError>,
    ) -> Result<T, CollectError> {
        let stop =
            |error: AgentError| CollectError::sink("making room in the proxy", CollectErrorKind::Unavailable, error);
        self.worker.check(snapshot).map_err(stop)?;
        loop {
            match run() {
                Err(error) if error.kind() == ProxyErrorKind::NoSpace && !self.proxy.staged().is_empty() => {
                    self.await_room(snapshot).map_err(stop)?;
                }
                done => return done.map_err(|error| CollectError::of_proxy("staging", error)),
            }
        }
    }

    /// Waits until `file` may grow to `total_bytes`, within the limit of the proxy and on its disk. Where nothing is staged,
    /// nothing that leaves makes room on the disk: what is small may fit all the same.
    pub(super) fn room_for(&self, snapshot: Uuid, file: &mut StagedFile, total_bytes: u64) -> Result<(), CollectError> {
        self.with_room(snapshot, || {
            file.ensure_room(total_bytes)?;
            match file.ensure_disk(total_bytes) {
                Err(ProxyError::Disk { .. }) if self.proxy.staged().is_empty() => Ok(()),
                done => done,
            }
        })
    }

    /// On a full disk the filesystem goes before the cache of what the bucket has anyway.
    pub(super) fn give_way(&self) {
        let wanted = self.fs.engine().and_then(|engine| engine.room_wanted());
        if let Some(bytes) = wanted
            && let Err(error) = self.proxy.give_way(bytes)
        {
            tracing::debug!(%error, "cached objects do not make room enough");
        }
    }

    /// Waits until something has left. An outage is waited out: packing anew would send it all again.
    fn await_room(&self, snapshot: Uuid) -> Result<(), AgentError> {
        let staged = self.proxy.staged();
        let bytes = |staged: &[(_, u64)]| staged.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let before = bytes(&staged);
        self.attempt.offer_rest(staged.iter().map(|(name, size)| (name.to_string(), *size)));
        self.worker.hand_to(Duty::Ship);
        tracing::debug!(%snapshot, "the proxy is full: packing waits until something has left it");
        while bytes(&self.proxy.staged()) >= before {
            self.worker.check(snapshot)?;
            if let Some(error) = self.attempt.hopeless() {
                return Err(error);
            }
            if !self.stands()? {
                return Err(AgentError::StagedLost(format!("what snapshot {snapshot} is packed on")));
            }
            self.worker.nap(Duty::Pack);
        }
        Ok(())
    }

    /// Whether what the running attempt is packed on is still what will be below it.
    pub(super) fn stands(&self) -> Result<bool, AgentError> {
        let Some(Standing::Staged { snapshot, op }) = self.attempt.standing() else { return Ok(true) };
        let open = self.jobs.open()?;
        let below = open.iter().find(|job| job.id == snapshot);
        Ok(match below {
            Some(job) => job.op == Some(op) && Duty::of(job.state) == Some(Duty::Ship),
            None => self.state.lock().base.as_ref().is_some_and(|base| base.id == snapshot),
        })
    }
}
