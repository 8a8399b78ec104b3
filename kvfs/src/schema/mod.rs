//! The one key space: keys and values as they stand in the overlay, in LMDB and in index runs.
//!
//! ```text
//! key   = ino (u64 BE) | space (u8) | rest            all keys of an inode are neighbours; see `key`
//! value = xid (u64 BE) | kind (u8) | body (postcard)  kind 0 is a tombstone; see `value`
//! ```
//! Last writer wins by key alone; a tier's `cut` and inode tombstones hide keys of the tiers *below* it only.

pub mod inode;
pub mod key;
pub mod users;
pub mod value;
pub mod window;

pub use inode::{FileKind, InodeValue, Time};
pub use key::{Key, Space};
pub use users::{PackUsersValue, UserRanges};
pub use value::{DirentValue, Value, ValueError};
pub use window::{BlobRef, Extent, FrameRef, Place, WINDOW_BYTES, WindowValue};
