//! A real source tree of more than 20,000 files, to unpack onto a mount.

use crate::paths::cache_dir;
use crate::process::run_ok;
use crate::serial::turn;
use anyhow::{Context, Result, ensure};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use walkdir::WalkDir;

/// The fewest files that count as a real tree.
pub const FILES_MIN: usize = 20_000;

/// Parts of the kernel that make up the tree: 26,000 files, 300 MB. `CBFS_TEST_TREE=full` takes everything.
const PARTS: [&str; 3] = ["arch", "include", "fs"];
const UNPACK_LIMIT: Duration = Duration::from_secs(300);

/// The tree, as a tar file and unpacked on the host.
#[derive(Clone, Debug)]
pub struct SourceTree {
    /// An uncompressed tar file; its members are below `tree/`.
    pub tar: PathBuf,
    /// The same tree unpacked: the directory `tree`.
    pub dir: PathBuf,
    /// Regular files in it.
    pub files: usize,
}

/// How much of the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Some parts.
    Part,
    /// Everything.
    Full,
}

/// The tree that `CBFS_TEST_TREE` asks for.
pub fn source_tree() -> Result<SourceTree> {
    let full = env::var_os("CBFS_TEST_TREE").is_some_and(|value| value == "full");
    source_tree_of(if full { Extent::Full } else { Extent::Part })
}

/// The tree; unpacked from Debian's `linux-source` package on first use, and kept for later runs.
pub fn source_tree_of(extent: Extent) -> Result<SourceTree> {
    let _turn = turn("source")?;
    let (name, parts): (&str, &[&str]) = match extent {
        Extent::Part => ("source", &PARTS),
        Extent::Full => ("source-full", &[]),
    };
    let home = cache_dir()?.join(name);
    if !home.is_dir() {
        make(&home, parts)?;
    }
    let tree =
        SourceTree { tar: home.join("tree.tar"), dir: home.join("tree"), files: count_files(&home.join("tree"))? };
    ensure!(tree.files >= FILES_MIN, "{} has only {} files", tree.dir.display(), tree.files);
    Ok(tree)
}

fn make(home: &Path, parts: &[&str]) -> Result<()> {
    let archive = archive()?;
    let stage = home.with_extension("new");
    if stage.exists() {
        fs::remove_dir_all(&stage)?;
    }
    fs::create_dir_all(stage.join("tree"))?;
    let stage_text = stage.to_str().context("a path that is not UTF-8")?;
    let tree_text = format!("{stage_text}/tree");
    let archive_text = archive.to_str().context("a path that is not UTF-8")?;
    let mut args = vec!["-xf", archive_text, "-C", &tree_text, "--strip-components=1"];
    let members: Vec<String> = parts.iter().map(|part| format!("*/{part}")).collect();
    if !members.is_empty() {
        args.extend(["--wildcards", "--no-wildcards-match-slash"]);
        args.extend(members.iter().map(String::as_str));
    }
    run_ok("tar", &args, UNPACK_LIMIT)?;
    let tar_text = format!("{stage_text}/tree.tar");
    let pack = ["--format=pax", "--numeric-owner", "-cf", &tar_text, "-C", stage_text, "tree"];
    run_ok("tar", &pack, UNPACK_LIMIT)?;
    // The rename makes it all or nothing.
    fs::rename(&stage, home)?;
    Ok(())
}

/// `CBFS_TEST_SOURCE`, or the package's file.
fn archive() -> Result<PathBuf> {
    if let Some(path) = env::var_os("CBFS_TEST_SOURCE") {
        return Ok(path.into());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir("/usr/src").context("no /usr/src")? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("linux-source-") && name.contains(".tar") {
            found.push(path);
        }
    }
    found.sort();
    found.pop().context("no source tree: install Debian's linux-source-6.1 (tests/run does), or set CBFS_TEST_SOURCE")
}

fn count_files(dir: &Path) -> Result<usize> {
    let mut files = 0;
    for entry in WalkDir::new(dir) {
        files += usize::from(entry?.file_type().is_file());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Compare, Manifest};
    use crate::scenario::unpack;

    #[test]
    fn the_tar_file_is_the_tree() {
        let tree = source_tree().unwrap();
        let place = tempfile::tempdir().unwrap();
        unpack(&tree.tar, place.path()).unwrap();
        let expected = Manifest::scan(&tree.dir).unwrap();
        assert!(expected.files() >= FILES_MIN);
        expected.must_equal(&Manifest::scan(place.path()).unwrap().below("tree"), Compare::Exact).unwrap();
    }
}
