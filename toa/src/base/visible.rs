//! What a stack of runs shows: newest first, tombstones end a search, and a run's range tombstones hide keys of older
//! runs.

use crate::run::{NodeSource, RunCursor, Tree};
use bytes::Bytes;
use kvfs::Ino;
use kvfs::base::{BaseError, Visit};
use kvfs::schema::key::Parts;
use kvfs::schema::{Key, Space, Value};

/// A run and its age: runs of the same age (one run, split by key) hide nothing of each other.
#[derive(Debug)]
pub(crate) struct Aged<S> {
    pub(crate) age: usize,
    pub(crate) tree: Tree<S>,
}

/// Which keys of one inode are hidden from which age on.
#[derive(Debug, Default)]
struct Hidden {
    ino: Option<Ino>,
    /// The youngest run with a tombstone of the inode.
    dead_at: Option<usize>,
    /// Age, and the first window that is dead in older runs.
    cuts: Vec<(usize, u64)>,
}

impl Hidden {
    fn of(ino: Ino) -> Self {
        Self { ino: Some(ino), ..Self::default() }
    }

    /// Takes note of a record of this inode, if it hides anything.
    fn note(&mut self, space: Space, age: usize, value: &[u8]) -> Result<(), BaseError> {
        let is_dead = Value::is_tombstone(value);
        match space {
            Space::Inode if is_dead => self.dead_at = Some(self.dead_at.map_or(age, |other| other.min(age))),
            Space::Cut if !is_dead => match Value::decode(value) {
                Ok((_, Value::Cut(first))) => self.cuts.push((age, first)),
                _ => return Err(BaseError::Corrupt("a cut that is none".into())),
            },
            _ => {}
        }
        Ok(())
    }

    /// Reads what run `aged` says of this inode.
    fn consult<S: NodeSource<Error = BaseError>>(&mut self, aged: &Aged<S>) -> Result<(), BaseError> {
        let Some(ino) = self.ino else { return Ok(()) };
        for (space, key) in [(Space::Inode, Key::inode(ino)), (Space::Cut, Key::cut(ino))] {
            if let Some(value) = aged.tree.get(key.as_bytes())? {
                self.note(space, aged.age, &value)?;
            }
        }
        Ok(())
    }

    fn hides(&self, parts: &Parts<'_>, age: usize) -> bool {
        let dead = self.dead_at.is_some_and(|at| at < age);
        match parts.space {
            Space::Xattr => dead,
            Space::Window => {
                let window = parts.number().unwrap_or(u64::MAX);
                dead || self.cuts.iter().any(|(at, first)| *at < age && *first <= window)
            }
            _ => false,
        }
    }
}

/// The live value of `key` in `runs` (newest first). Cuts have done their work within the base: nobody above sees them.
pub(crate) fn get<S: NodeSource<Error = BaseError>>(runs: &[Aged<S>], key: &[u8]) -> Result<Option<Bytes>, BaseError> {
    let Some(parts) = Parts::parse(key).filter(|parts| parts.space != Space::Cut) else { return Ok(None) };
    let may_be_hidden = matches!(parts.space, Space::Window | Space::Xattr);
    let mut hidden = Hidden::of(parts.ino);
    for (at, aged) in runs.iter().enumerate() {
        if hidden.hides(&parts, aged.age) {
            return Ok(None);
        }
        if let Some(value) = aged.tree.get(key)? {
            return Ok(Some(value).filter(|value| !Value::is_tombstone(value)));
        }
        if may_be_hidden && at + 1 < runs.len() {
            hidden.consult(aged)?;
        }
    }
    Ok(None)
}

/// A run in a merge.
struct Head<'r, S> {
    age: usize,
    cursor: RunCursor<'r, S>,
    more: bool,
}

/// Visits the live keys of `runs` (newest first) in `[from, end)`.
pub(crate) fn scan<S: NodeSource<Error = BaseError>>(
    runs: &[Aged<S>],
    (from, end): (&[u8], &[u8]),
    visit: &mut Visit<'_>,
) -> Result<(), BaseError> {
    let mut hidden = hidden_before(runs, from)?;
    let mut heads = Vec::with_capacity(runs.len());
    for aged in runs {
        let mut cursor = aged.tree.cursor(from);
        let more = cursor.advance()?;
        heads.push(Head { age: aged.age, cursor, more });
    }
    let mut key = Vec::new();
    loop {
        // Of equal keys `min_by` takes the first: the newest run.
        let head = heads.iter().filter(|head| head.more).min_by(|a, b| a.cursor.key().cmp(b.cursor.key()));
        let Some(head) = head.filter(|head| head.cursor.key() < end) else { return Ok(()) };
        key.clear();
        key.extend_from_slice(head.cursor.key());
        let parts = Parts::parse(&key).ok_or_else(|| BaseError::Corrupt("a key of no known space".into()))?;
        if hidden.ino != Some(parts.ino) {
            hidden = Hidden::of(parts.ino);
        }
        for same in heads.iter().filter(|other| other.more && other.cursor.key() == key) {
            hidden.note(parts.space, same.age, same.cursor.value())?;
        }
        let shown = parts.space != Space::Cut && !Value::is_tombstone(head.cursor.value());
        if shown && !hidden.hides(&parts, head.age) && visit(&key, head.cursor.value()).is_break() {
            return Ok(());
        }
        for same in heads.iter_mut().filter(|other| other.more && other.cursor.key() == key) {
            same.more = same.cursor.advance()?;
        }
    }
}

/// What the records of an inode in front of `from` hide behind it.
fn hidden_before<S: NodeSource<Error = BaseError>>(runs: &[Aged<S>], from: &[u8]) -> Result<Hidden, BaseError> {
    let Some((ino, rest)) = from.split_first_chunk::<8>() else { return Ok(Hidden::default()) };
    let mut hidden = Hidden::of(Ino(u64::from_be_bytes(*ino)));
    // Only windows and xattrs can be hidden; a scan of dirents needs nothing of this.
    let first_space = rest.first().copied().unwrap_or(0);
    if first_space > Space::Inode as u8 && first_space <= Space::Xattr as u8 && runs.len() > 1 {
        for aged in runs {
            hidden.consult(aged)?;
        }
    }
    Ok(hidden)
}
