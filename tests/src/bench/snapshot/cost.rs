//! What one snapshot, or one run of a peer, took.

use crate::bench::target::Filesystem;
use anyhow::Result;
use std::time::Instant;

/// See the file's first line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Until it was in the bucket.
    pub seconds: f64,
    /// Time on a processor: of the daemon and its helpers, or of the programs that ran.
    pub cpu_seconds: f64,
    /// Bytes that the bucket holds more.
    pub bytes: u64,
}

impl Cost {
    pub fn mebibytes(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20)
    }
}

/// Takes a snapshot, as a person does who waits for it.
pub(super) fn take(filesystem: &Filesystem, name: &str) -> Result<Cost> {
    let (bytes, cpu) = (filesystem.stored_bytes()?, filesystem.processes().cpu()?);
    let start = Instant::now();
    filesystem.publish(name)?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu_seconds = filesystem.processes().cpu()?.saturating_sub(cpu).as_secs_f64();
    Ok(Cost { seconds, cpu_seconds, bytes: filesystem.stored_bytes()?.saturating_sub(bytes) })
}
