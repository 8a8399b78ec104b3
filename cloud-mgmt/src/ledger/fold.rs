//! How a history grows.

use super::codec;
use super::error::LedgerError;
use super::history::{Condemnation, Deletion, History, Holder, Life, Tail};
use super::record::{Entry, LedgerRecord, Seq, SnapshotEntry};
use super::rules;
use std::sync::Arc;

impl History {
    /// Takes the next record in, or says why it is not one (rule 13) and stays as it was.
    pub(super) fn apply(&mut self, seq: Seq, bytes: &[u8]) -> Result<Arc<LedgerRecord>, LedgerError> {
        let record = codec::decode(&self.fs, seq, bytes)?;
        rules::check(self, &record)
            .map_err(|reason| LedgerError::Corrupt { object: self.fs.ledger_object(seq.0), reason })?;
        let record = Arc::new(record);
        self.fold(&record);
        self.tail = Some(Tail { record: record.clone(), hash: codec::hash(bytes) });
        Ok(record)
    }

    fn fold(&mut self, record: &Arc<LedgerRecord>) {
        self.state = rules::next_state(&self.state, record);
        self.authors.insert(record.incarnation, (record.seq, record.op));
        match &record.entry {
            Entry::Epoch { epoch, host } => self.fold_epoch(record, *epoch, host),
            Entry::Snapshot(snapshot) => self.fold_snapshot(record.seq, snapshot),
            Entry::Drop { snapshot } => self.snapshots.retain(|_, live| live.id != *snapshot),
            Entry::Pin { snapshot, reason } => {
                self.pins.insert(*snapshot, reason.clone());
            }
            Entry::Unpin { snapshot } => {
                self.pins.remove(snapshot);
            }
            Entry::Properties { values } => self.properties.clone_from(values),
            Entry::Condemn { objects, reason } => self.fold_condemn(record, objects, reason),
            Entry::Purge { condemned } => self.fold_purge(record.seq, *condemned),
            Entry::Delete { reason } => {
                self.deletion = Some(Deletion { seq: record.seq, time: record.time, reason: reason.clone() });
            }
            Entry::Undelete {} => self.fold_undelete(),
            Entry::Unknown => self.unknown = self.unknown.or(Some(record.seq)),
        }
    }

    fn fold_epoch(&mut self, record: &LedgerRecord, epoch: u32, host: &str) {
        // A restart of the same reign keeps the time at which it began.
        let began = self.holder.as_ref().filter(|holder| holder.epoch == epoch).map(|holder| holder.since);
        self.holder = Some(Holder {
            epoch,
            seq: record.seq,
            node: record.node,
            incarnation: record.incarnation,
            host: host.to_owned(),
            since: began.unwrap_or(record.time),
        });
    }

    fn fold_snapshot(&mut self, seq: Seq, snapshot: &SnapshotEntry) {
        for pack in &snapshot.packs_new {
            self.packs.insert(pack.object.clone(), Life { born: seq, dead: None });
        }
        for object in &snapshot.packs_dead {
            if let Some(life) = self.packs.get_mut(object) {
                life.dead.get_or_insert(seq);
            }
        }
        self.runs.extend(snapshot.runs.iter().map(|run| run.object.clone()));
        self.listings.extend(snapshot.listing.iter().map(|listing| listing.object.clone()));
        self.snapshots.insert(seq, Arc::new(snapshot.clone()));
    }

    fn fold_condemn(&mut self, record: &LedgerRecord, objects: &[String], reason: &str) {
        for object in objects {
            self.condemned_objects.entry(object.clone()).or_insert(record.seq);
        }
        let (time, objects, reason) = (record.time, objects.to_vec(), reason.to_owned());
        self.condemned.insert(record.seq, Condemnation { time, objects, reason, purged: None });
    }

    fn fold_purge(&mut self, seq: Seq, condemned: Seq) {
        let Some(condemnation) = self.condemned.get_mut(&condemned) else { return };
        condemnation.purged = Some(seq);
        for object in &condemnation.objects {
            self.packs.remove(object);
            self.runs.remove(object);
            self.listings.remove(object);
        }
    }

    /// Lifts what was condemned because of the deletion; what was condemned before stays so.
    fn fold_undelete(&mut self) {
        let Some(deletion) = self.deletion.take() else { return };
        let lifted = self.condemned.split_off(&deletion.seq);
        for (seq, condemnation) in &lifted {
            for object in &condemnation.objects {
                if self.condemned_objects.get(object) == Some(seq) {
                    self.condemned_objects.remove(object);
                }
            }
        }
    }
}
