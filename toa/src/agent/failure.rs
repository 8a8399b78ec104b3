//! What becomes of a job that could not go on: tried again, superseded or given up, by the policy.

use super::Agent;
use super::cancel::Official;
use crate::alert::AlertKind;
use crate::error::{AgentError, ErrorKind};
use crate::snapshot::policy::{Remedy, Verdict};
use crate::snapshot::{Event, Job};
use crate::status::{CancelReason, FailureClass, Role, SnapshotState};
use std::time::Duration;
use uuid::Uuid;

impl Agent {
    /// Records what went wrong with a job, and does what the policy says; what can never work is given up, and said so.
    pub(super) fn put_off(&self, mut job: Job, error: AgentError) -> Result<(), AgentError> {
        if matches!(error, AgentError::Stopping) || self.worker.is_stopping() {
            return Err(AgentError::Stopping);
        }
        job.attempts += 1;
        job.problem = Some(error.to_string());
        let class = self.classify(&mut job, &error);
        match self.verdict(&job, &error, class)? {
            Verdict::Retry => {
                tracing::warn!(snapshot = %job.id, %error, "the snapshot waits");
                self.note_class(&mut job, class);
                self.jobs.persist(&job)?;
            }
            Verdict::Supersede(by) => self.end_cancelled(job, CancelReason::Superseded { by })?,
            Verdict::GiveUp => {
                tracing::error!(snapshot = %job.id, %error, "the snapshot failed");
                job.step(Event::GivenUp)?;
                self.end_unpublished(&job)?;
                self.alert(AlertKind::SnapshotFailed, &job);
            }
        }
        Err(error)
    }

    fn classify(&self, job: &mut Job, error: &AgentError) -> FailureClass {
        let now = self.now();
        // A clock that was set back must not make a failure seem younger than none.
        let since = *job.failing_since.get_or_insert(now);
        let lasting = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let remedy = if error.kind() == ErrorKind::Denied { Remedy::Person } else { Remedy::Time };
        self.setup.options.failure.class(lasting, remedy)
    }

    fn verdict(&self, job: &Job, error: &AgentError, class: FailureClass) -> Result<Verdict, AgentError> {
        let verdict = if error.is_transient() {
            self.setup.options.failure.verdict(job.kind, class, self.successor_of(job)?)
        } else {
            Verdict::GiveUp
        };
        // Who is not master any more decides nothing. What may be official is never given up, whatever this node heard.
        let bound = self.state.lock().role != Role::Master
            || verdict != Verdict::Retry && (self.official(job)? != Official::No || !self.may_end_unpublished()?);
        Ok(if bound { Verdict::Retry } else { verdict })
    }

    /// The newest snapshot behind `job` whose changes are known: it contains all of the job's.
    fn successor_of(&self, job: &Job) -> Result<Option<Uuid>, AgentError> {
        let fits = |other: &&Job| {
            other.xid > job.xid && other.state != SnapshotState::Queued && !self.worker.is_wished(other.id)
        };
        Ok(self.jobs.open()?.iter().rev().find(fits).map(|other| other.id))
    }

    /// People hear once of a failure that lasts.
    fn note_class(&self, job: &mut Job, class: FailureClass) {
        if class == FailureClass::Persistent && job.failure != Some(class) {
            let since = job.failing_since.map(|since| since.to_string()).unwrap_or_default();
            let problem = job.problem.as_deref().unwrap_or_default();
            tracing::error!(snapshot = %job.id, since, problem, "the snapshot does not get on: look at it");
            self.alert(AlertKind::SnapshotStuck, job);
        }
        job.failure = Some(class);
    }

    /// The job goes on; whoever was told that it does not is told.
    pub(super) fn note_recovery(&self, job: &mut Job) {
        if job.failure == Some(FailureClass::Persistent) {
            tracing::info!(snapshot = %job.id, "the snapshot goes on again");
            self.alert(AlertKind::SnapshotRecovered, job);
        }
        job.recovered();
    }
}
