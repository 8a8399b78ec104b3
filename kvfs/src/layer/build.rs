//! Making and removing layer directories, all or nothing.

use super::{Layer, LayerMeta, META_KEY, TABLES};
use crate::error::{FsError, FsResult};
use crate::lmdb;
use heed::types::Bytes as Raw;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Directories that are not finished; whatever has this suffix after a restart goes.
const UNFINISHED: &str = "tmp";

/// The directory of layer `number`.
fn layer_dir(layers: &Path, number: u64) -> PathBuf {
    layers.join(format!("{number:010}"))
}

/// Makes an empty layer below `layers`: complete and durable when it has its name.
pub fn create(layers: &Path, meta: &LayerMeta) -> FsResult<Layer> {
    let path = layer_dir(layers, meta.number);
    let unfinished = path.with_extension(UNFINISHED);
    let os = |error: &io::Error| FsError::os(&unfinished.display().to_string(), error);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(|e| os(&e))?;
    }
    // An attempt that got its name and failed behind that: nobody has written to it.
    if path.exists() {
        remove(&path)?;
    }
    fs::create_dir_all(&unfinished).map_err(|e| os(&e))?;
    fill(&unfinished, meta)?;
    sync_dir(&unfinished)?;
    fail::fail_point!("kvfs::layer::before_rename");
    fs::rename(&unfinished, &path).map_err(|e| os(&e))?;
    sync_dir(layers)?;
    Layer::open(&path)
}

fn fill(path: &Path, meta: &LayerMeta) -> FsResult<()> {
    let env = lmdb::open(path, TABLES)?;
    let fail = |error: heed::Error| lmdb::failed(path, &error);
    let mut txn = env.write_txn().map_err(fail)?;
    env.create_database::<Raw, Raw>(&mut txn, Some("kv")).map_err(fail)?;
    env.create_database::<Raw, Raw>(&mut txn, Some("live")).map_err(fail)?;
    let table = env.create_database::<Raw, Raw>(&mut txn, Some("meta")).map_err(fail)?;
    let bytes = postcard::to_stdvec(meta).map_err(|e| FsError::io(format!("{}: {e}", path.display())))?;
    table.put(&mut txn, META_KEY, &bytes).map_err(fail)?;
    txn.commit().map_err(fail)
}

/// The layers below `layers`, oldest first; what was not finished is removed.
pub fn list(layers: &Path) -> FsResult<Vec<PathBuf>> {
    let os = |error: &io::Error| FsError::os(&layers.display().to_string(), error);
    let mut found = Vec::new();
    for entry in fs::read_dir(layers).map_err(|e| os(&e))? {
        let path = entry.map_err(|e| os(&e))?.path();
        if path.extension().is_some_and(|e| e == UNFINISHED) {
            fs::remove_dir_all(&path).map_err(|e| os(&e))?;
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Removes a layer's directory, or what an earlier attempt has left of it. Readers that still have it open keep their
/// mapping.
pub fn remove(path: &Path) -> FsResult<()> {
    let unless_gone = |done: io::Result<()>| match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FsError::os(&path.display().to_string(), &error)),
        _ => Ok(()),
    };
    let unfinished = path.with_extension(UNFINISHED);
    unless_gone(fs::rename(path, &unfinished))?;
    // Power loss must not leave half a layer under its name.
    path.parent().map_or(Ok(()), sync_dir)?;
    unless_gone(fs::remove_dir_all(&unfinished))
}

/// Makes the names in a directory durable.
pub fn sync_dir(path: &Path) -> FsResult<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| FsError::os(&path.display().to_string(), &error))
}
