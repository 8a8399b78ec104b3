//! The file operations that segments need: one directory, flat names.

use super::past_cache::{Buffers, Direct};
use bytes::Bytes;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One directory of segment files.
///
/// Names become durable by [`Disk::sync_dir`], bytes by [`DiskFile::sync`]; before that a power loss may undo the latest
/// operations on names and any of the writes.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes an empty file `name`, or empties the one that is there; readable and writable.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens the existing file `name`, readable and writable.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file; replaces `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; one that is gone already is no error.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all names durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// All files: name, length in bytes.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
}

/// An open segment file. Usable from several threads at once.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Writes all of `bytes` at `offset`, into the page cache. After an error any part of them may be there.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Fills `out` from `offset`; the answer is smaller than `out` only at the end of the file.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Up to `len` bytes at `offset`, fewer only at the end of the file, for those who keep them: what the page cache has
    /// little of does not get there, if the host can do without.
    fn read_past_cache(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        read_up_to(self, offset, len)
    }
    /// Makes the bytes and the length durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// A hint: the host may begin to write these bytes to the disk now, so that a later [`DiskFile::sync`] finds little to do and
    /// nobody else's waits behind it.
    fn start_writeback(&self, offset: u64, len: u64);
    /// Lets go of what the page cache holds and believes to be on the disk: the next reads come from the disk. After a
    /// failed flush that is not the same.
    fn forget_cache(&self) -> io::Result<()>;
    /// Its length, bytes.
    fn size_bytes(&self) -> io::Result<u64>;
}

/// A directory of the host.
#[derive(Debug)]
pub struct HostDisk {
    dir: PathBuf,
    buffers: Arc<Buffers>,
}

impl HostDisk {
    /// Uses `dir`; makes it, durably, if it is not there.
    pub fn new(dir: &Path) -> io::Result<Self> {
        if !dir.is_dir() {
            std::fs::create_dir_all(dir)?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { dir: dir.to_path_buf(), buffers: Arc::default() })
    }

    fn file(&self, file: File) -> Arc<dyn DiskFile> {
        Arc::new(HostFile { file, direct: Direct::new(&self.buffers) })
    }
}

impl Disk for HostDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.dir.join(name))?;
        Ok(self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.dir.join(name))?;
        Ok(self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(meta) if meta.is_file() => files.push((name, meta.len())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }
}

#[derive(Debug)]
struct HostFile {
    file: File,
    direct: Direct,
}

impl DiskFile for HostFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn read_past_cache(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        match self.direct.read(&self.file, offset, len) {
            Some(bytes) => Ok(bytes),
            None => read_up_to(self, offset, len),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        // What is dirty begins its way to the disk and stays in the cache; `sync_file_range` says the same more clearly, and needs
        // `unsafe`.
        if let Err(error) = rustix::fs::fadvise(&self.file, offset, NonZeroU64::new(len), rustix::fs::Advice::DontNeed)
        {
            tracing::trace!(%error, "fadvise");
        }
    }

    fn forget_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed)?)
    }
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// [`DiskFile::read_past_cache`] by way of [`DiskFile::read_at`].
fn read_up_to(file: &(impl DiskFile + ?Sized), offset: u64, len: usize) -> io::Result<Bytes> {
    let mut out = vec![0; len];
    let got = file.read_at(&mut out, offset)?;
    out.truncate(got);
    Ok(out.into())
}
