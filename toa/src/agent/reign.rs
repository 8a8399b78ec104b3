//! Whether this node still reigns.

use super::rows::{self, DeposedRow};
use super::{Agent, Checked};
use crate::alert::{Alert, AlertKind};
use crate::error::AgentError;
use crate::status::Role;
use cloud_mgmt::ledger::{LedgerError, LedgerErrorKind, Reign};
use std::time::{Duration, Instant};

/// A filesystem in which nothing happens looks at the ledger so much more seldom.
const IDLE_FACTOR: u32 = 2;

/// The epoch in the name of a pack, run or listing.
fn epoch_in(object: &str) -> Option<u32> {
    let (epoch, _) = object.rsplit('/').next()?.split_once('-')?;
    (epoch.len() == 8).then(|| u32::from_str_radix(epoch, 16).ok()).flatten()
}

impl Agent {
    /// How long the ledger may go unread now.
    pub(super) fn check_interval(&self) -> Duration {
        let interval = self.setup.options.check_interval;
        let checked_at = self.state.lock().checked.map(|checked| checked.xid);
        let idle = checked_at.is_some() && checked_at == self.fs.engine().map(|engine| engine.last_xid());
        if idle { interval * IDLE_FACTOR } else { interval }
    }

    /// Whether it is time to read the ledger. Shipping a snapshot reads it anyway.
    pub(super) fn must_look_at_ledger(&self) -> bool {
        let state = self.state.lock();
        let checked = state.checked.filter(|_| state.confirmed);
        drop(state);
        checked.is_none_or(|checked| checked.at.elapsed() >= self.check_interval())
    }

    /// Makes sure of the reign: after a restart once by a record of this process life, from then on by reading.
    pub(super) fn confirm_reign(&self) -> Result<(), AgentError> {
        let (confirmed, epoch) = {
            let state = self.state.lock();
            (state.confirmed, state.epoch)
        };
        let runtime = &self.setup.runtime;
        if !confirmed {
            // Before anything is written there: is it the ledger that this node knows?
            let read = async { self.appender.ledger().history().await.map_err(AgentError::from) };
            let history = runtime.block_on(self.worker.unless_stopped(read));
            let checked = history.and_then(|history| rows::check_tip(&self.node, &history));
            self.heard(checked)?;
            let resume = async { self.appender.resume_epoch(epoch).await.map_err(AgentError::from) };
            let resumed = runtime.block_on(self.worker.unless_stopped(resume));
            self.heard(resumed.map(|_| ()))?;
            self.state.lock().confirmed = true;
            tracing::info!(epoch, "the ledger confirms this master");
            self.abort_left_uploads(epoch);
        }
        let check = async { self.appender.check_reign().await.map_err(AgentError::from) };
        let reign = self.heard(runtime.block_on(self.worker.unless_stopped(check)))?;
        let history = self.appender.ledger().known();
        rows::check_tip(&self.node, &history)?;
        let fs = history.fs().to_string();
        drop(history);
        let xid = self.fs.engine().map(|engine| engine.last_xid()).unwrap_or_default();
        self.state.lock().checked = Some(Checked { at: Instant::now(), xid });
        match reign {
            Reign::Mine { .. } => Ok(()),
            Reign::Deposed { by } => {
                let reason = match &by {
                    Some(by) => format!(
                        "deposed: epoch {} was taken by node {} at {:.0}; changes that were not published are kept here",
                        by.epoch, by.host, by.since
                    ),
                    None => "deposed: the ledger knows no master".to_owned(),
                };
                self.depose(&reason)?;
                Err(LedgerError::Deposed { by: by.map(Box::new) }.into())
            }
            Reign::Deleted(deletion) => {
                self.depose(&format!("the filesystem was deleted at {:.0}: {}", deletion.time, deletion.reason))?;
                Err(LedgerError::Deleted { fs, deletion: Box::new(deletion) }.into())
            }
        }
    }

    /// An earlier life of this master may have died in the middle of an upload: the parts that it sent are of no use, the
    /// object is sent anew. Also what masters of older epochs left. Nothing depends on it; the next start tries again.
    fn abort_left_uploads(&self, epoch: u32) {
        let fs = &self.setup.name;
        let old = |name: &str| fs.is_of_snapshots(name) && epoch_in(name).is_some_and(|named| named <= epoch);
        let prefix = format!("{fs}/");
        let abort = async { self.setup.store.abort_uploads(&prefix, &old).await.map_err(AgentError::from) };
        match self.setup.runtime.block_on(self.worker.unless_stopped(abort)) {
            Ok(0) => {}
            Ok(aborted) => tracing::info!(aborted, "uploads that a process left unfinished are aborted"),
            Err(error) => tracing::warn!(%error, "unfinished uploads may be left in the bucket"),
        }
    }

    /// What the bucket answered, for the status; an answer that deposes does so.
    pub(super) fn heard<T>(&self, answer: Result<T, AgentError>) -> Result<T, AgentError> {
        match &answer {
            Ok(_) => {
                let mut state = self.state.lock();
                (state.store_reachable, state.problem) = (Some(true), None);
            }
            Err(error) => {
                let deposes = matches!(error, AgentError::Ledger(e) if matches!(e.kind(), LedgerErrorKind::Deposed | LedgerErrorKind::Deleted));
                if deposes {
                    self.depose(&error.to_string())?;
                }
                let mut state = self.state.lock();
                if error.is_of_store() {
                    state.store_reachable = Some(!error.is_transient());
                }
                state.problem = Some(error.to_string());
            }
        }
        answer
    }

    /// Read-only from now on, over restarts too; publishes, overwrites and deletes nothing (I5). Changes stay.
    fn depose(&self, reason: &str) -> Result<(), AgentError> {
        if self.state.lock().role == Role::Deposed {
            return Ok(());
        }
        if let Some(engine) = self.fs.engine() {
            engine.make_read_only(reason);
            engine.flush()?;
        }
        self.node.persist_row(rows::DEPOSED, &DeposedRow { reason: reason.to_owned() })?;
        self.state.lock().role = Role::Deposed;
        self.setup.alerts.raise(Alert {
            kind: AlertKind::Deposed,
            fs: self.setup.name.to_string(),
            snapshot: None,
            name: None,
            problem: reason.to_owned(),
            since: None,
        });
        Ok(())
    }
}
