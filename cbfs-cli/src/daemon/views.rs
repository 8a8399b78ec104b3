//! The agent's words in those of the control API.

use crate::control::api::{
    AccessView, AgentView, CancelReason, FailureClass, RequestsView, Role, SnapshotKind, SnapshotState, SnapshotView,
};
use cloud_mgmt::store::Requests;

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
            toa::SnapshotState::Cancelled => Self::Cancelled,
        }
    }
}

impl From<toa::SnapshotKind> for SnapshotKind {
    fn from(kind: toa::SnapshotKind) -> Self {
        match kind {
            toa::SnapshotKind::User => Self::User,
            toa::SnapshotKind::Periodic => Self::Periodic,
        }
    }
}

impl From<toa::CancelReason> for CancelReason {
    fn from(reason: toa::CancelReason) -> Self {
        match reason {
            toa::CancelReason::User => Self::User,
            toa::CancelReason::Superseded { by } => Self::Superseded { by },
            toa::CancelReason::Unchanged => Self::Unchanged,
        }
    }
}

impl From<toa::FailureClass> for FailureClass {
    fn from(class: toa::FailureClass) -> Self {
        match class {
            toa::FailureClass::Transient => Self::Transient,
            toa::FailureClass::Persistent => Self::Persistent,
        }
    }
}

impl From<toa::SnapshotStatus> for SnapshotView {
    fn from(status: toa::SnapshotStatus) -> Self {
        Self {
            id: status.id,
            name: status.name,
            kind: status.kind.into(),
            state: status.state.into(),
            cancelling: status.cancelling,
            cancelled: status.cancelled.map(CancelReason::from),
            requested: status.requested,
            xid_from: status.xid_from,
            xid: status.xid,
            epoch: status.epoch,
            objects_total: status.objects_total,
            objects_done: status.objects_done,
            bytes_total: status.bytes_total,
            bytes_done: status.bytes_done,
            rate: status.rate,
            eta: status.eta,
            uploaded: status.uploaded,
            attempts: status.attempts,
            failing_since: status.failing_since,
            failure: status.failure.map(FailureClass::from),
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

impl From<Requests> for RequestsView {
    fn from(sums: Requests) -> Self {
        let Requests { get, put, part, head, list, delete, other, repeated, bytes_sent, bytes_received } = sums;
        Self { get, put, part, head, list, delete, other, repeated, bytes_sent, bytes_received }
    }
}
