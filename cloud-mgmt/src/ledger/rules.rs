//! What may follow a history (rules 5 to 13): one table for readers, which refuse what breaks it, and for writers, which
//! check themselves before they send.

use super::codec;
use super::history::History;
use super::record::{Entry, LedgerRecord, Seq, SnapshotEntry, State, SummaryEntry};
use super::summary::SUMMARY_BYTES_MAX;
use std::collections::HashSet;
use uuid::Uuid;

/// The sum after `record`, whose entry is known.
pub(super) fn next_state(before: &State, record: &LedgerRecord) -> State {
    let mut state = before.clone();
    match &record.entry {
        Entry::Epoch { epoch, .. } => {
            state.epoch = *epoch;
            state.epoch_seq = record.seq;
            state.master = Some(record.node);
            state.incarnation = Some(record.incarnation);
        }
        Entry::Snapshot(_) => state.snapshot_seq = Some(record.seq),
        Entry::Properties { .. } => state.properties_seq = Some(record.seq),
        Entry::Delete { .. } => state.deleted_seq = Some(record.seq),
        Entry::Undelete {} => state.deleted_seq = None,
        // A newer version knows what its kind does to the sum.
        Entry::Unknown => state = record.state.clone(),
        Entry::Drop { .. } | Entry::Pin { .. } | Entry::Unpin { .. } | Entry::Condemn { .. } | Entry::Purge { .. } => {}
    }
    // A version that knows no summaries names none: the one before it stays the newest.
    state.summary = record.state.summary.clone().or_else(|| before.summary.clone());
    state
}

/// The rule that `record` would break after `history`, in words.
pub(super) fn check(history: &History, record: &LedgerRecord) -> Result<(), String> {
    if record.seq != history.tail_seq().next() {
        return Err(format!("does not follow record {}", history.tail_seq()));
    }
    if record.prev_hash != history.tail_hash() {
        return Err(format!("does not continue record {}: the hash chain is broken", history.tail_seq()));
    }
    check_entry(history, record)?;
    let sum = State { summary: record.state.summary.clone(), ..next_state(&history.state, record) };
    if record.state != sum {
        return Err("its sum contradicts the records before it".into());
    }
    check_summary(history, record)
}

/// The newest summary goes from record to record; a new one sums up exactly the records before its first record.
fn check_summary(history: &History, record: &LedgerRecord) -> Result<(), String> {
    let Some(summary) = record.state.summary.as_ref().filter(|summary| history.state.summary.as_ref() != Some(summary))
    else {
        return Ok(());
    };
    let SummaryEntry { upto_seq, object, size, hash } = summary;
    if *upto_seq != history.tail_seq() || *upto_seq == Seq(0) {
        return Err(format!("its new summary ends at record {upto_seq}, not before it"));
    }
    if !history.fs.is_summary_upto(upto_seq.0, object) {
        return Err(format!("{object} is no summary of this ledger up to record {upto_seq}"));
    }
    if !(1..=SUMMARY_BYTES_MAX).contains(size) || !codec::is_hash(hash) {
        return Err(format!("its summary of {size} bytes with the hash {hash:?} cannot be"));
    }
    Ok(())
}

fn check_entry(history: &History, record: &LedgerRecord) -> Result<(), String> {
    let ends_deletion = matches!(record.entry, Entry::Condemn { .. } | Entry::Purge { .. } | Entry::Undelete {});
    if history.deletion.is_some() && !ends_deletion && record.entry != Entry::Unknown {
        return Err(format!("a {} record in a deleted filesystem", record.entry.kind()));
    }
    match &record.entry {
        Entry::Epoch { epoch, .. } => check_epoch(history, record, *epoch),
        Entry::Snapshot(snapshot) => check_reigning(history, record).and_then(|()| check_snapshot(history, snapshot)),
        Entry::Properties { .. } => check_reigning(history, record),
        Entry::Drop { snapshot } => check_drop(history, *snapshot),
        Entry::Pin { snapshot, .. } => live(history, *snapshot),
        Entry::Unpin { snapshot } if history.pins.contains_key(snapshot) => Ok(()),
        Entry::Unpin { snapshot } => Err(format!("snapshot {snapshot} is not pinned")),
        Entry::Condemn { objects, .. } => check_condemn(history, objects),
        Entry::Purge { condemned } => match history.condemned.get(condemned) {
            Some(condemnation) if condemnation.purged.is_none() => Ok(()),
            Some(_) => Err(format!("record {condemned} is purged already")),
            None => Err(format!("record {condemned} condemns nothing")),
        },
        Entry::Delete { .. } | Entry::Unknown => Ok(()),
        Entry::Undelete {} => check_undelete(history),
    }
}

/// Rules 6 and 8: one more, or the same node's next life.
fn check_epoch(history: &History, record: &LedgerRecord, epoch: u32) -> Result<(), String> {
    let state = &history.state;
    let begins = state.epoch.checked_add(1) == Some(epoch);
    let resumes = epoch == state.epoch
        && epoch > 0
        && state.master == Some(record.node)
        && state.incarnation != Some(record.incarnation);
    if begins || resumes { Ok(()) } else { Err(format!("epoch {epoch} after epoch {}", state.epoch)) }
}

/// Rule 5: only the newest epoch's master, in the life that holds it.
fn check_reigning(history: &History, record: &LedgerRecord) -> Result<(), String> {
    let state = &history.state;
    if state.epoch > 0 && state.master == Some(record.node) && state.incarnation == Some(record.incarnation) {
        Ok(())
    } else {
        Err(format!("node {} does not hold epoch {}", record.node, state.epoch))
    }
}

fn check_snapshot(history: &History, snapshot: &SnapshotEntry) -> Result<(), String> {
    if snapshot.epoch != history.state.epoch {
        return Err(format!("a snapshot of epoch {} in epoch {}", snapshot.epoch, history.state.epoch));
    }
    let newest = history.newest_snapshot().map(|published| published.snapshot.id);
    if snapshot.parent != newest {
        return Err("its parent is not the newest snapshot".into());
    }
    if history.snapshots.values().any(|other| other.id == snapshot.id) {
        return Err(format!("snapshot {} is there already", snapshot.id));
    }
    if snapshot.xid < snapshot.xid_from {
        return Err(format!("its xid {} is below its base's {}", snapshot.xid, snapshot.xid_from));
    }
    match condemned_part(history, snapshot) {
        Some(object) => Err(format!("it uses {object}, which is condemned")),
        None => Ok(()),
    }
}

/// An object of the snapshot that is condemned (rule 10).
pub(super) fn condemned_part<'a>(history: &History, snapshot: &'a SnapshotEntry) -> Option<&'a str> {
    snapshot.objects().find(|object| history.condemned_by(object).is_some())
}

fn live(history: &History, id: Uuid) -> Result<(), String> {
    match history.snapshot(id) {
        Some(_) => Ok(()),
        None => Err(format!("there is no snapshot {id}")),
    }
}

fn check_drop(history: &History, id: Uuid) -> Result<(), String> {
    live(history, id)?;
    if history.pins.contains_key(&id) {
        return Err(format!("snapshot {id} is pinned"));
    }
    if history.newest_snapshot().is_some_and(|newest| newest.snapshot.id == id) {
        return Err(format!("snapshot {id} is the newest"));
    }
    Ok(())
}

/// Rule 9: packs, runs and listings of this filesystem that nothing retained needs.
fn check_condemn(history: &History, objects: &[String]) -> Result<(), String> {
    let retained: HashSet<&str> = history.retained();
    for object in objects {
        if !history.fs.is_of_snapshots(object) {
            return Err(format!("{object} is no pack, run or listing of this filesystem"));
        }
        if retained.contains(object.as_str()) {
            return Err(format!("{object} is condemned and in use"));
        }
    }
    if objects.is_empty() { Err("condemns nothing".into()) } else { Ok(()) }
}

fn check_undelete(history: &History) -> Result<(), String> {
    let Some(deletion) = &history.deletion else { return Err("the filesystem is not deleted".into()) };
    match history.condemned.range(deletion.seq..).find_map(|(_, condemnation)| condemnation.purged) {
        Some(purged) => Err(format!("its bytes are being deleted since record {purged}")),
        None => Ok(()),
    }
}
