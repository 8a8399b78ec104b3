//! Tooling of the end-to-end tests.
