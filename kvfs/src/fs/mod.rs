//! POSIX semantics on top of the storage engine.
//!
//! [`Fs`] answers the operations of a mount: reads from the stack, writes through the engine where there is one. The
//! same value serves a slave (no engine, read-only) and, after a promotion, the master that it became.

mod acls;
pub mod api;
mod content;
mod directory;
mod names;
mod xattrs;

pub use api::{Access, Attributes, Caller, DirEntry, FileSystem, FsStats, NewNode, SeekTarget, Sgid};

use crate::acl::{AclKind, AclSupport};
use crate::engine::Engine;
use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::op::{AllocateMode, AttributeChange, CopyRange, Op, Privileges, RenameMode, XattrMode};
use crate::request::{DoneRequest, RequestId};
use crate::schema::{InodeValue, Time};
use crate::stack::Stack;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where times come from.
pub trait Clock: Send + Sync {
    /// The time of the operation that is being done.
    fn now(&self) -> Time;
}

/// The clock of the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time { secs: since.as_secs() as i64, nanos: since.subsec_nanos() }
    }
}

/// Longest name, bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Space that a filesystem without limits shows as free, bytes.
const FREE_BYTES_READ_ONLY: u64 = 0;

/// See the module.
pub struct Fs {
    stack: Arc<Stack>,
    engine: ArcSwapOption<Engine>,
    clock: Arc<dyn Clock>,
    acls: AclSupport,
}

impl Fs {
    /// A filesystem that only reads what `stack` has.
    pub fn read_only(stack: Arc<Stack>, clock: Arc<dyn Clock>) -> Self {
        Self { stack, engine: ArcSwapOption::empty(), clock, acls: AclSupport::default() }
    }

    /// A master's filesystem.
    pub fn new(engine: Arc<Engine>, clock: Arc<dyn Clock>) -> Self {
        let fs = Self::read_only(Arc::clone(engine.stack()), clock);
        fs.attach(engine);
        fs
    }

    /// The same, with ACLs or without, as it was made.
    #[must_use]
    pub fn with_acls(self, acls: AclSupport) -> Self {
        Self { acls, ..self }
    }

    /// Makes it writable: `engine` works on the same stack.
    pub fn attach(&self, engine: Arc<Engine>) {
        self.engine.store(Some(engine));
    }

    /// The engine, if it is writable or was.
    pub fn engine(&self) -> Option<Arc<Engine>> {
        self.engine.load_full()
    }

    /// The tiers that it reads.
    pub fn stack(&self) -> &Arc<Stack> {
        &self.stack
    }

    /// The engine for a write, which waits here while memory is full.
    fn writer(&self) -> FsResult<Arc<Engine>> {
        let engine = self.engine.load_full().ok_or(FsError::ReadOnly)?;
        engine.check_writable()?;
        engine.admit()?;
        Ok(engine)
    }

    /// Runs an operation on inodes that are known beforehand.
    fn change(&self, inos: &[Ino], op: Op) -> FsResult<()> {
        let engine = self.writer()?;
        let _locked = self.stack.locks().lock(inos);
        engine.run(self.clock.now(), op).map(|_| ())
    }

    fn existing(&self, ino: Ino) -> FsResult<Arc<InodeValue>> {
        self.stack.load().view().inode(ino)?.ok_or(FsError::Stale)
    }
}

/// What stat(2) shows of an inode.
fn attributes_of(ino: Ino, inode: &InodeValue) -> Attributes {
    Attributes {
        ino,
        kind: inode.kind,
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        nlink: inode.nlink,
        rdev: inode.rdev,
        size: inode.size,
        blocks: inode.stored.div_ceil(512),
        atime: inode.atime,
        mtime: inode.mtime,
        ctime: inode.ctime,
    }
}

impl FileSystem for Fs {
    fn access(&self) -> Access {
        match self.engine.load_full() {
            Some(engine) if engine.read_only_reason().is_none() => Access::ReadWrite,
            _ => Access::ReadOnly,
        }
    }

    fn lookup(&self, parent: Ino, name: &[u8]) -> FsResult<Attributes> {
        names::lookup(self, parent, name)
    }

    fn forgotten(&self, ino: Ino) {
        names::forgotten(self, ino);
    }

    fn attributes(&self, ino: Ino) -> FsResult<Attributes> {
        Ok(attributes_of(ino, self.existing(ino)?.as_ref()))
    }

    fn set_attributes(&self, ino: Ino, change: &AttributeChange, privileges: Privileges) -> FsResult<Attributes> {
        acls::set_attributes(self, ino, *change, privileges)?;
        self.attributes(ino)
    }

    fn make(&self, caller: Caller, parent: Ino, name: &[u8], node: &NewNode<'_>) -> FsResult<Attributes> {
        names::make(self, caller, (parent, name), node)
    }

    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> FsResult<Attributes> {
        let at = names::entry(parent, name)?;
        self.change(&[ino, parent], Op::Link { ino, at })?;
        self.attributes(ino)
    }

    fn unlink(&self, parent: Ino, name: &[u8]) -> FsResult<()> {
        names::remove(self, parent, name, |at| Op::Unlink { at })
    }

    fn rmdir(&self, parent: Ino, name: &[u8]) -> FsResult<()> {
        names::remove(self, parent, name, |at| Op::Rmdir { at })
    }

    fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> FsResult<()> {
        names::rename(self, from, to, mode)
    }

    fn read_link(&self, ino: Ino) -> FsResult<Bytes> {
        let inode = self.existing(ino)?;
        match inode.kind {
            crate::schema::FileKind::Symlink => Ok(inode.target.clone()),
            _ => Err(FsError::Invalid),
        }
    }

    fn read(&self, ino: Ino, offset: u64, len: u32) -> FsResult<Bytes> {
        content::read(self, ino, offset, len)
    }

    fn write(&self, ino: Ino, offset: u64, data: &[u8], privileges: Privileges) -> FsResult<u32> {
        content::write(self, ino, offset, data, privileges)
    }

    fn allocate(&self, ino: Ino, offset: u64, len: u64, mode: AllocateMode, privileges: Privileges) -> FsResult<()> {
        self.change(&[ino], Op::Allocate { ino, offset, len, mode, privileges })
    }

    fn copy_range(&self, range: &CopyRange, privileges: Privileges) -> FsResult<u64> {
        content::copy_range(self, range, privileges)
    }

    fn seek(&self, ino: Ino, offset: u64, target: SeekTarget) -> FsResult<u64> {
        content::seek(self, ino, offset, target)
    }

    fn sync(&self, _ino: Ino) -> FsResult<()> {
        match self.engine.load_full() {
            Some(engine) => engine.sync(),
            None => Ok(()),
        }
    }

    fn read_dir(&self, ino: Ino, after: Option<&[u8]>, max: usize) -> FsResult<Vec<DirEntry>> {
        directory::read(self, ino, after, max)
    }

    fn get_xattr(&self, ino: Ino, name: &[u8]) -> FsResult<Bytes> {
        xattrs::get(self, ino, name)
    }

    fn list_xattrs(&self, ino: Ino) -> FsResult<Vec<Vec<u8>>> {
        xattrs::list(self, ino)
    }

    fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> FsResult<()> {
        xattrs::set(self, ino, name, (value, mode))
    }

    fn remove_xattr(&self, ino: Ino, name: &[u8]) -> FsResult<()> {
        xattrs::remove(self, ino, name)
    }

    fn acls(&self) -> AclSupport {
        self.acls
    }

    fn set_acl(&self, ino: Ino, kind: AclKind, value: &[u8], sgid: Sgid) -> FsResult<()> {
        acls::set(self, ino, kind, (value, sgid))
    }

    fn is_nameless(&self, ino: Ino) -> bool {
        self.engine.load_full().is_some_and(|engine| engine.is_nameless(ino))
    }

    fn orphans(&self) -> Vec<Ino> {
        let orphans = self.engine.load_full().map(|engine| engine.orphans());
        orphans.and_then(Result::ok).unwrap_or_default()
    }

    fn done_request(&self, id: RequestId) -> Option<DoneRequest> {
        self.engine.load_full().and_then(|engine| engine.done_request(id))
    }

    fn forget_requests_before(&self, life: u32) {
        if let Some(engine) = self.engine.load_full() {
            engine.forget_requests_before(life);
        }
    }

    fn stats(&self) -> FsResult<FsStats> {
        let Some(engine) = self.engine.load_full() else {
            let totals = self.stack.load().base.totals();
            let total_bytes = totals.bytes + FREE_BYTES_READ_ONLY;
            return Ok(FsStats { total_bytes, free_bytes: FREE_BYTES_READ_ONLY, inodes: totals.inodes });
        };
        let totals = engine.totals();
        let free_bytes = engine.free_bytes()?;
        Ok(FsStats { total_bytes: totals.bytes + free_bytes, free_bytes, inodes: totals.inodes })
    }
}
