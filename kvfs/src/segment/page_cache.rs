//! What the page cache has of a file: one of the three places that need `unsafe`, since no library knows cachestat(2) yet.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The number of cachestat(2), Linux 6.5, wherever system calls have one number for all: not on MIPS, nor on Alpha, which Rust does not know.
const CACHESTAT: libc::c_long = 451;

#[repr(C)]
struct Range {
    offset: u64,
    len: u64,
}

/// In pages.
#[derive(Default)]
#[repr(C)]
struct Counts {
    cache: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Pages of the `len` bytes at `offset` that the page cache has; reads nothing. [`io::ErrorKind::Unsupported`] before Linux 6.5.
pub(super) fn pages_of(file: &File, offset: u64, len: u64) -> io::Result<u64> {
    if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let (range, mut counts, flags) = (Range { offset, len }, Counts::default(), 0_u32);
    // SAFETY: both structures are those of the kernel's interface (include/uapi/linux/mman.h) and live until the call returns; it reads the first
    // and fills the second. The descriptor is open.
    let answer = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut counts, flags) };
    if answer == 0 { Ok(counts.cache) } else { Err(io::Error::last_os_error()) }
}
