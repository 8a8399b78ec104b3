//! The control API: HTTP and JSON on a unix socket in the instance directory.

pub mod api;
pub mod client;
mod handlers;
pub mod problem;
pub mod server;
pub mod service;
pub mod socket;
#[cfg(test)]
mod tests;

pub use client::Client;
pub use handlers::check_snapshot_name;
pub use service::Service;
