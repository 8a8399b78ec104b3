//! What the figures were measured on.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::thread::available_parallelism;

/// A machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Machine {
    processor: String,
    processors: usize,
    memory_gib: u64,
    kernel: String,
    profile: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Result<Self> {
        let field = |text: &str, name: &str| -> Option<String> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&fs::read_to_string("/proc/meminfo")?, "MemTotal").unwrap_or_default();
        let kibibytes: u64 = memory.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        Ok(Self {
            processor: field(&fs::read_to_string("/proc/cpuinfo")?, "model name").unwrap_or_else(|| "unknown".into()),
            processors: available_parallelism()?.get(),
            memory_gib: kibibytes >> 20,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            profile: if cfg!(debug_assertions) { "debug".into() } else { "release".into() },
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, processors, memory_gib, kernel, profile } = self;
        write!(f, "{processors} x {processor}, {memory_gib} GiB, Linux {kernel}")?;
        if profile == "release" { Ok(()) } else { write!(f, " (a {profile} build: the figures mean nothing)") }
    }
}
