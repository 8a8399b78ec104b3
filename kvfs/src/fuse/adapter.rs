//! The requests of the kernel, one to one.

use super::OpenMode;
use super::convert::{self, MODE_MASK, caller, checked_name, ino, send_xattr};
use super::core::Core;
use super::handshake;
use super::once::Once;
use super::privileges::{may_take_privileges, privileges_of, sgid_after_acl};
use crate::acl::AclKind;
use crate::error::FsError;
use crate::fs::api::{Access, NewNode, SeekTarget};
use crate::ids::Ino;
use crate::op::{AttributeChange, CopyRange, Privileges};
use crate::schema::FileKind;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Inodes that statfs shows as free: the numbers of an epoch.
const INODES_FREE: u64 = 1 << 40;

/// The handler of a session.
pub(super) struct Adapter {
    core: Arc<Core>,
}

impl Adapter {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    fn once(&self, request: &Request) -> Once {
        self.core.requests.once(&*self.core.fs, request.unique().0)
    }

    /// Everything that gives a name to a new inode.
    fn make(&self, request: &Request, at: (INodeNo, &OsStr), node: &NewNode<'_>, reply: ReplyEntry) {
        let Some(name) = checked_name(at.1) else { return reply.error(Errno::ENAMETOOLONG) };
        let (parent, &NewNode { kind, mode, umask, rdev, target }) = (ino(at.0), node);
        let (caller, once) = (caller(request), self.once(request));
        self.core.answer_entry(parent, reply, [name, target], move |fs, [name, target]| {
            once.run(fs, || fs.make(caller, parent, name, &NewNode { kind, mode, umask, rdev, target }))
        });
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let missing = handshake::negotiate(config, self.core.fs.acls())?;
        self.core.negotiated(config.kernel_abi(), !missing.contains(InitFlags::FUSE_HAS_RESEND));
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Some(name) = checked_name(name) else { return reply.error(Errno::ENAMETOOLONG) };
        let parent = ino(parent);
        self.core.answer(
            parent,
            reply,
            [name],
            move |fs, [name]| match fs.lookup(parent, name) {
                Err(FsError::NotFound) => Ok(None),
                found => found.map(Some),
            },
            |core, reply, found| match found {
                Some(attributes) => core.send_entry(reply, &attributes),
                // Inode 0 with a life time: the kernel remembers that there is nothing.
                None => {
                    reply.entry(&core.cache_ttl(), &convert::bare_attr(Ino(0), FileKind::Regular), Generation(0));
                }
            },
        );
    }

    fn forget(&self, _request: &Request, node: INodeNo, count: u64) {
        self.core.forget(ino(node), count);
    }

    fn getattr(&self, _request: &Request, node: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let node = ino(node);
        self.core.answer_attributes(node, reply, [], move |fs, []| fs.attributes(node));
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let node = ino(node);
        let change = AttributeChange {
            mode: mode.map(|mode| mode & MODE_MASK),
            uid,
            gid,
            size,
            atime: atime.map(convert::wanted_time),
            mtime: mtime.map(convert::wanted_time),
        };
        // A request for nothing is a chown(2) of nobody, or stands before a write by somebody who may not keep them.
        let nothing = change == AttributeChange::default();
        let privileges = match size {
            _ if nothing || uid.is_some() || gid.is_some() => Privileges::Drop,
            Some(_) => privileges_of(request),
            None => Privileges::Keep,
        };
        let caller = caller(request);
        self.core.answer_attributes(node, reply, [], move |fs, []| {
            if nothing {
                let shown = fs.attributes(node)?;
                if !may_take_privileges(caller, &shown) {
                    return Ok(shown);
                }
            }
            fs.set_attributes(node, &change, privileges)
        });
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        let node = ino(node);
        self.core.answer(node, reply, [], move |fs, []| fs.read_link(node), |_core, reply, target| reply.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let Some(kind) = FileKind::from_mode(mode) else { return reply.error(Errno::EINVAL) };
        let node = NewNode { kind, mode: mode & MODE_MASK, umask, rdev, target: &[] };
        self.make(request, (parent, name), &node, reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let node = NewNode { kind: FileKind::Directory, mode: mode & MODE_MASK, umask, rdev: 0, target: &[] };
        self.make(request, (parent, name), &node, reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes();
        let node = NewNode { kind: FileKind::Symlink, mode: 0o777, umask: 0, rdev: 0, target };
        self.make(request, (parent, name), &node, reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let Some(name) = checked_name(name) else { return reply.error(Errno::ENAMETOOLONG) };
        let (parent, caller, mode) = (ino(parent), caller(request), mode & MODE_MASK);
        let once = self.once(request);
        self.core.answer(
            parent,
            reply,
            [name],
            move |fs, [name]| {
                let node = NewNode { kind: FileKind::Regular, mode, umask, rdev: 0, target: &[] };
                match once.run(fs, || fs.make(caller, parent, name, &node)) {
                    // The kernel believed that there was nothing. ESTALE makes it look again, and check permissions
                    // on what it finds, which an answer of ours would skip.
                    Err(FsError::Exists) if flags & libc::O_EXCL == 0 => Err(FsError::Stale),
                    made => made,
                }
            },
            |core, reply, made| {
                core.lookups.remember(made.ino);
                let (ttl, attr) = (core.cache_ttl(), convert::file_attr(&made));
                reply.created(&ttl, &attr, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            },
        );
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Some(name) = checked_name(name) else { return reply.error(Errno::ENAMETOOLONG) };
        let (parent, once) = (ino(parent), self.once(request));
        self.core.acknowledge(parent, reply, [name], move |fs, [name]| once.run(fs, || fs.unlink(parent, name)));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Some(name) = checked_name(name) else { return reply.error(Errno::ENAMETOOLONG) };
        let (parent, once) = (ino(parent), self.once(request));
        self.core.acknowledge(parent, reply, [name], move |fs, [name]| once.run(fs, || fs.rmdir(parent, name)));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (Some(name), Some(new_name)) = (checked_name(name), checked_name(new_name)) else {
            return reply.error(Errno::ENAMETOOLONG);
        };
        let Some(mode) = convert::rename_mode(flags) else { return reply.error(Errno::EINVAL) };
        let (parent, new_parent, once) = (ino(parent), ino(new_parent), self.once(request));
        self.core.acknowledge(parent, reply, [name, new_name], move |fs, [name, new_name]| {
            once.run(fs, || fs.rename((parent, name), (new_parent, new_name), mode))
        });
    }

    fn link(&self, request: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Some(name) = checked_name(name) else { return reply.error(Errno::ENAMETOOLONG) };
        let (node, parent, once) = (ino(node), ino(parent), self.once(request));
        self.core.answer_entry(node, reply, [name], move |fs, [name]| once.run(fs, || fs.link(node, parent, name)));
    }

    fn open(&self, _request: &Request, _node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.core.open == OpenMode::Stateless {
            return reply.error(Errno::ENOSYS);
        }
        let writes = flags.0 & libc::O_ACCMODE != libc::O_RDONLY || flags.0 & libc::O_TRUNC != 0;
        if writes && self.core.fs.access() == Access::ReadOnly {
            return reply.error(Errno::EROFS);
        }
        reply.opened(FileHandle(0), self.core.open_flags());
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
        let node = ino(node);
        self.core.answer(
            node,
            reply,
            [],
            move |fs, []| fs.read(node, offset, size),
            // One byte more than asked would be EIO for the application.
            move |_core, reply, bytes| reply.data(bytes.get(..size as usize).unwrap_or(&bytes)),
        );
    }

    fn write(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let node = ino(node);
        let drops = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let privileges = if drops { Privileges::Drop } else { Privileges::Keep };
        self.core.answer(
            node,
            reply,
            [data],
            move |fs, [data]| fs.write(node, offset, data, privileges),
            |_core, reply, written| reply.written(written),
        );
    }

    fn flush(&self, _request: &Request, _node: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _request: &Request, node: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        self.core.sync(ino(node), reply);
    }

    fn opendir(&self, _request: &Request, _node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(self.core.directories.open()), FopenFlags::empty());
    }

    fn readdir(&self, _request: &Request, node: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.core.list(ino(node), handle.0, offset, reply);
    }

    fn readdirplus(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.core.list(ino(node), handle.0, offset, reply);
    }

    fn releasedir(&self, _request: &Request, _node: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.core.directories.close(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _request: &Request, node: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        self.core.sync(ino(node), reply);
    }

    fn statfs(&self, _request: &Request, node: INodeNo, reply: ReplyStatfs) {
        self.core.answer(
            ino(node),
            reply,
            [],
            |fs, []| fs.stats(),
            |_core, reply, stats| {
                let unit = convert::BLOCK_BYTES;
                let (total, free) = (stats.total_bytes / u64::from(unit), stats.free_bytes / u64::from(unit));
                reply.statfs(total, free, free, stats.inodes + INODES_FREE, INODES_FREE, unit, 255, unit);
            },
        );
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = convert::xattr_mode(flags) else { return reply.error(Errno::EINVAL) };
        let (node, once) = (ino(node), self.once(request));
        let (caller, pid) = (caller(request), request.pid());
        self.core.acknowledge(node, reply, [name.as_bytes(), value], move |fs, [name, value]| {
            let Some(kind) = AclKind::of(name) else {
                return once.run(fs, || fs.set_xattr(node, name, value, mode));
            };
            let sgid = sgid_after_acl(fs, (node, kind), (caller, pid))?;
            once.run(fs, || fs.set_acl(node, kind, value, sgid))
        });
    }

    fn getxattr(&self, _request: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let node = ino(node);
        self.core.answer(
            node,
            reply,
            [name.as_bytes()],
            move |fs, [name]| fs.get_xattr(node, name),
            move |_core, reply, value| send_xattr(reply, size, &value),
        );
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let node = ino(node);
        // The kernel refuses to read these to others than root, but does not take their names out.
        let hides_trusted = request.uid() != 0;
        self.core.answer(
            node,
            reply,
            [],
            move |fs, []| fs.list_xattrs(node),
            move |_core, reply, names| {
                let shown = names.into_iter().filter(|name| !(hides_trusted && name.starts_with(b"trusted.")));
                let list: Vec<u8> = shown.flat_map(|name| name.into_iter().chain([0])).collect();
                send_xattr(reply, size, &list);
            },
        );
    }

    fn removexattr(&self, request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (node, once) = (ino(node), self.once(request));
        self.core.acknowledge(node, reply, [name.as_bytes()], move |fs, [name]| {
            once.run(fs, || fs.remove_xattr(node, name))
        });
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        flags: i32,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = convert::allocate_mode(flags) else { return reply.error(Errno::EOPNOTSUPP) };
        let (node, privileges) = (ino(node), privileges_of(request));
        self.core.acknowledge(node, reply, [], move |fs, []| fs.allocate(node, offset, length, mode, privileges));
    }

    fn lseek(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let target = match whence {
            libc::SEEK_DATA => SeekTarget::Data,
            libc::SEEK_HOLE => SeekTarget::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let node = ino(node);
        self.core.answer(
            node,
            reply,
            [],
            move |fs, []| fs.seek(node, offset, target),
            |_core, reply, found| reply.offset(found as i64),
        );
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _from_handle: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _to_handle: FileHandle,
        to_offset: u64,
        len: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let privileges = privileges_of(request);
        let range = CopyRange { from: ino(from), from_offset, to: ino(to), to_offset, len };
        self.core.answer(
            range.to,
            reply,
            [],
            move |fs, []| fs.copy_range(&range, privileges),
            |_core, reply, copied| reply.written(u32::try_from(copied).unwrap_or(u32::MAX)),
        );
    }

    fn ioctl(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _output_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn poll(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }
}
