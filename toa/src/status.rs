//! What an agent tells about itself: shown by the control API and `--json` as it stands.

use jiff::Timestamp;
use kvfs::op::SnapshotKind;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How far a snapshot is. `toa::snapshot::next` is the function of this picture; a test holds the two together.
///
/// ```text
/// queued ──sealed──► collected          its layer is sealed: what it changes is known
/// collected ──packing begun──► packing  packs and run are written into the proxy
/// packing ──packing begun──► packing    an attempt that broke off begins from the start, under new names
/// packing ──packing finished──► staged  all of it is on local disk, and the manifest is known
/// staged ──upload begun──► uploading    objects go into the bucket, then the record into the ledger
/// uploading ──upload begun──► uploading after a pause or a restart: what was sent is not sent again
/// uploading ──published──► complete     the ledger has it
/// staged ──spoiled──► collected         an object that it uses was condemned, or lost before it was sent
/// uploading ──spoiled──► collected
/// queued|collected|packing|staged|uploading ──given up──► failed      trying again does not help
/// queued|collected|packing|staged|uploading ──cancelled──► cancelled  asked for, superseded, or nothing to publish
/// ```
///
/// What a failed or cancelled snapshot changed goes with the next one.
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
    /// Never published, on purpose; the reason is told.
    Cancelled,
}

impl SnapshotState {
    /// Whether it stays so.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Cancelled)
    }
}

/// Why a snapshot was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "lowercase")]
pub enum CancelReason {
    /// Somebody asked for it.
    User,
    /// It could not be published for long, and a newer one that has all of its changes took its place.
    Superseded {
        /// The newer one.
        by: Uuid,
    },
    /// A periodic snapshot that found nothing to publish.
    Unchanged,
}

/// How lasting a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureClass {
    /// It may go away by itself.
    Transient,
    /// It has lasted longer than `failure.persistent_after`, or needs a person.
    Persistent,
}

/// A snapshot, asked for here or published by anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// Its id, for ever.
    pub id: Uuid,
    /// The name that the user gave.
    pub name: Option<String>,
    /// Who asked for it.
    pub kind: SnapshotKind,
    /// How far it is.
    pub state: SnapshotState,
    /// Cancelling was asked for, and is not done yet.
    pub cancelling: bool,
    /// Why it was cancelled.
    pub cancelled: Option<CancelReason>,
    /// The instant that it shows.
    pub requested: Timestamp,
    /// The last journal record of the snapshot below it, once that is known.
    pub xid_from: Option<u64>,
    /// Its last journal record.
    pub xid: u64,
    /// The epoch that made it.
    pub epoch: u32,
    /// Objects to be uploaded for it; while it is packed, those that are written so far.
    pub objects_total: u64,
    /// Objects of them that are in the bucket.
    pub objects_done: u64,
    /// Bytes to be uploaded for it; while it is packed, those that are written so far.
    pub bytes_total: u64,
    /// Bytes of them that are in the bucket.
    pub bytes_done: u64,
    /// Bytes a second of the running upload, over the last seconds.
    pub rate: Option<u64>,
    /// Seconds until all is uploaded, at that rate.
    pub eta: Option<u64>,
    /// Bytes that it took in the bucket, once complete.
    pub uploaded: u64,
    /// How often a step of it was begun anew.
    pub attempts: u32,
    /// Since when it does not go on.
    pub failing_since: Option<Timestamp>,
    /// How lasting that is.
    pub failure: Option<FailureClass>,
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
