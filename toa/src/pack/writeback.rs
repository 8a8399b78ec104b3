//! A pack goes to the disk while it is written, and not all at once when it gets its name: an fsync of the filesystem that comes
//! meanwhile would wait behind all of it.

use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::num::NonZeroU64;

/// So many bytes are handed over at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// How far a file was handed to the disk.
#[derive(Debug, Default)]
pub(super) struct Writeback {
    handed: u64,
}

impl Writeback {
    /// `file` is written up to `size`. A hint to the host, whatever comes of it.
    pub fn written_up_to(&mut self, file: &File, size: u64) {
        let Some(len) = NonZeroU64::new(size.saturating_sub(self.handed)).filter(|len| len.get() >= PIECE_BYTES) else {
            return;
        };
        // What is dirty begins its way to the disk and stays in the cache; what is there already leaves the cache, so each
        // byte is named once.
        if let Err(error) = fadvise(file, self.handed, Some(len), Advice::DontNeed) {
            tracing::trace!(%error, "fadvise");
        }
        self.handed = size;
    }
}
