//! What the control API serves: one mounted filesystem.

use super::api::{FilesystemStatus, Promotion, SnapshotRequest, SnapshotView};
use crate::failure::Failure;
use crate::settings::SettingView;
use async_trait::async_trait;
use cloud_mgmt::names::FsName;
use uuid::Uuid;

/// A mounted filesystem as its operator sees it. The plain functions may wait for the local disk, never for the network.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// The filesystem.
    fn name(&self) -> &FsName;
    /// How it is.
    fn status(&self) -> FilesystemStatus;
    /// Its settings, each with its source.
    fn settings(&self) -> Vec<SettingView>;
    /// Asks for a snapshot; durable on return. The same key again gives the same snapshot.
    fn request_snapshot(&self, request: SnapshotRequest, key: Option<Uuid>) -> Result<SnapshotView, Failure>;
    /// Asks that a snapshot be not published; the wish is durable on return.
    fn cancel_snapshot(&self, id_or_name: &str) -> Result<SnapshotView, Failure>;
    /// Queue and published.
    fn snapshots(&self) -> Result<Vec<SnapshotView>, Failure>;
    /// One of them, by id or name.
    fn snapshot(&self, id_or_name: &str) -> Result<SnapshotView, Failure>;
    /// Makes this node the master if `epoch` is the latest; published on return.
    async fn promote(&self, epoch: u32) -> Result<Promotion, Failure>;
    /// Makes room for a daemon of the program that is on disk now; refuses where the mount would not survive that.
    fn hand_over(&self) -> Result<(), Failure>;
    /// Begins the end: unmount, close, leave.
    fn shut_down(&self);
}
