//! kvfs: the filesystem of CBFS.
//!
//! POSIX semantics over a stack of layers: a memory overlay, LMDB environments and a [`base::Base`] that somebody else
//! provides. This crate knows nothing of buckets, of the network or of async runtimes (see ARCHITECTURE.md).

pub mod acl;
pub mod apply;
pub mod base;
pub mod changes;
pub mod data;
pub mod engine;
pub mod error;
pub mod fs;
pub mod fuse;
#[cfg(test)]
mod golden;
pub mod ids;
pub mod journal;
pub mod layer;
pub mod lmdb;
pub mod node;
pub mod op;
pub mod request;
pub mod schema;
pub mod segment;
pub mod stack;

pub use error::{FsError, FsResult};
pub use ids::{Epoch, Ino, Xid};
