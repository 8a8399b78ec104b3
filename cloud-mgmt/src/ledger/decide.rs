//! What each operation wants on a given history: pure, no effects.

use super::append::Decision;
use super::error::LedgerError;
use super::history::History;
use super::record::{Entry, SnapshotEntry};
use super::rules::condemned_part;
use super::writer::Writer;
use uuid::Uuid;

/// Condemned names in one record: with names of the longest kind it stays below the limit.
pub(super) const CONDEMNED_PER_RECORD: usize = 1_000;

/// A delete record stops everybody but those who finish or undo it.
pub(super) fn refuse_deleted(history: &History) -> Result<(), LedgerError> {
    match history.deletion() {
        None => Ok(()),
        Some(deletion) => {
            Err(LedgerError::Deleted { fs: history.fs().to_string(), deletion: Box::new(deletion.clone()) })
        }
    }
}

/// Rule 6: `prev` + 1 if `prev` is the latest. An earlier attempt of the same node counts as its own success.
pub(super) fn promote(history: &History, writer: &Writer, prev: u32) -> Result<Decision, LedgerError> {
    refuse_deleted(history)?;
    let latest = history.state().epoch;
    if latest == prev && prev < u32::MAX {
        return Ok(Decision::Append(Entry::Epoch { epoch: prev + 1, host: writer.host.clone() }));
    }
    if prev.checked_add(1) == Some(latest) && history.state().master == Some(writer.node) {
        return resume(history, writer, latest);
    }
    Err(LedgerError::EpochMismatch {
        tag: history.fs().tag.to_string(),
        asked: prev,
        latest,
        holder: history.holder().cloned().map(Box::new),
    })
}

/// Rule 8: the same number, this process life.
pub(super) fn resume(history: &History, writer: &Writer, epoch: u32) -> Result<Decision, LedgerError> {
    refuse_deleted(history)?;
    let state = history.state();
    if state.epoch < epoch {
        // This node knows more than the store: not a newer master, but the wrong store, or an older copy of it.
        return Err(LedgerError::Corrupt {
            object: format!("the ledger of {}", history.fs()),
            reason: format!(
                "it ends in epoch {}, this node is master of epoch {epoch}: is this the right store?",
                state.epoch
            ),
        });
    }
    if epoch == 0 || state.epoch != epoch || state.master != Some(writer.node) {
        return Err(LedgerError::Deposed { by: history.holder().cloned().map(Box::new) });
    }
    if state.incarnation == Some(writer.incarnation) {
        return Ok(Decision::Done(state.epoch_seq));
    }
    Ok(Decision::Append(Entry::Epoch { epoch, host: writer.host.clone() }))
}

/// Whether the newest epoch is this process life's.
pub(super) fn reigns(history: &History, writer: &Writer) -> bool {
    let state = history.state();
    state.epoch > 0 && state.master == Some(writer.node) && state.incarnation == Some(writer.incarnation)
}

/// Rules 5, 7 and 10; a name is taken once among the live snapshots.
pub(super) fn publish(history: &History, writer: &Writer, snapshot: &SnapshotEntry) -> Result<Decision, LedgerError> {
    if let Some(published) = history.snapshot(snapshot.id) {
        // It is official, whoever reigns now.
        return Ok(Decision::Done(published.seq));
    }
    refuse_deleted(history)?;
    if !reigns(history, writer) || snapshot.epoch != history.state().epoch {
        return Err(LedgerError::Deposed { by: history.holder().cloned().map(Box::new) });
    }
    let newest = history.newest_snapshot().map(|published| published.snapshot.id);
    if newest != snapshot.parent {
        return Err(LedgerError::UnexpectedParent { expected: snapshot.parent, found: newest });
    }
    if let Some(name) = &snapshot.name
        && let Some(other) = history.snapshots().into_iter().find(|other| other.snapshot.name.as_ref() == Some(name))
    {
        let (fs, snapshot) = (history.fs().to_string(), other.snapshot.id);
        return Err(LedgerError::NameTaken { fs, name: name.clone(), snapshot });
    }
    if let Some(object) = condemned_part(history, snapshot) {
        let condemned = history.condemned_by(object).unwrap_or_default();
        return Err(LedgerError::Condemned { object: object.to_owned(), condemned });
    }
    Ok(Decision::Append(Entry::Snapshot(Box::new(snapshot.clone()))))
}

/// A snapshot goes, unless it is pinned or the base of whoever reigns next.
pub(super) fn drop_snapshot(history: &History, id: Uuid) -> Result<Decision, LedgerError> {
    refuse_deleted(history)?;
    let in_use = |why: &str| LedgerError::InUse { what: format!("snapshot {id}"), why: why.to_owned() };
    let fs = history.fs().to_string();
    history.snapshot(id).ok_or(LedgerError::NoSnapshot { fs, snapshot: id })?;
    if let Some(reason) = history.pins().get(&id) {
        return Err(in_use(&format!("pinned: {reason}")));
    }
    if history.newest_snapshot().is_some_and(|newest| newest.snapshot.id == id) {
        return Err(in_use("it is the newest, on which the next one builds"));
    }
    Ok(Decision::Append(Entry::Drop { snapshot: id }))
}

/// Rule 9: exact names that nothing retained uses.
pub(super) fn condemn(history: &History, objects: &[String], reason: &str) -> Result<Decision, LedgerError> {
    let retained = history.retained();
    if let Some(object) = objects.iter().find(|object| retained.contains(object.as_str())) {
        return Err(LedgerError::InUse { what: object.clone(), why: "a snapshot needs it".into() });
    }
    let fresh: Vec<_> = objects.iter().filter(|object| history.condemned_by(object).is_none()).cloned().collect();
    if !fresh.is_empty() {
        return Ok(Decision::Append(Entry::Condemn { objects: fresh, reason: reason.to_owned() }));
    }
    let last = objects.iter().filter_map(|object| history.condemned_by(object)).max();
    last.map(Decision::Done).ok_or_else(|| LedgerError::Invalid { reason: "nothing to condemn".into() })
}

/// The deletion in force counts as success.
pub(super) fn delete(history: &History, reason: &str) -> Decision {
    match history.deletion() {
        Some(deletion) => Decision::Done(deletion.seq),
        None => Decision::Append(Entry::Delete { reason: reason.to_owned() }),
    }
}

/// Taken back as long as no byte is gone.
pub(super) fn undelete(history: &History) -> Result<Decision, LedgerError> {
    let fs = history.fs().to_string();
    let Some(deletion) = history.deletion() else {
        return Err(LedgerError::Invalid { reason: format!("{fs} is not deleted") });
    };
    match history.condemned().range(deletion.seq..).find_map(|(_, condemnation)| condemnation.purged) {
        Some(purged) => Err(LedgerError::Purged { fs, purged }),
        None => Ok(Decision::Append(Entry::Undelete {})),
    }
}
