//! The committed inputs: one file each, named by what it showed.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the corpus is.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz-corpus")
}

/// All inputs of a target's folder, in the order of their names.
pub fn load(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let entries = fs::read_dir(folder).with_context(|| format!("no corpus: {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    paths.iter().map(|path| fs::read(path).with_context(|| format!("cannot read {}", path.display()))).collect()
}

/// Keeps an input under a name made of `label` and the hash of `what`; a longer one of that name is replaced.
pub fn keep(folder: &Path, label: &str, what: &[u8], bytes: &[u8]) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let hash = blake3::hash(what).to_hex();
    let path = folder.join(format!("{label}-{}", &hash[..12]));
    if fs::metadata(&path).map_or(true, |meta| meta.len() > bytes.len() as u64) {
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(path)
}
