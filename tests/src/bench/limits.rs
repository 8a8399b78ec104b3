//! What is compared with what, and how much is allowed.

use serde::Serialize;

/// Target ids, as on the command line and in JSON.
pub const HOST: &str = "host";
/// A FUSE filesystem that only keeps memory.
pub const NULL: &str = "null";
/// CBFS on an empty base.
pub const CBFS: &str = "cbfs";
/// CBFS on a published base of many files.
pub const BASE: &str = "base";
/// `JuiceFS` as it comes.
pub const JUICEFS: &str = "juicefs";
/// `JuiceFS` that uploads later.
pub const JUICEFS_WRITEBACK: &str = "juicefs-writeback";

/// All ids, in the order of the columns.
pub const TARGETS: [&str; 6] = [HOST, NULL, CBFS, BASE, JUICEFS, JUICEFS_WRITEBACK];

/// The name of a target in the table.
pub fn title(target: &str) -> &'static str {
    match target {
        HOST => "host",
        NULL => "null FUSE",
        CBFS => "CBFS",
        BASE => "CBFS on a base",
        JUICEFS => "JuiceFS",
        JUICEFS_WRITEBACK => "JuiceFS --writeback",
        _ => "?",
    }
}

/// CBFS may take at most `factor` times as long as `yardstick`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limit {
    /// The target to compare with.
    pub yardstick: &'static str,
    /// How many times as long.
    pub factor: f64,
}

impl Limit {
    pub(super) const fn new(yardstick: &'static str, factor: f64) -> Self {
        Self { yardstick, factor }
    }
}

/// What holds for every step.
pub const EVERYWHERE: [Limit; 2] = [Limit::new(JUICEFS, 0.3), Limit::new(JUICEFS_WRITEBACK, 1.0)];
