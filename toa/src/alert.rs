//! What a person should hear of, beyond the log.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// A snapshot has not gone on for longer than `failure.persistent_after`, or needs a person.
    SnapshotStuck,
    /// It goes on again.
    SnapshotRecovered,
    /// It was given up; what it changed goes with the next one.
    SnapshotFailed,
    /// It made way for a newer one.
    SnapshotSuperseded,
    /// This node is not the master any more: what it had not published stays on it.
    Deposed,
}

/// Something for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// What happened.
    pub kind: AlertKind,
    /// `<TAG>-<UUID>`
    pub fs: String,
    /// The snapshot, if it is about one.
    pub snapshot: Option<Uuid>,
    /// Its name.
    pub name: Option<String>,
    /// What went wrong.
    pub problem: String,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// Where alerts go. Called on the agent's threads: it must not wait.
pub trait Alerts: Send + Sync {
    /// Takes one. It was logged already.
    fn raise(&self, alert: Alert);
}

/// For those who read the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogOnly;

impl Alerts for LogOnly {
    fn raise(&self, _alert: Alert) {}
}
