//! A store whose calls are counted.

use super::requests::{RequestCounter, RequestKind};
use super::{ObjectMeta, ObjectStore, PutOutcome, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts each call of a store as one request: right for stores that do not repeat by themselves. The S3 store counts
/// what it really sends.
#[derive(Debug)]
pub struct Counted<S> {
    store: S,
    counter: Arc<RequestCounter>,
}

impl<S> Counted<S> {
    /// `store`, counted in a counter of its own.
    pub fn new(store: S) -> Self {
        Self { store, counter: Arc::default() }
    }

    /// What counts.
    pub fn counter(&self) -> &Arc<RequestCounter> {
        &self.counter
    }

    fn received(&self, answer: Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
        if let Ok(bytes) = &answer {
            self.counter.received(bytes.len() as u64);
        }
        answer
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Counted<S> {
    fn url(&self) -> &str {
        self.store.url()
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.counter.asked(RequestKind::Put);
        self.counter.sent(body.len() as u64);
        self.store.put_if_absent(name, body).await
    }

    async fn put_file(
        &self,
        name: &str,
        file: &Path,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), StoreError> {
        self.counter.asked(RequestKind::Put);
        let sent = AtomicU64::new(0);
        let told = |bytes: u64| {
            let before = sent.fetch_max(bytes, Ordering::Relaxed);
            self.counter.sent(bytes.saturating_sub(before));
            progress(bytes);
        };
        self.store.put_file(name, file, &told).await
    }

    async fn put(&self, name: &str, body: Bytes) -> Result<(), StoreError> {
        self.counter.asked(RequestKind::Put);
        self.counter.sent(body.len() as u64);
        self.store.put(name, body).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.counter.asked(RequestKind::Get);
        self.received(self.store.get(name).await)
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.counter.asked(RequestKind::Get);
        self.received(self.store.get_range(name, range).await)
    }

    async fn head(&self, name: &str) -> Result<ObjectMeta, StoreError> {
        self.counter.asked(RequestKind::Head);
        self.store.head(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.counter.asked(RequestKind::List);
        self.store.list(prefix).await
    }

    async fn list_here(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.counter.asked(RequestKind::List);
        self.store.list_here(prefix).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.counter.asked(RequestKind::Delete);
        self.store.delete(name).await
    }

    async fn abort_uploads(
        &self,
        prefix: &str,
        abandoned: &(dyn for<'n> Fn(&'n str) -> bool + Send + Sync),
    ) -> Result<u64, StoreError> {
        self.store.abort_uploads(prefix, abandoned).await
    }
}
