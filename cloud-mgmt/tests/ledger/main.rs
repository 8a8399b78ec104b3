//! The ledger over stores that race, lose answers and hold damaged records.

// Tests may; clippy knows it of test functions alone, not of their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

mod append;
mod fixtures;
mod operations;
mod races;
mod random;
mod reading;
mod summary;
mod summary_faults;
mod sweep;
mod world;
