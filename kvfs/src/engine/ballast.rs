//! A file that holds room on the host's disk and nothing else (the idea and the word are CockroachDB's). It is given up when
//! the disk is full and something has to be written all the same: a start, a checkpoint, the removal of a file. Half of it at a
//! time: others write to the disk as well, and what they take of it is gone.

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// It takes no more than this part of the disk.
const DISK_SHARE: u64 = 16;
/// A start needs about so much; a ballast that is no larger goes as a whole.
const START_BYTES: u64 = 4 << 20;

/// See the module. Usable from several threads at once.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    bytes_max: u64,
    /// It is not whole.
    away: AtomicBool,
    /// Who gives up or restores.
    turn: Mutex<()>,
}

impl Ballast {
    /// The one in the directory `root`, of `bytes_max` at most; 0 is none. Writes nothing. One that an earlier process has given
    /// up is away; one that never was is not.
    pub(super) fn open(root: &Path, bytes_max: u64) -> Self {
        let (path, turn) = (root.join("ballast"), Mutex::default());
        let ballast = Self { path, bytes_max, away: AtomicBool::default(), turn };
        let is_away = ballast.path.exists() && ballast.held() < ballast.bytes().unwrap_or(bytes_max);
        ballast.away.store(is_away, Ordering::Release);
        ballast
    }

    /// Whether some of it was given up and is not back: what is left of that room is for what makes room.
    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// Gives half of its room to the disk; `false` if it has none to give.
    pub(super) fn give_up(&self) -> bool {
        let path = self.path.display();
        let _turn = self.turn.lock();
        let bytes = self.held();
        if self.bytes_max == 0 || bytes == 0 {
            return false;
        }
        let was_away = self.away.swap(true, Ordering::AcqRel);
        let left = if bytes > START_BYTES { bytes / 2 } else { 0 };
        // Shortened, not removed: a directory may need a block for that.
        if let Err(error) = OpenOptions::new().write(true).open(&self.path).and_then(|file| file.set_len(left)) {
            self.away.store(was_away, Ordering::Release);
            tracing::warn!(%path, %error, "the ballast cannot be given up");
            return false;
        }
        tracing::warn!(%path, given = bytes - left, left, "the local disk is full: ballast is given up");
        true
    }

    /// Before a start: gives its room up if the disk has next to nothing left.
    pub(super) fn make_way_for_start(&self) -> io::Result<()> {
        if self.bytes_max > 0 && self.disk_free()? < START_BYTES {
            self.give_up();
        }
        Ok(())
    }

    /// Makes it, or takes its room back, if the disk has that and a quarter more, so that it is not given up again at once;
    /// whether it is whole now and was not.
    pub(super) fn restore(&self) -> io::Result<bool> {
        let _turn = self.turn.lock();
        let (bytes, held) = (self.bytes()?, self.held());
        if held >= bytes || self.disk_free()? + held < self.wanted()? {
            return Ok(false);
        }
        let was_there = self.path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            // There is none on such a filesystem, and so it is never missing.
            Err(error) if is_unsupported(error) => {
                tracing::debug!(%error, "no ballast on this filesystem");
                fs::remove_file(&self.path)?;
            }
            Err(error) => {
                // A part of it would be taken for more than there was.
                if was_there {
                    file.set_len(held)?;
                } else {
                    fs::remove_file(&self.path)?;
                }
                let error = io::Error::from(error);
                let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                return if is_full { Ok(false) } else { Err(error) };
            }
        }
        self.away.store(false, Ordering::Release);
        Ok(true)
    }

    /// Bytes that it has now.
    pub(super) fn held(&self) -> u64 {
        self.path.metadata().map_or(0, |meta| meta.len())
    }

    /// Goes on without one.
    pub(super) fn do_without(&self) {
        self.away.store(false, Ordering::Release);
    }

    /// So many bytes must be free for it to come back.
    pub(super) fn wanted(&self) -> io::Result<u64> {
        self.bytes().map(|bytes| bytes + bytes / 4)
    }

    /// Bytes that it has when it is there: less on a small disk.
    fn bytes(&self) -> io::Result<u64> {
        let disk = self.disk()?;
        Ok(self.bytes_max.min(disk.f_blocks.saturating_mul(disk.f_frsize) / DISK_SHARE))
    }

    fn disk_free(&self) -> io::Result<u64> {
        let disk = self.disk()?;
        // Some blocks are kept for root.
        let blocks = if rustix::process::geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
        Ok(blocks.saturating_mul(disk.f_frsize))
    }

    fn disk(&self) -> io::Result<rustix::fs::StatVfs> {
        Ok(statvfs(self.path.parent().unwrap_or(Path::new(".")))?)
    }
}

fn is_unsupported(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(error, Errno::OPNOTSUPP | Errno::NOSYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_room_goes_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let size = || dir.path().join("ballast").metadata().unwrap().len();
        let ballast = Ballast::open(dir.path(), 1 << 20);
        assert!(!ballast.is_away(), "nobody has given it up");
        assert!(!ballast.give_up(), "it has nothing to give");
        assert!(!ballast.is_away(), "and nothing is missing");
        assert!(ballast.restore().unwrap());
        assert!(!ballast.is_away());
        assert_eq!(size(), 1 << 20);

        assert!(!Ballast::open(dir.path(), 1 << 20).is_away(), "the next process finds it");
        assert!(ballast.give_up());
        assert!(ballast.is_away());
        assert_eq!(size(), 0);
        assert!(Ballast::open(dir.path(), 1 << 20).is_away(), "the next process misses it");
        assert!(ballast.restore().unwrap());

        let larger = Ballast::open(dir.path(), 16 << 20);
        assert!(larger.is_away(), "what is there is not all of it");
        assert!(larger.restore().unwrap());
        for left in [8 << 20, 4 << 20, 0] {
            assert!(larger.give_up());
            assert_eq!(size(), left);
            assert!(larger.is_away());
        }
        assert!(!larger.give_up(), "it has nothing more to give");
    }

    #[test]
    fn one_that_cannot_be_given_up_is_not_missed() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = Ballast::open(dir.path(), 1 << 20);
        assert!(ballast.restore().unwrap());
        // A directory in its place cannot be shortened, whoever tries.
        fs::remove_file(&ballast.path).unwrap();
        fs::create_dir(&ballast.path).unwrap();
        assert!(ballast.held() > 0, "vacuous: it has nothing to give");
        assert!(!ballast.give_up());
        assert!(!ballast.is_away());
    }

    #[test]
    fn none_is_never_missing() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = Ballast::open(dir.path(), 0);
        assert!(!ballast.is_away());
        assert!(!ballast.give_up());
        assert!(!ballast.restore().unwrap());
        assert!(!dir.path().join("ballast").exists());
    }
}
