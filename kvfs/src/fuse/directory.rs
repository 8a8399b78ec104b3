//! Open directories: cookies that mean a name, so that a listing survives every change under it.
//!
//! The kernel gives back the cookie of the last entry that the application has consumed, or any older one (seekdir).
//! A position counted in entries would skip or repeat when entries come and go. So a handle remembers which name it
//! handed out under which cookie, and goes on behind that name. The memory is that of the names listed so far; it
//! goes with rewinddir and closedir.

use crate::error::FsResult;
use crate::fs::api::{DirEntry, FileSystem};
use crate::ids::Ino;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// All open directories.
#[derive(Default)]
pub(super) struct Directories {
    open: Mutex<HashMap<u64, Arc<Mutex<Cookies>>>>,
    last: AtomicU64,
}

impl Directories {
    /// A new handle.
    pub(super) fn open(&self) -> u64 {
        let handle = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.lock().insert(handle, Arc::default());
        handle
    }

    pub(super) fn get(&self, handle: u64) -> Option<Arc<Mutex<Cookies>>> {
        self.open.lock().get(&handle).cloned()
    }

    pub(super) fn close(&self, handle: u64) {
        self.open.lock().remove(&handle);
    }
}

/// The names that one handle has handed out; cookie `n` is the n-th, counted from 1. Cookie 0 is the start.
#[derive(Default)]
pub(super) struct Cookies {
    /// All names, one behind the other.
    bytes: Vec<u8>,
    /// Where each name ends in `bytes`.
    ends: Vec<usize>,
}

impl Cookies {
    /// The cookie of `name`, handed out behind the entry with the cookie `behind`. Never gives a known cookie another
    /// name: the application may still hold it.
    pub(super) fn assign(&mut self, behind: u64, name: &[u8]) -> u64 {
        if self.name(behind + 1) == Some(name) {
            return behind + 1;
        }
        self.bytes.extend_from_slice(name);
        self.ends.push(self.bytes.len());
        self.ends.len() as u64
    }

    /// Where to go on behind `cookie`; `None` if this handle never gave it out. The start forgets all others.
    pub(super) fn resume(&mut self, cookie: u64) -> Option<Resume> {
        if cookie == 0 {
            *self = Self::default();
            return Some(Resume::start());
        }
        self.name(cookie).map(Resume::behind)
    }

    fn name(&self, cookie: u64) -> Option<&[u8]> {
        let index = usize::try_from(cookie).ok()?.checked_sub(1)?;
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
        self.bytes.get(start..*self.ends.get(index)?)
    }
}

/// A point in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resume {
    /// The last name that was consumed.
    after: Option<Vec<u8>>,
    /// `.` and `..` come first and not in name order, so behind them means: from the start, without so many.
    skip: usize,
}

impl Resume {
    pub(super) fn start() -> Self {
        Self { after: None, skip: 0 }
    }

    pub(super) fn behind(name: &[u8]) -> Self {
        match name {
            b"." => Self { after: None, skip: 1 },
            b".." => Self { after: None, skip: 2 },
            name => Self { after: Some(name.to_vec()), skip: 0 },
        }
    }

    /// The entries that follow, `max` at most; none at the end.
    pub(super) fn read(&self, fs: &dyn FileSystem, ino: Ino, max: usize) -> FsResult<Vec<DirEntry>> {
        let mut entries = fs.read_dir(ino, self.after.as_deref(), max + self.skip)?;
        entries.drain(..self.skip.min(entries.len()));
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_keep_their_names() {
        let mut cookies = Cookies::default();
        let (a, b) = (cookies.assign(0, b"a"), cookies.assign(1, b"b"));
        assert_eq!((a, b), (1, 2));
        assert_eq!(cookies.assign(a, b"b"), b, "the same listing again gives the same cookies");
        let c = cookies.assign(a, b"c");
        assert_eq!(c, 3, "b is gone, c follows a, but 2 still means b");
        assert_eq!(cookies.resume(b), Some(Resume::behind(b"b")));
        assert_eq!(cookies.resume(c), Some(Resume::behind(b"c")));
        assert_eq!(cookies.resume(4), None);
        assert_eq!(cookies.resume(u64::MAX), None);
    }

    #[test]
    fn the_start_begins_anew() {
        let mut cookies = Cookies::default();
        cookies.assign(0, b"old");
        assert_eq!(cookies.resume(0), Some(Resume::start()));
        assert_eq!(cookies.resume(1), None);
        assert_eq!(cookies.assign(0, b"new"), 1);
        assert_eq!(cookies.resume(1), Some(Resume::behind(b"new")));
    }

    #[test]
    fn a_closed_handle_is_unknown() {
        let directories = Directories::default();
        let (one, two) = (directories.open(), directories.open());
        directories.close(one);
        assert!(directories.get(one).is_none());
        assert!(directories.get(two).is_some());
    }
}
