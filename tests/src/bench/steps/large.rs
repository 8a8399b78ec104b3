//! One large file.

use super::{SMALL_BYTES, noise, timed};
use crate::bench::workload::Workload;
use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

const CHUNK_BYTES: usize = 1 << 20;
const NAME: &str = "large";

pub(super) fn write(place: &Path, workload: &Workload) -> Result<Duration> {
    let chunk = noise(CHUNK_BYTES);
    timed(|| {
        let mut file = File::create_new(place.join(NAME))?;
        for _ in 0..workload.large_mib {
            file.write_all(&chunk)?;
        }
        file.sync_all().context("fsync")
    })
}

/// So often the file is read from the page cache: one pass takes a tenth of a second, in which anything may come between.
pub(super) const WARM_PASSES: usize = 8;

pub(super) fn read_warm(place: &Path, workload: &Workload) -> Result<Duration> {
    (0..WARM_PASSES).map(|_| read(place, workload)).sum()
}

pub(super) fn read(place: &Path, workload: &Workload) -> Result<Duration> {
    let mut buffer = vec![0; CHUNK_BYTES];
    timed(|| {
        let mut file = File::open(place.join(NAME))?;
        let mut total = 0;
        loop {
            let n = file.read(&mut buffer)?;
            total += n;
            if n == 0 {
                break;
            }
        }
        ensure!(total == workload.large_mib * CHUNK_BYTES, "the file ended early");
        Ok(())
    })
}

/// The same offsets for everybody.
fn offsets(workload: &Workload) -> impl Iterator<Item = u64> {
    let blocks = (workload.large_mib * CHUNK_BYTES / SMALL_BYTES) as u64;
    let mut random = SmallRng::seed_from_u64(7);
    (0..workload.random).map(move |_| random.random_range(0..blocks) * SMALL_BYTES as u64)
}

/// Has read from the disk what will be read, then forgets the file's pages and nothing else: reads have to ask the daemon, whose own files
/// are cached.
pub(super) fn drop_pages(place: &Path, workload: &Workload) -> Result<()> {
    let file = File::open(place.join(NAME))?;
    file.sync_all().context("fsync")?;
    let drop = || fadvise(&file, 0, None, Advice::DontNeed).context("cannot drop the pages of the file");
    drop()?;
    read_random(place, workload)?;
    drop()
}

pub(super) fn read_random(place: &Path, workload: &Workload) -> Result<Duration> {
    let mut buffer = vec![0; SMALL_BYTES];
    timed(|| {
        let file = File::open(place.join(NAME))?;
        for offset in offsets(workload) {
            file.read_exact_at(&mut buffer, offset)?;
        }
        Ok(())
    })
}

pub(super) fn write_random(place: &Path, workload: &Workload) -> Result<Duration> {
    let block = noise(SMALL_BYTES);
    timed(|| {
        let file = File::options().write(true).open(place.join(NAME))?;
        for offset in offsets(workload) {
            file.write_all_at(&block, offset)?;
        }
        file.sync_all().context("fsync")
    })
}
