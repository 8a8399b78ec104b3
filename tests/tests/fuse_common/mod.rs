//! Mounting for a test.

#![allow(dead_code, missing_docs)] // every test binary uses a part of it

use kvfs::fs::api::FileSystem;
use kvfs::fuse::{Mount, MountErrorKind, MountOptions, OpenMode, mount};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A mount that goes with the test; the directory goes after it.
pub struct TestMount {
    pub mount: Mount,
    dir: TempDir,
}

impl TestMount {
    /// Where a file of the mount is.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Mounts `fs`, or says why the test is skipped.
#[allow(clippy::print_stderr, clippy::panic)]
pub fn mounted(fs: Arc<dyn FileSystem>, open: OpenMode) -> Option<TestMount> {
    let dir = fresh_dir();
    match mount(fs, dir.path(), MountOptions::new("cbfs:TEST", open)) {
        Ok(mount) => Some(TestMount { mount, dir }),
        Err(error) if error.kind() == MountErrorKind::Unavailable => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// An empty directory that others may enter.
#[allow(clippy::unwrap_used)]
pub fn fresh_dir() -> TempDir {
    let dir = TempDir::with_prefix("cbfs-fuse-").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// The errno of what must fail.
#[allow(clippy::panic)]
pub fn errno<T>(result: io::Result<T>) -> i32 {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(error) => error.raw_os_error().unwrap_or_else(|| panic!("{error}: no errno")),
    }
}

/// Waits for what the kernel does in its own time; gives up after half a minute.
pub fn eventually(condition: impl Fn() -> bool) -> bool {
    let limit = Instant::now() + Duration::from_secs(30);
    while !condition() {
        if Instant::now() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// The names in a directory, as often as it lists them, sorted.
#[allow(clippy::unwrap_used)]
pub fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
