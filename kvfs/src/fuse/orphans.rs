//! Unlinked files that an earlier process had handed out: whether the kernel still holds them.
//!
//! How often the kernel was told of an inode is not known after a restart, so a FORGET does not say whether it was the
//! last one. The kernel does: it is asked, on a thread of its own. Inodes whose FORGET was lost with the process that
//! had read it are found by asking for all of them, once, a while after the start.

use super::lookups::Lookups;
use super::notify;
use crate::fs::api::FileSystem;
use crate::ids::Ino;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// By then the kernel has taken in every answer of the process before.
const SWEEP_AFTER: Duration = Duration::from_secs(30);

/// The way to the thread that asks; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Orphans {
    suspects: Sender<Ino>,
}

impl Orphans {
    pub(super) fn watch(fs: Arc<dyn FileSystem>, device: OwnedFd, lookups: Arc<Lookups>) -> io::Result<Self> {
        let (suspects, inos) = channel();
        let asking = Asking { fs, device, lookups };
        std::thread::Builder::new().name("cbfs-orphans".into()).spawn(move || asking.run(&inos))?;
        Ok(Self { suspects })
    }

    /// The kernel has dropped some references of an inode without names.
    pub(super) fn suspect(&self, ino: Ino) {
        if self.suspects.send(ino).is_err() {
            tracing::debug!(%ino, "the connection is gone: nobody holds anything");
        }
    }
}

struct Asking {
    fs: Arc<dyn FileSystem>,
    device: OwnedFd,
    lookups: Arc<Lookups>,
}

impl Asking {
    fn run(&self, inos: &Receiver<Ino>) {
        let start = Instant::now();
        let mut swept = false;
        loop {
            let wait = if swept { Duration::from_secs(3600) } else { SWEEP_AFTER.saturating_sub(start.elapsed()) };
            let done = match inos.recv_timeout(wait) {
                Ok(ino) => self.ask(ino),
                Err(RecvTimeoutError::Timeout) if !swept => {
                    swept = true;
                    self.fs.orphans().into_iter().try_for_each(|ino| self.ask(ino))
                }
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Err(error) = done {
                tracing::debug!(%error, "the kernel cannot be asked for inodes any more");
                return;
            }
        }
    }

    fn ask(&self, ino: Ino) -> io::Result<()> {
        if !notify::is_held(&self.device, ino)? {
            // An answer of this process may be on its way to the kernel: then it is counted.
            self.lookups.if_not_held(ino, |ino| self.fs.forgotten(ino));
        }
        Ok(())
    }
}
