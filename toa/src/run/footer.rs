//! The footer: the fixed 128 bytes at the end of a run from which everything else is found.

use super::{Hash128, NodePtr, RunError, hash128};
use kvfs::Xid;

/// Size of a footer, bytes.
pub const FOOTER_BYTES: usize = 128;
/// The format that this version writes, and the newest that it reads.
pub const RUN_FORMAT: u16 = 1;
/// Levels of nodes at most; 16 KiB nodes reach 2^60 records with 7.
pub const DEPTH_MAX: u8 = 8;

const MAGIC: [u8; 8] = *b"CBFSrun\n";
/// Everything before the footer's own hash.
const HASHED: usize = FOOTER_BYTES - 16;

/// A decoded footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The oldest reader that may read the run.
    pub min_reader: u16,
    /// Levels of nodes: 0 = an empty run, 1 = the root is a leaf.
    pub depth: u8,
    /// Records are newer than this …
    pub xid_from: Xid,
    /// … and not newer than this.
    pub xid: Xid,
    /// Number of records.
    pub records: u64,
    /// The root; `None` in an empty run.
    pub root: Option<NodePtr>,
    /// Bytes of nodes before the footer.
    pub tree_bytes: u64,
}

impl Footer {
    /// The 128 bytes.
    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&RUN_FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.min_reader.to_le_bytes());
        bytes.extend_from_slice(&[self.depth, 0, 0, 0]);
        for number in [self.xid_from.0, self.xid.0, self.records] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.root.map(|root| root.encode()).unwrap_or_default());
        bytes.extend_from_slice(&self.tree_bytes.to_le_bytes());
        let mut footer = [0; FOOTER_BYTES];
        footer[..bytes.len()].copy_from_slice(&bytes);
        let own = hash128(&footer[..HASHED]);
        footer[HASHED..].copy_from_slice(&own);
        footer
    }

    /// Takes the last 128 bytes of a run of `size` bytes apart; `root` is the hash that the ledger holds.
    pub fn decode(bytes: &[u8], size: u64, root: &Hash128) -> Result<Self, RunError> {
        if hash128(bytes) != *root {
            return Err(RunError::Corrupt("the footer does not match the ledger"));
        }
        Self::decode_unanchored(bytes, size)
    }

    /// As [`Footer::decode`] when no ledger record is at hand: detects accidents, not an exchanged run.
    pub fn decode_unanchored(bytes: &[u8], size: u64) -> Result<Self, RunError> {
        let bytes: &[u8; FOOTER_BYTES] = bytes.try_into().map_err(|_| RunError::Corrupt("the footer is short"))?;
        let (body, own) = bytes.split_at(HASHED);
        if hash128(body) != own || !body.starts_with(&MAGIC) {
            return Err(RunError::Corrupt("this is not the end of a run"));
        }
        let min_reader = u16::from_le_bytes([body[10], body[11]]);
        if min_reader > RUN_FORMAT {
            return Err(RunError::TooNew { found: min_reader, known: RUN_FORMAT });
        }
        let number = |at: usize| body.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b));
        let depth = body[12];
        let pointer = body.get(40..72).and_then(|b| b.try_into().ok()).map(NodePtr::decode);
        let footer = Self {
            min_reader,
            depth,
            xid_from: Xid(number(16)),
            xid: Xid(number(24)),
            records: number(32),
            root: pointer.filter(|_| depth > 0),
            tree_bytes: number(72),
        };
        footer.check(size)?;
        Ok(footer)
    }

    fn check(&self, size: u64) -> Result<(), RunError> {
        if self.tree_bytes.checked_add(FOOTER_BYTES as u64) != Some(size) {
            return Err(RunError::Corrupt("the footer gives another size"));
        }
        if self.depth > DEPTH_MAX || (self.depth == 0) != (self.records == 0) || self.xid_from > self.xid {
            return Err(RunError::Corrupt("the footer contradicts itself"));
        }
        match self.root {
            Some(root) if root.end().is_none_or(|end| end > self.tree_bytes) => {
                Err(RunError::Corrupt("the root lies outside of the run"))
            }
            _ => Ok(()),
        }
    }
}
