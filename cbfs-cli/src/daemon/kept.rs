//! What one daemon of a mount leaves to the next one, in the holder's hands.

use crate::failure::{Failure, FailureKind};
use crate::holder::Link;
use crate::state::Instance;
use crate::state::lock::InstanceLock;
use kvfs::fuse::{Connection, ConnectionFacts};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use uuid::Uuid;

/// The text; the descriptors beside it are the connection's, and the lock's.
#[derive(Serialize, Deserialize)]
struct Text {
    connection: ConnectionFacts,
    instance: PathBuf,
    /// The snapshot that a slave shows: its `latest` must not become another one under open files.
    shown: Option<Uuid>,
}

/// A mount that goes on.
pub(super) struct KeptMount {
    pub(super) connection: Connection,
    /// Still locked: nobody could take the instance in between.
    pub(super) lock: File,
    pub(super) instance: PathBuf,
    pub(super) shown: Option<Uuid>,
}

impl KeptMount {
    /// Reads what [`leave`] wrote.
    pub(super) fn read(text: &str, descriptors: Vec<OwnedFd>) -> Result<Self, Failure> {
        let broken = |what: String| Failure::new(FailureKind::Bug, format!("what the last daemon left: {what}"));
        let Text { connection, instance, shown } =
            serde_json::from_str(text).map_err(|error| broken(error.to_string()))?;
        let count = descriptors.len();
        let [device, listings, lock]: [OwnedFd; 3] =
            descriptors.try_into().map_err(|_| broken(format!("{count} descriptors")))?;
        let connection = Connection::from_parts(connection, [device, listings]);
        Ok(Self { connection, lock: lock.into(), instance, shown })
    }
}

/// Gives the mount to the holder: from now on it outlives this process.
pub(super) fn leave(
    link: &Link,
    connection: &Connection,
    lock: &InstanceLock,
    instance: &Instance,
    shown: Option<Uuid>,
) -> Result<(), Failure> {
    let text = Text { connection: connection.facts().clone(), instance: instance.dir().to_owned(), shown };
    let text = serde_json::to_string(&text)
        .map_err(|error| Failure::new(FailureKind::Bug, format!("encode what the next daemon needs: {error}")))?;
    let [device, listings] = connection.descriptors();
    link.keep(text, &[device, listings, lock.as_fd()])
}
