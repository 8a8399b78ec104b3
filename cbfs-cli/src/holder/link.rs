//! The daemon's side: what it gets from its holder, and what it tells it.

use super::protocol::{self, Patience, Restarts, VERSION, Welcome, Word};
use crate::failure::{Failure, FailureKind};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a daemon is welcomed with.
pub struct Welcomed {
    /// Which daemon of this mount it is, from 0.
    pub life: u32,
    /// How often others were started before.
    pub restarts: Restarts,
    /// What the one before it has left: the text and the descriptors of [`Link::keep`].
    pub kept: Option<(String, Vec<OwnedFd>)>,
    /// The way to the holder.
    pub link: Link,
}

/// A line to the holder.
#[derive(Clone, Debug)]
pub struct Link {
    socket: Arc<OwnedFd>,
    holder: u32,
    gone: Arc<AtomicBool>,
}

impl Link {
    /// Takes the line from standard input, where the holder has put it.
    pub fn take() -> Result<Welcomed, Failure> {
        let failed = |error: io::Error| {
            Failure::new(FailureKind::Bug, format!("no holder on standard input: {error}"))
                .with_hint("this way of starting is for the holder alone: cbfs mount FS DIR")
        };
        let socket = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        let null = OpenOptions::new().read(true).open("/dev/null").map_err(failed)?;
        rustix::stdio::dup2_stdin(&null).map_err(|errno| failed(errno.into()))?;
        let welcome = protocol::receive::<Welcome>(&socket, Patience::Wait).map_err(failed)?;
        let (welcome, descriptors) = welcome.ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
        if welcome.version != VERSION {
            let what = format!("the holder speaks version {}, this program version {VERSION}", welcome.version);
            // It passes: the holder tries its own image in the end.
            return Err(Failure::new(FailureKind::Bug, what).with_hint("cbfs unmount DIR, and mount again"));
        }
        let link = Self { socket: Arc::new(socket), holder: welcome.holder, gone: Arc::default() };
        link.watch().map_err(failed)?;
        let kept = welcome.kept.map(|text| (text, descriptors));
        Ok(Welcomed { life: welcome.life, restarts: welcome.restarts, kept, link })
    }

    /// The holder's process; `None`: it is gone.
    pub fn holder(&self) -> Option<u32> {
        (!self.gone.load(Ordering::Acquire)).then_some(self.holder)
    }

    /// Leaves text and descriptors for the daemons that follow; the kernel has them on return.
    pub fn keep(&self, text: String, descriptors: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        let sent = protocol::send(&*self.socket, &Word::Keep { text }, descriptors);
        sent.map_err(|error| Failure::from_io(&error, "hand over to", Path::new("the holder")))
    }

    /// Takes back what was left: no other daemon could go on.
    pub fn let_go(&self) {
        self.say(&Word::LetGo);
    }

    /// The mount can be used.
    pub fn serving(&self, log: Option<PathBuf>) {
        self.say(&Word::Serving { log });
    }

    /// The end is wanted.
    pub fn stopping(&self) {
        self.say(&Word::Stopping);
    }

    /// This process ends and the next one shall follow.
    pub fn handing_over(&self, reason: &str) {
        self.say(&Word::HandingOver { reason: reason.to_owned() });
    }

    fn say(&self, word: &Word) {
        if let Err(error) = protocol::send(&*self.socket, word, &[]) {
            tracing::debug!(%error, "the holder does not hear");
        }
    }

    /// The holder says nothing any more: what comes is its end.
    fn watch(&self) -> io::Result<()> {
        let (socket, gone) = (Arc::clone(&self.socket), Arc::clone(&self.gone));
        let watch = move || {
            while let Ok(Some(_)) = protocol::receive::<serde_json::Value>(&*socket, Patience::Wait) {}
            gone.store(true, Ordering::Release);
            tracing::warn!("the holder is gone: the mount goes on, and ends with this daemon");
        };
        std::thread::Builder::new().name("cbfs-holder".into()).spawn(watch).map(drop)
    }
}
