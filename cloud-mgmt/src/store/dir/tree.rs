//! The files of a directory store, with blocking calls.
//!
//! Order of a write: temporary file below `.tmp`, its fsync, link or rename to the final name, fsync of every directory
//! from there to the root. So a name is never seen with half its bytes, and success means durable.

use super::super::object_name::TEMPORARY;
use super::{ObjectMeta, PutOutcome, RootIsThere};
use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::Sender;
use uuid::Uuid;

/// A directory may be removed as empty between making it and linking into it; more often than this is no accident.
const PLACE_ATTEMPTS: u32 = 8;
/// Between two reports of a copy.
const COPY_CHUNK_BYTES: usize = 1 << 20;
/// Between two fsyncs of a copy, so that the last one is not long and silent.
const COPY_SYNC_BYTES: u64 = 16 << 20;
/// A temporary file that nobody wrote to for so long belongs to a process that died.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A directory and what lies below it.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    root: PathBuf,
    /// Whether this process has looked for leftovers of dead ones.
    swept: Arc<AtomicBool>,
}

/// A file below `.tmp` that goes away with this value.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename it is gone already, after a failure the sweep of a later process gets it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Tree {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), swept: Arc::default() }
    }

    pub(super) fn root_is_there(&self) -> RootIsThere {
        if self.root.is_dir() { RootIsThere::Yes } else { RootIsThere::No }
    }

    pub(super) fn create_root(&self) -> io::Result<()> {
        fs::create_dir_all(&self.root)?;
        // Any of its parents may be new: cheap next to losing the whole store.
        self.root.ancestors().try_for_each(|dir| match sync_directory(dir) {
            // A parent that we may pass but not read was not made by us.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && dir != self.root => Ok(()),
            other => other,
        })
    }

    pub(super) fn persist_if_absent(&self, name: &str, body: &[u8]) -> io::Result<PutOutcome> {
        let path = self.path(name);
        if fs::symlink_metadata(&path).is_ok() {
            return self.taken(name);
        }
        let temporary = self.persist_temporary(body)?;
        fail::fail_point!("store-dir-before-link");
        match self.place(name, || link(&temporary.path, &path)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.taken(name),
            Err(e) => Err(e),
            Ok(()) => {
                fail::fail_point!("store-dir-after-link");
                self.sync_way_to(name).map(|()| PutOutcome::Created)
            }
        }
    }

    /// The caller will build on what is there, which its writer may not have fsynced yet.
    fn taken(&self, name: &str) -> io::Result<PutOutcome> {
        self.sync_way_to(name).map(|()| PutOutcome::Taken)
    }

    pub(super) fn persist_over(&self, name: &str, body: &[u8]) -> io::Result<()> {
        let temporary = self.persist_temporary(body)?;
        let path = self.path(name);
        self.place(name, || fs::rename(&temporary.path, &path))?;
        self.sync_way_to(name)
    }

    /// Copies `local`, telling `sent` the bytes so far; stops when nobody listens any more.
    pub(super) fn persist_file(&self, name: &str, mut local: File, sent: &Sender<u64>) -> io::Result<()> {
        let size = local.metadata()?.len();
        let path = self.path(name);
        if let Ok(there) = fs::symlink_metadata(&path) {
            return self.same_file(name, there.len(), size);
        }
        let mut temporary = self.temporary()?;
        copy(&mut local, &mut temporary.file, sent)?;
        match self.place(name, || link(&temporary.path, &path)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.same_file(name, fs::symlink_metadata(&path)?.len(), size)
            }
            Err(e) => Err(e),
            Ok(()) => self.sync_way_to(name),
        }
    }

    /// A name that is never used for other bytes is there already: fine, unless it shows other bytes.
    fn same_file(&self, name: &str, there: u64, ours: u64) -> io::Result<()> {
        if there == ours {
            return self.sync_way_to(name);
        }
        let detail = format!("already there with {there} bytes, ours has {ours}");
        Err(io::Error::new(io::ErrorKind::InvalidData, detail))
    }

    pub(super) fn read(&self, name: &str) -> io::Result<Bytes> {
        let (mut file, size) = self.open(name)?;
        let mut body = Vec::with_capacity(size as usize);
        file.read_to_end(&mut body)?;
        Ok(body.into())
    }

    pub(super) fn read_range(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        let (mut file, size) = self.open(name)?;
        if range.start > range.end || range.end > size {
            let detail = format!("bytes {}..{} of an object of {size} bytes", range.start, range.end);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, detail));
        }
        let mut body = vec![0; (range.end - range.start) as usize];
        file.seek(SeekFrom::Start(range.start))?;
        file.read_exact(&mut body)?;
        Ok(body.into())
    }

    pub(super) fn head(&self, name: &str) -> io::Result<ObjectMeta> {
        let there = fs::symlink_metadata(self.path(name)).map_err(nothing_below_a_file)?;
        if !there.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(meta(name.to_owned(), &there))
    }

    pub(super) fn list(&self, prefix: &str) -> io::Result<Vec<ObjectMeta>> {
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            self.scan(&folder, |name, entry| {
                let there = entry.metadata()?;
                if name.starts_with(prefix) && there.is_dir() {
                    folders.push(name);
                } else if name.starts_with(prefix) && there.is_file() {
                    found.push(meta(name, &there));
                }
                Ok(())
            })?;
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(super) fn list_here(&self, prefix: &str) -> io::Result<Vec<ObjectMeta>> {
        let mut found = Vec::new();
        self.scan(prefix.trim_end_matches('/'), |name, entry| {
            let there = entry.metadata()?;
            if there.is_file() {
                found.push(meta(name, &there));
            }
            Ok(())
        })?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        match fs::remove_file(&path).map_err(nothing_below_a_file) {
            Ok(()) => self.sync_way_to(name)?,
            Err(e) if e.kind() == io::ErrorKind::IsADirectory => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.root.is_dir() => return Ok(()),
            Err(e) => return Err(e),
        }
        // Empty folders are no objects; one that somebody is about to link into is made again by them.
        let folders = path.ancestors().skip(1).take_while(|dir| *dir != self.root);
        for folder in folders {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Opens an object, without being led elsewhere by a link or stopped by a pipe that somebody left there.
    fn open(&self, name: &str) -> io::Result<(File, u64)> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::open(self.path(name), flags, Mode::empty());
        let file = File::from(opened.map_err(io::Error::from).map_err(nothing_below_a_file)?);
        let there = file.metadata()?;
        if there.is_file() { Ok((file, there.len())) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Calls `visit` with the name and entry of each entry of a folder. Entries that vanish meanwhile and names that are
    /// no text are none of ours; a folder that is not there is empty.
    fn scan(&self, folder: &str, mut visit: impl FnMut(String, &fs::DirEntry) -> io::Result<()>) -> io::Result<()> {
        let entries = match fs::read_dir(self.path(folder)).map_err(nothing_below_a_file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.root.is_dir() => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(last) = entry.file_name().into_string() else { continue };
            if folder.is_empty() && last == TEMPORARY {
                continue;
            }
            let name = if folder.is_empty() { last } else { format!("{folder}/{last}") };
            match visit(name, &entry) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn temporary(&self) -> io::Result<Temporary> {
        let folder = self.root.join(TEMPORARY);
        match fs::create_dir(&folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        if !self.swept.swap(true, Ordering::Relaxed) {
            sweep(&folder);
        }
        let path = folder.join(Uuid::new_v4().simple().to_string());
        let file = File::create_new(&path)?;
        Ok(Temporary { path, file })
    }

    fn persist_temporary(&self, body: &[u8]) -> io::Result<Temporary> {
        let mut temporary = self.temporary()?;
        temporary.file.write_all(body)?;
        rustix::fs::fsync(&temporary.file)?;
        Ok(temporary)
    }

    /// Makes the folders of `name`, then does `put`; again when a folder was removed in between.
    fn place(&self, name: &str, put: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut attempt = 1;
        loop {
            match self.make_folders(name).and_then(|()| put()) {
                Err(e) if e.kind() == io::ErrorKind::NotFound && attempt < PLACE_ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    fn make_folders(&self, name: &str) -> io::Result<()> {
        for (end, _) in name.match_indices('/') {
            match fs::create_dir(self.path(&name[..end])) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the way from the root to `name` durable, whoever made its parts.
    fn sync_way_to(&self, name: &str) -> io::Result<()> {
        for (end, _) in name.match_indices('/').rev() {
            match sync_directory(&self.path(&name[..end])) {
                // Removed as empty since: there is nothing to keep.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        sync_directory(&self.root)
    }
}

fn meta(name: String, there: &fs::Metadata) -> ObjectMeta {
    ObjectMeta { name, size: there.len(), modified: there.modified().ok() }
}

/// Below a file there is nothing; a link is nothing of ours.
fn nothing_below_a_file(error: io::Error) -> io::Error {
    match Errno::from_io_error(&error) {
        Some(Errno::NOTDIR | Errno::LOOP) => io::ErrorKind::NotFound.into(),
        _ => error,
    }
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
            io::Error::new(io::ErrorKind::Unsupported, "this file system has no hard links, which a store needs")
        }
        _ => error,
    })
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    Ok(rustix::fs::fsync(directory)?)
}

fn copy(from: &mut File, to: &mut File, sent: &Sender<u64>) -> io::Result<()> {
    let mut chunk = vec![0; COPY_CHUNK_BYTES];
    let (mut copied, mut synced) = (0, 0);
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            rustix::fs::fsync(&*to)?;
            return Ok(());
        }
        to.write_all(&chunk[..read])?;
        // A hint: it goes to the disk while the rest is copied. Whoever else syncs waits behind less.
        let _ = rustix::fs::fadvise(&*to, copied, NonZeroU64::new(read as u64), rustix::fs::Advice::DontNeed);
        copied += read as u64;
        if copied - synced >= COPY_SYNC_BYTES {
            rustix::fs::fdatasync(&*to)?;
            synced = copied;
        }
        sent.blocking_send(copied).map_err(|_| io::Error::from(io::ErrorKind::Interrupted))?;
    }
}

/// Removes what dead processes left. Best effort: a file that stays costs space only.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let now = SystemTime::now();
    for entry in entries.flatten() {
        let modified = entry.metadata().and_then(|there| there.modified());
        let age = modified.ok().and_then(|at| now.duration_since(at).ok());
        if age.is_some_and(|age| age > TEMPORARY_AGE_MAX) {
            tracing::info!(file = %entry.path().display(), "removing a temporary file of a dead process");
            let _ = fs::remove_file(entry.path());
        }
    }
}
