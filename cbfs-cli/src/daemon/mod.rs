//! The daemon: one process, one mount.

mod background;
mod life;
mod plan;
mod prepare;
mod service;
mod stop;
mod views;

pub use background::{run_detached, start_detached};
pub use life::run;
pub use plan::{Absent, MountPlan, MountReport, Ready};
