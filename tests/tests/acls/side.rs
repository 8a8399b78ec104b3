//! Making the calls on one side.

use anyhow::{Context, Result};
use cbfs_tests::differential::{Identity, User};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, XattrFlags, chmodat, chownat, lgetxattr, llistxattr,
    lremovexattr, lsetxattr, mkdirat, mknodat, openat, renameat, statx, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, umask};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

pub const ACCESS: &str = "system.posix_acl_access";
pub const DEFAULT: &str = "system.posix_acl_default";

const SGID: u16 = 0o2000;
/// The kernel's limit for the value of an attribute.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    pub user: User,
    /// Groups beyond the first.
    pub groups: Vec<u32>,
}

impl Caller {
    pub fn root() -> Self {
        Self { user: User::Root, groups: Vec::new() }
    }

    pub fn plain(id: u32) -> Self {
        Self { user: User::Plain(id), groups: Vec::new() }
    }

    fn assume(&self) -> Result<Identity> {
        Ok(match self.user {
            User::Root => Identity::assume(User::Root)?,
            User::Plain(id) => Identity::member(id, &self.groups)?,
        })
    }
}

/// One call by somebody.
#[derive(Clone, Debug)]
pub struct Step {
    pub caller: Caller,
    pub call: Call,
}

#[derive(Clone, Debug)]
pub enum Call {
    SetAcl { at: String, name: &'static str, value: Vec<u8> },
    RemoveAcl { at: String, name: &'static str },
    Chmod { at: String, mode: u32 },
    Chown { at: String, uid: u32, gid: u32 },
    Create { at: String, mode: u32, umask: u32 },
    Mkdir { at: String, mode: u32, umask: u32 },
    Mkfifo { at: String, mode: u32, umask: u32 },
    Symlink { at: String },
    Rename { from: String, to: String },
    Remove { at: String },
    Open { at: String, writes: bool },
}

impl Call {
    fn paths(&self) -> Vec<&str> {
        match self {
            Self::SetAcl { at, .. }
            | Self::RemoveAcl { at, .. }
            | Self::Chmod { at, .. }
            | Self::Chown { at, .. }
            | Self::Create { at, .. }
            | Self::Mkdir { at, .. }
            | Self::Mkfifo { at, .. }
            | Self::Symlink { at }
            | Self::Remove { at }
            | Self::Open { at, .. } => vec![at],
            Self::Rename { from, to } => vec![from, to],
        }
    }
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub answer: Answer,
    /// What is at its paths then.
    pub shown: Vec<Option<String>>,
    /// A file lost its sgid.
    pub lost_sgid: bool,
}

/// The errno, or 0.
pub type Answer = i32;

fn answer(outcome: Result<(), Errno>) -> Answer {
    outcome.err().map_or(0, Errno::raw_os_error)
}

/// Mode, owners and ACLs by path.
pub type Tree = BTreeMap<String, String>;

/// A directory that calls are made in.
pub struct Side {
    root: OwnedFd,
}

impl Side {
    pub fn new(root: &Path) -> Result<Self> {
        let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root })
    }

    /// Through the open directory: plain users could not come here through directories of others.
    fn path(&self, at: &str) -> String {
        format!("/proc/self/fd/{}/{at}", self.root.as_raw_fd())
    }

    pub fn perform(&self, step: &Step) -> Result<Said> {
        let paths = step.call.paths();
        let sgid = |at: &&str| Ok(self.stat(at)?.is_some_and(|(mode, ..)| mode & SGID != 0));
        let before: Vec<bool> = paths.iter().map(sgid).collect::<Result<_>>()?;
        let outcome = self.as_caller(&step.caller, || self.call(&step.call))?;
        let after: Vec<bool> = paths.iter().map(sgid).collect::<Result<_>>()?;
        let is_about_acl = matches!(step.call, Call::SetAcl { .. });
        let lost_sgid = is_about_acl && before != after;
        let shown = paths.iter().map(|at| self.show(at)).collect::<Result<_>>()?;
        Ok(Said { answer: answer(outcome), shown, lost_sgid })
    }

    fn as_caller<T>(&self, caller: &Caller, call: impl FnOnce() -> T) -> Result<T> {
        let _identity = caller.assume()?;
        Ok(call())
    }

    fn call(&self, call: &Call) -> Result<(), Errno> {
        let path = |at: &str| self.path(at);
        let masked = |mask: u32, call: &dyn Fn() -> Result<(), Errno>| {
            let before = umask(Mode::from_raw_mode(mask));
            let answer = call();
            umask(before);
            answer
        };
        match call {
            Call::SetAcl { at, name, value } => lsetxattr(path(at), *name, value, XattrFlags::empty()),
            Call::RemoveAcl { at, name } => lremovexattr(path(at), *name),
            Call::Chmod { at, mode } => chmodat(CWD, path(at), Mode::from_raw_mode(*mode), AtFlags::empty()),
            Call::Chown { at, uid, gid } => {
                let (uid, gid) = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
                chownat(CWD, path(at), uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            }
            Call::Create { at, mode, umask } => masked(*umask, &|| {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                openat(CWD, path(at), flags, Mode::from_raw_mode(*mode)).map(drop)
            }),
            Call::Mkdir { at, mode, umask } => masked(*umask, &|| mkdirat(CWD, path(at), Mode::from_raw_mode(*mode))),
            Call::Mkfifo { at, mode, umask } => {
                masked(*umask, &|| mknodat(CWD, path(at), FileType::Fifo, Mode::from_raw_mode(*mode), 0))
            }
            Call::Symlink { at } => symlinkat("a", CWD, path(at)),
            Call::Rename { from, to } => renameat(CWD, path(from), CWD, path(to)),
            Call::Remove { at } => match unlinkat(CWD, path(at), AtFlags::empty()) {
                Err(Errno::ISDIR) => unlinkat(CWD, path(at), AtFlags::REMOVEDIR),
                done => done,
            },
            Call::Open { at, writes } => {
                let flags = if *writes { OFlags::RDWR } else { OFlags::RDONLY };
                openat(CWD, path(at), flags | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).map(drop)
            }
        }
    }

    /// open(2), to read or to write, too.
    pub fn open(&self, caller: &Caller, at: &str, writes: bool) -> Result<Result<(), Errno>> {
        self.as_caller(caller, || self.call(&Call::Open { at: at.to_owned(), writes }))
    }

    pub fn chmod(&self, caller: &Caller, at: &str, mode: u32) -> Result<Result<(), Errno>> {
        self.as_caller(caller, || self.call(&Call::Chmod { at: at.to_owned(), mode }))
    }

    /// Sets an access ACL in the short form: `u::rw-,u:1000:r--,…`, `m` for the mask.
    pub fn set_acl(&self, caller: &Caller, at: &str, text: &str) -> Result<Result<(), Errno>> {
        let value = parse(text)?;
        self.as_caller(caller, || self.call(&Call::SetAcl { at: at.to_owned(), name: ACCESS, value }))
    }

    pub fn mode(&self, at: &str) -> Result<u16> {
        Ok(self.stat(at)?.context("nothing there")?.0)
    }

    /// Mode with the kind, owner, group.
    fn stat(&self, at: &str) -> Result<Option<(u16, u32, u32, FileType)>> {
        let asked = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::UID | StatxFlags::GID;
        match statx(CWD, self.path(at), AtFlags::SYMLINK_NOFOLLOW, asked) {
            Ok(shown) => {
                let kind = FileType::from_raw_mode(u32::from(shown.stx_mode));
                Ok(Some((shown.stx_mode & 0o7777, shown.stx_uid, shown.stx_gid, kind)))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Everything that ACLs have to do with.
    fn show(&self, at: &str) -> Result<Option<String>> {
        let Some((mode, uid, gid, kind)) = self.stat(at)? else { return Ok(None) };
        let mut shown = format!("{kind:?} {mode:o} {uid}:{gid}");
        let mut names = vec![0; VALUE_BYTES_MAX];
        let len = llistxattr(self.path(at), &mut names)?;
        names.truncate(len);
        let mut names: Vec<&[u8]> = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        for name in names {
            write!(shown, " {}", name.escape_ascii())?;
        }
        for name in [ACCESS, DEFAULT] {
            let mut value = vec![0; VALUE_BYTES_MAX];
            match lgetxattr(self.path(at), name, &mut value) {
                Ok(len) => write!(shown, " {:02x?}", &value[..len])?,
                Err(error) => write!(shown, " {}", error.raw_os_error())?,
            }
        }
        Ok(Some(shown))
    }

    fn names(&self) -> Result<Vec<String>> {
        let root = self.path("");
        let below = walkdir::WalkDir::new(&root).min_depth(1).sort_by_file_name();
        let name = |entry: walkdir::Result<walkdir::DirEntry>| {
            let path = entry?.into_path();
            Ok(path.strip_prefix(&root)?.to_str().context("not UTF-8")?.to_owned())
        };
        below.into_iter().map(name).collect()
    }

    pub fn tree(&self) -> Result<Tree> {
        let shown = |name: String| {
            let shown = self.show(&name)?.context("gone")?;
            Ok((name, shown))
        };
        self.names()?.into_iter().map(shown).collect()
    }

    /// Who may open what for reading.
    pub fn readable(&self) -> Result<BTreeMap<String, Vec<Answer>>> {
        let mut all = BTreeMap::new();
        for name in self.names()? {
            let of = |id| -> Result<Answer> { Ok(answer(self.open(&Caller::plain(id), &name, false)?)) };
            all.insert(name.clone(), vec![of(1000)?, of(1001)?]);
        }
        Ok(all)
    }
}

/// The bytes of an ACL in the short form.
fn parse(text: &str) -> Result<Vec<u8>> {
    let mut entries = Vec::new();
    for line in text.split(',') {
        let [who, id, bits] = line.split(':').collect::<Vec<_>>()[..] else { anyhow::bail!("{line}") };
        let tag = match (who, id) {
            ("u", "") => 1,
            ("u", _) => 2,
            ("g", "") => 4,
            ("g", _) => 8,
            ("m", "") => 16,
            ("o", "") => 32,
            _ => anyhow::bail!("{line}"),
        };
        let bits = bits.bytes().fold(0, |bits, letter| bits << 1 | u16::from(letter != b'-'));
        entries.push((tag, bits, if id.is_empty() { u32::MAX } else { id.parse()? }));
    }
    Ok(encode(2, &entries))
}

/// The bytes of these entries: tag, permissions, id.
pub fn encode(version: u32, entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = version.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(bits.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}
