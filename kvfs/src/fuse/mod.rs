//! The FUSE front end: a mounted [`FileSystem`] for the kernel.
//!
//! About two thirds of the cost of a request is switching between the application and this process, so the adapter
//! avoids round trips: long cache times (nobody else writes), no OPEN, FLUSH or ACCESS on a master. Requests are
//! answered on the session threads; only what waits leaves them: bytes that must be fetched ([`FsError::NotResident`])
//! and fsync, each on a bounded pool of its own, so that a cloud that is away never holds up local work (I8).
//!
//! Absent on purpose: the writeback cache (every completed write(2) has reached the filesystem, I1), atomic `O_TRUNC`
//! (together with a missing OPEN the kernel would lose truncations silently), directory caching in the kernel (its
//! cookies would outlive the handle that can explain them), and locks (one kernel, one writer: its own are right).
//!
//! [`FsError::NotResident`]: crate::FsError::NotResident
//! [`FileSystem`]: crate::fs::api::FileSystem

mod adapter;
mod attach;
mod connection;
mod convert;
mod cookies;
mod core;
mod directory;
mod error;
mod faults;
mod groups;
mod handshake;
mod invalidate;
mod listing;
mod lookups;
mod mounted;
mod mountinfo;
mod notify;
mod once;
mod orphans;
mod pool;
mod precheck;
mod privileges;
mod read_ahead;
mod redirect;
mod shared_turn;

pub use connection::{Connection, ConnectionFacts};
pub use error::{MountError, MountErrorKind};
pub use invalidate::Invalidator;
pub use mounted::{Mount, Unmounted, mount, serve};

use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::time::Duration;

/// How to mount. Always: `default_permissions`, `nosuid`, `nodev`, `noatime`; other users may enter if root mounts.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// What `mount` and `df` show as the source: `cbfs:<TAG-UUID>`.
    pub fsname: String,
    /// Whether opens are answered.
    pub open: OpenMode,
    /// Session threads, all on one descriptor.
    pub threads: NonZeroUsize,
    /// How long the kernel may believe names and attributes without asking.
    pub cache_ttl: Duration,
    /// What an earlier process of the connection left in the kernel's caches.
    pub remembered: Remembered,
}

impl MountOptions {
    /// The type of the mount in `/proc/mounts`, after `fuse.`.
    pub const SUBTYPE: &'static str = "cbfs";
    /// A year: the daemon is the only writer.
    pub const CACHE_TTL_DEFAULT: Duration = Duration::from_secs(365 * 24 * 3600);
    /// Session threads by default.
    pub const THREADS_DEFAULT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

    /// The usual options for a filesystem that shows itself as `fsname`.
    pub fn new(fsname: impl Into<String>, open: OpenMode) -> Self {
        Self {
            fsname: fsname.into(),
            open,
            threads: Self::THREADS_DEFAULT,
            cache_ttl: Self::CACHE_TTL_DEFAULT,
            remembered: Remembered::Valid,
        }
    }
}

/// Whether what the kernel learnt from earlier processes of a connection still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// The filesystem shows what it showed.
    Valid,
    /// It has moved to another snapshot since: names are void, and cached bytes of a file go when it is opened.
    Void,
}

/// Whether the kernel asks before it opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenMode {
    /// A master: the kernel is told once that nobody cares (`ENOSYS`) and never asks again.
    Stateless,
    /// A slave: an open for writing gets `EROFS` at once while the filesystem is read-only. Promotion needs no remount.
    Answered,
}
