//! Many small files, a hundred to a directory.

use super::{SMALL_BYTES, noise, timed};
use crate::bench::workload::Workload;
use anyhow::{Result, ensure};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const FILES_PER_DIR: usize = 100;

fn directory(place: &Path, number: usize) -> PathBuf {
    place.join(format!("d{number}"))
}

fn directories_of(place: &Path, workload: &Workload) -> impl Iterator<Item = PathBuf> {
    (0..workload.files.div_ceil(FILES_PER_DIR)).map(move |number| directory(place, number))
}

fn names(place: &Path, workload: &Workload, suffix: &'static str) -> impl Iterator<Item = PathBuf> {
    (0..workload.files).map(move |n| directory(place, n / FILES_PER_DIR).join(format!("f{n}{suffix}")))
}

pub(super) fn directories(place: &Path, workload: &Workload) -> Result<()> {
    for dir in directories_of(place, workload) {
        fs::create_dir(dir)?;
    }
    Ok(())
}

pub(super) fn create(place: &Path, workload: &Workload) -> Result<Duration> {
    let block = noise(SMALL_BYTES);
    timed(|| {
        for path in names(place, workload, "") {
            File::create_new(path)?.write_all(&block)?;
        }
        Ok(())
    })
}

pub(super) fn stat(place: &Path, workload: &Workload) -> Result<Duration> {
    timed(|| {
        for path in names(place, workload, "") {
            ensure!(fs::symlink_metadata(path)?.len() == SMALL_BYTES as u64, "a file of another size");
        }
        Ok(())
    })
}

pub(super) fn list_names(place: &Path, workload: &Workload) -> Result<Duration> {
    timed(|| {
        let mut found = 0;
        for dir in directories_of(place, workload) {
            for entry in fs::read_dir(dir)? {
                found += usize::from(entry?.file_type()?.is_file());
            }
        }
        ensure!(found == workload.files, "{found} files listed");
        Ok(())
    })
}

/// What `ls -l` asks for.
pub(super) fn list_long(place: &Path, workload: &Workload) -> Result<Duration> {
    timed(|| {
        let mut bytes = 0;
        for dir in directories_of(place, workload) {
            for entry in fs::read_dir(dir)? {
                bytes += entry?.metadata()?.len();
            }
        }
        ensure!(bytes == (workload.files * SMALL_BYTES) as u64, "{bytes} bytes listed");
        Ok(())
    })
}

pub(super) fn read(place: &Path, workload: &Workload) -> Result<Duration> {
    let mut buffer = vec![0; SMALL_BYTES];
    timed(|| {
        for path in names(place, workload, "") {
            File::open(path)?.read_exact(&mut buffer)?;
        }
        Ok(())
    })
}

pub(super) fn rename(place: &Path, workload: &Workload) -> Result<Duration> {
    timed(|| {
        for (from, to) in names(place, workload, "").zip(names(place, workload, "-renamed")) {
            fs::rename(from, to)?;
        }
        Ok(())
    })
}

/// Whether they have been renamed before or not.
pub(super) fn unlink(place: &Path, workload: &Workload) -> Result<Duration> {
    let renamed = names(place, workload, "-renamed").next().is_some_and(|path| path.exists());
    let suffix = if renamed { "-renamed" } else { "" };
    timed(|| {
        for path in names(place, workload, suffix) {
            fs::remove_file(path)?;
        }
        Ok(())
    })
}
