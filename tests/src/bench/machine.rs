//! What the figures were measured on.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io::{Read, Write, pipe};
use std::thread;
use std::thread::available_parallelism;
use std::time::Instant;

/// How often two threads wake each other.
const WAKE_UPS: u32 = 5_000;
/// What a virtual machine does with a processor that has nothing to do.
const HALT_POLL_NS: &str = "/sys/module/haltpoll/parameters/guest_halt_poll_ns";

/// A machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Machine {
    processor: String,
    processors: usize,
    memory_gib: u64,
    kernel: String,
    profile: String,
    /// What becomes of a processor that has nothing to do. Not known of runs that were saved before this was noted.
    #[serde(default)]
    idle: Option<Idle>,
}

/// How a processor waits for work, which decides what a request to any FUSE daemon costs.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Idle {
    /// The kernel's driver for it.
    driver: String,
    /// For so long a virtual machine keeps the processor before it gives it back to its host; only with `haltpoll`.
    halt_poll_ns: Option<u64>,
    /// A byte to another thread and one back, when nobody else does anything: two wake-ups.
    there_and_back_us: f64,
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
            idle: Some(Idle::this()?),
        })
    }
}

impl Idle {
    fn this() -> Result<Self> {
        let driver = fs::read_to_string("/sys/devices/system/cpu/cpuidle/current_driver").unwrap_or_default();
        let halt_poll_ns = fs::read_to_string(HALT_POLL_NS).ok().and_then(|text| text.trim().parse().ok());
        let there_and_back_us = there_and_back_us().context("two threads that wake each other")?;
        Ok(Self { driver: driver.trim().to_owned(), halt_poll_ns, there_and_back_us })
    }
}

/// The same settings are the same: what was measured is never twice the same.
impl PartialEq for Idle {
    fn eq(&self, other: &Self) -> bool {
        let Self { driver, halt_poll_ns, there_and_back_us: _ } = self;
        (driver, halt_poll_ns) == (&other.driver, &other.halt_poll_ns)
    }
}

impl Eq for Idle {}

fn there_and_back_us() -> Result<f64> {
    let ((mut asked, mut ask), (mut answered, mut answer)) = (pipe()?, pipe()?);
    let other = thread::spawn(move || -> std::io::Result<()> {
        let mut byte = [0];
        while asked.read(&mut byte)? > 0 {
            answer.write_all(&byte)?;
        }
        Ok(())
    });
    let start = Instant::now();
    for _ in 0..WAKE_UPS {
        ask.write_all(&[0])?;
        answered.read_exact(&mut [0])?;
    }
    let took = start.elapsed();
    drop(ask);
    other.join().ok().context("the other thread panicked")??;
    Ok(took.as_secs_f64() * 1e6 / f64::from(WAKE_UPS))
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, processors, memory_gib, kernel, profile, idle } = self;
        write!(f, "{processors} x {processor}, {memory_gib} GiB, Linux {kernel}")?;
        if let Some(Idle { driver, halt_poll_ns, there_and_back_us }) = idle {
            write!(f, ", idle: {driver}")?;
            if let Some(ns) = halt_poll_ns {
                write!(f, " after {ns} ns")?;
            }
            write!(f, ", a thread wakes another and is woken in {there_and_back_us:.0} µs")?;
        }
        if profile == "release" { Ok(()) } else { write!(f, " (a {profile} build: the figures mean nothing)") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_with_another_idle_setting_are_of_another_machine() {
        let machine = |halt_poll_ns, there_and_back_us| Machine {
            processor: "p".into(),
            processors: 2,
            memory_gib: 1,
            kernel: "k".into(),
            profile: "release".into(),
            idle: Some(Idle { driver: "haltpoll".into(), halt_poll_ns, there_and_back_us }),
        };
        assert_eq!(machine(Some(0), 50.0), machine(Some(0), 60.0));
        assert_ne!(machine(Some(0), 50.0), machine(Some(200_000), 50.0));
        assert_eq!(
            machine(Some(0), 54.4).to_string(),
            "2 x p, 1 GiB, Linux k, idle: haltpoll after 0 ns, a thread wakes another and is woken in 54 µs"
        );
    }
}
