//! One heavy test of a program at a time: two mounts that unpack a source tree at once only make each other slow. How many
//! programs run beside each other is the matter of `tests/run`.

use crate::paths::cache_dir;
use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use std::env;
use std::fs::File;

/// Held while a heavy test runs, or something that all share is made; the kernel gives it back when the process dies.
#[derive(Debug)]
#[must_use]
pub struct Serial {
    _file: File,
}

/// Waits for its turn among the tests of this program.
pub fn serial() -> Result<Serial> {
    let program = env::current_exe().context("no path of the running program")?;
    let program = program.file_stem().and_then(|name| name.to_str()).context("no name of the running program")?;
    // Cargo hangs a hash on the name, and leaves the files of older ones.
    turn(program.rsplit_once('-').map_or(program, |(name, _)| name))
}

/// Waits for its turn among all that want `what`, on the whole machine.
pub(crate) fn turn(what: &str) -> Result<Serial> {
    let path = cache_dir()?.join(format!("{what}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).context("no turn")?;
    Ok(Serial { _file: file })
}
