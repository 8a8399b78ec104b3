//! Index runs: sorted, immutable metadata of an xid range (see docs/formats/index-run.md).
//!
//! A B+tree written bottom-up in one stream. From the footer down it is a hash tree: whoever knows the hash of the
//! footer (the ledger record does) detects every changed bit before it is decompressed (I6). Keys and values are opaque
//! here; their schema is `kvfs::schema`.

pub mod cursor;
pub mod error;
pub mod footer;
pub mod node;
pub mod tree;
pub mod writer;

pub use cursor::RunCursor;
pub use error::{RunError, RunErrorKind};
pub use footer::{FOOTER_BYTES, Footer};
pub use node::{Node, NodePtr};
pub use tree::{FileNodes, NodeSource, Tree};
pub use writer::{RunSummary, RunWriter};

/// The first 128 bits of a BLAKE3 hash.
pub type Hash128 = [u8; 16];

/// BLAKE3 of `bytes`, first 128 bits.
pub fn hash128(bytes: &[u8]) -> Hash128 {
    let mut short = [0; 16];
    short.copy_from_slice(blake3::hash(bytes).as_bytes().split_at(16).0);
    short
}

#[cfg(test)]
mod tests;
