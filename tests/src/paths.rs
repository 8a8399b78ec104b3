//! Where the tests find programs and keep what is expensive to make.

use anyhow::{Context, Result, bail};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// What may be deleted at any time and is made again: the S3 server's programs, the unpacked source tree.
pub fn cache_dir() -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// The program under test: `CBFS_BIN`, or the one beside the test programs.
pub fn cbfs_binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("CBFS_BIN") {
        return Ok(path.into());
    }
    let own = env::current_exe().context("no path of the running program")?;
    for dir in own.ancestors().skip(1).take(2) {
        let candidate = dir.join("cbfs");
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!(
        "no cbfs program beside {}: build it with `cargo build -p cbfs-cli --features failpoints`, or run tests/run",
        own.display()
    )
}

/// The S3 server's program: `CBFS_WEED`, or the one that tests/run installed.
pub fn weed_binary() -> Result<PathBuf> {
    let path = match env::var_os("CBFS_WEED") {
        Some(path) => PathBuf::from(path),
        None => cache_dir()?.join("venv/bin/weed"),
    };
    if !path.is_file() {
        bail!("no S3 server at {}: run tests/run, which installs it", path.display());
    }
    Ok(path)
}

/// A POSIX test program that tests/run installed: `pjdfstest`, `fsx`.
pub fn tool_binary(name: &str) -> Result<PathBuf> {
    let path = cache_dir()?.join("tools/bin").join(name);
    if !path.is_file() {
        bail!("no {name} at {}: run tests/run, which installs it", path.display());
    }
    Ok(path)
}

/// A positive number from the environment, or `default`: how long loops run.
pub fn count_from_env(name: &str, default: usize) -> Result<usize> {
    match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text:?} is not a number")),
        Err(_) => Ok(default),
    }
}
