//! The daemon: one process at a time for each mount, started by the holder of the mount.

mod alerts;
mod background;
mod holding;
mod kept;
mod life;
mod plan;
mod prepare;
mod service;
mod stop;
mod views;

pub use background::{hold, hold_detached, run_held, start_detached};
pub use plan::{Absent, MountPlan, Stays};
