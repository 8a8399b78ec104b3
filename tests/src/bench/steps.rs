//! The steps, in the order in which they run: each finds what the ones before it left.

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

const SMALL_BYTES: usize = 4096;
const CHUNK_BYTES: usize = 1 << 20;
const FILES_PER_DIR: usize = 100;

/// How much each step does.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Small files.
    pub files: usize,
    /// Files that are fsynced each.
    pub synced: usize,
    /// The large file, MiB.
    pub large_mib: usize,
    /// Random reads, and as many writes.
    pub random: usize,
}

/// Whether a step begins without caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caches {
    /// The kernel's are dropped, and the daemon is new.
    Cold,
    /// As the step before left them.
    Warm,
}

/// What a step's rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Operations a second.
    Operations,
    /// MiB a second.
    Mebibytes,
}

/// One step.
#[derive(Debug)]
pub struct Step {
    /// Its name in the table.
    pub name: &'static str,
    /// How it begins.
    pub cold: Caches,
    /// What is counted.
    pub unit: Unit,
    /// How many of them.
    pub count: fn(Sizes) -> usize,
    work: fn(&Path, Sizes) -> Result<()>,
}

impl Step {
    /// Runs it below `place`; seconds.
    pub fn run(&self, place: &Path, sizes: Sizes) -> Result<f64> {
        let start = Instant::now();
        (self.work)(place, sizes)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

const fn step(
    name: &'static str,
    cold: Caches,
    unit: Unit,
    count: fn(Sizes) -> usize,
    work: fn(&Path, Sizes) -> Result<()>,
) -> Step {
    Step { name, cold, unit, count, work }
}

/// All of them.
pub const STEPS: &[Step] = &[
    step("create files of 4 KiB", Caches::Warm, Unit::Operations, |sizes| sizes.files, create),
    step("cold stat", Caches::Cold, Unit::Operations, |sizes| sizes.files, stat),
    step("warm stat", Caches::Warm, Unit::Operations, |sizes| sizes.files, stat),
    step("rename", Caches::Warm, Unit::Operations, |sizes| sizes.files, rename),
    step("unlink", Caches::Warm, Unit::Operations, |sizes| sizes.files, unlink),
    step("fsynced creates", Caches::Warm, Unit::Operations, |sizes| sizes.synced, create_synced),
    step("sequential write + fsync", Caches::Warm, Unit::Mebibytes, |sizes| sizes.large_mib, write_large),
    step("cold sequential read", Caches::Cold, Unit::Mebibytes, |sizes| sizes.large_mib, read_large),
    step("warm sequential read", Caches::Warm, Unit::Mebibytes, |sizes| sizes.large_mib, read_large),
    step("random 4 KiB reads", Caches::Warm, Unit::Operations, |sizes| sizes.random, read_random),
    step("random 4 KiB writes + fsync", Caches::Warm, Unit::Operations, |sizes| sizes.random, write_random),
];

fn names(place: &Path, sizes: Sizes, suffix: &'static str) -> impl Iterator<Item = PathBuf> {
    let small = place.join("small");
    (0..sizes.files).map(move |n| small.join(format!("d{}", n / FILES_PER_DIR)).join(format!("f{n}{suffix}")))
}

fn create(place: &Path, sizes: Sizes) -> Result<()> {
    let block = noise(SMALL_BYTES);
    for dir in 0..sizes.files.div_ceil(FILES_PER_DIR) {
        fs::create_dir_all(place.join(format!("small/d{dir}")))?;
    }
    for path in names(place, sizes, "") {
        File::create_new(path)?.write_all(&block)?;
    }
    Ok(())
}

fn stat(place: &Path, sizes: Sizes) -> Result<()> {
    for path in names(place, sizes, "") {
        ensure!(fs::symlink_metadata(path)?.len() == SMALL_BYTES as u64, "a file of another size");
    }
    Ok(())
}

fn rename(place: &Path, sizes: Sizes) -> Result<()> {
    for (from, to) in names(place, sizes, "").zip(names(place, sizes, "-renamed")) {
        fs::rename(from, to)?;
    }
    Ok(())
}

fn unlink(place: &Path, sizes: Sizes) -> Result<()> {
    for path in names(place, sizes, "-renamed") {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn create_synced(place: &Path, sizes: Sizes) -> Result<()> {
    let block = noise(SMALL_BYTES);
    for n in 0..sizes.synced {
        let mut file = File::create_new(place.join(format!("synced-{n}")))?;
        file.write_all(&block)?;
        file.sync_all()?;
    }
    Ok(())
}

fn write_large(place: &Path, sizes: Sizes) -> Result<()> {
    let chunk = noise(CHUNK_BYTES);
    let mut file = File::create_new(place.join("large"))?;
    for _ in 0..sizes.large_mib {
        file.write_all(&chunk)?;
    }
    file.sync_all().context("fsync")
}

fn read_large(place: &Path, sizes: Sizes) -> Result<()> {
    let mut file = File::open(place.join("large"))?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut total = 0;
    loop {
        let n = file.read(&mut buffer)?;
        total += n;
        if n == 0 {
            break;
        }
    }
    ensure!(total == sizes.large_mib * CHUNK_BYTES, "the file ended early");
    Ok(())
}

/// The same offsets for everybody.
fn offsets(sizes: Sizes) -> impl Iterator<Item = u64> {
    let blocks = (sizes.large_mib * CHUNK_BYTES / SMALL_BYTES) as u64;
    let mut random = SmallRng::seed_from_u64(7);
    (0..sizes.random).map(move |_| random.random_range(0..blocks) * SMALL_BYTES as u64)
}

fn read_random(place: &Path, sizes: Sizes) -> Result<()> {
    let file = File::open(place.join("large"))?;
    let mut buffer = vec![0; SMALL_BYTES];
    for offset in offsets(sizes) {
        file.read_exact_at(&mut buffer, offset)?;
    }
    Ok(())
}

fn write_random(place: &Path, sizes: Sizes) -> Result<()> {
    let file = File::options().write(true).open(place.join("large"))?;
    let block = noise(SMALL_BYTES);
    for offset in offsets(sizes) {
        file.write_all_at(&block, offset)?;
    }
    file.sync_all().context("fsync")
}

/// Bytes that nothing compresses away.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SmallRng::seed_from_u64(length as u64).fill(&mut bytes[..]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_finds_what_it_needs_and_leaves_nothing_small() {
        let sizes = Sizes { files: 150, synced: 3, large_mib: 2, random: 20 };
        let dir = tempfile::tempdir().unwrap();
        for step in STEPS {
            assert!(step.run(dir.path(), sizes).unwrap() >= 0.0, "{}", step.name);
            assert!((step.count)(sizes) > 0);
        }
        assert_eq!(fs::metadata(dir.path().join("large")).unwrap().len(), 2 << 20);
        assert_eq!(fs::read_dir(dir.path().join("small/d1")).unwrap().count(), 0);
        assert!(
            create(dir.path(), sizes).is_ok() && create(dir.path(), sizes).is_err(),
            "a second time is no creation"
        );
    }
}
