//! POSIX semantics on top of the storage engine.

pub mod api;

pub use api::{Attributes, Caller, DirEntry, FileSystem, FsStats};
