//! Small files that are whole or not there, also after power loss.

use crate::failure::Failure;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Replaces or makes `path`; durable on return.
pub fn persist(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let temp = path.with_extension(format!("{}.tmp", uuid::Uuid::new_v4().simple()));
    let done = write_synced(&temp, bytes)
        .and_then(|()| fs::rename(&temp, path))
        .and_then(|()| sync_parent(path))
        .map_err(|error| Failure::from_io(&error, "write", path));
    if done.is_err() {
        // The rename did not happen, or the file is whole: either way nothing is lost with it.
        drop(fs::remove_file(&temp));
    }
    done
}

/// Makes a directory only its owner can enter, with its parents; durable on return: what is fsynced in it must not go with
/// its name.
pub fn make_private_dir(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.is_dir()).collect();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| missing.iter().try_for_each(|dir| sync_parent(dir)))
        .map_err(|error| Failure::from_io(&error, "create directory", path))
}

/// Makes the entry of `path` in its directory durable.
pub fn sync_parent(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    parent.map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
