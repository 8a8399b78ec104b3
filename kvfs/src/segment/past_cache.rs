//! Long reads that leave nothing in the page cache, for those who keep what they read elsewhere: the kernel has the bytes of a mounted
//! file in a cache of its own, and a second copy costs memory and the time to make it.

use super::page_cache;
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::{pread, retry_on_intr};
use rustix::param::page_size;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The longest such read, bytes: what the kernel asks for at once, and the rest of the blobs at both ends.
pub const READ_BYTES_MAX: usize = (1 << 20) + (256 << 10);

/// What direct I/O wants places and memory to be multiples of; disks ask for this or less.
const ALIGNMENT: usize = 4096;
/// A read that begins and ends within blocks, and room to begin at one in memory.
const BUFFER_BYTES: usize = READ_BYTES_MAX + 3 * ALIGNMENT;
/// Buffers that wait for the next read; more come and go.
const BUFFERS_KEPT: usize = 4;

/// Buffers that were filled once already: neither the kernel nor we clear them again.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Box<[u8]>>>);

/// A way around the page cache to a file, found by the first read.
#[derive(Debug)]
pub(super) struct Direct {
    file: OnceLock<Option<File>>,
    /// A read by it has failed: no other is tried.
    refused: AtomicBool,
    buffers: Arc<Buffers>,
}

/// What was read; its buffer goes back.
struct Filled {
    bytes: Box<[u8]>,
    first: usize,
    len: usize,
    buffers: Arc<Buffers>,
}

impl Filled {
    fn take(buffers: &Arc<Buffers>) -> Self {
        let bytes = buffers.0.lock().pop().unwrap_or_else(|| vec![0; BUFFER_BYTES].into());
        Self { bytes, first: 0, len: 0, buffers: Arc::clone(buffers) }
    }
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(self.first..self.first + self.len).unwrap_or_default()
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let mut kept = self.buffers.0.lock();
        if kept.len() < BUFFERS_KEPT {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Direct {
    pub(super) fn new(buffers: &Arc<Buffers>) -> Self {
        Self { file: OnceLock::new(), refused: AtomicBool::new(false), buffers: Arc::clone(buffers) }
    }

    /// Up to `len` bytes of `file` at `offset`, as many as there are. `None` if the page cache has most of them, or if it cannot be done so:
    /// read in the ordinary way.
    pub(super) fn read(&self, file: &File, offset: u64, len: usize) -> Option<Bytes> {
        if len > READ_BYTES_MAX || self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let direct = self.file.get_or_init(|| open_direct(file).ok()).as_ref()?;
        if is_cached(file, offset, len).ok()? {
            return None;
        }
        let mut filled = Filled::take(&self.buffers);
        let start = filled.bytes.as_ptr().align_offset(ALIGNMENT);
        let skip = offset as usize % ALIGNMENT;
        let blocks = filled.bytes.get_mut(start..start + (skip + len).next_multiple_of(ALIGNMENT))?;
        match read_blocks(direct, blocks, offset - skip as u64) {
            Ok(read) => (filled.first, filled.len) = (start + skip, read.saturating_sub(skip).min(len)),
            Err(error) => {
                tracing::debug!(%error, "direct I/O; going on without");
                self.refused.store(true, Ordering::Relaxed);
                return None;
            }
        }
        Some(Bytes::from_owner(filled))
    }
}

/// Fills `blocks`, from a block on; the answer is smaller only at the end of the file.
fn read_blocks(direct: &File, blocks: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = blocks.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let n = retry_on_intr(|| pread(direct, &mut *rest, offset + filled as u64))?;
        filled += n;
        if n == 0 || !n.is_multiple_of(ALIGNMENT) {
            break;
        }
    }
    Ok(filled)
}

/// Whether the page cache has more than half of it.
fn is_cached(file: &File, offset: u64, len: usize) -> io::Result<bool> {
    let pages = page_cache::pages_of(file, offset, len as u64)?;
    Ok(pages as usize * 2 > len / page_size())
}

/// Opens the file that `file` is, whatever its name is by now, for direct I/O; an error where nobody can say what the page cache has of
/// it: some filesystems that stand on others (overlayfs) always say nothing.
fn open_direct(file: &File) -> io::Result<File> {
    file.read_at(&mut [0], 0)?;
    if page_cache::pages_of(file, 0, 1)? == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{Disk, HostDisk};
    use rustix::fs::{Advice, fadvise};

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8 ^ (at / 4096) as u8).collect()
    }

    #[test]
    fn reads_are_right_wherever_the_bytes_are() {
        let dir = tempfile::tempdir().unwrap();
        let disk = HostDisk::new(dir.path()).unwrap();
        let file = disk.create("file").unwrap();
        let mut bytes = content(3_000_000);
        file.write_at(&bytes, 0).unwrap();
        let places = [(0, 1 << 20), (1, 1 << 20), (4095, 8193), (80, 700_000), (2_500_000, 1 << 20), (3_000_000, 10)];
        for state in ["dirty", "clean", "not cached", "begun"] {
            for (offset, len) in places {
                match state {
                    "clean" => file.sync().unwrap(),
                    "not cached" => file.forget_cache().unwrap(),
                    "begun" => {
                        file.forget_cache().unwrap();
                        file.read_at(&mut [0; 5000], offset as u64).unwrap();
                        // The last of its bytes are in the page cache only.
                        bytes[2_990_000..].iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
                        file.write_at(&bytes[2_990_000..], 2_990_000).unwrap();
                    }
                    _ => {}
                }
                let read = file.read_past_cache(offset as u64, len).unwrap();
                let wanted = &bytes[offset..bytes.len().min(offset + len)];
                assert!(read == wanted, "{state}, {len} bytes at {offset}: {} bytes came", read.len());
            }
        }
        let longer = file.read_past_cache(0, READ_BYTES_MAX + 1).unwrap();
        assert_eq!(longer.len(), READ_BYTES_MAX + 1, "in the ordinary way");
        assert!(file.read_past_cache(1 << 40, 100).unwrap().is_empty());
    }

    #[test]
    fn what_the_page_cache_has_comes_from_there_and_what_it_has_not_does_not_get_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes = content(4 << 20);
        std::fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        let buffers = Arc::default();
        let direct = Direct::new(&buffers);
        let (offset, len) = ((2 << 20) + 100, 1 << 20);
        let cached = || page_cache::pages_of(&file, offset, len as u64).unwrap_or_default();
        let (is_known, before) = (open_direct(&file).is_ok(), cached());
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        if !is_known || before == 0 || cached() > 0 {
            return eprintln!("skipped: the page cache cannot be asked, or passed, below {}", dir.path().display());
        }

        let read = direct.read(&file, offset, len).unwrap();
        assert!(read == bytes[offset as usize..offset as usize + len]);
        assert_eq!(cached(), 0);
        assert!(buffers.0.lock().is_empty());
        drop(read);
        assert_eq!(buffers.0.lock().len(), 1, "the next read takes it");

        file.read_at(&mut vec![0; len], offset).unwrap();
        assert!(direct.read(&file, offset, len).is_none(), "it is at hand");
    }
}
