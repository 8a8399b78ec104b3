//! How far the kernel reads ahead of whoever reads in order.

use std::io;

/// The kernel's own 128 KiB are less than a frame of a pack: whoever reads in order would wait for the store once for
/// each frame. With so much the next ones are under way. Random read(2) does not read ahead; a fault in a mapping reads so
/// much around it, until the kernel sees that this is in vain.
const READ_AHEAD_KIB: u32 = 8192;

/// Raises it for the mount `device`, `major:minor`. The handshake can only lower it; this needs root and a writable
/// `/sys`, and without them the mount works as well, only slower. To be called once in the life of a mount: later the
/// number may be an administrator's.
pub(super) fn raise(device: &str) -> io::Result<()> {
    std::fs::write(path(device), READ_AHEAD_KIB.to_string())
}

fn path(device: &str) -> String {
    format!("/sys/class/bdi/{device}/read_ahead_kb")
}
