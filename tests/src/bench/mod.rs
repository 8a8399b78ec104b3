//! What the filesystem costs, beside the host's filesystem, a FUSE filesystem that only keeps memory, and `JuiceFS`.
//!
//! `run` has the steps and the rounds; `memory`, `pause`, `restart`, `scale` and `snapshot` are measurements of their own. Times on
//! shared machines are noise, so everything that counts is a ratio within a round, and the daemon's processor time stands
//! beside it.

mod ending;
mod fill;
mod latency;
pub mod limits;
mod machine;
mod memory;
mod pause;
mod processes;
mod report;
mod restart;
mod results;
mod run;
mod scale;
mod site;
pub mod snapshot;
mod steps;
mod target;
mod workload;

pub use ending::{Ending, clean_up_when_ended};
pub use memory::Memory;
pub use pause::Pause;
pub use restart::Restart;
pub use results::Results;
pub use run::{Plan, measure};
pub use scale::Scale;
pub use site::Site;
pub use target::{juicefs_binary, serve_null};
pub use workload::{Tree, Workload};
