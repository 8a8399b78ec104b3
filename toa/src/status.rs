//! What an agent tells about itself: shown by the control API and `--json` as it stands.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How far a snapshot is.
///
/// ```text
/// queued ─► collected ─► packing ─► staged ─► uploading ─► complete
///    the journal has it │ layer sealed │ packs and run in the proxy │ in the bucket, and official
///                           ▲                └── condemned or lost: packed anew
///    any of them ─► failed: trying again does not help
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotState {
    /// The request is in the journal.
    Queued,
    /// What it changes is sealed on local disk.
    Collected,
    /// Packs and run are being written.
    Packing,
    /// They are complete, on local disk.
    Staged,
    /// They are on their way into the bucket.
    Uploading,
    /// The ledger has it.
    Complete,
    /// Given up; the reason is told.
    Failed,
}

/// A snapshot, asked for here or published by anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// Its id, for ever.
    pub id: Uuid,
    /// The name that the user gave.
    pub name: Option<String>,
    /// How far it is.
    pub state: SnapshotState,
    /// The instant that it shows.
    pub requested: Timestamp,
    /// Its last journal record.
    pub xid: u64,
    /// The epoch that made it.
    pub epoch: u32,
    /// Bytes to be uploaded for it, as far as known.
    pub bytes_total: u64,
    /// Bytes of them that are in the bucket.
    pub bytes_done: u64,
    /// Bytes that it took in the bucket, once complete.
    pub uploaded: u64,
    /// How often a step of it was begun anew.
    pub attempts: u32,
    /// What went wrong last, if it is not complete.
    pub problem: Option<String>,
}

/// What the node is for the filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Writes.
    Master,
    /// Shows a snapshot.
    Slave,
    /// Was master until somebody else took over; keeps its changes.
    Deposed,
}

/// Whether writing is possible now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessMode {
    /// It is.
    ReadWrite,
    /// It is not.
    ReadOnly,
}

/// The state of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// What the node is.
    pub role: Role,
    /// Whether writing is possible.
    pub access: AccessMode,
    /// A master's epoch; a slave's: the newest that it knows.
    pub epoch: u32,
    /// The ledger has confirmed that this process reigns. A master that restarts without the bucket serves, but
    /// publishes nothing until then.
    pub confirmed: bool,
    /// The snapshot under the mount: the one that a slave shows, or that a master published last.
    pub snapshot: Option<Uuid>,
    /// The last change.
    pub xid: u64,
    /// The last change that survives power loss.
    pub persisted_xid: u64,
    /// Whether the store answered last time; unknown before the first request.
    pub store_reachable: Option<bool>,
    /// What needs attention.
    pub problem: Option<String>,
    /// Snapshots that are not complete.
    pub queued: u32,
}
