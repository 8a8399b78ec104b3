//! What every request needs: the filesystem, the books about what the kernel holds, and the way to an answer.

use super::connection::Connection;
use super::convert;
use super::directory::Directories;
use super::faults::Faults;
use super::lookups::Lookups;
use super::once::Requests;
use super::orphans::Orphans;
use super::pool::Pool;
use super::shared_turn::{Joined, SharedTurn};
use super::{MountOptions, OpenMode, Remembered};
use crate::base::{BaseError, Need};
use crate::error::{FsError, FsResult};
use crate::fs::api::{Attributes, FileSystem};
use crate::ids::Ino;
use fuser::{Errno, FopenFlags, Generation, Version};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Operations that wait for the cloud at the same time; more queue behind them.
const WAITING_THREADS_MAX: usize = 32;
/// Operations that queue for a thread; a process each, so this is far beyond sane use.
const QUEUE_MAX: usize = 8192;
/// Fetches for one operation. A large read crosses several frames, and what was fetched may be evicted again.
const ROUNDS_MAX: usize = 64;
/// With this version the kernel can be told to drop all names at once.
const ABI_INC_EPOCH: Version = Version(7, 44);
/// Where it cannot, names on a slave live so long: a base switch shows within it.
const CACHE_TTL_WITHOUT_EPOCH: Duration = Duration::from_secs(1);

/// The state of one mount.
pub(super) struct Core {
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) open: OpenMode,
    pub(super) lookups: Arc<Lookups>,
    pub(super) directories: Directories,
    pub(super) requests: Requests,
    /// There if an earlier process has handed out references.
    orphans: Option<Orphans>,
    /// The kernel was told that all it has cached is void.
    pub(super) voided: Arc<AtomicBool>,
    life: u32,
    can_resend: OnceLock<bool>,
    cache_ttl_wanted: Duration,
    cache_ttl: OnceLock<Duration>,
    waiting: Pool,
    syncing: Pool,
    sync_callers: SharedTurn<(Ino, fuser::ReplyEmpty)>,
    faults: Faults,
}

/// A reply of any kind that has not been sent.
pub(super) trait Failing: Send + 'static {
    /// Sends an error instead.
    fn fail(self, errno: i32);
}

macro_rules! failing {
    ($($reply:ident),* $(,)?) => {$(
        impl Failing for fuser::$reply {
            fn fail(self, errno: i32) {
                self.error(Errno::from_i32(errno));
            }
        }
    )*};
}
failing!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLseek,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr,
);

impl Core {
    /// For the process life `life` of a connection.
    pub(super) fn new(
        fs: Arc<dyn FileSystem>,
        connection: &Connection,
        life: u32,
        options: &MountOptions,
    ) -> io::Result<Self> {
        let lookups = Arc::new(Lookups::new());
        let orphans = match life {
            0 => None,
            _ => Some(Orphans::watch(Arc::clone(&fs), connection.device.try_clone()?, Arc::clone(&lookups))?),
        };
        Ok(Self {
            fs,
            open: connection.facts.open,
            lookups,
            directories: Directories::open_file(connection.listings.try_clone()?.into(), life)?,
            requests: Requests::new(connection.facts.number, life, options.threads.get()),
            orphans,
            voided: Arc::new(AtomicBool::new(options.remembered == Remembered::Void)),
            life,
            can_resend: OnceLock::new(),
            cache_ttl_wanted: options.cache_ttl,
            cache_ttl: OnceLock::new(),
            waiting: Pool::new("cbfs-fetch", WAITING_THREADS_MAX, QUEUE_MAX),
            syncing: Pool::new("cbfs-fsync", 1, QUEUE_MAX),
            sync_callers: SharedTurn::new(QUEUE_MAX),
            faults: Faults::default(),
        })
    }

    /// Settles how long the kernel may keep names and attributes.
    pub(super) fn negotiated(&self, kernel: Version, can_resend: bool) {
        self.can_resend.get_or_init(|| can_resend);
        let ttl = match self.open {
            OpenMode::Answered if kernel < ABI_INC_EPOCH => self.cache_ttl_wanted.min(CACHE_TTL_WITHOUT_EPOCH),
            _ => self.cache_ttl_wanted,
        };
        self.cache_ttl.get_or_init(|| ttl);
    }

    pub(super) fn cache_ttl(&self) -> Duration {
        self.cache_ttl.get().copied().unwrap_or(Duration::ZERO)
    }

    /// Runs `op` and answers with `finish` or an error. If bytes must be fetched first, all that goes to a thread that
    /// may wait, with a copy of `words`.
    pub(super) fn answer<const N: usize, T, R: Failing>(
        self: &Arc<Self>,
        ino: Ino,
        reply: R,
        words: [&[u8]; N],
        op: impl Fn(&dyn FileSystem, [&[u8]; N]) -> FsResult<T> + Send + 'static,
        finish: impl FnOnce(&Arc<Self>, R, T) + Send + 'static,
    ) {
        match op(&*self.fs, words) {
            Ok(value) => finish(self, reply, value),
            Err(FsError::NotResident(need)) => {
                let (core, words) = (self.clone(), words.map(<[u8]>::to_vec));
                let job = move || {
                    let again = |fs: &dyn FileSystem| op(fs, words.each_ref().map(Vec::as_slice));
                    match core.fetch_and_retry(need, again) {
                        Ok(value) => finish(&core, reply, value),
                        Err(error) => core.fail(ino, reply, &error),
                    }
                };
                // A job that is not taken drops its reply, which answers EIO.
                if let Err(error) = self.waiting.submit(job) {
                    tracing::warn!(%ino, %error, "an operation on bytes that are not here fails");
                }
            }
            Err(error) => self.fail(ino, reply, &error),
        }
    }

    /// [`answer`](Self::answer) of an operation that either succeeds or does not.
    pub(super) fn acknowledge<const N: usize>(
        self: &Arc<Self>,
        ino: Ino,
        reply: fuser::ReplyEmpty,
        words: [&[u8]; N],
        op: impl Fn(&dyn FileSystem, [&[u8]; N]) -> FsResult<()> + Send + 'static,
    ) {
        self.answer(ino, reply, words, op, |_core, reply, ()| reply.ok());
    }

    /// [`answer`](Self::answer) with attributes.
    pub(super) fn answer_attributes<const N: usize>(
        self: &Arc<Self>,
        ino: Ino,
        reply: fuser::ReplyAttr,
        words: [&[u8]; N],
        op: impl Fn(&dyn FileSystem, [&[u8]; N]) -> FsResult<Attributes> + Send + 'static,
    ) {
        self.answer(ino, reply, words, op, |core, reply, attributes| {
            reply.attr(&core.cache_ttl(), &convert::file_attr(&attributes));
        });
    }

    /// [`answer`](Self::answer) with an entry, which the kernel holds from then on.
    pub(super) fn answer_entry<const N: usize>(
        self: &Arc<Self>,
        ino: Ino,
        reply: fuser::ReplyEntry,
        words: [&[u8]; N],
        op: impl Fn(&dyn FileSystem, [&[u8]; N]) -> FsResult<Attributes> + Send + 'static,
    ) {
        self.answer(ino, reply, words, op, |core, reply, attributes| core.send_entry(reply, &attributes));
    }

    fn fetch_and_retry<T>(&self, first: Need, op: impl Fn(&dyn FileSystem) -> FsResult<T>) -> FsResult<T> {
        let mut need = first;
        for _ in 0..ROUNDS_MAX {
            if self.waiting.is_closed() {
                return Err(FsError::Stale);
            }
            match need.fetch() {
                Ok(()) => {}
                Err(BaseError::NotResident(other)) => {
                    need = other;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            match op(&*self.fs) {
                Err(FsError::NotResident(other)) => need = other,
                settled => return settled,
            }
        }
        Err(FsError::NotResident(need))
    }

    /// Makes everything durable on a thread of its own: neither the session threads nor waiting for the cloud are in the
    /// way. One flush is for all who wait when it begins, and one thread answers them: sixteen of their own would be woken
    /// by every flush to send one answer each.
    pub(super) fn sync(self: &Arc<Self>, ino: Ino, reply: fuser::ReplyEmpty) {
        match self.sync_callers.join((ino, reply)) {
            Joined::Later => {}
            Joined::Full((ino, reply)) => {
                self.fail(ino, reply, &FsError::Io("too many wait for a flush already".into()));
            }
            Joined::First => {
                let core = self.clone();
                if let Err(error) = self.syncing.submit(move || core.sync_for_callers()) {
                    let error = FsError::Io(format!("no flush can begin: {error}").into());
                    self.sync_callers
                        .serve(|_| Err(error), |(ino, reply), outcome| self.answer_sync(ino, reply, outcome));
                }
            }
        }
    }

    fn sync_for_callers(&self) {
        self.sync_callers
            .serve(|(ino, _)| self.fs.sync(*ino), |(ino, reply), outcome| self.answer_sync(ino, reply, outcome));
    }

    fn answer_sync(&self, ino: Ino, reply: fuser::ReplyEmpty, outcome: &FsResult<()>) {
        match outcome {
            Ok(()) => reply.ok(),
            Err(error) => self.fail(ino, reply, error),
        }
    }

    pub(super) fn fail(&self, ino: Ino, reply: impl Failing, error: &FsError) {
        self.faults.report(ino, error);
        reply.fail(error.errno());
    }

    /// Answers with an entry, which the kernel holds from now on.
    pub(super) fn send_entry(&self, reply: fuser::ReplyEntry, attributes: &Attributes) {
        self.lookups.remember(attributes.ino);
        reply.entry(&self.cache_ttl(), &convert::file_attr(attributes), Generation(0));
    }

    /// The kernel drops references.
    pub(super) fn forget(&self, ino: Ino, count: u64) {
        let Some(orphans) = &self.orphans else {
            return self.lookups.forget(ino, count, |ino| self.fs.forgotten(ino));
        };
        self.lookups.forget_some(ino, count);
        if self.fs.is_nameless(ino) {
            orphans.suspect(ino);
        }
    }

    /// Whether a later process could go on with this connection.
    pub(super) fn can_resend(&self) -> bool {
        self.can_resend.get().copied().unwrap_or(false)
    }

    /// What the kernel may go on believing of a file that is opened.
    pub(super) fn open_flags(&self) -> FopenFlags {
        // Of what an earlier process handed out nothing is known, so it could not be voided one by one.
        if self.life > 0 && self.voided.load(Ordering::Acquire) {
            FopenFlags::empty()
        } else {
            FopenFlags::FOPEN_KEEP_CACHE
        }
    }

    /// The connection is gone: nobody waits any more, nothing is held.
    pub(super) fn disconnected(&self) {
        self.waiting.close();
        self.syncing.close();
        drop(self.sync_callers.take());
        self.lookups.forget_all(|ino| self.fs.forgotten(ino));
    }
}
