//! Whole objects from the store, in order, a bounded part of them in memory.

use super::error::VerifyError;
use bytes::Bytes;
use cloud_mgmt::store::{ObjectStore, StoreError, StoreErrorKind};
use futures::{StreamExt, stream};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Bytes of one request.
const CHUNK_BYTES: u64 = 8 << 20;
/// Requests in flight.
const CHUNKS_AHEAD: usize = 4;

/// The bucket, for a thread that may wait.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub store: Arc<dyn ObjectStore>,
    pub runtime: Handle,
}

/// Why an object could not be read to its end.
pub(super) enum ReadFailure {
    /// It is not there.
    Gone,
    /// The store has other bytes than it said: another length.
    Wrong(String),
    /// Nothing can be said of the object.
    Unknown(VerifyError),
}

impl From<VerifyError> for ReadFailure {
    fn from(error: VerifyError) -> Self {
        Self::Unknown(error)
    }
}

impl From<StoreError> for ReadFailure {
    fn from(error: StoreError) -> Self {
        match error.kind() {
            StoreErrorKind::NotFound => Self::Gone,
            StoreErrorKind::Corrupt => Self::Wrong(error.to_string()),
            _ => Self::Unknown(error.into()),
        }
    }
}

impl Source {
    /// Hands the `size` bytes of `object` to `take`, piece by piece.
    pub fn read(
        &self,
        object: &str,
        size: u64,
        mut take: impl FnMut(&Bytes) -> Result<(), VerifyError>,
    ) -> Result<(), ReadFailure> {
        let ranges = (0..size).step_by(CHUNK_BYTES as usize).map(|start| start..size.min(start + CHUNK_BYTES));
        // Each request on a task of its own: it goes on while the bytes before it are being looked at.
        let request = |range: std::ops::Range<u64>| {
            let (store, name) = (Arc::clone(&self.store), object.to_owned());
            self.runtime.spawn(async move {
                let wanted = range.end - range.start;
                store.get_range(&name, range).await.map(|bytes| (bytes, wanted))
            })
        };
        let mut answers = stream::iter(ranges).map(request).buffered(CHUNKS_AHEAD);
        while let Some(answer) = self.runtime.block_on(answers.next()) {
            let (bytes, wanted) = answer.map_err(|error| {
                VerifyError::Bucket(crate::AgentError::Internal(format!("reading {object}: {error}")))
            })??;
            if bytes.len() as u64 != wanted {
                return Err(ReadFailure::Wrong(format!("the store sent {} of {wanted} bytes", bytes.len())));
            }
            take(&bytes)?;
        }
        Ok(())
    }
}
