//! What the filesystem costs, as ratios to the host's filesystem and to a FUSE filesystem that only keeps memory.
//!
//! Every step runs on all targets in turn before the next one begins, and every round does so anew: whatever else the
//! machine does hits all of them. The medians over the rounds count.

mod report;
mod steps;
mod target;

pub use report::{Machine, Table};
pub use steps::Sizes;
pub use target::{Target, serve_null};

use crate::bucket::{Bucket, StoreKind};
use anyhow::{Context, Result};
use std::path::Path;

/// Measures below `dir`, a directory on the filesystem to compare with.
pub fn measure(dir: &Path, rounds: usize, sizes: Sizes, mut progress: impl FnMut(&str)) -> Result<Table> {
    let bucket = Bucket::new(StoreKind::Directory)?;
    let mut targets = [Target::host(dir)?, Target::null(dir)?, Target::cbfs(dir, &bucket)?];
    let mut table = Table::default();
    for round in 0..rounds {
        for step in steps::STEPS {
            for target in &mut targets {
                let context = || format!("{} on {}", step.name, target.name());
                progress(&format!("round {} of {rounds}: {}", round + 1, context()));
                let place = target.place(round)?;
                if step.cold == steps::Caches::Cold {
                    target.forget_caches().with_context(|| format!("{} on {}", step.name, target.name()))?;
                }
                let name = target.name();
                let seconds = step.run(&place, sizes).with_context(|| format!("{} on {name}", step.name))?;
                table.add(step, sizes, name, seconds);
            }
        }
        for target in &mut targets {
            target.clear(round)?;
        }
    }
    for target in targets {
        target.end()?;
    }
    Ok(table)
}
