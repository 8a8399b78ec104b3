//! A store that counts the bytes that are read of each object, and breaks off.

use async_trait::async_trait;
use bytes::Bytes;
use cloud_mgmt::store::{MemoryStore, ObjectMeta, ObjectStore, PutOutcome, StoreError, StoreErrorKind};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

#[derive(Debug, Default)]
pub(crate) struct CountingStore {
    inner: MemoryStore,
    read: Mutex<BTreeMap<String, u64>>,
    /// Bytes that may still be read.
    left: Mutex<Option<u64>>,
}

impl CountingStore {
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

#[async_trait]
impl ObjectStore for CountingStore {
    fn url(&self) -> &str {
        self.inner.url()
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.inner.put_if_absent(name, body).await
    }

    async fn put_file(
        &self,
        name: &str,
        file: &Path,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), StoreError> {
        self.inner.put_file(name, file, progress).await
    }

    async fn put(&self, name: &str, body: Bytes) -> Result<(), StoreError> {
        self.inner.put(name, body).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.inner.get(name).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let len = range.end - range.start;
        if let Some(left) = self.left.lock().unwrap().as_mut() {
            let Some(rest) = left.checked_sub(len) else {
                return Err(StoreError::new(StoreErrorKind::Unavailable, "get", name, "the line is cut"));
            };
            *left = rest;
        }
        *self.read.lock().unwrap().entry(name.to_owned()).or_default() += len;
        self.inner.get_range(name, range).await
    }

    async fn head(&self, name: &str) -> Result<ObjectMeta, StoreError> {
        self.inner.head(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn list_here(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.inner.list_here(prefix).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(name).await
    }
}
