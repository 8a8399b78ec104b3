//! What the control API and `--json` say: one set of types for both.

use crate::settings::SettingView;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use utoipa::ToSchema;
use uuid::Uuid;

/// How far a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotState {
    /// Asked for; durable.
    Queued,
    /// What changed is known.
    Collected,
    /// Being packed.
    Packing,
    /// Packed, on the local disk.
    Staged,
    /// On its way.
    Uploading,
    /// Official: in the ledger.
    Complete,
    /// Given up.
    Failed,
    /// Never published, on purpose.
    Cancelled,
}

impl SnapshotState {
    /// Whether it stays so.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Cancelled)
    }

    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Collected => "collected",
            Self::Packing => "packing",
            Self::Staged => "staged",
            Self::Uploading => "uploading",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Who asked for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// A person or a program.
    User,
    /// The timer.
    Periodic,
}

impl SnapshotKind {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Periodic => "periodic",
        }
    }
}

/// Why a snapshot was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "reason", rename_all = "lowercase")]
pub enum CancelReason {
    /// Somebody asked for it.
    User,
    /// A newer one, which has all of its changes, took its place.
    Superseded {
        /// The newer one.
        #[schema(value_type = String)]
        by: Uuid,
    },
    /// A periodic one that found nothing to publish.
    Unchanged,
}

/// How lasting a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailureClass {
    /// It may go away by itself.
    Transient,
    /// It lasts, or needs a person.
    Persistent,
}

/// A snapshot, wanted or there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: Uuid,
    /// The user's name for it.
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
    #[schema(value_type = String, format = DateTime)]
    pub requested: Timestamp,
    /// The last journal record of the snapshot below it, once that is known.
    pub xid_from: Option<u64>,
    /// The last journal record in it.
    pub xid: u64,
    /// The epoch that made it.
    pub epoch: u32,
    /// Objects to upload; while it is packed, those that are written so far.
    pub objects_total: u64,
    /// Objects of them that are in the bucket.
    pub objects_done: u64,
    /// Bytes to upload; while it is packed, those that are written so far.
    pub bytes_total: u64,
    /// Bytes of them that are in the bucket.
    pub bytes_done: u64,
    /// Bytes a second of the running upload.
    pub rate: Option<u64>,
    /// Seconds until all is uploaded, at that rate.
    pub eta: Option<u64>,
    /// Bytes uploaded for it.
    pub uploaded: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// Since when it does not go on.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub failing_since: Option<Timestamp>,
    /// How lasting that is.
    pub failure: Option<FailureClass>,
    /// Why it does not go on, or why it failed.
    pub problem: Option<String>,
}

/// What a node is to a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The one writer.
    Master,
    /// Shows a snapshot.
    Slave,
    /// Was master; keeps its un-uploaded changes, read-only.
    Deposed,
}

/// Whether the mount can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AccessView {
    /// Yes.
    ReadWrite,
    /// No.
    ReadOnly,
}

/// What a running daemon knows beyond its instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentView {
    /// Whether the mount can be written.
    pub access: AccessView,
    /// The epoch it lives in.
    pub epoch: u32,
    /// Whether the ledger has confirmed that since the daemon started.
    pub confirmed: bool,
    /// The snapshot under it.
    #[schema(value_type = Option<String>)]
    pub snapshot: Option<Uuid>,
    /// The last operation acknowledged.
    pub xid: u64,
    /// The last operation that survives power loss.
    pub persisted_xid: u64,
    /// Whether the store answered last time; null: not asked yet.
    pub store_reachable: Option<bool>,
    /// What is wrong, if anything.
    pub problem: Option<String>,
    /// Snapshots that are not complete yet.
    pub queued: u32,
}

/// Who keeps the mount, and how often a daemon was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldView {
    /// The process that keeps the mount while daemons come and go; null: the mount ends with its daemon.
    pub holder: Option<u32>,
    /// Why nobody keeps it.
    pub unheld: Option<String>,
    /// How often the daemon was started anew.
    pub restarts: u32,
    /// When it was last.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub restarted: Option<Timestamp>,
    /// Why it was last.
    pub restart_reason: Option<String>,
}

/// What the daemon has asked the store since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestsView {
    /// Reads of objects or of parts of them.
    pub get: u64,
    /// Writes in one piece.
    pub put: u64,
    /// Writes in parts: beginnings, parts, ends.
    pub part: u64,
    /// Questions for a size, or for the bucket.
    pub head: u64,
    /// Pages of names.
    pub list: u64,
    /// Deletions.
    pub delete: u64,
    /// Anything else.
    pub other: u64,
    /// How many of all these repeated one that had failed.
    pub repeated: u64,
    /// Bytes sent, with repetitions.
    pub bytes_sent: u64,
    /// Bytes of objects that came.
    pub bytes_received: u64,
}

/// One mount of one filesystem on this node. The agent's fields are there while `running` is true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FilesystemStatus {
    /// `<TAG>-<UUID>`
    pub name: String,
    /// The store's URL.
    pub store: String,
    /// What the node is to it.
    pub role: Role,
    /// A slave's snapshot as it was asked for.
    pub selector: Option<String>,
    /// Where it is, or was last.
    #[schema(value_type = Option<String>)]
    pub mount_point: Option<PathBuf>,
    /// Its directory on this node.
    #[schema(value_type = String)]
    pub instance: PathBuf,
    /// Whether a daemon answers for it.
    pub running: bool,
    /// The daemon.
    pub pid: Option<u32>,
    /// Version of the daemon.
    pub version: Option<String>,
    /// What the daemon knows.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentView>,
    /// Whether the mount survives its daemon.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldView>,
    /// What the store was asked, while `running` is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<RequestsView>,
    /// The settings in force, if they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Vec<SettingView>>,
}

/// `GET /v1/status`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DaemonStatus {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// What it serves: one filesystem.
    pub filesystems: Vec<FilesystemStatus>,
}

/// Body of `POST …/snapshots`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// A name for it.
    #[serde(default)]
    pub name: Option<String>,
}

/// Answer of `GET …/snapshots`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotList {
    /// Queue and published, oldest first.
    pub snapshots: Vec<SnapshotView>,
}

/// Answer of `GET …/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettingList {
    /// Every setting with its source.
    pub settings: Vec<SettingView>,
}

/// Body of `POST …/promotions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromotionRequest {
    /// The epoch that is to end: the latest one.
    pub epoch: u32,
}

/// Answer of `POST …/promotions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Promotion {
    /// `<TAG>-<UUID>`
    pub name: String,
    /// The epoch that ended.
    pub previous_epoch: u32,
    /// The epoch of this node.
    pub epoch: u32,
}
