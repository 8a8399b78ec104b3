//! Open directories: cookies that mean a name, so that a listing survives every change under it.
//!
//! The kernel gives back the cookie of the last entry that the application has consumed, or any older one (seekdir).
//! A position counted in entries would skip or repeat when entries come and go. So a handle remembers which name it
//! handed out under which cookie, and goes on behind that name. The memory is that of the names listed so far; it
//! goes with rewinddir and closedir. A copy outlives the process, see `cookies.rs`.

use super::cookies::{CookieFile, Listed, Names};
use crate::error::FsResult;
use crate::fs::api::{DirEntry, FileSystem};
use crate::ids::Ino;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Handles of a process life begin at its number, shifted by this.
const LIFE_SHIFT: u32 = 40;

/// All open directories.
pub(super) struct Directories {
    open: Mutex<HashMap<u64, Arc<Mutex<Cookies>>>>,
    last: AtomicU64,
    file: Mutex<Option<CookieFile>>,
}

impl Directories {
    /// Those that an earlier process left in `file`, for the process life `life`.
    pub(super) fn open_file(file: File, life: u32) -> io::Result<Self> {
        let (file, tables) = CookieFile::open(file)?;
        let open = tables.into_iter().map(|(handle, cookies)| (handle, Arc::new(Mutex::new(cookies)))).collect();
        // The sign stays clear, and no handle of another life comes again.
        let last = AtomicU64::new((u64::from(life) << LIFE_SHIFT) & (u64::MAX >> 1));
        Ok(Self { open: Mutex::new(open), last, file: Mutex::new(Some(file)) })
    }

    /// A new handle.
    pub(super) fn open(&self) -> u64 {
        let handle = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.lock().insert(handle, Arc::default());
        handle
    }

    /// The names that a handle knows. One of an earlier process that has listed nothing yet was not written down.
    pub(super) fn get(&self, handle: u64, cookie: u64) -> Option<Arc<Mutex<Cookies>>> {
        let mut open = self.open.lock();
        match open.get(&handle) {
            None if cookie == 0 => Some(open.entry(handle).or_default().clone()),
            known => known.cloned(),
        }
    }

    /// Before a reply goes out: the cookies in it outlive this process.
    pub(super) fn keep(&self, handle: u64, cookies: &mut Cookies) {
        if !cookies.has_unsaved() {
            return;
        }
        let mut file = self.file.lock();
        let Some(log) = file.as_mut() else { return };
        if let Err(error) = log.append(handle, cookies) {
            tracing::error!(%error, "listings that are open now will not survive the end of this process");
            *file = None;
        }
    }

    pub(super) fn close(&self, handle: u64) {
        let known = self.open.lock().remove(&handle);
        if known.is_some_and(|cookies| cookies.lock().is_saved())
            && let Some(log) = self.file.lock().as_mut()
        {
            log.close(handle);
        }
    }
}

/// The names that one handle has handed out; cookie `n` is the n-th, counted from 1. Cookie 0 is the start.
#[derive(Default)]
pub(super) struct Cookies {
    /// All names, one behind the other.
    bytes: Vec<u8>,
    /// Where each name ends in `bytes`.
    ends: Vec<usize>,
    /// How many of them are in the file.
    in_file: usize,
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

    /// All names.
    pub(super) fn all(&self) -> Listed<'_> {
        self.listed_behind(0)
    }

    /// What the file does not have.
    pub(super) fn unsaved(&self) -> Listed<'_> {
        self.listed_behind(self.in_file)
    }

    fn listed_behind(&self, count: usize) -> Listed<'_> {
        let start = count.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0);
        let (ends, bytes) = (self.ends.get(count..).unwrap_or_default(), self.bytes.get(start..).unwrap_or_default());
        Listed { first: count as u64 + 1, start, ends, bytes }
    }

    fn has_unsaved(&self) -> bool {
        self.in_file < self.ends.len()
    }

    fn is_saved(&self) -> bool {
        self.in_file > 0
    }

    /// The file has everything now.
    pub(super) fn saved(&mut self) {
        self.in_file = self.ends.len();
    }

    /// Names from the file, where the first has the cookie `first`; what was known from there on is void.
    pub(super) fn restore(&mut self, first: u64, names: Names<'_>) {
        self.ends.truncate(usize::try_from(first - 1).unwrap_or(usize::MAX));
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
        for name in names {
            self.bytes.extend_from_slice(name);
            self.ends.push(self.bytes.len());
        }
        self.in_file = self.ends.len();
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
        let directories = Directories::open_file(tempfile::tempfile().unwrap(), 0).unwrap();
        let (one, two) = (directories.open(), directories.open());
        directories.close(one);
        assert!(directories.get(one, 1).is_none());
        assert!(directories.get(two, 1).is_some());
    }

    /// Lists `names` as a reply does.
    fn list(directories: &Directories, handle: u64, behind: u64, names: &[&str]) -> u64 {
        let cookies = directories.get(handle, behind).unwrap();
        let mut cookies = cookies.lock();
        let last = names.iter().fold(behind, |behind, name| cookies.assign(behind, name.as_bytes()));
        directories.keep(handle, &mut cookies);
        last
    }

    fn name_of(directories: &Directories, handle: u64, cookie: u64) -> Option<Vec<u8>> {
        directories.get(handle, cookie)?.lock().name(cookie).map(<[u8]>::to_vec)
    }

    #[test]
    fn the_next_process_knows_every_cookie_and_gives_out_other_handles() {
        let file = tempfile::tempfile().unwrap();
        let first = Directories::open_file(file.try_clone().unwrap(), 0).unwrap();
        let (a, b, c) = (first.open(), first.open(), first.open());
        let last = list(&first, a, 0, &["x", "y"]);
        list(&first, a, last, &["z"]);
        list(&first, b, 0, &["old"]);
        first.close(b);
        list(&first, c, 0, &["before rewinddir", "and more"]);
        first.get(c, 0).unwrap().lock().resume(0);
        list(&first, c, 0, &["behind"]);

        let next = Directories::open_file(file, 1).unwrap();
        assert_eq!(name_of(&next, a, 3), Some(b"z".to_vec()));
        assert_eq!(name_of(&next, c, 1), Some(b"behind".to_vec()));
        assert_eq!(name_of(&next, c, 2), None, "rewinddir has made it void");
        assert!(next.get(b, 1).is_none(), "it was closed");
        assert_eq!(list(&next, a, 3, &["more"]), 4);
        assert!(![a, b, c].contains(&next.open()));
        assert!(next.get(77, 1).is_none(), "nobody knows this cookie");
        assert!(next.get(77, 0).is_some(), "a handle that had listed nothing begins now");
    }

    #[test]
    fn a_torn_record_ends_the_log_and_a_long_one_is_cleaned() {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile().unwrap();
        let first = Directories::open_file(file.try_clone().unwrap(), 0).unwrap();
        let kept = first.open();
        list(&first, kept, 0, &["kept"]);
        let name = "n".repeat(250);
        for _ in 0..20_000 {
            let handle = first.open();
            list(&first, handle, 0, &[&name]);
            first.close(handle);
        }
        let torn = first.open();
        list(&first, torn, 0, &["torn"]);
        let len = file.metadata().unwrap().len();
        file.write_all_at(b"X", len - 1).unwrap();

        let next = Directories::open_file(file.try_clone().unwrap(), 1).unwrap();
        assert_eq!(name_of(&next, kept, 1), Some(b"kept".to_vec()));
        assert!(next.get(torn, 1).is_none());
        assert!(next.open.lock().len() < 5000, "most of the dead ones are cleaned away");
        use std::os::unix::fs::MetadataExt;
        assert!(file.metadata().unwrap().blocks() * 512 < len, "and their memory is given back");
        list(&next, kept, 1, &["behind the torn one"]);
        let last = Directories::open_file(file, 2).unwrap();
        assert_eq!(name_of(&last, kept, 2), Some(b"behind the torn one".to_vec()));
    }
}
