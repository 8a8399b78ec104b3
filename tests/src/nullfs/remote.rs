//! A filesystem whose answers must be fetched first, as if they were in a bucket.

use super::NullFs;
use bytes::Bytes;
use kvfs::base::{BaseError, Fetch};
use kvfs::fs::api::{Access, Attributes, Caller, DirEntry, FileSystem, FsStats, NewNode, SeekTarget};
use kvfs::op::{AllocateMode, AttributeChange, CopyRange, Privileges, RenameMode, XattrMode};
use kvfs::{FsError, FsResult, Ino};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Which operations need a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that can fail.
    Everything,
    /// Reading bytes.
    Reads,
}

/// What becomes of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It brings what is needed.
    Arrives,
    /// It waits until this changes.
    Waits,
    /// The store is away.
    Fails,
    /// It claims success and brings nothing.
    Vanishes,
}

/// [`NullFs`] behind a slow line: every operation in scope, told apart by its arguments, needs one fetch of its own.
pub struct RemoteFs {
    inner: Arc<NullFs>,
    scope: Scope,
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    arrival: Mutex<Arrival>,
    changed: Condvar,
    /// What has been fetched.
    here: Mutex<HashSet<String>>,
    fetches: AtomicU64,
    waiting: AtomicU64,
}

impl RemoteFs {
    /// Puts `inner` behind a line.
    pub fn new(inner: Arc<NullFs>, scope: Scope) -> Self {
        let line = Line {
            arrival: Mutex::new(Arrival::Arrives),
            changed: Condvar::new(),
            here: Mutex::default(),
            fetches: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        };
        Self { inner, scope, line: Arc::new(line) }
    }

    /// Decides about all fetches from now on, also those that wait.
    pub fn set_arrival(&self, arrival: Arrival) {
        *self.line.arrival.lock().unwrap_or_else(PoisonError::into_inner) = arrival;
        self.line.changed.notify_all();
    }

    /// Fetches that have ended.
    pub fn fetches(&self) -> u64 {
        self.line.fetches.load(Ordering::SeqCst)
    }

    /// Fetches that wait now.
    pub fn waiting(&self) -> u64 {
        self.line.waiting.load(Ordering::SeqCst)
    }

    fn resident(&self, scope: Scope, what: impl FnOnce() -> String) -> FsResult<&NullFs> {
        if self.scope == Scope::Reads && scope == Scope::Everything {
            return Ok(&self.inner);
        }
        let what = what();
        if self.line.here.lock().unwrap_or_else(PoisonError::into_inner).contains(&what) {
            return Ok(&self.inner);
        }
        Err(FsError::NotResident(Arc::new(Missing { what, line: self.line.clone() })))
    }
}

#[derive(Debug)]
struct Missing {
    what: String,
    line: Arc<Line>,
}

impl Fetch for Missing {
    fn fetch(&self) -> Result<(), BaseError> {
        let line = &self.line;
        let mut arrival = line.arrival.lock().unwrap_or_else(PoisonError::into_inner);
        line.waiting.fetch_add(1, Ordering::SeqCst);
        while *arrival == Arrival::Waits {
            arrival = line.changed.wait(arrival).unwrap_or_else(PoisonError::into_inner);
        }
        line.waiting.fetch_sub(1, Ordering::SeqCst);
        line.fetches.fetch_add(1, Ordering::SeqCst);
        match *arrival {
            Arrival::Fails => return Err(BaseError::Unavailable("the store is away".into())),
            Arrival::Arrives => {
                line.here.lock().unwrap_or_else(PoisonError::into_inner).insert(self.what.clone());
            }
            Arrival::Vanishes | Arrival::Waits => {}
        }
        Ok(())
    }
}

macro_rules! behind_the_line {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {$(
        fn $name(&self, $($argument: $kind),*) -> FsResult<$answer> {
            let what = || format!("{} {:?}", stringify!($name), ($(&$argument,)*));
            FileSystem::$name(self.resident(Scope::Everything, what)?, $($argument),*)
        }
    )*};
}

impl FileSystem for RemoteFs {
    fn access(&self) -> Access {
        self.inner.access()
    }

    fn forgotten(&self, ino: Ino) {
        self.inner.forgotten(ino);
    }

    fn read(&self, ino: Ino, offset: u64, len: u32) -> FsResult<Bytes> {
        FileSystem::read(self.resident(Scope::Reads, || format!("read {ino} {offset} {len}"))?, ino, offset, len)
    }

    behind_the_line! {
        lookup(parent: Ino, name: &[u8]) -> Attributes;
        attributes(ino: Ino) -> Attributes;
        set_attributes(ino: Ino, change: &AttributeChange, privileges: Privileges) -> Attributes;
        make(caller: Caller, parent: Ino, name: &[u8], node: &NewNode<'_>) -> Attributes;
        link(ino: Ino, parent: Ino, name: &[u8]) -> Attributes;
        unlink(parent: Ino, name: &[u8]) -> ();
        rmdir(parent: Ino, name: &[u8]) -> ();
        rename(from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> ();
        read_link(ino: Ino) -> Bytes;
        write(ino: Ino, offset: u64, data: &[u8], privileges: Privileges) -> u32;
        allocate(ino: Ino, offset: u64, len: u64, mode: AllocateMode, privileges: Privileges) -> ();
        copy_range(range: &CopyRange, privileges: Privileges) -> u64;
        seek(ino: Ino, offset: u64, target: SeekTarget) -> u64;
        read_dir(ino: Ino, after: Option<&[u8]>, max: usize) -> Vec<DirEntry>;
        get_xattr(ino: Ino, name: &[u8]) -> Bytes;
        list_xattrs(ino: Ino) -> Vec<Vec<u8>>;
        set_xattr(ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> ();
        remove_xattr(ino: Ino, name: &[u8]) -> ();
        stats() -> FsStats;
    }

    fn sync(&self, ino: Ino) -> FsResult<()> {
        self.inner.sync(ino)
    }
}
