//! Why the ledger (or a command that rests on it) did not do it.

use super::history::{Deletion, Holder};
use super::intent::IntentError;
use super::record::{LEDGER_FORMAT, RECORD_BYTES_MAX, Seq};
use crate::store::{StoreError, StoreErrorKind};
use uuid::Uuid;

/// What the caller can do about it. Decides errno, exit code and HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LedgerErrorKind {
    /// No such filesystem, snapshot or record.
    NotFound,
    /// There is one of that name already.
    Exists,
    /// The name fits several.
    Ambiguous,
    /// The epoch that was asked for is not the latest.
    EpochMismatch,
    /// Somebody else reigns: go read-only, park the branch.
    Deposed,
    /// The filesystem is deleted.
    Deleted,
    /// The bytes are gone for good.
    Gone,
    /// An object of this publication is condemned: upload it again under a new op.
    Condemned,
    /// Still used by a snapshot, pinned, or the newest.
    InUse,
    /// Bytes that break the format or the rules: stop and raise the alarm.
    Corrupt,
    /// Written by a newer version.
    TooNew,
    /// No clean answer within the limits; an append may still land.
    Unavailable,
    /// No permission.
    Denied,
    /// The store is full.
    NoSpace,
    /// The request makes no sense.
    Invalid,
    /// The store cannot do that.
    Unsupported,
    /// The local disk did not keep the intent.
    Local,
}

impl From<StoreErrorKind> for LedgerErrorKind {
    fn from(kind: StoreErrorKind) -> Self {
        match kind {
            StoreErrorKind::NotFound | StoreErrorKind::NoBucket => Self::NotFound,
            StoreErrorKind::Denied => Self::Denied,
            StoreErrorKind::Unavailable => Self::Unavailable,
            StoreErrorKind::NoSpace => Self::NoSpace,
            StoreErrorKind::Corrupt => Self::Corrupt,
            StoreErrorKind::Invalid => Self::Invalid,
            StoreErrorKind::Unsupported => Self::Unsupported,
        }
    }
}

/// A refusal or failure of the ledger.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// A record that is not there (yet).
    #[error("{object} does not exist")]
    NoRecord {
        /// Its name.
        object: String,
    },
    /// No live snapshot has this id.
    #[error("{fs} has no snapshot {snapshot}")]
    NoSnapshot {
        /// The filesystem.
        fs: String,
        /// The id.
        snapshot: Uuid,
    },
    /// The promotion names an epoch that is not the latest.
    #[error("{}", mismatch(*asked, holder.as_deref()))]
    EpochMismatch {
        /// The filesystem's tag.
        tag: String,
        /// What the operator believed to be the latest.
        asked: u32,
        /// The latest; 0 = nobody yet.
        latest: u32,
        /// Who holds it.
        holder: Option<Box<Holder>>,
    },
    /// Another node, or another life of this one, took over.
    #[error("deposed: {}", reign(by.as_deref()))]
    Deposed {
        /// Who holds the newest epoch.
        by: Option<Box<Holder>>,
    },
    /// The newest official snapshot is not the one that this node published last.
    #[error("deposed: the newest snapshot is {}, not {}", id(*found), id(*expected))]
    UnexpectedParent {
        /// What the caller builds on.
        expected: Option<Uuid>,
        /// What is official.
        found: Option<Uuid>,
    },
    /// A record of this process life that this process did not write (rule 11).
    #[error("{object} was written by a copy of this running process: the node was cloned")]
    Cloned {
        /// The record.
        object: String,
    },
    /// The filesystem is deleted.
    #[error("{fs} was deleted at {:.0}: {}", deletion.time, deletion.reason)]
    Deleted {
        /// The filesystem.
        fs: String,
        /// When and why.
        deletion: Box<Deletion>,
    },
    /// The deletion cannot be taken back.
    #[error("{fs} cannot come back: its bytes are being deleted since record {purged}")]
    Purged {
        /// The filesystem.
        fs: String,
        /// The purge record.
        purged: Seq,
    },
    /// Another live snapshot has the name.
    #[error("{fs} already has a snapshot named {name:?}: {snapshot}")]
    NameTaken {
        /// The filesystem.
        fs: String,
        /// The name.
        name: String,
        /// The snapshot that has it.
        snapshot: Uuid,
    },
    /// The new snapshot uses a condemned object (rule 10).
    #[error("{object} is condemned since record {condemned}")]
    Condemned {
        /// The object.
        object: String,
        /// The condemn record.
        condemned: Seq,
    },
    /// Something still needs it.
    #[error("{what} is in use: {why}")]
    InUse {
        /// Object or snapshot.
        what: String,
        /// By whom.
        why: String,
    },
    /// A record that breaks the format, the chain or the rules. Everything before it is good.
    #[error("{object} is corrupt: {reason}")]
    Corrupt {
        /// The record.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// A record in a newer format.
    #[error("{object} has ledger format {found}; this version reads up to {LEDGER_FORMAT}")]
    TooNew {
        /// The record.
        object: String,
        /// Its format.
        found: u32,
    },
    /// A record of a kind that this version does not know: it may read on, not write.
    #[error("{object} is of a kind that this version does not know: it must not write here")]
    UnknownKind {
        /// The record.
        object: String,
    },
    /// It is not known whether the record was applied (rule 4): the intent stays, nothing of it may be deleted or
    /// rebuilt until `resolve` has found out.
    #[error("it is not known yet whether record {seq} (op {op}) was applied: {cause}")]
    Unknown {
        /// Where it would be.
        seq: Seq,
        /// Its op.
        op: Uuid,
        /// The last answer.
        cause: StoreError,
    },
    /// Others were faster, again and again.
    #[error("others appended first {rounds} times in a row")]
    Contended {
        /// How often.
        rounds: u32,
    },
    /// A request that would break a rule.
    #[error("refused: {reason}")]
    Invalid {
        /// Which.
        reason: String,
    },
    /// A record above the limit.
    #[error("a {kind} record of {bytes} bytes is above the limit of {RECORD_BYTES_MAX}")]
    TooLarge {
        /// Its kind.
        kind: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// A call that changes nothing failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The local disk did not keep the intent, or did not give it back.
    #[error(transparent)]
    Intent(#[from] IntentError),
}

impl LedgerError {
    /// What the caller can do about it.
    pub fn kind(&self) -> LedgerErrorKind {
        match self {
            Self::NoRecord { .. } | Self::NoSnapshot { .. } => LedgerErrorKind::NotFound,
            Self::NameTaken { .. } => LedgerErrorKind::Exists,
            Self::EpochMismatch { .. } => LedgerErrorKind::EpochMismatch,
            Self::Deposed { .. } | Self::UnexpectedParent { .. } | Self::Cloned { .. } => LedgerErrorKind::Deposed,
            Self::Deleted { .. } => LedgerErrorKind::Deleted,
            Self::Purged { .. } => LedgerErrorKind::Gone,
            Self::Condemned { .. } => LedgerErrorKind::Condemned,
            Self::InUse { .. } => LedgerErrorKind::InUse,
            Self::Corrupt { .. } => LedgerErrorKind::Corrupt,
            Self::TooNew { .. } | Self::UnknownKind { .. } => LedgerErrorKind::TooNew,
            Self::Unknown { cause, .. } => match cause.kind() {
                kind @ (StoreErrorKind::Denied | StoreErrorKind::NoSpace | StoreErrorKind::NoBucket) => kind.into(),
                _ => LedgerErrorKind::Unavailable,
            },
            Self::Contended { .. } => LedgerErrorKind::Unavailable,
            Self::Invalid { .. } | Self::TooLarge { .. } => LedgerErrorKind::Invalid,
            Self::Store(error) => error.kind().into(),
            Self::Intent(_) => LedgerErrorKind::Local,
        }
    }

    /// The command that helps.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::EpochMismatch { latest: 0, .. } => Some("mount it read-write: nobody has been its master yet".into()),
            Self::EpochMismatch { tag, latest, .. } => Some(format!("cbfs promote {tag} --epoch {latest}")),
            Self::Deleted { fs, .. } => Some(format!("cbfs show {fs} tells what is left of it")),
            Self::Deposed { .. } | Self::UnexpectedParent { .. } => Some("cbfs status".into()),
            Self::TooNew { .. } | Self::UnknownKind { .. } => Some("upgrade cbfs on this node".into()),
            Self::NameTaken { .. } => Some("take another snapshot; it includes what this one had".into()),
            _ => None,
        }
    }

    /// Whether the append may still land.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

fn mismatch(asked: u32, holder: Option<&Holder>) -> String {
    match holder {
        None => format!("epoch {asked} is not the latest: nobody has been master yet"),
        Some(_) => format!("epoch {asked} is not the latest: {}", reign(holder)),
    }
}

fn reign(holder: Option<&Holder>) -> String {
    let Some(holder) = holder else { return "nobody is master".into() };
    let name = if holder.host.is_empty() { holder.node.to_string() } else { holder.host.clone() };
    format!("epoch {} was taken by node {name} at {:.0}", holder.epoch, holder.since)
}

fn id(snapshot: Option<Uuid>) -> String {
    snapshot.map_or_else(|| "none".into(), |id| id.to_string())
}
