//! What a check found: the promise that was broken, told apart from a test that could not be done.

use std::fmt;

/// A broken promise.
#[derive(Debug)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken promise: {}", self.0)
    }
}

impl std::error::Error for Violation {}

/// An error that says so.
pub fn broken(what: impl Into<String>) -> anyhow::Error {
    Violation(what.into()).into()
}
