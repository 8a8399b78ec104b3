//! The agent's words in those of the control API.

use crate::control::api::{AccessView, AgentView, Role, SnapshotState, SnapshotView};

impl From<toa::SnapshotState> for SnapshotState {
    fn from(state: toa::SnapshotState) -> Self {
        match state {
            toa::SnapshotState::Queued => Self::Queued,
            toa::SnapshotState::Collected => Self::Collected,
            toa::SnapshotState::Packing => Self::Packing,
            toa::SnapshotState::Staged => Self::Staged,
            toa::SnapshotState::Uploading => Self::Uploading,
            toa::SnapshotState::Complete => Self::Complete,
            toa::SnapshotState::Failed => Self::Failed,
        }
    }
}

impl From<toa::SnapshotStatus> for SnapshotView {
    fn from(status: toa::SnapshotStatus) -> Self {
        Self {
            id: status.id,
            name: status.name,
            state: status.state.into(),
            requested: status.requested,
            xid: status.xid,
            epoch: status.epoch,
            bytes_total: status.bytes_total,
            bytes_done: status.bytes_done,
            uploaded: status.uploaded,
            attempts: status.attempts,
            problem: status.problem,
        }
    }
}

impl From<toa::Role> for Role {
    fn from(role: toa::Role) -> Self {
        match role {
            toa::Role::Master => Self::Master,
            toa::Role::Slave => Self::Slave,
            toa::Role::Deposed => Self::Deposed,
        }
    }
}

impl From<toa::AccessMode> for AccessView {
    fn from(access: toa::AccessMode) -> Self {
        match access {
            toa::AccessMode::ReadWrite => Self::ReadWrite,
            toa::AccessMode::ReadOnly => Self::ReadOnly,
        }
    }
}

impl From<toa::AgentStatus> for AgentView {
    fn from(status: toa::AgentStatus) -> Self {
        Self {
            access: status.access.into(),
            epoch: status.epoch,
            confirmed: status.confirmed,
            snapshot: status.snapshot,
            xid: status.xid,
            persisted_xid: status.persisted_xid,
            store_reachable: status.store_reachable,
            problem: status.problem,
            queued: status.queued,
        }
    }
}
