//! Data segments: the bytes of files, append-only, on local disk.
//!
//! A blob is written once and never changed; its [`crate::schema::BlobRef`] stands in a journal record and in the key
//! space. The checksum in the reference makes the order of flushing data and journal irrelevant: after power loss a
//! reference whose bytes are lost does not check. The bytes are drawn in docs/formats/journal.md.

mod error;
mod run;
mod store;
#[cfg(test)]
mod tests;

pub use error::DataError;
pub use run::Part;
pub use store::DataStore;

/// The largest blob, bytes.
pub const BLOB_BYTES_MAX: usize = 1 << 20;

/// Sizes of a data store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataOptions {
    /// Bytes of a segment file, header included. A blob that is larger gets a segment of its own.
    pub segment_bytes: u32,
    /// Segments prepared in the background; up to four times as many freed ones are kept.
    pub spares: usize,
    /// Bytes that all files may occupy, spares included; beyond is [`DataError::NoSpace`].
    pub max_bytes: Option<u64>,
}

impl DataOptions {
    /// Up to how many bytes a write may go.
    pub(crate) fn limit(&self, room: Room) -> Option<u64> {
        let kept = |max: u64| u64::from(self.segment_bytes).min(max / 8);
        self.max_bytes.map(|max| if room == Room::Reserve { max } else { max - kept(max) })
    }
}

/// Which part of the store a write may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// All but the reserve.
    Ordinary,
    /// The last segment's worth (an eighth of a small store) as well: kept for moving bytes together, which makes room.
    Reserve,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, spares: 2, max_bytes: None }
    }
}
