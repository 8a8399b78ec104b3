//! The control API's view of the running agent.

use super::holding::Holding;
use crate::bucket;
use crate::control::Service;
use crate::control::api::{FilesystemStatus, Promotion, Role, SnapshotRequest, SnapshotView};
use crate::failure::{Failure, FailureKind};
use crate::settings::SettingView;
use crate::state::{Instance, LocalRole};
use async_trait::async_trait;
use cloud_mgmt::names::FsName;
use cloud_mgmt::store::RequestCounter;
use cloud_mgmt::store::url::StoreUrl;
use std::sync::Arc;
use toa::Agent;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A mounted filesystem.
pub(super) struct AgentService {
    pub(super) agent: Arc<Agent>,
    pub(super) url: StoreUrl,
    pub(super) name: FsName,
    pub(super) settings: Vec<SettingView>,
    /// As it was when the mount began; the role in it changes by promotion alone.
    pub(super) facts: Instance,
    /// One promotion at a time, and the only writer of `local.toml` while the daemon runs.
    pub(super) local: Mutex<Instance>,
    /// The connection, if an earlier daemon began it.
    pub(super) resumed: Option<u32>,
    pub(super) end: CancellationToken,
    pub(super) hand_over: CancellationToken,
    pub(super) holding: Arc<Holding>,
    pub(super) requests: Arc<RequestCounter>,
}

#[async_trait]
impl Service for AgentService {
    fn name(&self) -> &FsName {
        &self.name
    }

    fn status(&self) -> FilesystemStatus {
        let status = self.agent.status();
        let local = self.facts.local();
        let role = Role::from(status.role);
        FilesystemStatus {
            name: self.name.to_string(),
            store: local.store.clone(),
            role,
            selector: local.snapshot.clone().filter(|_| role == Role::Slave),
            mount_point: local.mount_point.clone(),
            instance: self.facts.dir().to_owned(),
            running: true,
            pid: Some(std::process::id()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            agent: Some(status.into()),
            held: Some(self.holding.view()),
            requests: Some(self.requests.sums().into()),
            settings: None,
        }
    }

    fn settings(&self) -> Vec<SettingView> {
        self.settings.clone()
    }

    fn request_snapshot(&self, request: SnapshotRequest, key: Option<Uuid>) -> Result<SnapshotView, Failure> {
        Ok(self.agent.request_snapshot(request.name, key)?.into())
    }

    fn cancel_snapshot(&self, id_or_name: &str) -> Result<SnapshotView, Failure> {
        Ok(self.agent.cancel_snapshot(id_or_name)?.into())
    }

    fn snapshots(&self) -> Result<Vec<SnapshotView>, Failure> {
        Ok(self.agent.snapshots()?.into_iter().map(SnapshotView::from).collect())
    }

    fn snapshot(&self, id_or_name: &str) -> Result<SnapshotView, Failure> {
        Ok(self.agent.snapshot(id_or_name)?.into())
    }

    async fn promote(&self, epoch: u32) -> Result<Promotion, Failure> {
        let mut local = self.local.lock().await;
        // The agent is as patient as a daemon; a person is told at once.
        bucket::check_reachable(&self.url, &self.name).await?;
        // Written first: if this process dies now, the next mount must ask whether it became the master.
        local.update(|local| local.role = LocalRole::Promoting)?;
        let shown = self.agent.status().snapshot;
        match self.agent.promote(epoch).await {
            Ok(new) => {
                let moved = self.agent.status().snapshot != shown;
                local.update(|local| {
                    local.took_over(new);
                    if moved {
                        local.moved = self.resumed;
                    }
                })?;
                Ok(Promotion { name: self.name.to_string(), previous_epoch: epoch, epoch: new })
            }
            Err(error) => {
                let failure = Failure::from(error);
                if is_refusal(failure.kind) {
                    local.update(|local| local.role = LocalRole::Slave)?;
                }
                Err(failure)
            }
        }
    }

    fn hand_over(&self) -> Result<(), Failure> {
        if let Some(reason) = self.holding.unheld() {
            let what = format!("{} cannot change its daemon: {reason}", self.name);
            return Err(Failure::new(FailureKind::Unsupported, what).with_hint("unmount it, and mount it again"));
        }
        self.hand_over.cancel();
        Ok(())
    }

    fn shut_down(&self) {
        self.end.cancel();
    }
}

/// Whether the answer is sure. Without an answer the epoch record may be in the ledger all the same.
pub(super) fn is_refusal(kind: FailureKind) -> bool {
    !matches!(kind, FailureKind::Unavailable | FailureKind::NoSpace | FailureKind::Bug | FailureKind::Corrupt)
}
