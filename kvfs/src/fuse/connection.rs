//! The connection to the kernel, made once for each mount, and what must outlive the process that serves it.
//!
//! Whoever keeps a [`Connection`] open keeps the mount: while nobody serves it, calls wait. A later process goes on with
//! [`serve`](super::serve), if the kernel can send again what was not answered (Linux 6.9).

use super::error::MountError;
use super::mountinfo::mounted_at;
use super::{MountOptions, OpenMode, attach, precheck};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The kernel wants room for the largest write before it hands out anything; before INIT that is 4 KiB and a header.
const INIT_BYTES_MAX: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub struct Connection {
    pub(super) device: OwnedFd,
    /// What the open directories have listed, see `cookies.rs`.
    pub(super) listings: OwnedFd,
    pub(super) facts: ConnectionFacts,
}

/// What is known of a connection besides its descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionFacts {
    /// Its number, by chance: requests of different mounts are not confused.
    pub number: u32,
    /// The mount point, canonical.
    pub path: PathBuf,
    /// `major:minor` of the mount, to never unmount another one at the same path.
    pub mounted: Option<String>,
    /// Whether opens are answered.
    pub open: OpenMode,
    /// The kernel's first request, for whoever serves next.
    pub init: Vec<u8>,
}

impl Connection {
    /// Mounts at `mountpoint`, an empty directory. Nobody answers yet.
    pub fn mount(mountpoint: &Path, options: &MountOptions) -> Result<Self, MountError> {
        let path = precheck::check_mountpoint(mountpoint, options)?;
        let device = attach::attach(&path, options)?;
        Self::begin(&path, device, options.open).inspect_err(|_| {
            if let Err(error) = attach::detach(&path) {
                tracing::warn!(%error, "the mount that failed stays behind");
            }
        })
    }

    fn begin(path: &Path, device: OwnedFd, open: OpenMode) -> Result<Self, MountError> {
        let failed = |error: io::Error| MountError::os(format!("connection of {}", path.display()), error);
        let init = read_init(&device).map_err(failed)?;
        let listings = rustix::fs::memfd_create("cbfs-listings", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|errno| failed(errno.into()))?;
        let mounted = mounted_at(path)?.map(|entry| entry.device);
        // 0 would look like no connection at all.
        let number = (Uuid::new_v4().as_u128() as u32).max(1);
        let facts = ConnectionFacts { number, path: path.to_owned(), mounted, open, init };
        Ok(Self { device, listings, facts })
    }

    /// The one that another process made.
    pub fn from_parts(facts: ConnectionFacts, descriptors: [OwnedFd; 2]) -> Self {
        let [device, listings] = descriptors;
        Self { device, listings, facts }
    }

    /// What is known of it.
    pub fn facts(&self) -> &ConnectionFacts {
        &self.facts
    }

    /// For whoever keeps it, in the order of [`from_parts`](Self::from_parts).
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.device.as_fd(), self.listings.as_fd()]
    }

    /// The same connection once more.
    pub fn try_clone(&self) -> io::Result<Self> {
        let (device, listings) = (self.device.try_clone()?, self.listings.try_clone()?);
        Ok(Self { device, listings, facts: self.facts.clone() })
    }
}

fn read_init(device: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; INIT_BYTES_MAX];
    loop {
        match rustix::io::read(device, &mut bytes) {
            Ok(count) => {
                bytes.truncate(count);
                return Ok(bytes);
            }
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
