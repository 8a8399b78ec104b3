//! What a stack of runs shows: newest first, tombstones end a search, and a run's range tombstones hide keys of older
//! runs.

use crate::run::{NodeSource, RunCursor, Tree};
use bytes::Bytes;
use kvfs::Ino;
use kvfs::base::{BaseError, Visit};
use kvfs::schema::key::Parts;
use kvfs::schema::{Key, Space, Value};

/// A tree of nodes that is perhaps opened only when it is needed.
pub(crate) trait OpenTree {
    /// Where its nodes come from.
    type Nodes: NodeSource<Error = BaseError>;
    /// The open tree.
    fn tree(&self) -> Result<&Tree<Self::Nodes>, BaseError>;
}

/// A run of a stack: its parts in key order, at least one. An inode has all its keys in one part, so that parts never
/// hide anything of each other.
#[derive(Debug)]
pub(crate) struct StackedRun<T> {
    pub(crate) parts: Vec<Part<T>>,
}

/// The keys of the inodes from `from` on, up to the next part. The first one has whatever lies before it.
#[derive(Debug)]
pub(crate) struct Part<T> {
    pub(crate) from: Ino,
    pub(crate) tree: T,
}

impl<T: OpenTree> StackedRun<T> {
    /// Number of the part with the keys of `ino`.
    fn part_of(&self, ino: Ino) -> usize {
        self.parts.partition_point(|part| part.from <= ino).saturating_sub(1)
    }

    /// The value of exactly `key`, a key of `ino`.
    fn get(&self, ino: Ino, key: &[u8]) -> Result<Option<Bytes>, BaseError> {
        match self.parts.get(self.part_of(ino)) {
            Some(part) => part.tree.tree()?.get(key),
            None => Ok(None),
        }
    }
}

/// Which keys of one inode are hidden from which age on. The age of a run is its place in the stack, 0 for the newest.
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

    /// Reads what the run of that age says of this inode.
    fn consult<T: OpenTree>(&mut self, age: usize, run: &StackedRun<T>) -> Result<(), BaseError> {
        let Some(ino) = self.ino else { return Ok(()) };
        for (space, key) in [(Space::Inode, Key::inode(ino)), (Space::Cut, Key::cut(ino))] {
            if let Some(value) = run.get(ino, key.as_bytes())? {
                self.note(space, age, &value)?;
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
pub(crate) fn get<T: OpenTree>(runs: &[StackedRun<T>], key: &[u8]) -> Result<Option<Bytes>, BaseError> {
    let Some(parts) = Parts::parse(key).filter(|parts| parts.space != Space::Cut) else { return Ok(None) };
    let may_be_hidden = matches!(parts.space, Space::Window | Space::Xattr);
    let mut hidden = Hidden::of(parts.ino);
    for (age, run) in runs.iter().enumerate() {
        if hidden.hides(&parts, age) {
            return Ok(None);
        }
        if let Some(value) = run.get(parts.ino, key)? {
            return Ok(Some(value).filter(|value| !Value::is_tombstone(value)));
        }
        if may_be_hidden && age + 1 < runs.len() {
            hidden.consult(age, run)?;
        }
    }
    Ok(None)
}

/// A run in a merge: a cursor that goes on in the next part, which is opened then.
struct Head<'r, T: OpenTree> {
    age: usize,
    /// On a record; `None` behind the last one.
    cursor: Option<RunCursor<'r, T::Nodes>>,
    rest: std::slice::Iter<'r, Part<T>>,
    end: &'r [u8],
}

impl<'r, T: OpenTree> Head<'r, T> {
    fn start(age: usize, run: &'r StackedRun<T>, (from, end): (&[u8], &'r [u8])) -> Result<Self, BaseError> {
        let first = ino_of(from).map_or(0, |ino| run.part_of(ino));
        let mut rest = run.parts.get(first..).unwrap_or_default().iter();
        let mut cursor = rest.next().map(|part| part.tree.tree()).transpose()?.map(|tree| tree.cursor(from));
        if let Some(on) = &mut cursor
            && !on.advance()?
        {
            cursor = None;
        }
        let mut head = Self { age, cursor, rest, end };
        if head.cursor.is_none() {
            head.next_part()?;
        }
        Ok(head)
    }

    fn key(&self) -> Option<&[u8]> {
        self.cursor.as_ref().map(RunCursor::key)
    }

    fn is_on(&self, key: &[u8]) -> bool {
        self.key() == Some(key)
    }

    fn value(&self) -> &[u8] {
        self.cursor.as_ref().map_or(&[], RunCursor::value)
    }

    fn advance(&mut self) -> Result<(), BaseError> {
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        if cursor.advance()? { Ok(()) } else { self.next_part() }
    }

    /// To the first record of the parts that follow, as far as anybody wants them.
    fn next_part(&mut self) -> Result<(), BaseError> {
        self.cursor = None;
        for part in self.rest.by_ref() {
            if part.from.0.to_be_bytes().as_slice() >= self.end {
                break;
            }
            let mut cursor = part.tree.tree()?.cursor(&[]);
            if cursor.advance()? {
                self.cursor = Some(cursor);
                break;
            }
        }
        Ok(())
    }
}

/// Visits the live keys of `runs` (newest first) in `[from, end)`.
pub(crate) fn scan<T: OpenTree>(
    runs: &[StackedRun<T>],
    (from, end): (&[u8], &[u8]),
    visit: &mut Visit<'_>,
) -> Result<(), BaseError> {
    let mut hidden = hidden_before(runs, from)?;
    let heads = runs.iter().enumerate().map(|(age, run)| Head::start(age, run, (from, end)));
    let mut heads = heads.collect::<Result<Vec<_>, _>>()?;
    let mut key = Vec::new();
    loop {
        // Of equal keys `min_by` takes the first: the newest run.
        let on_records = heads.iter().filter_map(|head| Some((head.key()?, head)));
        let Some((least, head)) = on_records.min_by(|a, b| a.0.cmp(b.0)).filter(|(key, _)| *key < end) else {
            return Ok(());
        };
        key.clear();
        key.extend_from_slice(least);
        let parts = Parts::parse(&key).ok_or_else(|| BaseError::Corrupt("a key of no known space".into()))?;
        if hidden.ino != Some(parts.ino) {
            hidden = Hidden::of(parts.ino);
        }
        for same in heads.iter().filter(|other| other.is_on(&key)) {
            hidden.note(parts.space, same.age, same.value())?;
        }
        let shown = parts.space != Space::Cut && !Value::is_tombstone(head.value());
        if shown && !hidden.hides(&parts, head.age) && visit(&key, head.value()).is_break() {
            return Ok(());
        }
        for same in heads.iter_mut().filter(|other| other.is_on(&key)) {
            same.advance()?;
        }
    }
}

/// The inode that a key, or what begins like one, is of.
fn ino_of(key: &[u8]) -> Option<Ino> {
    key.first_chunk::<8>().map(|ino| Ino(u64::from_be_bytes(*ino)))
}

/// What the records of an inode in front of `from` hide behind it.
fn hidden_before<T: OpenTree>(runs: &[StackedRun<T>], from: &[u8]) -> Result<Hidden, BaseError> {
    let Some(ino) = ino_of(from) else { return Ok(Hidden::default()) };
    let mut hidden = Hidden::of(ino);
    // Only windows and xattrs can be hidden; a scan of dirents needs nothing of this.
    let first_space = from.get(8).copied().unwrap_or(0);
    if first_space > Space::Inode as u8 && first_space <= Space::Xattr as u8 && runs.len() > 1 {
        for (age, run) in runs.iter().enumerate() {
            hidden.consult(age, run)?;
        }
    }
    Ok(hidden)
}
