//! Records to bytes, bytes to records.

use super::error::LedgerError;
use super::record::{LEDGER_FORMAT, LedgerRecord, RECORD_BYTES_MAX, Seq};
use crate::names::FsName;
use bytes::Bytes;
use serde::Deserialize;

/// Stands before the first record.
pub(super) const NO_HASH: &str = "b3:";

/// The hash of a record's bytes, as the next record carries it.
pub(super) fn hash(bytes: &[u8]) -> String {
    format!("{NO_HASH}{}", blake3::hash(bytes).to_hex())
}

/// Whether `text` is the hash of some bytes.
pub(super) fn is_hash(text: &str) -> bool {
    let digits = text.strip_prefix(NO_HASH).unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// The bytes of a record.
pub(super) fn encode(record: &LedgerRecord) -> Result<Bytes, LedgerError> {
    let bytes = serde_json::to_vec(record).map_err(|e| LedgerError::Invalid { reason: e.to_string() })?;
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(LedgerError::TooLarge { kind: record.entry.kind(), bytes: bytes.len() });
    }
    Ok(bytes.into())
}

/// All that a newer format promises to keep.
#[derive(Deserialize)]
struct Envelope {
    format: u32,
}

/// The record at `seq`, checked by itself: size, format, filesystem, position.
pub(super) fn decode(fs: &FsName, seq: Seq, bytes: &[u8]) -> Result<LedgerRecord, LedgerError> {
    let object = || fs.ledger_object(seq.0);
    let corrupt = |reason: String| LedgerError::Corrupt { object: object(), reason };
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(corrupt(format!("{} bytes, above the limit of {RECORD_BYTES_MAX}", bytes.len())));
    }
    let Envelope { format } = serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?;
    if format > LEDGER_FORMAT {
        return Err(LedgerError::TooNew { object: object(), found: format });
    }
    if format == 0 {
        return Err(corrupt("format 0".into()));
    }
    let record: LedgerRecord = serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?;
    if record.fs != fs.id {
        return Err(corrupt(format!("belongs to filesystem {}", record.fs)));
    }
    if record.seq != seq {
        return Err(corrupt(format!("says that it is record {}", record.seq)));
    }
    Ok(record)
}
