//! The local disk cache of bucket objects: staged packs and runs on the way out, fetched bytes on the way in.
//!
//! ```text
//! staged/<object>      whole objects that are not in the bucket yet; fsynced; never evicted
//! kept/<object>        whole objects that must stay (the runs of a master's base); never evicted
//! whole/<object>       whole objects that the bucket has
//! chunk/<object>@<n>   bytes [n MiB, n+1 MiB) of an object that the bucket has
//! tmp/…                being written; removed at the next start
//! ```
//! The limit is hard (I7): what is pinned, what is being written and what is cached never exceed it together. Only the
//! directory is the truth; the index in memory is rebuilt from it at every start.

pub mod byte_lru;
pub mod disk;
pub mod error;
mod index;
pub mod name;
pub mod staged;

pub use byte_lru::ByteLru;
pub(crate) use disk::chunks_of;
pub use disk::{CHUNK_BYTES, Proxy, ProxyOptions, Usage};
pub use error::{ProxyError, ProxyErrorKind};
pub use staged::StagedFile;

#[cfg(test)]
mod tests;
