//! Packs: the file bytes of one snapshot in the bucket.
//!
//! A pack is a valid tar, a valid `.zst` and a valid seekable zstd file at once (see `docs/formats/pack.md`). The read
//! path goes by [`kvfs::schema::FrameRef`] alone and never parses tar; tar is for people and for disaster recovery.

mod error;
mod frames;
mod reader;
mod writeback;
mod writer;

pub use crate::tar::{Member, MemberKind, Range};
pub use error::{PackError, PackErrorKind};
pub use frames::{PackSummary, PendingRef};
pub use reader::decode_frame;
pub use writer::{PackIdentity, PackWriter};

/// Raw bytes of a frame with the data of one large file at most, and of a member that shares a frame: one window.
pub const FRAME_RAW_BYTES: usize = kvfs::schema::WINDOW_BYTES as usize;

/// Raw bytes at which a frame of several members is closed. Larger than a window: a tree of sources is 2 % smaller than
/// with frames of one, and who reads one small file pays for three megabytes.
pub const MIXED_FRAME_RAW_BYTES: usize = 3 * FRAME_RAW_BYTES;

/// Raw bytes that a reader accepts in one frame, whatever an index says.
pub const FRAME_RAW_BYTES_MAX: u32 = 16 << 20;

/// Size at which a pack is closed and the next one begun, bytes.
pub const PACK_BYTES_TARGET: u64 = 64 << 20;
