//! What a ledger says, and what may follow: `cloud_mgmt::ledger::{fold, rules}` once more, in small.

use crate::record::{Record, Said, Snap};
use crate::world::{PLACES, Set};

#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    pub epoch: u8,
    pub master: u8,
    pub life: u8,
    /// The newest snapshot.
    pub newest: Snap,
    pub snapshots: Set,
    /// The objects of all snapshots.
    pub used: Set,
    /// The objects of each snapshot.
    objects: [u8; 16],
    /// What each condemn record names, 0: it is none, or lifted.
    pub condemns: [u8; PLACES],
    /// Places of condemn records that are purged.
    pub purged: Set,
    /// Place of the delete record in force, plus one.
    deleted: u8,
}

impl History {
    /// `epochs` is empty but for the broken variant that has two sequences.
    pub fn of(ledger: &[Record], epochs: &[Record]) -> Self {
        let mut history = Self::default();
        for said in epochs.iter().filter_map(|record| record.said()) {
            history.fold(0, said);
        }
        for (place, said) in ledger.iter().filter_map(|record| record.said()).enumerate() {
            history.fold(place, said);
        }
        history
    }

    pub fn fold(&mut self, place: usize, said: Said) {
        match said {
            Said::Epoch { number, node, life } => (self.epoch, self.master, self.life) = (number, node, life),
            Said::Snapshot { snap, .. } => {
                self.newest = snap;
                self.snapshots.insert(snap.id);
                self.used.insert(snap.objects);
                self.objects[usize::from(snap.id)] = snap.objects;
            }
            Said::Condemn { objects } => self.condemns[place] = objects,
            Said::Purge { place } => self.purged.insert(place),
            Said::Delete => self.deleted = place as u8 + 1,
            Said::Undelete => {
                let since = usize::from(self.deleted);
                self.condemns[since..].fill(0);
                self.deleted = 0;
            }
        }
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted > 0
    }

    pub fn is_condemned(&self, objects: u8) -> bool {
        objects > 0 && self.condemns.contains(&objects)
    }

    /// The snapshot of that number, with the objects that are official for it.
    pub fn snapshot(&self, id: u8) -> Option<Snap> {
        self.snapshots.has(id).then(|| Snap { id, objects: self.objects[usize::from(id)] })
    }

    /// Whether a deletion can still be taken back.
    pub fn can_come_back(&self) -> bool {
        self.is_deleted() && !self.purged.iter().any(|place| place >= self.deleted)
    }

    /// Whether a set of objects may be condemned (rule 9).
    pub fn is_free(&self, objects: u8) -> bool {
        !self.is_condemned(objects) && (self.is_deleted() || !self.used.has(objects))
    }

    /// Whether a condemn record waits for its purge.
    pub fn awaits_purge(&self, place: u8) -> bool {
        self.condemns[usize::from(place)] > 0 && !self.purged.has(place)
    }

    /// Whether readers take a record in after this history (rule 13).
    pub fn admits(&self, said: Said) -> bool {
        match said {
            Said::Condemn { objects } => self.is_deleted() || !self.used.has(objects),
            Said::Purge { place } => self.awaits_purge(place),
            Said::Undelete => self.can_come_back(),
            _ if self.is_deleted() => false,
            Said::Delete => true,
            Said::Epoch { number, node, life } => {
                number == self.epoch + 1 || (number == self.epoch && node == self.master && life != self.life)
            }
            Said::Snapshot { snap, parent, life, epoch, .. } => {
                (epoch, life) == (self.epoch, self.life)
                    && parent == self.newest.id
                    && !self.snapshots.has(snap.id)
                    && !self.is_condemned(snap.objects)
            }
        }
    }
}
