//! The mounts that this process sees, from `/proc/self/mountinfo`.

use super::error::MountError;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// One mounted filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountEntry {
    /// `major:minor`; a new one for every FUSE mount that lives.
    pub device: String,
    /// Where.
    pub path: PathBuf,
    /// `fuse.cbfs`, `ext4` …
    pub fs_type: String,
    /// The device or name that was mounted.
    pub source: OsString,
}

/// What is mounted at exactly `path` (canonical), the topmost if there are several.
pub(super) fn mounted_at(path: &Path) -> Result<Option<MountEntry>, MountError> {
    let table = std::fs::read(MOUNTINFO).map_err(|error| MountError::os(MOUNTINFO, error))?;
    Ok(parse(&table).filter(|entry| entry.path == path).last())
}

/// Whether what is mounted at `path` has lost its daemon. Attributes may be in the kernel's cache; these are not.
pub(super) fn is_dead(path: &Path) -> bool {
    rustix::fs::statfs(path).is_err_and(|errno| errno == rustix::io::Errno::NOTCONN)
}

fn parse(table: &[u8]) -> impl Iterator<Item = MountEntry> + '_ {
    table.split(|byte| *byte == b'\n').filter_map(parse_line)
}

/// `id parent major:minor root path options [optional…] - type source super-options`
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let path = fields.nth(1)?;
    let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
    Some(MountEntry {
        device: String::from_utf8_lossy(device).into_owned(),
        path: PathBuf::from(unescape(path)),
        fs_type: String::from_utf8_lossy(behind.next()?).into_owned(),
        source: unescape(behind.next()?),
    })
}

/// The kernel writes blanks and backslashes of names as `\ooo`.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        if let (b'\\', Some(code)) = (byte, tail.get(..3).and_then(octal)) {
            plain.push(code);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            plain.push(byte);
            rest = tail;
        }
    }
    OsString::from_vec(plain)
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::ffi::OsStr::from_bytes(digits).to_str()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_blanks_in_its_path_and_optional_fields() {
        let line =
            b"36 35 0:53 / /mnt/a\\040b\\134c rw,noatime shared:1 master:2 - fuse.cbfs cbfs:T\\040U rw,user_id=0";
        let entry = parse_line(line).unwrap();
        assert_eq!(entry.device, "0:53");
        assert_eq!(entry.path, Path::new("/mnt/a b\\c"));
        assert_eq!(entry.fs_type, "fuse.cbfs");
        assert_eq!(entry.source, "cbfs:T U");
    }

    #[test]
    fn a_torn_line_is_no_entry() {
        for line in [&b""[..], b"36 35", b"36 35 0:53 / /mnt rw", b"36 35 0:53 / /mnt rw - fuse"] {
            assert_eq!(parse_line(line), None);
        }
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(mounted_at(Path::new("/")).unwrap().is_some());
        assert_eq!(mounted_at(Path::new("/proc/no/such/place")).unwrap(), None);
    }
}
