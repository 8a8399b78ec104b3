//! The requests of the kernel.

use super::Shared;
use super::disk::{Body, DirState, Disk, Errno, FileState, Inode, Node};
use super::fault::{Calls, Effect, Sync};
use fuser::{
    FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Names change by the kernel alone, so it may remember them; lengths it asks for, since a write that failed may have
/// changed them.
const TTL_NAME: Duration = Duration::from_secs(3600);
const TTL_ATTR: Duration = Duration::ZERO;
const WRITE_BYTES_MAX: u32 = 1 << 20;
const BLOCK_BYTES: u32 = 4096;
const FREE_BLOCKS: u64 = 1 << 24;
/// What LMDB keeps for locks between processes and makes anew after a start. It is a link to a file elsewhere: a mapping
/// that is written to would wait for us while it holds what our own threads need, and when the process ends.
const LOCK_FILE: &[u8] = b"lock.mdb";
/// The node of a directory's lock file: this bit, and the directory's.
const LOCK_BIT: Node = 1 << 62;

pub(super) struct Server {
    shared: Arc<Shared>,
    locks: PathBuf,
}

impl Server {
    /// Lock files lie in the directory `locks`.
    pub(super) fn new(shared: Arc<Shared>, locks: &Path) -> Self {
        Self { shared, locks: locks.to_owned() }
    }

    /// The disk for a request that changes or syncs `node` (or names in it): counted, and struck by what is planned.
    fn begin(&self, node: INodeNo, calls: Calls) -> (MutexGuard<'_, Disk>, Option<(Effect, Errno)>) {
        let mut disk = self.shared.lock();
        if !disk.is_current(node.0) {
            return (disk, None);
        }
        let path = disk.path(node.0);
        if let Some(loss) = disk.count() {
            self.shared.cut.store(true, Ordering::SeqCst);
            disk.lose_power(&loss);
            return (disk, None);
        }
        let strike = disk.faults.strikes(calls, &path);
        (disk, strike)
    }

    /// A request that cannot be done in part.
    fn change<T>(
        &self,
        node: INodeNo,
        calls: Calls,
        run: impl FnOnce(&mut Disk) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let (mut disk, strike) = self.begin(node, calls);
        match strike {
            None => run(&mut disk),
            Some((Effect::Everything, errno)) => run(&mut disk).and(Err(errno)),
            Some((_, errno)) => Err(errno),
        }
    }

    fn make(&self, parent: INodeNo, name: &OsStr, body: Body, mode: u32) -> Result<FileAttr, Errno> {
        self.change(parent, Calls::Name, |disk| {
            let node = disk.make(parent.0, name.as_bytes(), body, (mode & 0o7777) as u16)?;
            attributes(disk, node)
        })
    }
}

fn attributes(disk: &Disk, node: Node) -> Result<FileAttr, Errno> {
    if node & LOCK_BIT != 0 {
        return Ok(file_attr(node, FileType::Symlink, 0, 0o777));
    }
    let inode: &Inode = disk.inodes.get(&node).ok_or(libc::ESTALE)?;
    Ok(match &inode.body {
        Body::File(file) => file_attr(node, FileType::RegularFile, file.cache.len() as u64, inode.mode),
        Body::Dir(_) => file_attr(node, FileType::Directory, 0, inode.mode),
    })
}

fn file_attr(node: Node, kind: FileType, size: u64, perm: u16) -> FileAttr {
    FileAttr {
        ino: INodeNo(node),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

fn errno(code: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(code)
}

fn answer_entry(reply: ReplyEntry, made: Result<FileAttr, Errno>) {
    match made {
        Ok(attr) => reply.entry_with_ttls(&TTL_ATTR, &TTL_NAME, &attr, Generation(0)),
        Err(code) => reply.error(errno(code)),
    }
}

fn answer(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(code) => reply.error(errno(code)),
    }
}

/// Syncs a file or the names of a directory; a failed one is lost for good.
fn sync(disk: &mut Disk, node: Node, kind: Sync, failure: Option<(Effect, Errno)>) -> Result<(), Errno> {
    let path = disk.path(node);
    if let Some((effect, code)) = failure {
        match (disk.file_mut(node), effect) {
            (Ok(file), Effect::Everything) => file.sync(),
            (Ok(file), _) => file.fail_sync(),
            (Err(_), _) => {}
        }
        return Err(code);
    }
    if disk.faults.lies_about(&path, kind) {
        return Ok(());
    }
    match kind {
        Sync::File => disk.file_mut(node)?.sync(),
        Sync::Names => disk.sync_dir(node),
    }
    Ok(())
}

impl Filesystem for Server {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Whatever the kernel grants will do.
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = self.shared.lock();
        let found = match name.as_bytes() {
            LOCK_FILE => Ok(parent.0 | LOCK_BIT),
            name => disk.lookup(parent.0, name),
        };
        answer_entry(reply, found.and_then(|node| attributes(&disk, node)));
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        let target = self.locks.join(format!("{}.lock", node.0 & !LOCK_BIT));
        reply.data(target.as_os_str().as_bytes());
    }

    fn getattr(&self, _request: &Request, node: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(&self.shared.lock(), node.0) {
            Ok(attr) => reply.attr(&TTL_ATTR, &attr),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = |disk: &mut Disk| {
            if let Some(size) = size {
                disk.file_mut(node.0)?.resize(size as usize);
            }
            if let (Some(mode), Some(inode)) = (mode, disk.inodes.get_mut(&node.0)) {
                inode.mode = (mode & 0o7777) as u16;
            }
            attributes(disk, node.0)
        };
        let done = match size {
            Some(_) => self.change(node, Calls::Write, change),
            None => change(&mut self.shared.lock()),
        };
        match done {
            Ok(attr) => reply.attr(&TTL_ATTR, &attr),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn mkdir(&self, _r: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        answer_entry(reply, self.make(parent, name, Body::Dir(DirState::default()), mode));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.change(parent, Calls::Name, |disk| disk.unlink(parent.0, name.as_bytes(), false)));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.change(parent, Calls::Name, |disk| disk.unlink(parent.0, name.as_bytes(), true)));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(fuser::Errno::EINVAL);
        }
        let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
        answer(reply, self.change(parent, Calls::Name, |disk| disk.rename(from, to)));
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make(parent, name, Body::File(FileState::default()), mode) {
            Ok(attr) => {
                reply.created(&TTL_ATTR, &attr, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(code) => reply.error(errno(code)),
        }
    }

    fn open(&self, _request: &Request, _node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.shared.lock().file_mut(node.0) {
            Ok(file) => {
                let from = file.cache.get(offset as usize..).unwrap_or_default();
                reply.data(from.get(..size as usize).unwrap_or(from));
            }
            Err(code) => reply.error(errno(code)),
        }
    }

    fn write(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (mut disk, strike) = self.begin(node, Calls::Write);
        let half = data.get(..data.len().div_ceil(2)).unwrap_or(data);
        let (arrives, code) = match strike {
            None => (data, None),
            Some((Effect::Short, _)) => (half, None),
            Some((Effect::Half, code)) => (half, Some(code)),
            Some((Effect::Nothing, code)) => (&[][..], Some(code)),
            Some((Effect::Everything, code)) => (data, Some(code)),
        };
        let done = disk.file_mut(node.0).map(|file| file.write(offset as usize, arrives));
        match (done, code) {
            (Ok(()), None) => reply.written(arrives.len() as u32),
            (Err(code), _) | (_, Some(code)) => reply.error(errno(code)),
        }
    }

    fn flush(&self, _r: &Request, _node: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn fsync(&self, _request: &Request, node: INodeNo, _handle: FileHandle, _data: bool, reply: ReplyEmpty) {
        let (mut disk, strike) = self.begin(node, Calls::Sync);
        answer(reply, sync(&mut disk, node.0, Sync::File, strike));
    }

    fn fsyncdir(&self, _request: &Request, node: INodeNo, _handle: FileHandle, _data: bool, reply: ReplyEmpty) {
        let (mut disk, strike) = self.begin(node, Calls::Sync);
        answer(reply, sync(&mut disk, node.0, Sync::Names, strike));
    }

    fn readdir(&self, _request: &Request, node: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let disk = self.shared.lock();
        let dir = match disk.dir(node.0) {
            Ok(dir) => dir,
            Err(code) => return reply.error(errno(code)),
        };
        let dots = [(&b"."[..], node.0), (&b".."[..], node.0)];
        let names = dots.into_iter().chain(dir.names.iter().map(|(name, child)| (name.as_slice(), *child)));
        for (index, (name, child)) in names.enumerate().skip(offset as usize) {
            let is_dir = disk.dir(child).is_ok();
            let kind = if is_dir { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(child), index as u64 + 1, kind, OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _node: INodeNo, reply: ReplyStatfs) {
        reply.statfs(2 * FREE_BLOCKS, FREE_BLOCKS, FREE_BLOCKS, 1 << 20, 1 << 20, BLOCK_BYTES, 255, BLOCK_BYTES);
    }
}
