//! How much the steps do.

use crate::process::run_ok;
use crate::source::{Extent, source_tree_of};
use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use walkdir::WalkDir;

const PACK_LIMIT: Duration = Duration::from_secs(600);

/// How much each step does.
#[derive(Args, Clone, Debug, Deserialize, Serialize)]
pub struct Workload {
    /// Small files
    #[arg(long, default_value_t = 10_000)]
    pub files: usize,
    /// Files that are fsynced each
    #[arg(long, default_value_t = 1000)]
    pub synced: usize,
    /// Transactions of each kind of SQLite journal
    #[arg(long, default_value_t = 1000)]
    pub transactions: usize,
    /// The large file, MiB
    #[arg(long, default_value_t = 1024)]
    pub large_mib: usize,
    /// Random reads, and as many writes
    #[arg(long, default_value_t = 10_000)]
    pub random: usize,
    /// C files to compile
    #[arg(long, default_value_t = 200)]
    pub sources: usize,
    /// The source tree, if a step needs it.
    #[arg(skip)]
    pub tree: Option<Tree>,
}

impl Workload {
    /// As little as makes sense.
    pub fn tiny() -> Self {
        Self { files: 150, synced: 32, transactions: 5, large_mib: 2, random: 20, sources: 3, tree: None }
    }

    /// Files of the tree.
    pub fn tree_files(&self) -> usize {
        self.tree.as_ref().map_or(1, |tree| tree.files)
    }

    pub(super) fn tree(&self) -> Result<&Tree> {
        self.tree.as_ref().context("no source tree was given")
    }
}

/// A source tree as a tar file; its members are below `tree/`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Tree {
    /// The tar file.
    pub tar: PathBuf,
    /// Regular files in it.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Tree {
    /// The kernel's sources.
    pub fn kernel(extent: Extent) -> Result<Self> {
        let source = source_tree_of(extent)?;
        let (files, bytes) = measure(&source.dir)?;
        Ok(Self { tar: source.tar, files, bytes })
    }

    /// The tree `dir`; its tar file is made in `place`.
    pub fn of(dir: &Path, place: &Path) -> Result<Self> {
        let tar = place.join("tree.tar");
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
        let args = ["-cf", &text(&tar)?, "--transform=s,^\\.,tree,", "-C", &text(dir)?, "."];
        run_ok("tar", &args, PACK_LIMIT)?;
        let (files, bytes) = measure(dir)?;
        Ok(Self { tar, files, bytes })
    }
}

fn measure(dir: &Path) -> Result<(usize, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in WalkDir::new(dir) {
        let entry = entry?;
        if entry.file_type().is_file() {
            files += 1;
            bytes += entry.metadata()?.len();
        }
    }
    Ok((files, bytes))
}
