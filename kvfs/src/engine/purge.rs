//! The end of inodes that have no name and that nobody holds: many in one record.
//!
//! Each has its orphan mark until then, so a crash before the record loses nothing and leaves nothing behind: the next
//! start finds the mark. Nobody can come back to such an inode: no name leads to it, it cannot get a new one, and the
//! kernel has let go of it.

use super::Engine;
use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::op::{Op, Payload, Record};
use crate::schema::key::Parts;
use crate::schema::{Key, Space, Time, Value};
use crate::stack::{Change, ChangeList};
use parking_lot::Mutex;
use std::collections::HashSet;

/// So many go in one record: few enough for one turn at the commit lock.
const GROUP: usize = 64;

/// Inodes without names.
#[derive(Debug, Default)]
pub(super) struct Purges {
    /// Those that somebody may hold: so that the kernel may drop a million inodes that have names, and none is looked up.
    held: Mutex<HashSet<Ino>>,
    /// At most one group, but for those who come meanwhile.
    waiting: Mutex<Vec<Ino>>,
    /// Those whose removal failed.
    failed: Mutex<Vec<Ino>>,
}

impl Purges {
    /// Takes in what a record has left without a name.
    pub(super) fn note(&self, changes: &ChangeList) {
        for change in &changes.changes {
            if let Change::Put(mark, Value::Orphan) = change
                && let Some(parts) = Parts::parse(mark.as_bytes())
            {
                self.held.lock().insert(parts.subject());
            }
        }
    }
}

impl Engine {
    /// Whether an inode has lost its last name and is not being purged yet.
    pub fn is_nameless(&self, ino: Ino) -> bool {
        self.purges.held.lock().contains(&ino)
    }

    /// Goes on with the inodes without names that an earlier process has left.
    pub(super) fn keep_orphans(&self) -> FsResult<()> {
        let orphans = self.orphans()?;
        self.purges.held.lock().extend(orphans);
        Ok(())
    }

    /// Purges an inode that nobody holds any more if it has no name, together with others: when there are enough of them, in a
    /// moment of rest (a tenth of a second), before the next checkpoint or snapshot, and before a write is refused for
    /// lack of room. The caller holds no lock on inodes.
    pub fn purge_soon(&self, ino: Ino) {
        if !self.purges.held.lock().remove(&ino) {
            return;
        }
        let group = {
            let mut waiting = self.purges.waiting.lock();
            waiting.push(ino);
            if waiting.len() < GROUP {
                return;
            }
            std::mem::take(&mut *waiting)
        };
        self.purge(group);
    }

    /// Purges what waits, now.
    pub(super) fn purge_waiting(&self) {
        let group = std::mem::take(&mut *self.purges.waiting.lock());
        if !group.is_empty() {
            self.purge(group);
        }
    }

    /// Tries once more what could not be purged; one by one, so that one that cannot be read keeps none of the others.
    pub(super) fn purge_again(&self) {
        let inos = std::mem::take(&mut *self.purges.failed.lock());
        for ino in inos {
            if self.purge_group(vec![ino]).is_err() {
                self.purges.failed.lock().push(ino);
            }
        }
    }

    /// The end of what nobody holds, at the start of a new mount.
    pub(super) fn purge_orphans(&self) -> FsResult<()> {
        self.orphans()?.chunks(GROUP).try_for_each(|group| match self.purge_group(group.to_vec()) {
            // They go when there is room: a start is not refused for them.
            Err(FsError::NoSpace) => {
                self.purges.failed.lock().extend(group);
                Ok(())
            }
            done => done,
        })
    }

    fn purge(&self, group: Vec<Ino>) {
        if let Err(error) = self.purge_group(group.clone()) {
            tracing::warn!(count = group.len(), %error, "unlinked files cannot be removed yet");
            self.purges.failed.lock().extend(group);
        }
    }

    fn purge_group(&self, mut inos: Vec<Ino>) -> FsResult<()> {
        inos.sort_unstable();
        inos.dedup();
        let _locked = self.stack.locks().lock(&inos);
        let op = Op::PurgeAll { inos };
        // Whoever's request this happens to run in, it is not what was asked for. It leaves no time on anything.
        let record = Record { time: Time::default(), op, payload: Payload::None, requested: None };
        self.run_record(&record, &[]).map(|_| ())
    }

    /// Inodes without names that are still there: because somebody may hold them, or not purged yet.
    pub fn orphans(&self) -> FsResult<Vec<Ino>> {
        let tiers = self.stack.load();
        let marks = Key::first_of(Ino(0), Space::Orphan);
        let rows = tiers.view().scan(Ino(0), Space::Orphan, &marks, usize::MAX)?;
        Ok(rows.iter().filter_map(|(mark, _)| Parts::parse(mark.as_bytes())).map(|parts| parts.subject()).collect())
    }
}
