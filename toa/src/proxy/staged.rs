//! An object being written into the proxy.

use super::{Proxy, ProxyError};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What stays free on the disk while a file grows, bytes: what is on its way to it, and a little for everybody else.
pub const DISK_RESERVE_BYTES: u64 = 4 << 20;
/// Growth between two looks at the disk, bytes.
const DISK_LOOK_BYTES: u64 = 1 << 20;

/// What a finished object is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Upload,
    Keep,
}

/// A file that becomes an object of the proxy when it is committed; dropped before that, it leaves nothing.
///
/// Whoever writes it asks for room *before* it grows beyond what was reserved: the limit of the proxy is hard (I7).
#[derive(Debug)]
pub struct StagedFile {
    proxy: Arc<Proxy>,
    object: String,
    path: PathBuf,
    room_bytes: u64,
    /// The size for which the disk was last seen to have room.
    disk_bytes: u64,
    committed: bool,
}

impl StagedFile {
    pub(super) fn new(proxy: Arc<Proxy>, object: &str, path: PathBuf, room_bytes: u64) -> Self {
        Self { proxy, object: object.to_owned(), path, room_bytes, disk_bytes: 0, committed: false }
    }

    /// Where to write; the file does not exist yet.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name that it will have.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Makes sure that the file may grow to `total_bytes`; kind `NoSpace` if it may not.
    pub fn ensure_room(&mut self, total_bytes: u64) -> Result<(), ProxyError> {
        let more = total_bytes.saturating_sub(self.room_bytes);
        if more > 0 {
            self.proxy.reserve(more)?;
            self.room_bytes += more;
        }
        Ok(())
    }

    /// Makes sure that the disk has room for the file to grow to `total_bytes`, [`DISK_RESERVE_BYTES`] more than that, giving
    /// up cached files if it must; kind `NoSpace` if there is none. Looks only now and then, and promises nothing: others
    /// write to the disk as well.
    pub fn ensure_disk(&mut self, total_bytes: u64) -> Result<(), ProxyError> {
        if total_bytes <= self.disk_bytes {
            return Ok(());
        }
        let written = std::fs::metadata(&self.path).map_or(0, |meta| meta.len());
        self.proxy.ensure_disk(total_bytes.saturating_sub(written) + DISK_RESERVE_BYTES)?;
        self.disk_bytes = total_bytes + DISK_LOOK_BYTES;
        Ok(())
    }

    /// The object is complete and waits for its upload: fsynced under its name, pinned until [`Proxy::uploaded`]. The
    /// answer is its file.
    pub fn commit(self) -> Result<PathBuf, ProxyError> {
        self.adopt(Purpose::Upload)
    }

    /// The object is a copy of one in the bucket: pinned until [`Proxy::release`].
    pub fn commit_kept(self) -> Result<PathBuf, ProxyError> {
        self.adopt(Purpose::Keep)
    }

    fn adopt(mut self, purpose: Purpose) -> Result<PathBuf, ProxyError> {
        let file = File::open(&self.path).map_err(ProxyError::io("open", &self.path))?;
        let len = file.metadata().map_err(ProxyError::io("stat", &self.path))?.len();
        self.ensure_room(len)?;
        file.sync_all().map_err(ProxyError::io("sync", &self.path))?;
        fail::fail_point!("proxy::before_adopt");
        let path = self.proxy.adopt(&self.path, &self.object, purpose, (len, self.room_bytes))?;
        self.room_bytes = 0;
        self.committed = true;
        Ok(path)
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        self.proxy.unreserve(self.room_bytes);
        if !self.committed && self.path.exists() {
            // What cannot be removed now goes at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
