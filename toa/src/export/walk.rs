//! The order of the tar: depth first by directory entries, with everything about each inode in one look at the index.

use super::content::{WINDOWS_HELD, Windows, frames_of};
use super::error::ExportError;
use super::links::Links;
use crate::base::RunBase;
use bytes::Bytes;
use kvfs::Ino;
use kvfs::base::{Base, BaseError};
use kvfs::schema::key::Parts;
use kvfs::schema::{DirentValue, FileKind, FrameRef, InodeValue, Key, Space, Value};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Entries of a directory that are brought into the order of their inodes at once.
const ENTRIES_SORTED: usize = 1024;
/// Subdirectories whose names are held while the first of them is walked, for each directory on the way down.
const SUBDIRECTORIES_HELD: usize = 16;

/// One member to be.
pub(super) struct Step {
    pub path: Vec<u8>,
    pub ino: Ino,
    pub inode: Arc<InodeValue>,
    pub what: What,
}

pub(super) enum What {
    /// A further name of the file that is the member of that path.
    Link(Vec<u8>),
    /// The first name, with what else the index says of the inode.
    Node {
        xattrs: Vec<(Vec<u8>, Bytes)>,
        windows: Windows,
        /// Where the windows begin that are not in `windows`.
        next_window: Option<u64>,
    },
}

impl Step {
    /// Whether more of it is in the index than here.
    pub fn is_partial(&self) -> bool {
        matches!(self.what, What::Node { next_window: Some(_), .. })
    }

    /// Memory that it takes, bytes.
    pub fn memory_bytes(&self) -> usize {
        let more = match &self.what {
            What::Link(target) => target.len(),
            What::Node { xattrs, windows, .. } => {
                let xattrs: usize = xattrs.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
                xattrs + windows.iter().map(|(_, window)| window.memory_bytes() + 64).sum::<usize>()
            }
        };
        size_of::<Self>() + size_of::<InodeValue>() + self.path.len() + more
    }

    /// Shows each frame that it needs, as far as it is known.
    pub fn frames(&self, visit: impl FnMut(&FrameRef)) {
        if let What::Node { windows, .. } = &self.what {
            frames_of(windows, self.inode.size, visit);
        }
    }
}

/// Walks a snapshot. Holds a cursor for each directory on the way down, and a few names.
pub(super) struct Walk<'a> {
    base: &'a RunBase,
    /// `None` before the root.
    stack: Option<Vec<Dir>>,
    path: Vec<u8>,
    ready: VecDeque<(Vec<u8>, DirentValue)>,
    links: Links,
}

/// A directory on the way down: first everything in it that is no directory, then those.
struct Dir {
    ino: Ino,
    path_len: usize,
    others: Cursor,
    directories: Cursor,
    pending: VecDeque<(Vec<u8>, DirentValue)>,
}

/// How far the entries of a directory are read.
enum Cursor {
    Start,
    After(Vec<u8>),
    End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Directories,
    Others,
}

impl Which {
    fn fits(self, kind: FileKind) -> bool {
        (kind == FileKind::Directory) == (self == Self::Directories)
    }
}

impl<'a> Walk<'a> {
    pub fn new(base: &'a RunBase) -> Self {
        Self { base, stack: None, path: Vec::new(), ready: VecDeque::new(), links: Links::default() }
    }

    /// The next member; the root comes first.
    pub fn next_step(&mut self) -> Result<Option<Step>, ExportError> {
        let Some(stack) = &mut self.stack else {
            self.stack = Some(vec![Dir::new(Ino::ROOT, 0)]);
            let dirent = DirentValue { ino: Ino::ROOT, kind: FileKind::Directory };
            return self.step(b".".to_vec(), dirent).map(Some);
        };
        loop {
            let Some(dir) = stack.last_mut() else { return Ok(None) };
            self.path.truncate(dir.path_len);
            if let Some((name, dirent)) = self.ready.pop_front() {
                push_name(&mut self.path, &name);
                let path = self.path.clone();
                return self.step(path, dirent).map(Some);
            }
            let shown = if self.path.is_empty() { &b"."[..] } else { &self.path };
            if !matches!(dir.others, Cursor::End) {
                let mut batch = entries(self.base, dir.ino, &mut dir.others, (Which::Others, ENTRIES_SORTED))
                    .map_err(ExportError::object(shown))?;
                batch.sort_by_key(|(_, dirent)| dirent.ino);
                self.ready.extend(batch);
                continue;
            }
            if dir.pending.is_empty() && !matches!(dir.directories, Cursor::End) {
                let held = (Which::Directories, SUBDIRECTORIES_HELD);
                let more = entries(self.base, dir.ino, &mut dir.directories, held);
                dir.pending.extend(more.map_err(ExportError::object(shown))?);
            }
            let Some((name, dirent)) = dir.pending.pop_front() else {
                stack.pop();
                continue;
            };
            let parent = dir.ino;
            push_name(&mut self.path, &name);
            stack.push(Dir::new(dirent.ino, self.path.len()));
            let step = self.step(self.path.clone(), dirent)?;
            // What a directory says of its place is the truth: so no walk goes in circles, whatever the entries say.
            if step.inode.parent != parent || *step.inode.name != *name {
                return Err(ExportError::index(&step.path, "the directory says that it is somewhere else"));
            }
            return Ok(Some(step));
        }
    }

    /// Checks that nothing is missing.
    pub fn finish(&self) -> Result<(), ExportError> {
        self.links.finish()
    }

    fn step(&mut self, path: Vec<u8>, dirent: DirentValue) -> Result<Step, ExportError> {
        let ino = dirent.ino;
        let found = look(self.base, ino).map_err(ExportError::object(&path))?;
        let Some((inode, mut what)) = found else {
            return Err(ExportError::index(&path, format!("there is no inode {ino}")));
        };
        if inode.kind != dirent.kind {
            return Err(ExportError::index(&path, format!("inode {ino} is a {:?} by its entry", dirent.kind)));
        }
        if let Some(first) = self.links.first_name(ino, &inode, &path) {
            what = What::Link(first);
        }
        Ok(Step { path, ino, inode, what })
    }
}

impl Dir {
    fn new(ino: Ino, path_len: usize) -> Self {
        Self { ino, path_len, others: Cursor::Start, directories: Cursor::Start, pending: VecDeque::new() }
    }
}

fn push_name(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

fn wrong_key() -> BaseError {
    BaseError::Corrupt("the index holds a key of no known space".into())
}

/// Takes the first error out of a visit, and ends it.
fn keep<T>(problem: &mut Option<BaseError>, result: Result<T, BaseError>) -> ControlFlow<(), T> {
    match result {
        Ok(value) => ControlFlow::Continue(value),
        Err(error) => {
            *problem = Some(error);
            ControlFlow::Break(())
        }
    }
}

fn decode(ino: Ino, value: &[u8]) -> Result<Value, BaseError> {
    let wrong = |error| BaseError::Corrupt(format!("inode {ino}: {error}").into());
    Value::decode(value).map(|(_, value)| value).map_err(wrong)
}

/// The next entries of a directory, and where to go on.
fn entries(
    base: &RunBase,
    dir: Ino,
    cursor: &mut Cursor,
    (which, max): (Which, usize),
) -> Result<Vec<(Vec<u8>, DirentValue)>, BaseError> {
    let from = match cursor {
        Cursor::Start => Key::first_of(dir, Space::Dirent).into_bytes(),
        // The first key that can follow.
        Cursor::After(name) => [Key::dirent(dir, name).as_bytes(), &[0]].concat(),
        Cursor::End => return Ok(Vec::new()),
    };
    let (mut found, mut problem) = (Vec::new(), None);
    base.scan(&from, Key::end_of(dir, Space::Dirent).as_bytes(), &mut |key, value| {
        let entry = Parts::parse(key).ok_or_else(wrong_key).and_then(|parts| match decode(dir, value)? {
            Value::Dirent(dirent) => Ok((parts.rest.to_vec(), dirent)),
            _ => Err(BaseError::Corrupt(format!("inode {dir}: an entry that is none").into())),
        });
        let entry = keep(&mut problem, entry)?;
        if which.fits(entry.1.kind) {
            found.push(entry);
        }
        if found.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    *cursor = match found.last() {
        Some((name, _)) if found.len() >= max => Cursor::After(name.clone()),
        _ => Cursor::End,
    };
    problem.map_or(Ok(found), Err)
}

/// Everything about an inode, its entries as a directory apart; of a large file only its first windows.
fn look(base: &RunBase, ino: Ino) -> Result<Option<(Arc<InodeValue>, What)>, BaseError> {
    let (mut inode, mut windows, mut xattrs) = (None, Windows::new(), Vec::new());
    let (mut next_window, mut problem) = (None, None);
    base.scan(Key::inode(ino).as_bytes(), Key::end_of(ino, Space::Xattr).as_bytes(), &mut |key, value| {
        let parts = keep(&mut problem, Parts::parse(key).ok_or_else(wrong_key))?;
        match keep(&mut problem, decode(ino, value))? {
            Value::Inode(found) => inode = Some(found),
            Value::Window(window) => {
                let number = parts.number().unwrap_or_default();
                if windows.len() >= WINDOWS_HELD {
                    next_window = Some(number);
                    return ControlFlow::Break(());
                }
                windows.push((number, window));
            }
            Value::Xattr(bytes) => xattrs.push((parts.rest.to_vec(), bytes)),
            _ => {
                problem = Some(BaseError::Corrupt(format!("inode {ino} holds a value of another kind").into()));
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    if let Some(problem) = problem {
        return Err(problem);
    }
    if next_window.is_some() {
        xattrs = xattrs_of(base, ino)?;
    }
    Ok(inode.map(|inode| (inode, What::Node { xattrs, windows, next_window })))
}

fn xattrs_of(base: &RunBase, ino: Ino) -> Result<Vec<(Vec<u8>, Bytes)>, BaseError> {
    let (mut found, mut problem) = (Vec::new(), None);
    let (from, end) = (Key::first_of(ino, Space::Xattr), Key::end_of(ino, Space::Xattr));
    base.scan(from.as_bytes(), end.as_bytes(), &mut |key, value| {
        let parts = keep(&mut problem, Parts::parse(key).ok_or_else(wrong_key))?;
        if let Value::Xattr(bytes) = keep(&mut problem, decode(ino, value))? {
            found.push((parts.rest.to_vec(), bytes));
        }
        ControlFlow::Continue(())
    })?;
    problem.map_or(Ok(found), Err)
}

/// At most `max` windows of a file from number `first` on, and the number of the one that follows.
pub(super) fn windows_from(
    base: &RunBase,
    ino: Ino,
    first: u64,
    max: usize,
) -> Result<(Windows, Option<u64>), BaseError> {
    let (mut found, mut next, mut problem) = (Windows::new(), None, None);
    let (from, end) = (Key::window(ino, first), Key::end_of(ino, Space::Window));
    base.scan(from.as_bytes(), end.as_bytes(), &mut |key, value| {
        let parts = keep(&mut problem, Parts::parse(key).ok_or_else(wrong_key))?;
        let number = parts.number().unwrap_or_default();
        if found.len() >= max {
            next = Some(number);
            return ControlFlow::Break(());
        }
        if let Value::Window(window) = keep(&mut problem, decode(ino, value))? {
            found.push((number, window));
        }
        ControlFlow::Continue(())
    })?;
    problem.map_or(Ok((found, next)), Err)
}
