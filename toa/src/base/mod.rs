//! The published snapshot below a filesystem: a stack of index runs, and the frames of packs.
//!
//! [`Objects`] reads checked bytes from the proxy or fetches them; [`RunBase`] answers `kvfs::base::Base` from the runs
//! that a ledger record lists.

mod fetch;
pub mod objects;
pub(crate) mod part;
pub mod run_base;
pub(crate) mod visible;

pub use objects::{ObjectRef, Objects, ObjectsOptions, Piece};
pub use run_base::RunBase;

#[cfg(test)]
mod run_base_tests;
#[cfg(test)]
mod split_tests;
#[cfg(test)]
mod test_store;
#[cfg(test)]
mod tests;
