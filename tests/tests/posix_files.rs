//! What POSIX and Linux say of the bytes of files, on a real mount of the program.

use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::paths::count_from_env;
use cbfs_tests::process::run;
use cbfs_tests::scenario::{Mount, Scenario, noise};
use cbfs_tests::serial::serial;
use rustix::fs::{FallocateFlags, OFlags, copy_file_range, fallocate};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// The largest file: what a signed offset can name.
const FILE_BYTES_MAX: u64 = i64::MAX as u64;

fn mounted(tag: &str) -> Result<(Scenario, Mount)> {
    let scenario = Scenario::new(StoreKind::Directory, tag)?;
    let mount = Mount::new(&scenario.bucket, &scenario.address, &[])?;
    Ok((scenario, mount))
}

fn open_rw(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Bytes in the local data segments and the journal that hold something.
fn local_bytes(mount: &Mount) -> Result<u64> {
    let mut sum = 0;
    for entry in walkdir::WalkDir::new(mount.node.state_dir()) {
        let entry = entry?;
        if entry.path().extension().is_some_and(|ext| ext == "data") {
            let mut bytes = Vec::new();
            File::open(entry.path())?.read_to_end(&mut bytes)?;
            sum += bytes.iter().filter(|byte| **byte != 0).count() as u64;
        }
    }
    Ok(sum)
}

#[test]
fn copy_file_range_shares_bytes_and_the_copies_part_when_one_is_written() -> Result<()> {
    let _turn = serial()?;
    let (scenario, mount) = mounted("copy")?;
    let bytes = noise(1, 9 * MIB + 1234);
    let source = open_rw(&mount.mounted.path("source"))?;
    source.write_all_at(&bytes, 0)?;
    // A hole, and bytes that are still in the journal.
    fallocate(&source, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 3 * MIB - 7, 100_000)?;
    source.write_all_at(b"small", 5 * MIB - 2)?;
    source.sync_all()?;
    let expected = fs::read(mount.mounted.path("source"))?;
    let before = local_bytes(&mount)?;
    let mut copies = Vec::new();
    for (name, skew) in [("aligned", 0), ("skewed", 4097), ("across", MIB - 3)] {
        let copy = open_rw(&mount.mounted.path(name))?;
        let (mut from, mut to) = (0, skew);
        while from < expected.len() as u64 {
            let left = expected.len() as u64 - from;
            ensure!(
                copy_file_range(&source, Some(&mut from), &copy, Some(&mut to), left as usize)? > 0,
                "nothing copied"
            );
        }
        ensure!(copy_file_range(&source, Some(&mut from), &copy, Some(&mut to), 10)? == 0, "behind the end");
        copy.sync_all()?;
        copies.push((name, skew));
    }
    let grown = local_bytes(&mount)? - before;
    ensure!(grown < MIB, "{grown} bytes were written for three copies of {}", expected.len());
    let overlapping = {
        let (mut from, mut to) = (0, 10);
        copy_file_range(&source, Some(&mut from), &source, Some(&mut to), 11)
    };
    ensure!(overlapping == Err(Errno::INVAL), "overlapping: {overlapping:?}");
    // The source goes its own way, then is gone; the copies stay, over a restart and in a snapshot.
    source.write_all_at(&noise(2, 4 * MIB), MIB / 2)?;
    drop(source);
    fs::remove_file(mount.mounted.path("source"))?;
    let check = |dir: &Path| -> Result<()> {
        for (name, skew) in &copies {
            let found = fs::read(dir.join(name))?;
            ensure!(found.len() as u64 == expected.len() as u64 + skew, "{name}: {} bytes", found.len());
            ensure!(found[*skew as usize..] == expected[..], "{name} has other bytes");
            ensure!(found[..*skew as usize].iter().all(|byte| *byte == 0), "{name} has bytes in its hole");
        }
        Ok(())
    };
    check(mount.mounted.dir())?;
    let mount = mount.killed(&scenario)?;
    check(mount.mounted.dir()).context("after kill -9")?;
    scenario.snapshot(&mount.node, "copies")?;
    let slave = Mount::new(&scenario.bucket, &scenario.at("copies"), &[])?;
    check(slave.mounted.dir()).context("in a snapshot")?;
    slave.unmount()?;
    mount.unmount()
}

#[test]
fn reflinks_and_moving_ranges_are_refused_and_cp_copies_all_the_same() -> Result<()> {
    let _turn = serial()?;
    let (_scenario, mount) = mounted("reflink")?;
    let (from, to) = (mount.mounted.path("from"), mount.mounted.path("to"));
    fs::write(&from, noise(3, 2 * MIB))?;
    let file = open_rw(&from)?;
    let clone = rustix::fs::ioctl_ficlone(&open_rw(&to)?, &file);
    ensure!(clone == Err(Errno::OPNOTSUPP), "FICLONE: {clone:?}");
    for flags in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE, FallocateFlags::UNSHARE_RANGE] {
        let moved = fallocate(&file, flags, 0, 4096);
        ensure!(moved == Err(Errno::OPNOTSUPP), "{flags:?}: {moved:?}");
    }
    for reflink in ["auto", "never"] {
        let mut cp = Command::new("cp");
        run(cp.arg(format!("--reflink={reflink}")).arg(&from).arg(&to), Duration::from_secs(60))?.success()?;
        ensure!(fs::read(&to)? == fs::read(&from)?, "--reflink={reflink}");
    }
    let unnamed = OpenOptions::new().write(true).custom_flags(OFlags::TMPFILE.bits() as i32).open(mount.mounted.dir());
    let errno = unnamed.as_ref().err().and_then(std::io::Error::raw_os_error);
    ensure!(errno == Some(Errno::OPNOTSUPP.raw_os_error()), "O_TMPFILE: {unnamed:?}");
    mount.unmount()
}

#[test]
fn appends_of_several_writers_lose_nothing() -> Result<()> {
    const WRITERS: usize = 4;
    const LINES: usize = 400;
    let _turn = serial()?;
    let (scenario, mount) = mounted("append")?;
    let path = mount.mounted.path("log");
    thread::scope(|scope| {
        let write = |writer: usize| -> Result<()> {
            let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
            for line in 0..LINES {
                file.write_all(format!("{writer} {line:04} {}\n", "x".repeat(line % 97)).as_bytes())?;
            }
            Ok(())
        };
        let all: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| anyhow::bail!("a writer died")))
    })?;
    let mount = mount.killed(&scenario)?;
    let mut next: BTreeMap<String, usize> = BTreeMap::new();
    for text in fs::read_to_string(mount.mounted.path("log"))?.lines() {
        let mut words = text.split(' ');
        let (writer, line, rest) = (words.next(), words.next(), words.next());
        let number = next.entry(writer.context("no writer")?.to_owned()).or_default();
        let whole = line == Some(&format!("{number:04}")) && rest.is_some_and(|rest| rest.len() == *number % 97);
        ensure!(whole, "line {text:?} when {number} was next");
        *number += 1;
    }
    ensure!(next.len() == WRITERS && next.values().all(|lines| *lines == LINES), "{next:?}");
    mount.unmount()
}

#[test]
fn direct_io_and_the_page_cache_see_each_other() -> Result<()> {
    let _turn = serial()?;
    let (_scenario, mount) = mounted("direct")?;
    let path = mount.mounted.path("file");
    let mut direct = OpenOptions::new();
    direct.read(true).write(true).create(true).truncate(false).custom_flags(OFlags::DIRECT.bits() as i32);
    let direct = direct.open(&path)?;
    let cached = open_rw(&path)?;
    let bytes = noise(4, 3 * MIB + 12_288);
    direct.write_all_at(&bytes, 4096)?;
    let mut read = vec![0; bytes.len()];
    cached.read_exact_at(&mut read, 4096)?;
    ensure!(read == bytes, "a cached read after a direct write");
    cached.write_all_at(b"through the cache", MIB + 100)?;
    direct.read_exact_at(&mut read[..8192], MIB)?;
    ensure!(&read[100..117] == b"through the cache", "a direct read after a cached write");
    ensure!(direct.read_at(&mut read, 100 * MIB)? == 0, "behind the end");
    mount.unmount()
}

#[test]
fn what_msync_returned_for_survives_kill_9() -> Result<()> {
    /// Maps, stores, syncs, and stores more without syncing; then waits.
    const SCRIPT: &str = "
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 3 << 20)
m = mmap.mmap(fd, 3 << 20)
for at in range(0, 3 << 20, 4096):
    m[at:at + 8] = b'%08d' % at
m.flush()
m[0:8] = b'unsynced'
print('synced', flush=True)
sys.stdin.read()
";
    let _turn = serial()?;
    let (scenario, mount) = mounted("msync")?;
    let path = mount.mounted.path("mapped");
    let mut program = Command::new("python3")
        .args(["-c", SCRIPT])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("python3")?;
    let mut said = [0; 6];
    let synced = program.stdout.as_mut().context("no output")?.read_exact(&mut said);
    let mount = mount.killed(&scenario);
    program.kill()?;
    program.wait()?;
    synced.context("the program did not get to msync")?;
    let mount = mount?;
    let bytes = fs::read(mount.mounted.path("mapped"))?;
    ensure!(bytes.len() == 3 << 20, "{} bytes", bytes.len());
    for at in (4096..3 << 20).step_by(4096) {
        ensure!(bytes[at..at + 8] == *format!("{at:08}").as_bytes(), "page at {at} was lost");
    }
    mount.unmount()
}

#[test]
fn a_sparse_file_reaches_to_the_last_byte_of_the_offsets() -> Result<()> {
    let _turn = serial()?;
    let (scenario, mount) = mounted("sparse")?;
    let file = open_rw(&mount.mounted.path("huge"))?;
    let islands = [(0, 10), (MIB - 5, 10), (1 << 40, 4096), (FILE_BYTES_MAX - 100, 100)];
    for (offset, len) in islands {
        file.write_all_at(&noise(offset, len), offset)?;
    }
    let errno = |result: std::io::Result<()>| result.err().and_then(|error| error.raw_os_error());
    ensure!(errno(file.write_all_at(b"x", FILE_BYTES_MAX)) == Some(Errno::INVAL.raw_os_error()), "beyond the largest");
    let check = |path: &Path| -> Result<()> {
        let mut file = File::open(path)?;
        let meta = file.metadata()?;
        ensure!(meta.len() == FILE_BYTES_MAX, "{} bytes", meta.len());
        ensure!(meta.blocks() < 100, "{} blocks", meta.blocks());
        let (mut at, mut found) = (0, Vec::new());
        while let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
            at = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(data))?;
            found.push((data, at - data));
            if at == FILE_BYTES_MAX {
                break;
            }
        }
        ensure!(found == islands, "data at {found:?}");
        for (offset, len) in islands {
            let mut bytes = vec![0; len as usize];
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(&mut bytes)?;
            ensure!(bytes == noise(offset, len), "other bytes at {offset}");
        }
        Ok(())
    };
    check(&mount.mounted.path("huge"))?;
    // The last bytes go somewhere else, without a copy.
    let copy = open_rw(&mount.mounted.path("copy"))?;
    let (mut from, mut to) = (FILE_BYTES_MAX - 200, 50);
    ensure!(copy_file_range(&file, Some(&mut from), &copy, Some(&mut to), 1000)? == 200, "up to the end");
    ensure!(fs::read(mount.mounted.path("copy"))?[150..] == noise(FILE_BYTES_MAX - 100, 100), "the end");
    let mount = mount.killed(&scenario)?;
    check(&mount.mounted.path("huge")).context("after kill -9")?;
    scenario.snapshot(&mount.node, "sparse")?;
    let slave = Mount::new(&scenario.bucket, &scenario.at("sparse"), &[])?;
    check(&slave.mounted.path("huge")).context("in a snapshot")?;
    slave.unmount()?;
    open_rw(&mount.mounted.path("huge"))?.set_len(MIB)?;
    ensure!(fs::metadata(mount.mounted.path("huge"))?.blocks() == 1, "15 bytes are left");
    mount.unmount()
}

#[test]
fn locks_of_every_kind_work_between_processes() -> Result<()> {
    /// Takes the lock that it is told, and says whether it got it.
    const SCRIPT: &str = "
import fcntl, os, struct, sys
kind, path = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
lock = struct.pack('hhlli', fcntl.F_WRLCK, 0, 100, 50, 0)
try:
    if kind == 'flock':
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif kind == 'fcntl':
        fcntl.fcntl(fd, fcntl.F_SETLK, lock)
    else:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    print('locked', flush=True)
except BlockingIOError:
    print('denied', flush=True)
sys.stdin.read()
";
    let _turn = serial()?;
    let (_scenario, mount) = mounted("locks")?;
    let path = mount.mounted.path("file");
    fs::write(&path, vec![0; 1000])?;
    let start = |kind: &str| -> Result<(std::process::Child, String)> {
        let mut program = Command::new("python3");
        program.args(["-c", SCRIPT, kind]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = program.spawn().context("python3")?;
        let mut said = vec![0; 6];
        program.stdout.as_mut().context("no output")?.read_exact(&mut said)?;
        Ok((program, String::from_utf8(said)?))
    };
    let end = |mut program: std::process::Child| program.kill().and_then(|()| program.wait().map(drop));
    for (first, second, wanted) in [
        ("flock", "flock", "denied"),
        ("fcntl", "fcntl", "denied"),
        ("ofd", "ofd", "denied"),
        ("fcntl", "ofd", "denied"),
        ("flock", "fcntl", "locked"),
    ] {
        let (holder, said) = start(first)?;
        ensure!(said == "locked", "{first}: {said}");
        let (other, said) = start(second)?;
        end(other)?;
        ensure!(said == wanted, "{second} beside {first}: {said}");
        // The kernel gives it back with the process.
        end(holder)?;
        let (other, said) = start(second)?;
        end(other)?;
        ensure!(said == "locked", "{second} after {first}: {said}");
    }
    mount.unmount()
}

#[test]
fn df_shows_the_files_and_what_may_still_be_written() -> Result<()> {
    let _turn = serial()?;
    let (_scenario, mount) = mounted("df")?;
    let stats = || rustix::fs::statvfs(mount.mounted.dir());
    let before = stats()?;
    let count = count_from_env("CBFS_DF_FILES", 50)?;
    for number in 0..count {
        fs::write(mount.mounted.path(&number.to_string()), noise(number as u64, 100_000))?;
    }
    let after = stats()?;
    ensure!((before.f_namemax, before.f_frsize) == (255, 4096), "names of {} bytes", before.f_namemax);
    let files = |stats: &rustix::fs::StatVfs| stats.f_files - stats.f_ffree;
    ensure!(
        files(&before) == 1 && files(&after) == 1 + count as u64,
        "{} files, then {}",
        files(&before),
        files(&after)
    );
    let used = |stats: &rustix::fs::StatVfs| (stats.f_blocks - stats.f_bfree) * stats.f_frsize;
    let grown = used(&after) - used(&before);
    let wanted = count as u64 * 100_000;
    ensure!(grown.abs_diff(wanted) <= 4096, "{grown} bytes more in use, not {wanted}");
    let host = rustix::fs::statvfs(mount.node.state_dir())?;
    let free = after.f_bavail * after.f_frsize;
    ensure!(free > 0 && free <= host.f_blocks * host.f_frsize, "{free} bytes free");
    mount.unmount()
}
