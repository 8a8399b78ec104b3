//! Every parser of the libraries against its corpus, and against mutations of it (see `cbfs_tests::fuzz`).
//!
//! `CBFS_FUZZ_RUNS` or `CBFS_FUZZ_SECONDS` make it longer, `CBFS_FUZZ_SEED` makes it another one, `CBFS_FUZZ_TARGET` picks
//! one target, `CBFS_FUZZ_GROW` keeps what shows a new way.

use anyhow::{Context, Result, ensure};
use cap::Cap;
use cbfs_tests::fuzz::{Meter, corpus, run, targets};
use std::alloc::System;

/// Counts what this process takes.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

struct Memory;

impl Meter for Memory {
    fn now(&self) -> usize {
        MEMORY.allocated()
    }

    fn most(&self) -> usize {
        MEMORY.max_allocated()
    }
}

/// Mutations of each target in CI.
const RUNS: u64 = 6_000;
/// The corpus stays small, bytes.
const CORPUS_BYTES_MAX: u64 = 1 << 20;

/// One after the other: memory is that of the whole process.
#[test]
fn no_parser_panics_hangs_or_takes_more_memory_than_its_limits() -> Result<()> {
    let wanted = std::env::var("CBFS_FUZZ_TARGET").ok();
    let targets = targets::ALL.iter().filter(|target| wanted.as_deref().is_none_or(|name| name == target.name));
    let failed: Vec<_> = targets.filter_map(|target| run(target, RUNS, &Memory).err()).map(|e| e.to_string()).collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

#[test]
fn the_corpus_is_small_and_belongs_to_targets() -> Result<()> {
    let mut bytes = 0;
    for folder in std::fs::read_dir(corpus::root()).context("no corpus")? {
        for file in std::fs::read_dir(folder?.path())? {
            bytes += file?.metadata()?.len();
        }
    }
    ensure!(bytes <= CORPUS_BYTES_MAX, "the corpus has {bytes} bytes");
    for target in targets::ALL {
        ensure!(corpus::root().join(target.name).is_dir(), "{} has no corpus", target.name);
    }
    Ok(())
}
