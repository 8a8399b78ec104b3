//! Messages to the kernel that fuser 0.18 does not know.

use crate::ids::Ino;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;

/// `FUSE_NOTIFY_INVAL_INODE`; fuser swallows the answer that nothing is there, which is what we ask for.
const INVAL_INODE: i32 = 2;
/// `FUSE_NOTIFY_RESEND`, from Linux 6.9 on.
const RESEND: i32 = 7;
/// `FUSE_NOTIFY_INC_EPOCH`, from Linux 6.16 on.
const INC_EPOCH: i32 = 8;

const HEADER_BYTES: usize = 16;
const INVAL_INODE_BYTES: usize = HEADER_BYTES + 24;

/// Every request that was read and not answered is queued again, before all that were not read.
pub(super) fn resend(device: impl AsFd) -> io::Result<()> {
    send(device, RESEND, &[]).map_err(Into::into)
}

/// Every name that the kernel has cached so far is void; kernels that do not know that leave them as they are.
pub(super) fn void_names(device: impl AsFd) -> io::Result<()> {
    match send(device, INC_EPOCH, &[]) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the kernel has an inode. Voids its attributes, which does no harm, and none of its pages. Waits while the
/// inode is being thrown out, and that may wait for answers: never ask on a session thread.
pub(super) fn is_held(device: impl AsFd, ino: Ino) -> io::Result<bool> {
    let (no_pages, no_length) = (-1_i64, 0_i64);
    let mut body = [0; INVAL_INODE_BYTES - HEADER_BYTES];
    for (place, word) in body.chunks_exact_mut(8).zip([ino.0, no_pages as u64, no_length as u64]) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    match send(device, INVAL_INODE, &body) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// `fuse_out_header` (length, code, unique 0) and the body, in one write.
fn send(device: impl AsFd, code: i32, body: &[u8]) -> Result<(), Errno> {
    let length = (HEADER_BYTES + body.len()) as u32;
    let mut message = Vec::with_capacity(length as usize);
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&code.to_ne_bytes());
    message.extend_from_slice(&0_u64.to_ne_bytes());
    message.extend_from_slice(body);
    rustix::io::write(device, &message).map(drop)
}
