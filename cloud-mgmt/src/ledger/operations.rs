//! The operations of masters, operators and collectors of garbage.

use super::append::{Appender, Applied, Decision};
use super::decide;
use super::error::LedgerError;
use super::history::{Deletion, Holder, Published};
use super::record::{Entry, Seq, SnapshotEntry};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Whether a master may go on.
#[derive(Clone, Debug, PartialEq)]
pub enum Reign {
    /// The newest epoch is this process life's.
    Mine {
        /// Its number.
        epoch: u32,
        /// The newest official snapshot.
        newest: Option<Published>,
    },
    /// Another node, or another life of this one, holds the newest epoch.
    Deposed {
        /// Who; `None`: nobody has claimed an epoch yet.
        by: Option<Holder>,
    },
    /// The filesystem is deleted: stop publishing.
    Deleted(Deletion),
}

impl Appender {
    /// Epoch 1, if nobody has been master yet; else [`LedgerError::EpochMismatch`].
    pub async fn claim_first_epoch(&self) -> Result<Applied, LedgerError> {
        self.promote(0).await
    }

    /// Epoch `prev` + 1, if `prev` is the latest; else [`LedgerError::EpochMismatch`] with its holder. Of any number of
    /// racing promoters one succeeds. The new reign's base is the newest snapshot below the record.
    pub async fn promote(&self, prev: u32) -> Result<Applied, LedgerError> {
        self.append(|history| decide::promote(history, self.writer(), prev)).await
    }

    /// After a restart: the same epoch under this process life; [`LedgerError::Deposed`] if the newest epoch is not this
    /// node's or not `epoch`.
    pub async fn resume_epoch(&self, epoch: u32) -> Result<Applied, LedgerError> {
        self.append(|history| decide::resume(history, self.writer(), epoch)).await
    }

    /// Makes a snapshot official, whose packs and runs are already in the bucket (I3). On return it is known to be in
    /// the ledger (I4). `snapshot.parent` is what this node published last (or its base): anything else there is
    /// [`LedgerError::UnexpectedParent`]; a newer epoch is [`LedgerError::Deposed`]; [`LedgerError::Condemned`] asks for
    /// an upload under a new op. A snapshot that is official already is a success.
    pub async fn publish_snapshot(&self, snapshot: &SnapshotEntry) -> Result<Applied, LedgerError> {
        self.append(|history| decide::publish(history, self.writer(), snapshot)).await
    }

    /// All properties of the filesystem, by its master alone.
    pub async fn publish_properties(&self, values: &BTreeMap<String, String>) -> Result<Applied, LedgerError> {
        self.append(|history| {
            decide::refuse_deleted(history)?;
            if !decide::reigns(history, self.writer()) {
                return Err(LedgerError::Deposed { by: history.holder().cloned().map(Box::new) });
            }
            match history.state().properties_seq {
                Some(seq) if history.properties() == values => Ok(Decision::Done(seq)),
                _ => Ok(Decision::Append(Entry::Properties { values: values.clone() })),
            }
        })
        .await
    }

    /// Reads what is new and tells whether this process life still reigns. One request when nothing is new.
    pub async fn check_reign(&self) -> Result<Reign, LedgerError> {
        let history = self.ledger().history().await?;
        Ok(if let Some(deletion) = history.deletion() {
            Reign::Deleted(deletion.clone())
        } else if decide::reigns(&history, self.writer()) {
            Reign::Mine { epoch: history.state().epoch, newest: history.newest_snapshot() }
        } else {
            Reign::Deposed { by: history.holder().cloned() }
        })
    }

    /// Gives a snapshot up; refused ([`LedgerError::InUse`]) for the newest and for pinned ones. Its bytes stay until
    /// somebody condemns and purges them.
    pub async fn drop_snapshot(&self, snapshot: Uuid) -> Result<Applied, LedgerError> {
        self.append(|history| decide::drop_snapshot(history, snapshot)).await
    }

    /// Keeps a snapshot whatever retention says.
    pub async fn pin(&self, snapshot: Uuid, reason: &str) -> Result<Applied, LedgerError> {
        self.append(|history| {
            decide::refuse_deleted(history)?;
            let fs = history.fs().to_string();
            history.snapshot(snapshot).ok_or(LedgerError::NoSnapshot { fs, snapshot })?;
            Ok(Decision::Append(Entry::Pin { snapshot, reason: reason.to_owned() }))
        })
        .await
    }

    /// Ends a pin.
    pub async fn unpin(&self, snapshot: Uuid) -> Result<Applied, LedgerError> {
        self.append(|history| {
            decide::refuse_deleted(history)?;
            if !history.pins().contains_key(&snapshot) {
                return Err(LedgerError::Invalid { reason: format!("snapshot {snapshot} is not pinned") });
            }
            Ok(Decision::Append(Entry::Unpin { snapshot }))
        })
        .await
    }

    /// Announces that objects will be deleted, in as many records as it takes; names that are condemned already are left
    /// out. [`LedgerError::InUse`] names the first object that something retained needs.
    pub async fn condemn(&self, objects: &[String], reason: &str) -> Result<Vec<Applied>, LedgerError> {
        let mut applied = Vec::new();
        for part in objects.chunks(decide::CONDEMNED_PER_RECORD) {
            applied.push(self.append(|history| decide::condemn(history, part, reason)).await?);
        }
        Ok(applied)
    }

    /// The last word before the bytes of a condemn record are deleted: from here on nothing takes it back. To be called
    /// after the grace time; a success is the permission to delete exactly the objects that the record names.
    pub async fn purge(&self, condemned: Seq) -> Result<Applied, LedgerError> {
        self.append(|history| match history.condemned().get(&condemned) {
            None => Err(LedgerError::Invalid { reason: format!("record {condemned} condemns nothing (any more)") }),
            Some(condemnation) => Ok(match condemnation.purged {
                Some(seq) => Decision::Done(seq),
                None => Decision::Append(Entry::Purge { condemned }),
            }),
        })
        .await
    }

    /// Deletes the filesystem: a live master stops at it. Nothing is lost until its objects are purged.
    pub async fn delete(&self, reason: &str) -> Result<Applied, LedgerError> {
        self.append(|history| Ok(decide::delete(history, reason))).await
    }

    /// Takes the deletion back, with every condemnation since; [`LedgerError::Purged`] once bytes are being deleted.
    pub async fn undelete(&self) -> Result<Applied, LedgerError> {
        self.append(decide::undelete).await
    }
}
