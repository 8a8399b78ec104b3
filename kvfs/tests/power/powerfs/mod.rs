//! A filesystem that can lose power, break and lie: the ground of the durability tests.
//!
//! It is served by this process over FUSE, so that a whole unmodified engine (journal, data segments, LMDB, directories)
//! stands on it. It knows for every file which bytes are durable and which were only written, for every directory which
//! names are. Its root holds one directory for each *life*: [`PowerFs::life`] is the one in use, a loss of power begins
//! the next one with what remains. The old life goes on undisturbed for whoever still has it open, and nobody sees it
//! again.
//!
//! * `disk` – files and names, durable and not.
//! * `loss` – what remains of them.
//! * `fault` – planned errors, and syncs that lie.
//! * `server` – the requests of the kernel.
//!
//! What the kernel caches of it stands for the page cache: after a failed fsync the bytes are still there to be read and
//! not on the disk, until someone drops the cache.

mod disk;
mod fault;
mod loss;
mod server;

pub use fault::{Calls, Effect, Fault, Lie, Sync};
pub use loss::Loss;

use anyhow::{Context, Result};
use disk::Disk;
use fuser::{BackgroundSession, Config, MountOption, Session};
use rustix::mount::{UnmountFlags, unmount};
use server::Server;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

/// State that the session threads and the test share.
struct Shared {
    disk: Mutex<Disk>,
    /// Set before the power goes: what was confirmed while it was unset was confirmed in time.
    cut: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module. Unmounted when dropped.
pub struct PowerFs {
    shared: Arc<Shared>,
    dir: TempDir,
    _locks: TempDir,
    session: Option<BackgroundSession>,
}

impl PowerFs {
    /// Mounts an empty one at a directory of its own. Needs root.
    pub fn mount() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("cbfs-power-").tempdir()?;
        let locks = tempfile::Builder::new().prefix("cbfs-locks-").tempdir()?;
        let shared = Arc::new(Shared { disk: Mutex::new(Disk::new()), cut: AtomicBool::new(false) });
        let mut config = Config::default();
        config.n_threads = Some(2);
        config.mount_options = vec![MountOption::FSName("cbfs-power".into()), MountOption::NoAtime];
        let server = Server::new(shared.clone(), locks.path());
        let session = Session::new(server, dir.path(), &config).context("mounting a filesystem of the test")?;
        let session = Some(session.spawn()?);
        Ok(Self { shared, dir, _locks: locks, session })
    }

    /// The directory of the life in use: what a state directory can lie in.
    pub fn life(&self) -> PathBuf {
        self.dir.path().join(disk::life_name(self.shared.lock().life()))
    }

    /// Takes the power away now.
    pub fn cut_now(&self, loss: &Loss) {
        let mut disk = self.shared.lock();
        self.shared.cut.store(true, Ordering::SeqCst);
        disk.lose_power(loss);
    }

    /// Takes the power away at the `nth` request from now that changes or syncs something, before it is done.
    pub fn cut_at(&self, nth: u64, loss: Loss) {
        self.shared.lock().cut_at(nth, loss);
    }

    /// Whether the power has gone since [`PowerFs::power_on`].
    pub fn is_cut(&self) -> bool {
        self.shared.cut.load(Ordering::SeqCst)
    }

    /// Begins to count anew, and forgets all lives but the one in use; nobody has them open any more.
    pub fn power_on(&self) {
        let mut disk = self.shared.lock();
        disk.power_on();
        self.shared.cut.store(false, Ordering::SeqCst);
    }

    /// Requests that changed or synced something since [`PowerFs::power_on`].
    pub fn requests(&self) -> u64 {
        self.shared.lock().requests()
    }

    /// Plans an error; replaces the plan that there was.
    pub fn plan(&self, fault: Fault) {
        self.plan_below("", fault);
    }

    /// As [`PowerFs::plan`], for what lies below a path alone.
    pub fn plan_below(&self, path: &'static str, fault: Fault) {
        self.shared.lock().faults.plan(path, fault);
    }

    /// Ends the plan; answers how often it struck.
    pub fn heal(&self) -> u64 {
        self.shared.lock().faults.heal()
    }

    /// How often the plan has struck so far.
    pub fn struck(&self) -> u64 {
        self.shared.lock().faults.struck()
    }

    /// How many syncs have failed by the plan.
    pub fn syncs_failed(&self) -> u64 {
        self.shared.lock().faults.failed_syncs
    }

    /// From now on some syncs do nothing and say that they did.
    pub fn lie(&self, lie: Lie) {
        self.shared.lock().faults.lie(lie);
    }
}

impl Drop for PowerFs {
    fn drop(&mut self) {
        // Lazily: a test that failed may have an engine open here. Nobody is left to hear of a failure.
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
        drop(self.session.take());
    }
}
