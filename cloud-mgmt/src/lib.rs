//! cloud-mgmt: the bucket of CBFS.
//!
//! Object stores, names, the filesystem's configuration, the ledger and the commands that need no daemon. Knows nothing
//! of inodes (see ARCHITECTURE.md).

pub mod admin;
pub mod config;
pub mod ledger;
pub mod names;
pub mod probe;
pub mod store;
