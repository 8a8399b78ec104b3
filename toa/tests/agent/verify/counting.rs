//! Counts the bytes that are read of each object, and breaks off.

use cloud_mgmt::store::{Call, MemoryStore, Observed, Observer, StoreError, StoreErrorKind};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Debug, Default)]
pub(crate) struct Reading {
    read: Mutex<BTreeMap<String, u64>>,
    /// Bytes that may still be read.
    left: Mutex<Option<u64>>,
}

impl Reading {
    /// A store in memory with this in front of it.
    pub(crate) fn store(self: &Arc<Self>) -> Arc<Observed<MemoryStore, Self>> {
        Arc::new(Observed::new(Arc::new(MemoryStore::new()), Arc::clone(self)))
    }

    /// Nothing was read, and `limit` bytes may be.
    pub(crate) fn reset(&self, limit: Option<u64>) {
        self.read.lock().unwrap().clear();
        *self.left.lock().unwrap() = limit;
    }

    /// Bytes that were read of an object.
    pub(crate) fn bytes_of(&self, object: &str) -> u64 {
        self.read.lock().unwrap().get(object).copied().unwrap_or(0)
    }
}

impl Observer for Reading {
    fn call(&self, call: &Call<'_>) -> Result<(), StoreError> {
        let Call::GetRange(name, range) = call else { return Ok(()) };
        let len = range.end - range.start;
        if let Some(left) = self.left.lock().unwrap().as_mut() {
            let Some(rest) = left.checked_sub(len) else {
                return Err(StoreError::new(StoreErrorKind::Unavailable, "get", *name, "the line is cut"));
            };
            *left = rest;
        }
        *self.read.lock().unwrap().entry((*name).to_owned()).or_default() += len;
        Ok(())
    }
}
