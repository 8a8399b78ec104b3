//! Who writes records, with which clock and which randomness.

use jiff::Timestamp;
use std::fmt::Debug;
use uuid::Uuid;

/// The author of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The node: kept in its state directory for ever.
    pub node: Uuid,
    /// This process life: made fresh at each start, never stored and used again.
    pub incarnation: Uuid,
    /// The node's host name, for people.
    pub host: String,
}

impl Writer {
    /// A writer that keeps no state: a command that appends one record and ends.
    pub fn ephemeral() -> Self {
        Self { node: Uuid::new_v4(), incarnation: Uuid::new_v4(), host: String::new() }
    }
}

/// Clock and randomness of an appender.
pub trait Stamps: Send + Sync + Debug {
    /// The time, for people only: no rule depends on it.
    fn now(&self) -> Timestamp;
    /// A fresh op id: never returned twice, by anybody.
    fn fresh_op(&self) -> Uuid;
}

/// The system's clock and random UUIDs.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemStamps;

impl Stamps for SystemStamps {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn fresh_op(&self) -> Uuid {
        Uuid::new_v4()
    }
}
