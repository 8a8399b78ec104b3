//! What journal and data segments share: numbered files of one directory that are written once and then recycled.
//!
//! * [`disk`] – the few file operations that both need, behind a trait so that tests can lose power.
//! * [`header`] – the first page of every segment.
//! * `page_cache`, [`past_cache`] – what the page cache has, and long reads that leave nothing in it.
//! * [`pool`] – numbers that are never given twice, spare files that wait for a new number.
//! * [`flush`] – one flush for everybody who waits for one; a failed one is final.

pub mod disk;
pub mod flush;
pub mod header;
mod page_cache;
pub mod past_cache;
pub mod pool;
#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod tests;

pub use disk::{Disk, DiskFile, HostDisk};

/// What a failure of a journal or of a data store asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The disk, a quota or a limit is full; nothing was changed. Free space, then try again.
    NoSpace,
    /// The host failed; nothing was acknowledged. Trying again may help.
    Io,
    /// An earlier flush failed: nothing more is accepted until a restart has read back what is there.
    Poisoned,
    /// What is on disk is not what was written.
    Corrupt,
    /// The request itself is wrong.
    Invalid,
}

/// Whether `error` means that there is no room, rather than that something broke.
pub(crate) fn is_no_space(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
