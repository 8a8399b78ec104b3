//! A mount from its beginning to its end.

use super::adapter::Adapter;
use super::attach::{self, Detached, Visitors};
use super::connection::{Connection, ConnectionFacts};
use super::core::Core;
use super::error::MountError;
use super::invalidate::Invalidator;
use super::mountinfo::{self, mounted_at};
use super::{MountOptions, Remembered, notify, read_ahead, redirect};
use crate::fs::api::FileSystem;
use fuser::{Config, Session, SessionACL};
use parking_lot::{Condvar, Mutex};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// After an unmount that nobody stood in the way of, the session ends at once, unless another mount namespace has a
/// copy of the mount.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to the first request is much shorter.
const ANSWER_BYTES_MAX: usize = 4096;

/// A mounted filesystem. Dropping it unmounts.
pub struct Mount {
    path: PathBuf,
    /// `major:minor` of this very mount, to never unmount another one at the same path.
    device: Option<String>,
    detached: AtomicBool,
    core: Arc<Core>,
    connection: Connection,
    invalidator: Invalidator,
    end: Arc<End>,
}

/// How a filesystem was unmounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// The session is over; the filesystem has no user any more.
    Clean,
    /// The mount point is free, but somebody still has files open or works in a directory;
    /// [`Mount::wait`] returns when the last one is gone.
    Busy,
}

/// The end of the session, for those who wait for it.
#[derive(Default)]
struct End {
    over: Mutex<Option<Result<(), Arc<io::Error>>>>,
    changed: Condvar,
}

/// Mounts `fs` at `mountpoint`, an empty directory. On return applications can use it.
pub fn mount(fs: Arc<dyn FileSystem>, mountpoint: &Path, options: MountOptions) -> Result<Mount, MountError> {
    let connection = Connection::mount(mountpoint, &options)?;
    let path = connection.facts.path.clone();
    serve(fs, connection, 0, &options).inspect_err(|_| {
        if let Err(error) = attach::detach(&path) {
            tracing::warn!(%error, "the mount that failed stays behind");
        }
    })
}

/// Serves a connection with `fs`. `life` counts the processes that have done so: 0 answers the kernel's first request,
/// later ones go on with what was asked and not answered.
pub fn serve(
    fs: Arc<dyn FileSystem>,
    connection: Connection,
    life: u32,
    options: &MountOptions,
) -> Result<Mount, MountError> {
    let ConnectionFacts { path, mounted: device, .. } = connection.facts.clone();
    match start(fs, &connection, life, options) {
        Ok((core, invalidator, end)) => {
            Ok(Mount { path, device, detached: AtomicBool::new(false), core, connection, invalidator, end })
        }
        Err(error) => Err(MountError::os(format!("session of {}", path.display()), error)),
    }
}

fn start(
    fs: Arc<dyn FileSystem>,
    connection: &Connection,
    life: u32,
    options: &MountOptions,
) -> io::Result<(Arc<Core>, Invalidator, Arc<End>)> {
    let device = connection.device.try_clone()?;
    let core = Arc::new(Core::new(fs, connection, life, options)?);
    let session = shake_hands(&core, connection, life, options)?;
    let invalidator = Invalidator::new(session.notifier(), device, core.lookups.clone(), core.voided.clone());
    if let (0, Some(mounted)) = (life, &connection.facts.mounted)
        && let Err(error) = read_ahead::raise(mounted)
    {
        tracing::debug!(%error, "the kernel reads ahead as little as it likes");
    }
    let end = Arc::new(End::default());
    let (ending, serving) = (end.clone(), core.clone());
    if life > 0 {
        if options.remembered == Remembered::Void {
            notify::void_names(&connection.device)?;
        }
        notify::resend(&connection.device)?;
    }
    std::thread::Builder::new().name("cbfs-fuse".into()).spawn(move || {
        let outcome = session.run();
        serving.disconnected();
        ending.reached(outcome);
    })?;
    Ok((core, invalidator, end))
}

/// A session on the connection. The library insists on a first request, and there is one only once in the life of a
/// connection: it is played to it on a socket, and the kernel gets the answer if it waits for one.
fn shake_hands(
    core: &Arc<Core>,
    connection: &Connection,
    life: u32,
    options: &MountOptions,
) -> io::Result<Session<Adapter>> {
    let acl = match attach::visitors() {
        Visitors::All => SessionACL::All,
        Visitors::Owner => SessionACL::Owner,
    };
    let mut config = Config::default();
    config.acl = acl;
    config.n_threads = Some(options.threads.get());
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::write(&ours, &connection.facts.init)?;
    let session = Session::from_fd(Adapter::new(core.clone()), theirs, acl, config)?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    let count = rustix::io::read(&ours, &mut answer)?;
    redirect::redirect(session.as_fd(), connection.device.as_fd())?;
    if life == 0 {
        rustix::io::write(&connection.device, answer.get(..count).unwrap_or_default())?;
    }
    Ok(session)
}

impl Mount {
    /// Where it is mounted, canonical.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a later process needs to go on with this mount; `None`: the kernel is older than Linux 6.9 and could not
    /// send again what was not answered.
    pub fn connection(&self) -> Option<&Connection> {
        self.core.can_resend().then_some(&self.connection)
    }

    /// A line to the kernel's caches; stays valid for the life of the mount.
    pub fn invalidator(&self) -> Invalidator {
        self.invalidator.clone()
    }

    /// Waits until the session is over: unmounted by whomever, and the last user gone.
    pub fn wait(&self) -> Result<(), MountError> {
        self.end.wait().map_err(|error| {
            MountError::os(
                format!("session of {}", self.path.display()),
                io::Error::new(error.kind(), error.to_string()),
            )
        })
    }

    /// Takes the filesystem off its mount point, in use or not. Harmless if it is off already. Does not flush: what
    /// was acknowledged is with the filesystem anyway.
    pub fn unmount(&self) -> Result<Unmounted, MountError> {
        if self.is_attached()? {
            let how = attach::detach(&self.path)?;
            self.detached.store(true, Ordering::Release);
            if how == Detached::Busy {
                tracing::warn!(path = %self.path.display(), "unmounted while in use");
                return Ok(Unmounted::Busy);
            }
        }
        Ok(if self.end.wait_for(END_TIMEOUT) { Unmounted::Clean } else { Unmounted::Busy })
    }

    /// Whether the topmost mount at the path is still this one. The kernel gives a device number to somebody else only
    /// after our session is over; from then on only a mount without its daemon can be ours.
    fn is_attached(&self) -> Result<bool, MountError> {
        if self.detached.load(Ordering::Acquire) {
            return Ok(false);
        }
        let session_over = self.end.wait_for(Duration::ZERO);
        let same = mounted_at(&self.path)?
            .is_some_and(|there| self.device.as_ref().is_none_or(|device| *device == there.device));
        Ok(same && (!session_over || mountinfo::is_dead(&self.path)))
    }
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount").field("path", &self.path).field("device", &self.device).finish_non_exhaustive()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            tracing::warn!(path = %self.path.display(), %error, "the mount stays behind");
        }
    }
}

impl End {
    fn reached(&self, outcome: io::Result<()>) {
        // The kernel ends a connection that is being taken down with one of two errors, as it meets the reader.
        let outcome = match outcome {
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
            other => other,
        };
        *self.over.lock() = Some(outcome.map_err(Arc::new));
        self.changed.notify_all();
    }

    fn wait(&self) -> Result<(), Arc<io::Error>> {
        let mut over = self.over.lock();
        loop {
            match &*over {
                Some(outcome) => return outcome.clone(),
                None => self.changed.wait(&mut over),
            }
        }
    }

    /// Whether the end came within `limit`.
    fn wait_for(&self, limit: Duration) -> bool {
        let mut over = self.over.lock();
        self.changed.wait_while_for(&mut over, |over| over.is_none(), limit);
        over.is_some()
    }
}
