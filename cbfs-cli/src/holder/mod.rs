//! The holder: a small process that keeps the connection to the kernel while daemons come and go.
//!
//! ```text
//! cbfs mount ──► holder ──► daemon, life 0: opens, mounts, hands over what must be kept
//!                       ──► daemon, life 1: gets that back, recovers, goes on where the other one stopped …
//! ```
//! While there is no daemon, calls into the mount wait. The holder knows nothing of filesystems: it keeps descriptors
//! and a text for its daemons, starts a new one when one dies, and lets go when that is of no use; then the kernel ends
//! the connection and every call that waits. It never touches the mount, which would wait for a daemon: itself.

mod link;
mod process;
pub(crate) mod protocol;
mod run;
mod verdict;

pub use link::{Link, Welcomed};
pub use protocol::Restarts;
pub use run::run;
pub use verdict::HANDED_OVER;
