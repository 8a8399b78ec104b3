//! Tooling of the end-to-end tests: nodes, buckets, faults, trees and measurements.
//!
//! Nothing in here is needed to build or run the product. The tests drive the real `cbfs` program on real mounts, with a
//! directory and with a real S3 server as the bucket; see `tests/run` for what they need.

pub mod bench;
pub mod bucket;
pub mod differential;
pub mod fuzz;
pub mod manifest;
pub mod nasty;
pub mod node;
pub mod nullfs;
pub mod paths;
pub mod process;
pub mod proxy;
pub mod s3;
pub mod scenario;
pub mod serial;
pub mod source;
