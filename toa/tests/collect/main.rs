//! Collecting and merging against a model of a filesystem.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod model;
mod parts;
mod restore;
mod scenarios;
mod sides;
mod world;
