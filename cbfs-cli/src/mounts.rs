//! Mounts of CBFS that the kernel knows, and the checks on a mount point that need no kernel.

use crate::failure::{Failure, FailureKind};
use rustix::mount::{UnmountFlags, unmount};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

/// A line of the kernel's mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountLine {
    /// Where.
    pub mount_point: PathBuf,
    /// Type, `fuse.cbfs` for ours.
    pub fs_type: String,
    /// `cbfs:<TAG-UUID>` for ours.
    pub source: String,
}

impl MountLine {
    /// The filesystem, if it is one of ours.
    pub fn filesystem(&self) -> Option<&str> {
        if self.fs_type.starts_with("fuse") { self.source.strip_prefix("cbfs:") } else { None }
    }
}

/// Reads the mount table of this process.
pub fn table() -> Result<Vec<MountLine>, Failure> {
    let path = Path::new("/proc/self/mountinfo");
    let text = std::fs::read(path).map_err(|error| Failure::from_io(&error, "read", path))?;
    Ok(parse(&text))
}

/// The mount that `path` lies in, newest first where several cover each other.
pub fn covering<'a>(table: &'a [MountLine], path: &Path) -> Option<&'a MountLine> {
    let depth = |line: &MountLine| line.mount_point.components().count();
    table.iter().filter(|line| path.starts_with(&line.mount_point)).max_by_key(|line| depth(line))
}

/// `path` made absolute. Links are followed where that is possible: inside a mount whose daemon is dead it is not.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    let path = std::path::absolute(path).map_err(|error| Failure::from_io(&error, "find", path))?;
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    Ok(plain)
}

/// Takes a mount off whose daemon is dead, or belongs to another state directory and ends by itself when its mount is
/// gone.
pub fn unmount_without_daemon(dir: &Path) -> Result<(), Failure> {
    let dead = is_dead(dir);
    if rustix::process::geteuid().is_root() {
        let flags = if dead { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        return unmount(dir, flags).map_err(|error| Failure::from_io(&error.into(), "unmount", dir));
    }
    let option = if dead { "-uz" } else { "-u" };
    let run = Command::new("fusermount3").arg(option).arg(dir).stdin(Stdio::null()).output();
    let run = run.map_err(|error| Failure::from_io(&error, "run", Path::new("fusermount3")))?;
    if run.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&run.stderr);
    Err(Failure::new(FailureKind::Busy, format!("unmount {}: {}", dir.display(), words.trim())))
}

/// Whether the daemon of the mount there is gone. stat(2) may be answered from the kernel's cache all the same.
fn is_dead(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_err_and(|errno| errno == rustix::io::Errno::NOTCONN)
}

/// Takes what a killed daemon left off the mount point, so that mounting again is all there is to do.
pub fn clear_dead_mount(dir: &Path) -> Result<(), Failure> {
    let ours = |line: &MountLine| line.mount_point == dir && line.filesystem().is_some();
    if is_dead(dir) && table()?.iter().any(ours) {
        tracing::warn!(mount_point = %dir.display(), "taking off the mount of a daemon that is gone");
        unmount_without_daemon(dir)?;
    }
    Ok(())
}

/// Refuses a mount point that cannot be one, before anything is asked of a store.
pub fn check_mount_point(dir: &Path) -> Result<(), Failure> {
    let invalid = |what: &str| Failure::invalid(format!("mount point {} {what}", dir.display()));
    if table()?.iter().any(|line| line.mount_point == dir) {
        return Err(Failure::new(FailureKind::Busy, format!("mount point {} is in use", dir.display()))
            .with_hint(format!("cbfs unmount {}", dir.display())));
    }
    match std::fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(invalid("is not empty").with_hint("mount over an empty directory")),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::not_found(format!("mount point {} does not exist", dir.display()))
                .with_hint(format!("mkdir -p {}", dir.display())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Err(invalid("is not a directory")),
        Err(error) => Err(Failure::from_io(&error, "read mount point", dir)),
    }
}

/// `id parent major:minor root mount-point options [optional]… - type source options`
pub(crate) fn parse(text: &[u8]) -> Vec<MountLine> {
    let line = |line: &[u8]| {
        let fields: Vec<_> = line.split(|b| *b == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let text = |n: usize| fields.get(n).map(|field| String::from_utf8_lossy(&unescape(field)).into_owned());
        Some(MountLine {
            mount_point: OsString::from_vec(unescape(fields.get(4)?)).into(),
            fs_type: text(dash + 1)?,
            source: text(dash + 2)?,
        })
    };
    text.split(|b| *b == b'\n').filter_map(line).collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\').and_then(|digits| {
            digits
                .iter()
                .try_fold(0_u8, |sum, d| sum.checked_mul(8)?.checked_add(d.checked_sub(b'0').filter(|d| *d < 8)?))
        });
        out.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
90 25 0:40 / /mnt/a\\040b rw,nosuid shared:2 master:1 - fuse.cbfs cbfs:home-1 rw,user_id=0
91 25 0:41 / /mnt/a\\040b/inner rw - fuse.sshfs cbfs@host: rw
";

    #[test]
    fn the_kernels_table_is_understood() {
        let table = parse(TABLE.as_bytes());
        assert_eq!(table.len(), 3);
        let names: Vec<_> = table.iter().map(MountLine::filesystem).collect();
        assert_eq!(names, [None, Some("home-1"), None]);
        let at = |path: &str| covering(&table, Path::new(path)).unwrap().source.clone();
        assert_eq!(at("/mnt/a b/x/y"), "cbfs:home-1");
        assert_eq!(at("/mnt/a b/inner/x"), "cbfs@host:");
        assert_eq!(at("/mnt/a bc"), "/dev/sda1");
        assert!(self::table().unwrap().iter().any(|line| line.mount_point == Path::new("/")));
    }

    #[test]
    fn escapes_come_back_and_halves_of_them_stay() {
        assert_eq!(unescape(b"a\\134b\\012"), b"a\\b\n");
        assert_eq!(unescape(b"\\04\\999\\"), b"\\04\\999\\");
    }

    #[test]
    fn a_mount_point_is_an_empty_directory() {
        let dir = tempfile::tempdir().unwrap();
        check_mount_point(dir.path()).unwrap();
        let kind = |path: &Path| check_mount_point(path).unwrap_err().kind;
        assert_eq!(kind(&dir.path().join("none")), FailureKind::NotFound);
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(kind(&dir.path().join("file")), FailureKind::InvalidInput);
        assert_eq!(kind(dir.path()), FailureKind::InvalidInput);
        assert_eq!(kind(Path::new("/proc")), FailureKind::Busy);
    }

    #[test]
    fn paths_become_absolute_also_where_nothing_is() {
        assert_eq!(absolute(Path::new("/none/./a/../b")).unwrap(), Path::new("/none/b"));
        assert!(absolute(Path::new(".")).unwrap().is_absolute());
    }
}
