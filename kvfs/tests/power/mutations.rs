//! Tests of the test: with a promise broken on purpose the rounds find it.

use crate::powerfs::{Lie, PowerFs, Sync};
use crate::round;
use crate::violation::Violation;
use anyhow::{Result, bail, ensure};

/// Rounds in which a mutation must be found; most are found in the first.
const ROUNDS_MAX: usize = 120;

/// Parts of the engine that are left out.
#[cfg(feature = "failpoints")]
const OMISSIONS: [&str; 2] = [
    // Replay does not check the bytes that a record names.
    "kvfs::recovery::unchecked",
    // LMDB names bytes that were not flushed.
    "kvfs::checkpoint::unflushed",
];

/// Syncs that are not done, each as if the engine had forgotten it.
const LIES: [Lie; 6] = [
    Lie { path: "journal/", sync: Sync::File },
    Lie { path: "data/", sync: Sync::File },
    // The journal is released before the checkpoint is durable.
    Lie { path: "layers/", sync: Sync::File },
    // The directory after a new segment, a new layer.
    Lie { path: "journal", sync: Sync::Names },
    Lie { path: "data", sync: Sync::Names },
    Lie { path: "layers", sync: Sync::Names },
];

fn must_be_found(name: &str, prepare: impl Fn(&PowerFs)) -> Result<()> {
    match round::run(1, ROUNDS_MAX, prepare) {
        Ok(stats) => bail!("{name}: not found in {stats:?}"),
        Err(error) => {
            ensure!(error.downcast_ref::<Violation>().is_some(), "{name}: {error:?}");
            println!("{name}: {error:#}");
            Ok(())
        }
    }
}

/// A forgotten sync is found.
pub fn lies_are_found() -> Result<()> {
    LIES.iter().try_for_each(|lie| must_be_found(&format!("{lie:?}"), |power| power.lie(*lie)))
}

#[cfg(feature = "failpoints")]
/// An omission is found. The caller has the failpoints for itself.
pub fn omissions_are_found() -> Result<()> {
    for name in OMISSIONS {
        let _omitted = Omitted::begin(name)?;
        must_be_found(name, |_| {})?;
    }
    Ok(())
}

/// Ends with its scope, also if that panics: other tests would take the engine for broken.
#[cfg(feature = "failpoints")]
struct Omitted(&'static str);

#[cfg(feature = "failpoints")]
impl Omitted {
    fn begin(name: &'static str) -> Result<Self> {
        fail::cfg(name, "return").map_err(anyhow::Error::msg)?;
        Ok(Self(name))
    }
}

#[cfg(feature = "failpoints")]
impl Drop for Omitted {
    fn drop(&mut self) {
        fail::remove(self.0);
    }
}
