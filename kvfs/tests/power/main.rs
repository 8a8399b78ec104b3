//! The whole engine (journal, data segments, LMDB, node store, names) on a filesystem that loses power, fails and lies:
//! what was confirmed is there, and the state is one of the order of operations.
//!
//! `CBFS_POWER_ROUNDS` says how many losses of power, `CBFS_POWER_SEED` where they begin.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on ends
#![allow(clippy::print_stdout)] // what was seen, for whoever asks

#[path = "../model/acl.rs"]
#[allow(dead_code)] // what only the model test needs
mod acl;
#[path = "../model/base.rs"]
mod base;
mod faults;
mod host;
mod instance;
mod mutations;
mod powerfs;
#[path = "../model/reference.rs"]
#[allow(dead_code)] // what only the model test needs
mod reference;
mod round;
mod scenes;
mod tree;
mod violation;
mod work;

use anyhow::{Context, Result, ensure};

use faults::{During, Sweep};
use kvfs::op::RenameMode;
use parking_lot::RwLock;
use powerfs::{Calls, Effect};

/// A positive number from the environment, or `default`.
fn count_from_env(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text:?} is not a number")),
        Err(_) => Ok(default),
    }
}

#[test]
fn power_loss_leaves_a_prefix_with_everything_confirmed() -> Result<()> {
    let _turn = TURN.read();
    let rounds = count_from_env("CBFS_POWER_ROUNDS", 240)? as usize;
    let seed = count_from_env("CBFS_POWER_SEED", 1)?;
    let stats = round::run(seed, rounds, |_| {})?;
    println!("{stats:?}");
    let enough = stats.rounds >= rounds && stats.lost > rounds && stats.confirmed_syncs > rounds;
    ensure!(enough && stats.snapshots > rounds / 10, "vacuous: {stats:?}");
    Ok(())
}

/// The n-th request fails, in several ways; `CBFS_FAULT_STRIDE` leaves some out.
#[test]
fn a_fault_at_any_request_is_an_error_and_loses_nothing() -> Result<()> {
    let _turn = TURN.read();
    let stride = count_from_env("CBFS_FAULT_STRIDE", 3)?;
    let seed = count_from_env("CBFS_POWER_SEED", 1)?;
    for (index, (effect, errno, times)) in WAYS.into_iter().enumerate() {
        for during in [During::Work, During::Closing, During::Recovery] {
            let sweep = Sweep { during, calls: Calls::Any, effect, errno, times };
            let seen = faults::sweep(sweep, seed + index as u64, stride)?;
            println!("{sweep:?}: {seen:?}");
        }
    }
    Ok(())
}

/// How requests fail: what happens all the same, the error, how many in a row.
const WAYS: [(Effect, i32, u64); 8] = [
    (Effect::Nothing, libc::EIO, 1),
    (Effect::Nothing, libc::ENOSPC, 1),
    (Effect::Half, libc::ENOSPC, 1),
    (Effect::Short, libc::EIO, 1),
    (Effect::Everything, libc::EIO, 1),
    (Effect::Nothing, libc::EIO, u64::MAX),
    (Effect::Nothing, libc::ENOSPC, u64::MAX),
    (Effect::Half, libc::ENOSPC, 20),
];

/// Each scene of the module is a test.
macro_rules! scenes {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() -> Result<()> {
            let _turn = TURN.read();
            scenes::$name()
        })*
    };
}

scenes!(
    an_old_reader_keeps_its_bytes,
    a_checkpoint_that_is_tried_again_keeps_what_it_moved,
    a_full_store_refuses_and_recovers,
    a_part_that_the_disk_lost_is_an_error,
    damage_is_not_taken_for_the_end,
    a_layer_that_cannot_be_removed_stays_whole,
);

#[test]
fn a_sync_that_is_forgotten_is_found() -> Result<()> {
    let _turn = TURN.read();
    mutations::lies_are_found()
}

/// A write comes in between the flush of the data and that of the journal, which takes its record along.
#[cfg(feature = "failpoints")]
#[test]
fn a_write_in_the_middle_of_a_flush_may_be_lost_and_is_no_damage() -> Result<()> {
    let _turn = TURN.write();
    scenes::a_write_in_the_middle_of_a_flush_may_be_lost_and_is_no_damage()
}

#[cfg(feature = "failpoints")]
#[test]
fn a_check_that_is_left_out_is_found() -> Result<()> {
    let _turn = TURN.write();
    mutations::omissions_are_found()
}

/// Failpoints are the whole process's: who sets them is alone.
static TURN: RwLock<()> = RwLock::new(());

/// The ground itself: a write to a file that was opened with `O_DSYNC`, as LMDB does, is synced; bytes without a sync and
/// names without one of their directory may go.
#[test]
fn the_ground_keeps_what_is_synced_and_nothing_else() -> Result<()> {
    scenes::the_ground_keeps_what_is_synced_and_nothing_else()
}

#[test]
#[ignore = "needs loop devices"]
fn ext4_that_is_shut_down_keeps_its_promises() -> Result<()> {
    let _turn = TURN.read();
    host::ext4_that_is_shut_down(count_from_env("CBFS_EXT4_ROUNDS", 30)?)
}
