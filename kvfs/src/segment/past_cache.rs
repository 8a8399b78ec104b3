//! Long reads that leave nothing in the page cache, for those who keep what they read elsewhere: the kernel has the bytes of a mounted
//! file in a cache of its own, and a second copy costs memory and the time to make it.

use super::page_cache;
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::{pread, retry_on_intr};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, OnceLock};

/// The longest such read, bytes.
pub const READ_BYTES_MAX: usize = 1 << 20;

/// What direct I/O wants places and memory to be multiples of; disks ask for this or less.
const PAGE_BYTES: usize = 4096;
/// A read that begins and ends within pages, and room to begin at a page in memory.
const BUFFER_BYTES: usize = READ_BYTES_MAX + 3 * PAGE_BYTES;
/// Buffers that wait for the next read; more come and go.
const BUFFERS_KEPT: usize = 4;

/// Buffers that were filled once already: neither the kernel nor we clear them again.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Box<[u8]>>>);

/// The same file, open for direct I/O, from the first read on; `None` within if its filesystem has none.
#[derive(Debug, Default)]
pub(super) struct Direct(OnceLock<Option<File>>);

/// What was read; its buffer goes back.
struct Filled {
    bytes: Box<[u8]>,
    first: usize,
    len: usize,
    buffers: Arc<Buffers>,
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
    /// Up to `len` bytes of `file` at `offset`, as many as there are. `None` if the page cache has them, or if it cannot be done so: read in
    /// the ordinary way.
    pub(super) fn read(&self, file: &File, offset: u64, len: usize, buffers: &Arc<Buffers>) -> Option<Bytes> {
        if len > READ_BYTES_MAX || is_cached(file, offset, len)? {
            return None;
        }
        let mut bytes = buffers.0.lock().pop().unwrap_or_else(|| vec![0; BUFFER_BYTES].into());
        let start = bytes.as_ptr().align_offset(PAGE_BYTES);
        let skip = offset as usize % PAGE_BYTES;
        let pages = bytes.get_mut(start..start + (skip + len).next_multiple_of(PAGE_BYTES))?;
        let read = self.read_pages(file, pages, offset - skip as u64).ok()?;
        let len = read.saturating_sub(skip).min(len);
        Some(Bytes::from_owner(Filled { bytes, first: start + skip, len, buffers: Arc::clone(buffers) }))
    }

    /// Fills `pages`, from a page on; the answer is smaller only at the end of the file.
    fn read_pages(&self, file: &File, pages: &mut [u8], offset: u64) -> io::Result<usize> {
        let direct = self.0.get_or_init(|| open_direct(file).ok());
        let direct = direct.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let mut filled = 0;
        while let Some(rest) = pages.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let n = retry_on_intr(|| pread(direct, &mut *rest, offset + filled as u64))?;
            filled += n;
            if n == 0 || !n.is_multiple_of(PAGE_BYTES) {
                break;
            }
        }
        Ok(filled)
    }
}

/// Whether the page cache has half of it or more; `None` if nobody can say.
fn is_cached(file: &File, offset: u64, len: usize) -> Option<bool> {
    let pages = page_cache::pages_of(file, offset, len as u64).ok()?;
    Some(pages * 2 > (len / PAGE_BYTES) as u64)
}

/// Opens the file that `file` is, whatever its name is by now.
fn open_direct(file: &File) -> io::Result<File> {
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
        let bytes = content(3_000_000);
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
                        file.write_at(&bytes[2_999_000..], 2_999_000).unwrap();
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
        std::fs::write(&path, content(2 << 20)).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        let (direct, buffers) = (Direct::default(), Arc::default());
        let (Some(has), true) = (is_cached(&file, 100, 1 << 20), open_direct(&file).is_ok()) else {
            return eprintln!("skipped: no cachestat, or no direct I/O below {}", dir.path().display());
        };
        assert!(has, "it was just written");
        assert!(direct.read(&file, 100, 1 << 20, &buffers).is_none());

        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let read = direct.read(&file, 100, 1 << 20, &buffers).unwrap();
        assert!(read == content(2 << 20)[100..100 + (1 << 20)]);
        assert_eq!(page_cache::pages_of(&file, 0, 2 << 20).unwrap(), 0);
        assert!(buffers.0.lock().is_empty());
        drop(read);
        assert_eq!(buffers.0.lock().len(), 1, "the next read takes it");
    }
}
