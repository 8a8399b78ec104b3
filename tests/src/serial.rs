//! One heavy test at a time, over all test programs of a machine: two mounts that unpack a source tree at once only make
//! each other slow.

use crate::paths::cache_dir;
use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;

/// Held while a heavy test runs; the kernel gives it back when the process dies.
#[derive(Debug)]
#[must_use]
pub struct Serial {
    _file: File,
}

/// Waits for its turn.
pub fn serial() -> Result<Serial> {
    let path = cache_dir()?.join("serial.lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).context("no turn")?;
    Ok(Serial { _file: file })
}
