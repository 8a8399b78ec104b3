//! Source trees that change: the same files in the same way wherever the tree is.

use crate::bench::steps::program::time_of;
use crate::bench::workload::Tree;
use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::seq::index::sample;
use rand::{Rng, SeedableRng};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use walkdir::WalkDir;

/// Where tar files of [`Tree`] unpack to.
const TREE: &str = "tree";

/// Unpacks `tree` below `place`: where it is then, and how long that took. The archive does not come from the disk.
pub(super) fn unpack(tree: &Tree, place: &Path) -> Result<(PathBuf, Duration)> {
    io::copy(&mut File::open(&tree.tar)?, &mut io::sink())?;
    let took = time_of(Command::new("tar").arg("-xf").arg(&tree.tar).arg("-C").arg(place))?;
    Ok((place.join(TREE), took))
}

/// All regular files below `dir`, as paths from there, sorted.
pub(super) fn files_of(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in WalkDir::new(dir) {
        let entry = entry?;
        if entry.file_type().is_file() {
            found.push(entry.path().strip_prefix(dir)?.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// One in `one_in` of `files`, chosen by `seed`, as an editor changes them: a line more, and the whole file written again.
/// How many.
pub(super) fn edit(dir: &Path, files: &[PathBuf], one_in: usize, seed: u64) -> Result<usize> {
    let mut random = SmallRng::seed_from_u64(seed);
    let count = files.len().div_ceil(one_in);
    for index in sample(&mut random, files.len(), count) {
        let path = dir.join(files.get(index).context("no such file")?);
        let mut text = fs::read(&path)?;
        let at = random.random_range(0..=text.len());
        let line = format!("\n/* change {seed} of {index}: {:016x} */\n", random.random::<u64>());
        text.splice(at..at, line.into_bytes());
        fs::write(&path, text).with_context(|| format!("cannot change {}", path.display()))?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_trees_change_in_the_same_way() {
        let make = || {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("sub")).unwrap();
            for number in 0..30 {
                fs::write(dir.path().join(format!("sub/f{number}")), format!("text {number}")).unwrap();
            }
            dir
        };
        let (one, other, untouched) = (make(), make(), make());
        let files = files_of(one.path()).unwrap();
        assert_eq!(files.len(), 30);
        for dir in [&one, &other] {
            assert_eq!(edit(dir.path(), &files, 10, 7).unwrap(), 3);
        }
        let contents = |dir: &tempfile::TempDir| -> Vec<Vec<u8>> {
            files.iter().map(|file| fs::read(dir.path().join(file)).unwrap()).collect()
        };
        assert_eq!(contents(&one), contents(&other));
        let changed = contents(&one).iter().zip(contents(&untouched)).filter(|(new, old)| *new != old).count();
        assert_eq!(changed, 3);
        assert_eq!(files_of(one.path()).unwrap(), files_of(untouched.path()).unwrap());
    }
}
