//! Many files, fast: what a filesystem already holds when something else is measured.

use anyhow::{Result, anyhow};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::{self, available_parallelism};

/// Files in one directory.
const FILES_PER_DIR: usize = 1000;

/// Which files.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// The number of the first one.
    pub from: usize,
    /// One behind the last.
    pub to: usize,
    /// Bytes of each.
    pub bytes: usize,
}

/// The path of file `number` below `top`.
pub fn path_of(top: &Path, number: usize) -> PathBuf {
    top.join(format!("d{}", number / FILES_PER_DIR)).join(format!("f{number}"))
}

/// Creates them below `top`, on all processors.
pub fn fill(top: &Path, what: &Fill) -> Result<()> {
    let Fill { from, to, bytes } = *what;
    for dir in from / FILES_PER_DIR..to.div_ceil(FILES_PER_DIR) {
        fs::create_dir_all(top.join(format!("d{dir}")))?;
    }
    let body = super::steps::noise(bytes);
    let threads = available_parallelism()?.get();
    let share = |first: usize| -> Result<()> {
        for number in (from + first..to).step_by(threads) {
            File::create_new(path_of(top, number))?.write_all(&body)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|first| scope.spawn(move || share(first))).collect();
        all.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}
