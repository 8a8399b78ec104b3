//! Reading records in order, a bounded batch at a time.
//!
//! A scan's visitor must not look up other keys (a thread may hold one read transaction), and a base may lack bytes in
//! the middle of a scan: so rows are gathered in batches, and the next batch starts behind the last row.

use super::CollectInput;
use super::error::CollectError;
use bytes::Bytes;
use kvfs::base::{Base, BaseError};
use kvfs::changes::ChangeSet;
use kvfs::schema::key::Parts;
use kvfs::schema::{Key, Value};
use kvfs::{FsError, Ino, Xid};
use std::collections::VecDeque;
use std::ops::ControlFlow;

/// Rows in one batch.
const BATCH_ROWS: usize = 1024;
/// Bytes in one batch.
const BATCH_BYTES: usize = 1 << 20;

/// A record: key and encoded value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub key: Vec<u8>,
    pub value: Bytes,
}

impl Row {
    pub fn parts(&self) -> Result<Parts<'_>, CollectError> {
        parts(&self.key)
    }

    pub fn decode(&self) -> Result<(Xid, Value), CollectError> {
        decode(&self.key, &self.value)
    }
}

pub(super) fn parts(key: &[u8]) -> Result<Parts<'_>, CollectError> {
    Parts::parse(key).ok_or_else(|| CollectError::Inconsistent(format!("{key:02x?} is not a key")))
}

pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<(Xid, Value), CollectError> {
    Value::decode(value).map_err(|source| CollectError::Value { ino: parts(key).map_or(0, |p| p.ino.0), source })
}

/// The changes over the base.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub changes: &'a dyn ChangeSet,
    pub base: &'a dyn Base,
}

impl<'a> View<'a> {
    pub fn new(input: &CollectInput<'a>) -> Self {
        Self { changes: input.changes, base: input.base }
    }

    /// The live value of a key; keys that a range tombstone may hide are not asked for here.
    pub fn get(&self, key: &Key) -> Result<Option<Value>, CollectError> {
        let changed = local(|| self.changes.get(key.as_bytes()))?;
        let Some(value) = (match changed {
            Some(value) => Some(value),
            None => self.base_get(key)?,
        }) else {
            return Ok(None);
        };
        match decode(key.as_bytes(), &value)?.1 {
            Value::Tombstone => Ok(None),
            live => Ok(Some(live)),
        }
    }

    pub fn base_get(&self, key: &Key) -> Result<Option<Bytes>, CollectError> {
        resident(|| self.base.get(key.as_bytes()))
    }

    /// Whether an inode can be in the base at all.
    pub fn is_old(&self, ino: Ino) -> bool {
        ino < self.base.ino_end()
    }

    pub fn changed(&self, from: Key, end: Key) -> Rows<'a> {
        Rows::new(Source::Changes(self.changes), from, end)
    }

    pub fn in_base(&self, from: Key, end: Key) -> Rows<'a> {
        Rows::new(Source::Base(self.base), from, end)
    }
}

/// Asks the base until what it lacks has been fetched. Every fetch makes progress, or fails within its timeout.
fn resident<T>(mut ask: impl FnMut() -> Result<T, BaseError>) -> Result<T, CollectError> {
    loop {
        match ask() {
            Err(BaseError::NotResident(need)) => need.fetch()?,
            answer => return Ok(answer?),
        }
    }
}

/// The same for the local layers, whose older bytes may have been evicted.
pub(super) fn local<T>(mut ask: impl FnMut() -> Result<T, FsError>) -> Result<T, CollectError> {
    loop {
        match ask() {
            Err(FsError::NotResident(need)) => need.fetch()?,
            answer => return Ok(answer?),
        }
    }
}

enum Source<'a> {
    Changes(&'a dyn ChangeSet),
    Base(&'a dyn Base),
}

/// See the file's first line.
pub(super) struct Rows<'a> {
    source: Source<'a>,
    from: Vec<u8>,
    end: Vec<u8>,
    ready: VecDeque<Row>,
    more: bool,
}

impl<'a> Rows<'a> {
    fn new(source: Source<'a>, from: Key, end: Key) -> Self {
        Self { source, from: from.into_bytes(), end: end.into_bytes(), ready: VecDeque::new(), more: true }
    }

    pub fn next(&mut self) -> Result<Option<Row>, CollectError> {
        self.fill()?;
        Ok(self.ready.pop_front())
    }

    pub fn peek(&mut self) -> Result<Option<&Row>, CollectError> {
        self.fill()?;
        Ok(self.ready.front())
    }

    /// Goes on at `key`, leaving out what lies before it.
    pub fn seek(&mut self, key: &Key) {
        while self.ready.front().is_some_and(|row| row.key.as_slice() < key.as_bytes()) {
            self.ready.pop_front();
        }
        if self.ready.is_empty() && self.from.as_slice() < key.as_bytes() {
            self.from = key.as_bytes().to_vec();
        }
    }

    fn fill(&mut self) -> Result<(), CollectError> {
        while self.ready.is_empty() && self.more {
            self.batch()?;
        }
        Ok(())
    }

    fn batch(&mut self) -> Result<(), CollectError> {
        let ready = &mut self.ready;
        let (mut bytes, mut full) = (0, false);
        let mut visit = |key: &[u8], value: &[u8]| {
            ready.push_back(Row { key: key.to_vec(), value: Bytes::copy_from_slice(value) });
            bytes += key.len() + value.len();
            full = ready.len() >= BATCH_ROWS || bytes >= BATCH_BYTES;
            if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let answer = match self.source {
            Source::Changes(changes) => changes.scan(&self.from, &self.end, &mut visit),
            Source::Base(base) => base.scan(&self.from, &self.end, &mut visit).map_err(FsError::from),
        };
        if let Some(last) = self.ready.back() {
            self.from.clone_from(&last.key);
            self.from.push(0);
        }
        match answer {
            Ok(()) => self.more = full,
            Err(FsError::NotResident(need)) => need.fetch()?,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
