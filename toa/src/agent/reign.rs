//! Whether this node still reigns.

use super::Agent;
use super::rows::{self, DeposedRow};
use crate::error::AgentError;
use crate::status::Role;
use cloud_mgmt::ledger::{LedgerError, LedgerErrorKind, Reign};

impl Agent {
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
        }
        let check = async { self.appender.check_reign().await.map_err(AgentError::from) };
        let reign = self.heard(runtime.block_on(self.worker.unless_stopped(check)))?;
        let history = runtime.block_on(self.appender.ledger().known());
        rows::check_tip(&self.node, &history)?;
        let fs = history.fs().to_string();
        self.state.lock().history = Some(history);
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
        Ok(())
    }
}
