//! Putting another file under a descriptor that a library owns: one of the three places that need `unsafe`.
//!
//! fuser 0.18 begins a session by a handshake on the descriptor that it is given. On a connection that goes on there is
//! none any more, so the handshake is played to it on a socket, and then the real connection takes the socket's place.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// From now on `descriptor` is another name of what `file` is.
pub(super) fn redirect(descriptor: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are borrowed, so open during the call. `dup3` closes what `descriptor` named and gives it
    // the new meaning in one step; its owner goes on owning one open descriptor of that number.
    match unsafe { libc::dup3(file.as_raw_fd(), descriptor.as_raw_fd(), libc::O_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
