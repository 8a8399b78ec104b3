//! Making the calls on one side, and saying what came of them.

use super::action::{Action, Stamp, Step};
use super::draw::SLOTS;
use super::identity::Identity;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, accessat, chmodat,
    chownat, copy_file_range, fallocate, fchmod, fstat, fsync, ftruncate, futimens, lgetxattr, linkat, llistxattr,
    lremovexattr, lsetxattr, mkdirat, mknodat, openat, readlinkat, renameat_with, seek, statat, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::{Errno, pread, pwrite};
use rustix::process::{Gid, Uid, fchdir};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Times between these were set by the clock, seconds.
const CLOCK: std::ops::Range<i64> = 1_600_000_000..4_000_000_000;

/// A directory with what is open in it.
pub struct Side {
    root: OwnedFd,
    slots: [Option<OwnedFd>; SLOTS],
}

type Said = Result<String, Errno>;

impl Side {
    /// Nothing open yet.
    pub fn new(root: &Path) -> Result<Self, Errno> {
        let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, slots: Default::default() })
    }

    /// Makes the call; says what it answered, and what stat(2) shows afterwards of all that it was about.
    pub fn perform(&mut self, step: &Step) -> String {
        // Plain users could not come here by a path through directories of others.
        if let Err(error) = fchdir(&self.root) {
            return format!("cannot go there: {error}");
        }
        let answer = match Identity::assume(step.user) {
            Ok(_identity) => self.call(&step.action),
            Err(error) => return format!("cannot become {:?}: {error}", step.user),
        };
        let mut said = match answer {
            Ok(answer) => format!("ok {answer}"),
            Err(error) => format!("{error:?}"),
        };
        for path in step.action.paths() {
            let above = match Path::new(path).parent() {
                Some(above) if !above.as_os_str().is_empty() => above,
                _ => Path::new("."),
            };
            for path in [Path::new(path), above] {
                let shown = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map(|stat| show(&stat));
                said += &format!("; {}", shown.unwrap_or_else(|error| format!("{error:?}")));
            }
        }
        if let Some(Ok(file)) = step.action.slot().map(|slot| self.file(slot)) {
            said += &format!("; {}", fstat(file).map_or_else(|error| format!("{error:?}"), |stat| show(&stat)));
        }
        said
    }

    fn file(&self, slot: usize) -> Result<&OwnedFd, Errno> {
        self.slots.get(slot).and_then(Option::as_ref).ok_or(Errno::BADF)
    }

    fn call(&mut self, action: &Action) -> Said {
        match action {
            Action::Open { slot, at, flags, mode } => {
                // The old one goes first, whatever comes of the new one: both sides hold the same.
                self.slots[*slot] = None;
                self.slots[*slot] = Some(openat(CWD, at.as_str(), *flags, Mode::from_raw_mode(*mode))?);
                let opened = fstat(self.file(*slot)?)?;
                if FileType::from_raw_mode(opened.st_mode) == FileType::Directory {
                    // Its entries are listed by path.
                    self.slots[*slot] = None;
                }
                Ok(show(&opened))
            }
            Action::Close { slot } => {
                self.slots[*slot] = None;
                Ok(String::new())
            }
            _ if action.slot().is_some() => self.change_content(action),
            _ if action.paths().is_empty() => self.ask(action),
            _ => self.change_names(action).map(|()| String::new()),
        }
    }

    fn change_names(&self, action: &Action) -> Result<(), Errno> {
        let mode_of = |mode: &u32| Mode::from_raw_mode(*mode);
        match action {
            Action::Mkdir { at, mode } => mkdirat(CWD, at.as_str(), mode_of(mode)),
            Action::Mknod { at, kind, mode } => mknodat(CWD, at.as_str(), *kind, mode_of(mode), 0xf0_4d),
            Action::Symlink { at, target } => symlinkat(target.as_str(), CWD, at.as_str()),
            Action::Link { from, to, flags } => linkat(CWD, from.as_str(), CWD, to.as_str(), *flags),
            Action::Unlink { at } => unlinkat(CWD, at.as_str(), AtFlags::empty()),
            Action::Rmdir { at } => unlinkat(CWD, at.as_str(), AtFlags::REMOVEDIR),
            Action::Rename { from, to, flags } => renameat_with(CWD, from.as_str(), CWD, to.as_str(), *flags),
            Action::Chmod { at, mode } => chmodat(CWD, at.as_str(), mode_of(mode), AtFlags::empty()),
            Action::Chown { at, uid, gid, flags } => {
                chownat(CWD, at.as_str(), uid.map(Uid::from_raw), gid.map(Gid::from_raw), *flags)
            }
            Action::Times { at, atime, mtime, flags } => {
                utimensat(CWD, at.as_str(), &timestamps(*atime, *mtime), *flags)
            }
            Action::SetXattr { at, name, len, flags } => lsetxattr(at.as_str(), *name, &vec![b'v'; *len], *flags),
            Action::RemoveXattr { at, name } => lremovexattr(at.as_str(), *name),
            _ => Err(Errno::NOSYS),
        }
    }

    fn change_content(&self, action: &Action) -> Said {
        match action {
            Action::Write { slot, offset, len, fill } => {
                let data: Vec<u8> = (0..*len).map(|i| fill.wrapping_add((i % 251) as u8)).collect();
                Ok(pwrite(self.file(*slot)?, &data, *offset)?.to_string())
            }
            Action::CopyRange { from, to, len } => {
                let (mut from_at, mut to_at) = (from.1, to.1);
                let (source, target) = (self.file(from.0)?, self.file(to.0)?);
                let copied = copy_file_range(source, Some(&mut from_at), target, Some(&mut to_at), *len)?;
                Ok(format!("{copied} {from_at} {to_at}"))
            }
            Action::Truncate { slot, len } => ftruncate(self.file(*slot)?, *len).map(|()| String::new()),
            Action::Allocate { slot, flags, offset, len } => {
                fallocate(self.file(*slot)?, *flags, *offset, *len).map(|()| String::new())
            }
            Action::Fchmod { slot, mode } => {
                fchmod(self.file(*slot)?, Mode::from_raw_mode(*mode)).map(|()| String::new())
            }
            Action::Ftimes { slot, atime, mtime } => {
                futimens(self.file(*slot)?, &timestamps(*atime, *mtime)).map(|()| String::new())
            }
            _ => Err(Errno::NOSYS),
        }
    }

    fn ask(&self, action: &Action) -> Said {
        match action {
            Action::Stat { at, flags } => Ok(show(&statat(CWD, at.as_str(), *flags)?)),
            Action::ReadLink { at } => Ok(format!("{:?}", readlinkat(CWD, at.as_str(), Vec::new())?)),
            Action::List { at } => list(Path::new(at)),
            Action::Access { at, mode } => {
                let mode = rustix::fs::Access::from_bits_truncate(*mode);
                accessat(CWD, at.as_str(), mode, AtFlags::EACCESS).map(|()| String::new())
            }
            Action::GetXattr { at, name, room } => {
                let mut value = vec![0_u8; *room];
                let len = lgetxattr(at.as_str(), *name, &mut value[..])?;
                Ok(format!("{len} {:x?}", blake3::hash(value.get(..len).unwrap_or_default())))
            }
            Action::ListXattrs { at } => {
                let mut names = vec![0_u8; 4096];
                let len = llistxattr(at.as_str(), &mut names[..])?;
                let mut names: Vec<String> =
                    names[..len].split(|byte| *byte == 0).map(|name| name.escape_ascii().to_string()).collect();
                names.sort();
                names.retain(|name| name != "security.selinux");
                Ok(names.join(" "))
            }
            Action::Read { slot, offset, len } => {
                let mut data = vec![0_u8; *len];
                let n = pread(self.file(*slot)?, &mut data[..], *offset)?;
                Ok(format!("{n} {}", blake3::hash(&data[..n])))
            }
            Action::Fstat { slot } => Ok(show(&fstat(self.file(*slot)?)?)),
            Action::Fsync { slot } => fsync(self.file(*slot)?).map(|()| String::new()),
            Action::Seek { slot, offset } => self.seek(*slot, *offset),
            _ => Err(Errno::NOSYS),
        }
    }

    /// Where data and holes are is each filesystem's own matter, but not whether there is anything behind an offset.
    fn seek(&self, slot: usize, offset: u64) -> Said {
        let file = self.file(slot)?;
        let size = fstat(file)?.st_size as u64;
        let hole = seek(file, rustix::fs::SeekFrom::Hole(offset))?;
        let data = match seek(file, rustix::fs::SeekFrom::Data(offset)) {
            Err(Errno::NXIO) => size,
            found => found?,
        };
        let sound = offset <= hole && hole <= size && offset <= data && (hole == offset) != (data == offset);
        Ok(format!("{sound}"))
    }
}

fn list(path: &Path) -> Said {
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(errno)? {
        let entry = entry.map_err(errno)?;
        let kind = entry.file_type().map_err(errno)?;
        names.push(format!("{:?} {kind:?}", entry.file_name().into_vec().escape_ascii().to_string()));
    }
    names.sort();
    Ok(names.join(", "))
}

fn timestamps(atime: Stamp, mtime: Stamp) -> Timestamps {
    let time = |stamp: Stamp| match stamp {
        Stamp::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Stamp::Omit => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Stamp::At(tv_sec, tv_nsec) => Timespec { tv_sec, tv_nsec },
    };
    Timestamps { last_access: time(atime), last_modification: time(mtime) }
}

/// What stat(2) shows and both sides must agree on: not inode numbers, blocks, and sizes of directories.
fn show(stat: &Stat) -> String {
    let size = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory { 0 } else { stat.st_size };
    let time = |secs: i64, nanos: u64| if CLOCK.contains(&secs) { "now".into() } else { format!("{secs}+{nanos}") };
    format!(
        "{:o} links {} owner {}:{} size {size} rdev {:x} atime {} mtime {}",
        stat.st_mode,
        stat.st_nlink,
        stat.st_uid,
        stat.st_gid,
        stat.st_rdev,
        time(stat.st_atime, stat.st_atime_nsec),
        time(stat.st_mtime, stat.st_mtime_nsec),
    )
}
