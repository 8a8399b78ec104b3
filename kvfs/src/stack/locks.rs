//! Locks on inodes: operations on the same inodes go one after another, all others side by side.

use crate::ids::Ino;
use parking_lot::{Mutex, MutexGuard};

const SLOTS: usize = 1024;

/// Slots by inode number; several at once are always taken in slot order, so that nobody waits in a circle.
#[derive(Debug)]
pub struct LockTable {
    slots: Vec<Mutex<()>>,
    /// Moves of directories change who is whose ancestor: one at a time.
    moves: Mutex<()>,
}

impl Default for LockTable {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| Mutex::default()).collect(), moves: Mutex::default() }
    }
}

/// Held locks.
pub struct Locked<'t> {
    _slots: Vec<MutexGuard<'t, ()>>,
}

impl LockTable {
    /// Waits for all of `inos`.
    pub fn lock(&self, inos: &[Ino]) -> Locked<'_> {
        let mut slots: Vec<usize> = inos.iter().map(|ino| ino.0 as usize % SLOTS).collect();
        slots.sort_unstable();
        slots.dedup();
        Locked { _slots: slots.into_iter().filter_map(|slot| self.slots.get(slot)).map(Mutex::lock).collect() }
    }

    /// Waits for all other moves of directories.
    pub fn lock_moves(&self) -> MutexGuard<'_, ()> {
        self.moves.lock()
    }
}
