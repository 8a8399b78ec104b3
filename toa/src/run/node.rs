//! A node: up to 16 KiB of sorted records with prefix-compressed keys.
//!
//! ```text
//! raw     = level u8 | 0 0 0 | count u32 | record… | restart u32…      numbers little-endian
//! record  = shared varint | unshared varint | value_len varint | key[shared..] | value
//! restart = offset in raw of every 16th record, whose key is whole
//! ```

use super::{Hash128, RunError, hash128};
use std::cmp::Ordering;

/// Nominal raw size of a node, bytes: a record that does not fit begins the next one.
pub const NODE_BYTES: usize = 16 << 10;
/// Raw size of a node at most, bytes; checked before anything is allocated.
pub const RAW_BYTES_MAX: usize = 16 << 20;
/// Length of a key at most, bytes.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// Length of a value at most, bytes.
pub const VALUE_BYTES_MAX: usize = 15 << 20;

const HEAD_BYTES: usize = 8;
const RESTART_EVERY: usize = 16;
const POINTER_BYTES: usize = 32;

/// Where a node is in its run, and the hash of its compressed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodePtr {
    /// Where the compressed node starts, bytes.
    pub offset: u64,
    /// Compressed length, bytes.
    pub stored_len: u32,
    /// Decompressed length, bytes.
    pub raw_len: u32,
    /// BLAKE3-128 of the compressed bytes.
    pub hash: Hash128,
}

impl NodePtr {
    /// `offset u64 | stored_len u32 | raw_len u32 | hash`
    pub fn encode(&self) -> [u8; POINTER_BYTES] {
        let mut bytes = [0; POINTER_BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes[16..].copy_from_slice(&self.hash);
        bytes
    }

    /// Takes 32 bytes apart; nothing is checked yet.
    pub fn decode(bytes: &[u8; POINTER_BYTES]) -> Self {
        let part = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let mut hash = [0; 16];
        hash.copy_from_slice(&bytes[16..]);
        let (low, high) = (u32::from_le_bytes(part(0)), u32::from_le_bytes(part(4)));
        Self {
            offset: u64::from(high) << 32 | u64::from(low),
            stored_len: u32::from_le_bytes(part(8)),
            raw_len: u32::from_le_bytes(part(12)),
            hash,
        }
    }

    /// First byte behind it; `None` if that is beyond 64 bits.
    pub fn end(&self) -> Option<u64> {
        self.offset.checked_add(u64::from(self.stored_len))
    }
}

/// A node being filled.
#[derive(Debug)]
pub(super) struct NodeBuilder {
    raw: Vec<u8>,
    restarts: Vec<u32>,
    count: usize,
    last_key: Vec<u8>,
    level: u8,
}

impl NodeBuilder {
    pub(super) fn new(level: u8) -> Self {
        Self { raw: vec![0; HEAD_BYTES], restarts: Vec::new(), count: 0, last_key: Vec::new(), level }
    }

    /// Whether the record belongs into the next node. A node takes two records whatever their size: else an inner level
    /// would not be shorter than the one below it.
    pub(super) fn is_full_for(&self, key: &[u8], value: &[u8]) -> bool {
        let least = if self.level == 0 { 1 } else { 2 };
        self.count >= least && self.raw.len() + self.restarts.len() * 4 + key.len() + value.len() + 12 > NODE_BYTES
    }

    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) {
        let mut shared = 0;
        if self.count.is_multiple_of(RESTART_EVERY) {
            self.restarts.push(self.raw.len() as u32);
        } else {
            shared = self.last_key.iter().zip(key).take_while(|(a, b)| a == b).count();
        }
        let rest = key.get(shared..).unwrap_or_default();
        for number in [shared, rest.len(), value.len()] {
            put_varint(&mut self.raw, number as u32);
        }
        self.raw.extend_from_slice(rest);
        self.raw.extend_from_slice(value);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.count += 1;
    }

    /// Bytes of the records so far.
    pub(super) fn raw_bytes(&self) -> u64 {
        (self.raw.len() - HEAD_BYTES) as u64
    }

    /// The raw bytes; the builder is empty again.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let mut raw = std::mem::replace(self, Self::new(self.level));
        raw.raw[0] = raw.level;
        raw.raw[4..HEAD_BYTES].copy_from_slice(&(raw.count as u32).to_le_bytes());
        for restart in &raw.restarts {
            raw.raw.extend_from_slice(&restart.to_le_bytes());
        }
        raw.raw
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A checked, decompressed node. Everything in it has been walked once, so that later steps cannot leave its bounds.
#[derive(Debug)]
pub struct Node {
    raw: Vec<u8>,
    /// First byte behind the records: the restart table.
    records_end: usize,
    count: usize,
}

/// A record of a node: where its parts are.
#[derive(Clone, Copy, Debug)]
struct Record {
    shared: usize,
    key: (usize, usize),
    value: (usize, usize),
}

impl Node {
    /// Checks the compressed bytes against `pointer` and decompresses them; `level` is where the tree expects it.
    pub fn decode(stored: &[u8], pointer: &NodePtr, level: u8) -> Result<Self, RunError> {
        if stored.len() != pointer.stored_len as usize || hash128(stored) != pointer.hash {
            return Err(RunError::Corrupt("a node does not match its hash"));
        }
        let raw_len = pointer.raw_len as usize;
        if raw_len > RAW_BYTES_MAX {
            return Err(RunError::Corrupt("a node is larger than the limit"));
        }
        let content = zstd::zstd_safe::get_frame_content_size(stored).ok().flatten();
        if content != Some(raw_len as u64) {
            return Err(RunError::Corrupt("a node has another size than its pointer says"));
        }
        let raw =
            zstd::bulk::decompress(stored, raw_len).map_err(|_| RunError::Corrupt("a node does not decompress"))?;
        Self::from_raw(raw, level)
    }

    /// Checks decompressed bytes.
    pub fn from_raw(raw: Vec<u8>, level: u8) -> Result<Self, RunError> {
        let bad = RunError::Corrupt("a node breaks the format");
        let Some((&[found, 0, 0, 0, a, b, c, d], _)) = raw.split_first_chunk::<HEAD_BYTES>() else {
            return Err(bad);
        };
        let count = u32::from_le_bytes([a, b, c, d]) as usize;
        let table = count.div_ceil(RESTART_EVERY).checked_mul(4);
        let records_end = table.and_then(|table| raw.len().checked_sub(table)).filter(|end| *end >= HEAD_BYTES);
        let (Some(records_end), true, true) = (records_end, found == level, count > 0) else {
            return Err(bad);
        };
        let node = Self { raw, records_end, count };
        node.is_sound(level).then_some(node).ok_or(bad)
    }

    /// Walks all records: bounds, order, restart points; pointers of inner nodes.
    fn is_sound(&self, level: u8) -> bool {
        let (mut at, mut key, mut next) = (HEAD_BYTES, Vec::new(), Vec::new());
        for index in 0..self.count {
            let restart = index.is_multiple_of(RESTART_EVERY);
            if restart && self.restart(index / RESTART_EVERY) != at {
                return false;
            }
            let Some(record) = self.record(at) else { return false };
            if record.shared > key.len() || (restart && record.shared != 0) {
                return false;
            }
            next.clear();
            next.extend_from_slice(&key[..record.shared]);
            next.extend_from_slice(self.bytes(record.key));
            if next.len() > KEY_BYTES_MAX || (index > 0 && next <= key) {
                return false;
            }
            if level > 0 && record.value.1 - record.value.0 != POINTER_BYTES {
                return false;
            }
            std::mem::swap(&mut key, &mut next);
            at = record.value.1;
        }
        at == self.records_end
    }

    /// Number of records.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of memory that it takes, about.
    pub fn memory_bytes(&self) -> usize {
        self.raw.capacity() + size_of::<Self>()
    }

    /// The `index`-th restart offset; the table's end for a number beyond it.
    fn restart(&self, index: usize) -> usize {
        let table = self.raw.get(self.records_end + index * 4..).and_then(|b| b.first_chunk());
        table.map_or(self.records_end, |b| u32::from_le_bytes(*b) as usize)
    }

    fn bytes(&self, range: (usize, usize)) -> &[u8] {
        self.raw.get(range.0..range.1).unwrap_or_default()
    }

    fn record(&self, at: usize) -> Option<Record> {
        let mut reader = self.raw.get(..self.records_end)?.get(at..)?;
        let shared = take_varint(&mut reader)?;
        let unshared = take_varint(&mut reader)?;
        let value_len = take_varint(&mut reader)?;
        let key = self.records_end - reader.len();
        let value = key.checked_add(unshared)?;
        let end = value.checked_add(value_len).filter(|end| *end <= self.records_end)?;
        Some(Record { shared, key: (key, value), value: (value, end) })
    }
}

fn take_varint(reader: &mut &[u8]) -> Option<usize> {
    let mut number = 0_u32;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, rest) = reader.split_first()?;
        *reader = rest;
        let bits = u32::from(byte & 0x7f);
        number |= bits.checked_shl(shift).filter(|b| b >> shift == bits)?;
        if byte & 0x80 == 0 {
            return Some(number as usize);
        }
    }
    None
}

/// A place in a node: before its first record, on one, or behind its last.
#[derive(Clone, Debug)]
pub struct NodeCursor {
    key: Vec<u8>,
    value: (usize, usize),
    next: usize,
    index: usize,
}

impl Default for NodeCursor {
    /// Before the first record of whatever node.
    fn default() -> Self {
        Self { key: Vec::new(), value: (0, 0), next: HEAD_BYTES, index: 0 }
    }
}

impl NodeCursor {
    /// Stands on the first record with a key not below `from`; `false` if there is none.
    pub fn seek(&mut self, node: &Node, from: &[u8]) -> bool {
        self.rewind(node, node.last_restart(|key| key < from));
        while self.advance(node) {
            if self.key.as_slice() >= from {
                return true;
            }
        }
        false
    }

    /// Stands on the last record with a key not above `key` (in an inner node: the child that may hold it); `false` if
    /// there is none.
    pub fn seek_child(&mut self, node: &Node, key: &[u8]) -> bool {
        self.rewind(node, node.last_restart(|candidate| candidate <= key));
        let mut ahead = self.clone();
        let mut found = false;
        while ahead.advance(node) && ahead.key.as_slice() <= key {
            self.clone_from(&ahead);
            found = true;
        }
        found
    }

    /// Steps to the next record; `false` at the end.
    pub fn advance(&mut self, node: &Node) -> bool {
        if self.index >= node.count {
            return false;
        }
        let Some(record) = node.record(self.next) else { return false };
        self.key.truncate(record.shared);
        self.key.extend_from_slice(node.bytes(record.key));
        self.value = record.value;
        self.next = record.value.1;
        self.index += 1;
        true
    }

    /// The key of the record that it stands on.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The value of the record that it stands on.
    pub fn value<'n>(&self, node: &'n Node) -> &'n [u8] {
        node.bytes(self.value)
    }

    /// The pointer in the record that it stands on, in an inner node.
    pub fn pointer(&self, node: &Node) -> Option<NodePtr> {
        self.value(node).try_into().ok().map(NodePtr::decode)
    }

    fn rewind(&mut self, node: &Node, restart: usize) {
        self.key.clear();
        self.next = node.restart(restart);
        self.index = restart * RESTART_EVERY;
    }
}

impl Node {
    /// The last restart point whose key satisfies `low` (true for a prefix of all keys); the first one if none does.
    fn last_restart(&self, low: impl Fn(&[u8]) -> bool) -> usize {
        let (mut first, mut end) = (0, self.count.div_ceil(RESTART_EVERY));
        while end - first > 1 {
            let middle = first.midpoint(end);
            let key = self.record(self.restart(middle)).map_or(&[][..], |record| self.bytes(record.key));
            if low(key) {
                first = middle;
            } else {
                end = middle;
            }
        }
        first
    }

    /// The value of exactly `key`.
    pub fn find(&self, key: &[u8]) -> Option<&[u8]> {
        let mut cursor = NodeCursor::default();
        let found = cursor.seek(self, key) && cursor.key().cmp(key) == Ordering::Equal;
        found.then(|| cursor.value(self))
    }
}
