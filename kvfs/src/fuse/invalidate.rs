//! Telling the kernel that what it believes has changed: a slave that became master or moved to another snapshot.

use super::lookups::Lookups;
use super::notify;
use crate::ids::Ino;
use fuser::{INodeNo, Notifier};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A line to the kernel's caches. Call it from any thread but a handler of this mount: the kernel may hold the lock of
/// the very directory whose request that handler answers.
#[derive(Clone)]
pub struct Invalidator {
    notifier: Notifier,
    device: Arc<OwnedFd>,
    lookups: Arc<Lookups>,
    voided: Arc<AtomicBool>,
}

impl Invalidator {
    pub(super) fn new(notifier: Notifier, device: OwnedFd, lookups: Arc<Lookups>, voided: Arc<AtomicBool>) -> Self {
        Self { notifier, device: Arc::new(device), lookups, voided }
    }

    /// Attributes and cached bytes of `ino` are void.
    pub fn inode(&self, ino: Ino) -> io::Result<()> {
        self.notifier.inval_inode(INodeNo(ino.0), 0, 0)
    }

    /// What `name` in `parent` stands for is void, "nothing" included.
    pub fn entry(&self, parent: Ino, name: &[u8]) -> io::Result<()> {
        self.notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name))
    }

    /// Everything is void: names, attributes and cached bytes. On kernels before 6.16 names expire by themselves
    /// within a second, if the mount answers opens. Takes about a microsecond for each inode that the kernel holds.
    pub fn all(&self) -> io::Result<()> {
        self.voided.store(true, Ordering::Release);
        notify::void_names(&*self.device)?;
        self.inode(Ino::ROOT)?;
        for ino in self.lookups.held() {
            self.inode(ino)?;
        }
        Ok(())
    }
}
