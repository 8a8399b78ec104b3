//! Whether this node still reigns.

use super::Agent;
use super::rows::{self, DeposedRow};
use crate::error::AgentError;
use crate::status::Role;
use cloud_mgmt::ledger::{LedgerErrorKind, Reign};

impl Agent {
    /// Makes sure of the reign: after a restart once by a record of this process life, from then on by reading.
    pub(super) fn confirm_reign(&self) -> Result<(), AgentError> {
        let (confirmed, epoch) = {
            let state = self.state.lock();
            (state.confirmed, state.epoch)
        };
        let runtime = &self.setup.runtime;
        if !confirmed {
            let resumed = runtime.block_on(self.appender.resume_epoch(epoch));
            self.heard(resumed.map(|_| ()).map_err(AgentError::from))?;
            self.state.lock().confirmed = true;
            tracing::info!(epoch, "the ledger confirms this master");
        }
        let reign = runtime.block_on(self.appender.check_reign());
        let reign = self.heard(reign.map_err(AgentError::from))?;
        self.state.lock().history = Some(runtime.block_on(self.appender.ledger().known()));
        match reign {
            Reign::Mine { .. } => Ok(()),
            Reign::Deposed { by } => {
                let reason = match by {
                    Some(by) => format!(
                        "deposed: epoch {} was taken by node {} at {:.0}; changes that were not published are kept here",
                        by.epoch, by.host, by.since
                    ),
                    None => "deposed: the ledger knows no master".to_owned(),
                };
                self.depose(&reason)
            }
            Reign::Deleted(deletion) => {
                self.depose(&format!("the filesystem was deleted at {:.0}: {}", deletion.time, deletion.reason))
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
                state.store_reachable = Some(!error.is_transient());
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
