//! Locks on inodes: operations on the same inodes go one after another, all others side by side.

use crate::ids::Ino;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

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
    table: &'t LockTable,
    held: SmallVec<[usize; 4]>,
    slots: SmallVec<[MutexGuard<'t, ()>; 4]>,
}

/// Whether further locks were free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extended {
    /// They are held now.
    Yes,
    /// Somebody has one of them: waiting for it while others are held could be a circle. Some may be held.
    Busy,
}

impl LockTable {
    /// Waits for all of `inos`.
    pub fn lock(&self, inos: &[Ino]) -> Locked<'_> {
        let mut held: SmallVec<[usize; 4]> = inos.iter().map(|ino| slot_of(*ino)).collect();
        held.sort_unstable();
        held.dedup();
        let slots = held.iter().filter_map(|slot| self.slots.get(*slot)).map(Mutex::lock).collect();
        Locked { table: self, held, slots }
    }

    /// Waits for all other moves of directories.
    pub fn lock_moves(&self) -> MutexGuard<'_, ()> {
        self.moves.lock()
    }
}

impl Locked<'_> {
    /// Takes the locks of further inodes if they are free: what they are is often known only under the first locks.
    pub fn extend(&mut self, inos: &[Ino]) -> Extended {
        for slot in inos.iter().map(|ino| slot_of(*ino)) {
            if self.held.contains(&slot) {
                continue;
            }
            let Some(guard) = self.table.slots.get(slot).and_then(Mutex::try_lock) else { return Extended::Busy };
            self.held.push(slot);
            self.slots.push(guard);
        }
        Extended::Yes
    }
}

fn slot_of(ino: Ino) -> usize {
    ino.0 as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_extended_only_if_nobody_has_to_be_waited_for() {
        let table = LockTable::default();
        let mut one = table.lock(&[Ino(7), Ino(3)]);
        assert_eq!(one.extend(&[Ino(3), Ino(2)]), Extended::Yes);
        let mut other = table.lock(&[Ino(8)]);
        assert_eq!(other.extend(&[Ino(2)]), Extended::Busy);
        assert_eq!(one.extend(&[Ino(8)]), Extended::Busy);
        drop(one);
        assert_eq!(other.extend(&[Ino(2), Ino(7)]), Extended::Yes);
    }
}
