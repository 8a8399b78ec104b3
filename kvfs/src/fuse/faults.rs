//! The log of errors that an administrator should see: once per object, not once per request.

use crate::error::FsError;
use crate::ids::Ino;
use parking_lot::Mutex;
use std::collections::HashSet;

/// So many are remembered; then the log may repeat itself.
const REMEMBERED_MAX: usize = 4096;

/// What was logged already.
#[derive(Default)]
pub(super) struct Faults {
    seen: Mutex<HashSet<(Ino, Fault)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    Io,
    Corrupt,
    NeverResident,
}

impl Faults {
    /// Logs `error` of `ino` if it is a failure of ours and the first of its kind; says whether it did.
    pub(super) fn report(&self, ino: Ino, error: &FsError) -> Logged {
        let fault = match error {
            FsError::Io(_) => Fault::Io,
            FsError::Corrupt(_) => Fault::Corrupt,
            FsError::NotResident(_) => Fault::NeverResident,
            _ => return Logged::No,
        };
        let mut seen = self.seen.lock();
        if seen.len() >= REMEMBERED_MAX {
            seen.clear();
        }
        if !seen.insert((ino, fault)) {
            return Logged::No;
        }
        drop(seen);
        tracing::error!(%ino, %error, "an operation failed with EIO; further ones like it are not logged");
        Logged::Yes
    }
}

/// Whether a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logged {
    /// The first of its kind.
    Yes,
    /// Known already, or nothing for a log.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_per_inode_and_kind() {
        let faults = Faults::default();
        assert_eq!(faults.report(Ino(7), &FsError::io("disk")), Logged::Yes);
        assert_eq!(faults.report(Ino(7), &FsError::io("disk again")), Logged::No);
        assert_eq!(faults.report(Ino(7), &FsError::corrupt("frame")), Logged::Yes);
        assert_eq!(faults.report(Ino(8), &FsError::io("disk")), Logged::Yes);
        assert_eq!(faults.report(Ino(9), &FsError::NotFound), Logged::No);
    }

    #[test]
    fn memory_is_bounded() {
        let faults = Faults::default();
        for ino in 0..10 * REMEMBERED_MAX as u64 {
            faults.report(Ino(ino), &FsError::io("disk"));
        }
        assert!(faults.seen.lock().len() <= REMEMBERED_MAX);
    }
}
