//! The commands that talk straight to the bucket and need no daemon. All may run at the same time on any number of
//! machines.

pub mod create;
pub mod delete;
pub mod error;
pub mod list;
pub mod resolve;
pub mod show;

pub use create::{create, create_another};
pub use delete::{DeleteMode, DeleteReport, delete, undelete};
pub use error::AdminError;
pub use list::{DeletedFilter, FsSummary, list};
pub use resolve::resolve;
pub use show::{FsOverview, read_config, show};
