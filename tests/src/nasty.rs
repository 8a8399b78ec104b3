//! Everything in a tree that filesystems, archives and careless code get wrong.

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, chownat, makedev, mknodat, utimensat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Size of the sparse file, bytes.
pub const SPARSE_BYTES: u64 = 5 << 30;
/// Where its two islands start, bytes.
pub const ISLANDS: [u64; 2] = [1 << 30, (4 << 30) + 12_345];
/// How long each island is, bytes.
pub const ISLAND_BYTES: usize = 100_000;

/// Fills the empty directory `dir`. Device nodes and foreign owners need root.
pub fn build(dir: &Path) -> Result<()> {
    names(dir).context("names")?;
    links(dir).context("links")?;
    attributes(dir).context("attributes")?;
    sparse(&dir.join("sparse")).context("sparse file")?;
    special(dir).context("special files")?;
    owners_and_modes(dir).context("owners and modes")?;
    // Last: everything before it changes times of directories.
    times(dir).context("times")
}

/// Checks that what must be refused is refused, and leaves nothing behind.
pub fn check_refusals(dir: &Path) -> Result<()> {
    for length in [256, 300, 1000] {
        let error = File::create(dir.join("n".repeat(length))).err();
        let code = error.as_ref().and_then(std::io::Error::raw_os_error);
        ensure!(code == Some(Errno::NAMETOOLONG.raw_os_error()), "a name of {length} bytes: {error:?}");
    }
    Ok(())
}

/// The bytes of island `index`.
pub fn island(index: usize) -> Vec<u8> {
    (0..ISLAND_BYTES).map(|i| (i * 31 + index * 7 + 1) as u8 | 1).collect()
}

fn names(dir: &Path) -> Result<()> {
    let odd: [&[u8]; 13] = [
        b"line\nbreak",
        b"trailing newline\n",
        b"\xff\xfe not utf-8 \x80",
        b"\xc3\x28",
        b"-rf",
        b" leading and trailing ",
        b"quote\"'`$(false)\\",
        b"\x01\x1b[31m",
        b"...",
        b"*?[a-z]",
        "ünïcödé \u{1f980}".as_bytes(),
        "e\u{301} decomposed".as_bytes(),
        b".hidden",
    ];
    let place = dir.join("names");
    fs::create_dir(&place)?;
    for name in odd {
        fs::write(place.join(OsStr::from_bytes(name)), name)?;
    }
    fs::write(place.join("x".repeat(255)), "255 bytes")?;
    let long: PathBuf = std::iter::repeat_n("d".repeat(200), 8).collect();
    fs::create_dir_all(place.join(&long))?;
    fs::write(place.join(long).join("deep"), "a path of more than 1,600 bytes")?;
    fs::write(place.join("case"), "lower")?;
    fs::write(place.join("CASE"), "upper")?;
    fs::create_dir(place.join("empty"))?;
    Ok(())
}

fn links(dir: &Path) -> Result<()> {
    let place = dir.join("links");
    fs::create_dir_all(place.join("far/away"))?;
    fs::write(place.join("one"), "three names, one file")?;
    fs::hard_link(place.join("one"), place.join("two"))?;
    fs::hard_link(place.join("one"), place.join("far/away/three"))?;
    fs::write(place.join("alone"), "three names, one file")?;
    symlink("one", place.join("soft"))?;
    symlink("/nowhere/at all", place.join("dangling"))?;
    symlink("..", place.join("up"))?;
    symlink("soft loop", place.join("soft loop"))?;
    symlink("t/".repeat(2000), place.join("long target"))?;
    symlink(OsStr::from_bytes(b"\xff\n"), place.join("odd target"))?;
    fs::hard_link(place.join("soft"), place.join("soft again"))?;
    Ok(())
}

fn attributes(dir: &Path) -> Result<()> {
    let place = dir.join("attributes");
    fs::create_dir(&place)?;
    let file = place.join("file");
    fs::write(&file, "with attributes")?;
    xattr::set(&file, "user.text", b"value")?;
    xattr::set(&file, "user.empty", b"")?;
    xattr::set(&file, "user.binary", &(0..=255).collect::<Vec<u8>>())?;
    xattr::set(&file, "user.long", &[b'l'; 2000])?;
    xattr::set(&file, OsStr::from_bytes(b"user.\xfe odd=name"), b"odd")?;
    xattr::set(&place, "user.on.directory", b"yes")?;
    if rustix::process::geteuid().is_root() {
        xattr::set(&file, "trusted.cbfs.test", b"root only")?;
    }
    Ok(())
}

fn sparse(path: &Path) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(SPARSE_BYTES)?;
    for (index, offset) in ISLANDS.into_iter().enumerate() {
        file.write_all_at(&island(index), offset)?;
    }
    Ok(())
}

fn special(dir: &Path) -> Result<()> {
    let place = dir.join("special");
    fs::create_dir(&place)?;
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, place.join("fifo"), FileType::Fifo, mode, 0)?;
    mknodat(CWD, place.join("socket"), FileType::Socket, mode, 0)?;
    if rustix::process::geteuid().is_root() {
        mknodat(CWD, place.join("char device"), FileType::CharacterDevice, mode, makedev(1, 3))?;
        mknodat(CWD, place.join("block device"), FileType::BlockDevice, mode, makedev(259, 65_537))?;
    }
    Ok(())
}

fn owners_and_modes(dir: &Path) -> Result<()> {
    let place = dir.join("modes");
    fs::create_dir(&place)?;
    for mode in [0o000, 0o400, 0o644, 0o777, 0o1777, 0o2755, 0o4755, 0o6711] {
        let file = place.join(format!("file {mode:o}"));
        fs::write(&file, format!("{mode:o}"))?;
        if rustix::process::geteuid().is_root() {
            chownat(CWD, &file, Some(Uid::from_raw(12_345)), Some(Gid::from_raw(4_000_000_000)), AtFlags::empty())?;
        }
        // After the change of owner, which takes setuid away.
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        let sub = place.join(format!("dir {mode:o}"));
        fs::create_dir(&sub)?;
        fs::set_permissions(&sub, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn times(dir: &Path) -> Result<()> {
    let place = dir.join("times");
    fs::create_dir(&place)?;
    let stamps: [(&str, i64, i64); 7] = [
        ("1969 last ns", -1, 999_999_999),
        ("1969 half", -2, 500_000_000),
        // Not the very first second that the host can have: there it drops the nanoseconds.
        ("1901", -2_147_483_647, 1),
        ("epoch", 0, 0),
        ("ns", 1_700_000_000, 123_456_789),
        ("2038", 2_147_483_648, 999_999_999),
        ("2100", 4_102_444_800, 7),
    ];
    for (name, seconds, nanoseconds) in stamps {
        let path = place.join(name);
        fs::write(&path, name)?;
        set_mtime(&path, seconds, nanoseconds)?;
    }
    symlink("nowhere", place.join("link"))?;
    set_mtime(&place.join("link"), -3, 3)?;
    set_mtime(&place, -86_400, 42)
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) -> Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    utimensat(CWD, path, &Timestamps { last_access: time, last_modification: time }, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}
