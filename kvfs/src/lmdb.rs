//! Opening LMDB environments: one of the three places that need `unsafe`, and the settings that must never differ.
//!
//! Default sync mode only (NOSYNC loses the whole environment on power loss), read transactions that are not tied to
//! threads, short ones only (they pin pages).
#![allow(unsafe_code)]

use crate::error::FsError;
use heed::{Env, EnvOpenOptions, WithoutTls};
use std::io;
use std::path::Path;

/// An environment as kvfs uses it.
pub type LocalEnv = Env<WithoutTls>;

/// Address space reserved per environment; the file grows only with what is in it.
const MAP_BYTES: usize = 1 << 38;
const READERS_MAX: u32 = 510;

/// Opens or creates the environment in the directory `path`, with up to `tables` named tables.
pub fn open(path: &Path, tables: u32) -> Result<LocalEnv, FsError> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(MAP_BYTES).max_dbs(tables).max_readers(READERS_MAX);
    // SAFETY: the files lie in an instance directory that one process holds under a lock, and nothing but LMDB changes
    // or truncates them while they are mapped.
    let env = unsafe { options.open(path) }.map_err(|error| failed(path, &error))?;
    // A commit that failed in an earlier life may have left pages that are on the disk in another state than in the page
    // cache; the next transaction must not build on what a loss of power would take back.
    env.force_sync().map_err(|error| failed(path, &error))?;
    Ok(env)
}

/// An LMDB failure on the environment at `path`, as the application sees it.
pub fn failed(path: &Path, error: &heed::Error) -> FsError {
    match error {
        heed::Error::Io(io) if io.kind() == io::ErrorKind::StorageFull => FsError::NoSpace,
        heed::Error::Io(io) => FsError::os(&path.display().to_string(), io),
        heed::Error::Mdb(heed::MdbError::MapFull) => FsError::NoSpace,
        other => FsError::io(format!("{}: {other}", path.display())),
    }
}
