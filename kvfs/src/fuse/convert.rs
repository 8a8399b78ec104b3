//! Between the words of FUSE and those of the filesystem.

use crate::fs::api::{Attributes, Caller};
use crate::ids::Ino;
use crate::op::{AllocateMode, RenameMode, XattrMode};
use crate::schema::{FileKind, Time};
use fuser::{Errno, FileAttr, FileType, INodeNo, RenameFlags, ReplyXattr, Request, TimeOrNow};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// POSIX `NAME_MAX`; the kernel would let FUSE have 1024 bytes.
const NAME_BYTES_MAX: usize = 255;
/// `st_blksize` and the unit of statfs.
pub(super) const BLOCK_BYTES: u32 = 4096;
/// Permission bits with suid, sgid, sticky.
pub(super) const MODE_MASK: u32 = 0o7777;

/// The bytes of a name, or `None` if it is too long.
pub(super) fn checked_name(name: &OsStr) -> Option<&[u8]> {
    Some(name.as_bytes()).filter(|name| name.len() <= NAME_BYTES_MAX)
}

pub(super) fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

pub(super) fn file_attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.ino.0),
        size: attributes.size,
        blocks: attributes.blocks,
        atime: system_time(attributes.atime),
        mtime: system_time(attributes.mtime),
        ctime: system_time(attributes.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attributes.kind),
        perm: (attributes.mode & MODE_MASK) as u16,
        nlink: attributes.nlink,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.rdev,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// Attributes that only say number and kind. With number 0 it is the kernel's word for "no such name".
pub(super) fn bare_attr(ino: Ino, kind: FileKind) -> FileAttr {
    let zero = Time::default();
    let (mode, uid, gid, nlink, rdev, size, blocks) = (0, 0, 0, 0, 0, 0, 0);
    file_attr(&Attributes {
        ino,
        kind,
        mode,
        uid,
        gid,
        nlink,
        rdev,
        size,
        blocks,
        atime: zero,
        mtime: zero,
        ctime: zero,
    })
}

fn system_time(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let start = if time.secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    start.and_then(|start| start.checked_add(Duration::from_nanos(time.nanos.into()))).unwrap_or(UNIX_EPOCH)
}

/// A time that an application asked for.
pub(super) fn wanted_time(time: TimeOrNow) -> Time {
    match time {
        TimeOrNow::SpecificTime(time) => garbled_time(time),
        TimeOrNow::Now => garbled_time(SystemTime::now()),
    }
}

/// Undoes fuser 0.18: before 1970 it counts the nanoseconds of the kernel's `(secs, nanos)` backwards from `secs`,
/// although they count forward.
fn garbled_time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Time { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            Time { secs: 0_i64.saturating_sub_unsigned(before.as_secs()), nanos: before.subsec_nanos() }
        }
    }
}

/// renameat2 flags; `None` if there are others.
pub(super) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    match flags.bits() {
        0 => Some(RenameMode::Replace),
        libc::RENAME_NOREPLACE => Some(RenameMode::NoReplace),
        libc::RENAME_EXCHANGE => Some(RenameMode::Exchange),
        _ => None,
    }
}

/// setxattr flags; `None` if there are others.
pub(super) fn xattr_mode(flags: i32) -> Option<XattrMode> {
    match flags {
        0 => Some(XattrMode::Set),
        libc::XATTR_CREATE => Some(XattrMode::Create),
        libc::XATTR_REPLACE => Some(XattrMode::Replace),
        _ => None,
    }
}

/// fallocate flags; `None` if there are others (collapse, insert, unshare).
pub(super) fn allocate_mode(flags: i32) -> Option<AllocateMode> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match flags {
        0 => Some(AllocateMode::Extend),
        KEEP => Some(AllocateMode::KeepSize),
        PUNCH => Some(AllocateMode::PunchHole),
        ZERO => Some(AllocateMode::ZeroRange),
        ZERO_KEEP => Some(AllocateMode::ZeroRangeKeepSize),
        _ => None,
    }
}

/// Who asks.
pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

/// The bytes of an attribute or of the list of them, or how many they are where there is room for none.
pub(super) fn send_xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    match size as usize {
        0 => reply.size(value.len() as u32),
        room if room < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What fuser 0.18 makes of the kernel's pair.
    fn as_fuser_reads(secs: i64, nanos: u32) -> SystemTime {
        if secs >= 0 {
            UNIX_EPOCH + Duration::new(secs as u64, nanos)
        } else {
            UNIX_EPOCH - Duration::new(secs.unsigned_abs(), nanos)
        }
    }

    proptest! {
        #[test]
        fn every_time_comes_through(secs in -100_000_000_000_i64..100_000_000_000, nanos in 0_u32..1_000_000_000) {
            let time = Time { secs, nanos };
            prop_assert_eq!(wanted_time(TimeOrNow::SpecificTime(as_fuser_reads(secs, nanos))), time);
            let shown = system_time(time);
            let forward = (shown - Duration::from_nanos(nanos.into())).duration_since(UNIX_EPOCH);
            let whole = forward.map_or_else(|error| -(error.duration().as_secs() as i64), |since| since.as_secs() as i64);
            prop_assert_eq!(whole, secs);
        }
    }

    #[test]
    fn times_beyond_the_host_do_not_panic() {
        for secs in [i64::MIN, i64::MIN + 1, i64::MAX] {
            system_time(Time { secs, nanos: 999_999_999 });
        }
    }

    #[test]
    fn unknown_flags_are_refused() {
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT), None);
        assert_eq!(rename_mode(RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE), None);
        assert_eq!(xattr_mode(libc::XATTR_CREATE | libc::XATTR_REPLACE), None);
        assert_eq!(allocate_mode(libc::FALLOC_FL_COLLAPSE_RANGE), None);
        assert_eq!(allocate_mode(libc::FALLOC_FL_PUNCH_HOLE), None);
        assert_eq!(
            allocate_mode(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE),
            Some(AllocateMode::PunchHole)
        );
    }
}
