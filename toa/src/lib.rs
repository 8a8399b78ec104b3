//! toa: the tiered-object agent of CBFS, the bridge between the filesystem and the bucket.
//!
//! Collects what a snapshot changed, writes packs and index runs into the proxy, uploads and publishes them; reads
//! published snapshots through the proxy; promotes; verifies what is in the bucket. Knows nothing of FUSE (see
//! ARCHITECTURE.md).

pub mod agent;
pub mod alert;
pub mod base;
pub mod collect;
pub mod error;
pub mod export;
pub mod pack;
pub mod proxy;
pub mod run;
pub mod snapshot;
pub mod status;
pub mod tar;
pub mod verify;

pub use agent::{
    Agent, AgentOptions, AgentSetup, EVACUATION_BYTES_MIN, Listing, SnapshotSelector, check_snapshot_name,
};
pub use alert::{Alert, AlertKind, Alerts, LogOnly};
pub use error::{AgentError, ErrorKind};
pub use kvfs::op::SnapshotKind;
pub use snapshot::{FailureAction, FailurePolicy, KindPolicy};
pub use status::{AccessMode, AgentStatus, CancelReason, FailureClass, Role, SnapshotState, SnapshotStatus};
