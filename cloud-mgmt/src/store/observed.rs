//! A store with somebody who watches the calls: to count them, or to stand in their way.

use super::requests::{RequestCounter, RequestKind};
use super::{ObjectMeta, ObjectStore, PutOutcome, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt::Debug;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A call of an [`ObjectStore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// [`ObjectStore::put_if_absent`] of an object and its bytes.
    PutIfAbsent(&'a str, &'a Bytes),
    /// [`ObjectStore::put_file`] under a name.
    PutFile(&'a str),
    /// [`ObjectStore::put`] of an object and its bytes.
    Put(&'a str, &'a Bytes),
    /// [`ObjectStore::get`] of an object.
    Get(&'a str),
    /// [`ObjectStore::get_range`] of an object.
    GetRange(&'a str, Range<u64>),
    /// [`ObjectStore::head`] of an object.
    Head(&'a str),
    /// [`ObjectStore::list`] below a prefix.
    List(&'a str),
    /// [`ObjectStore::list_here`] below a prefix.
    ListHere(&'a str),
    /// [`ObjectStore::delete`] of an object.
    Delete(&'a str),
    /// [`ObjectStore::abort_uploads`] below a prefix.
    AbortUploads(&'a str),
}

/// Sees what an [`Observed`] store is asked.
pub trait Observer: Send + Sync + Debug {
    /// Before a call goes to the store. An error is its answer, and the store hears nothing of it.
    fn call(&self, call: &Call<'_>) -> Result<(), StoreError>;

    /// Bytes of a body go out.
    fn bytes_sent(&self, _bytes: u64) {}

    /// Bytes of an object came.
    fn bytes_received(&self, _bytes: u64) {}
}

/// A store and its observer; otherwise the same store.
#[derive(Debug)]
pub struct Observed<S, O> {
    store: Arc<S>,
    observer: Arc<O>,
}

/// Counts each call of a store as one request: right for stores that do not repeat by themselves. The S3 store counts
/// what it really sends.
pub type Counted<S> = Observed<S, RequestCounter>;

impl Observer for RequestCounter {
    fn call(&self, call: &Call<'_>) -> Result<(), StoreError> {
        match call {
            Call::PutIfAbsent(..) | Call::PutFile(_) | Call::Put(..) => self.asked(RequestKind::Put),
            Call::Get(_) | Call::GetRange(..) => self.asked(RequestKind::Get),
            Call::Head(_) => self.asked(RequestKind::Head),
            Call::List(_) | Call::ListHere(_) => self.asked(RequestKind::List),
            Call::Delete(_) => self.asked(RequestKind::Delete),
            // Without uploads in parts there is nothing to ask for.
            Call::AbortUploads(_) => {}
        }
        Ok(())
    }

    fn bytes_sent(&self, bytes: u64) {
        self.sent(bytes);
    }

    fn bytes_received(&self, bytes: u64) {
        self.received(bytes);
    }
}

impl<S, O: Observer> Observed<S, O> {
    /// `store`, watched by `observer`.
    pub fn new(store: Arc<S>, observer: Arc<O>) -> Self {
        Self { store, observer }
    }

    fn received(&self, answer: Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
        if let Ok(bytes) = &answer {
            self.observer.bytes_received(bytes.len() as u64);
        }
        answer
    }
}

#[async_trait]
impl<S: ObjectStore, O: Observer> ObjectStore for Observed<S, O> {
    fn url(&self) -> &str {
        self.store.url()
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.observer.call(&Call::PutIfAbsent(name, &body))?;
        self.observer.bytes_sent(body.len() as u64);
        self.store.put_if_absent(name, body).await
    }

    async fn put_file(
        &self,
        name: &str,
        file: &Path,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), StoreError> {
        self.observer.call(&Call::PutFile(name))?;
        let sent = AtomicU64::new(0);
        let told = |bytes: u64| {
            let before = sent.fetch_max(bytes, Ordering::Relaxed);
            self.observer.bytes_sent(bytes.saturating_sub(before));
            progress(bytes);
        };
        self.store.put_file(name, file, &told).await
    }

    async fn put(&self, name: &str, body: Bytes) -> Result<(), StoreError> {
        self.observer.call(&Call::Put(name, &body))?;
        self.observer.bytes_sent(body.len() as u64);
        self.store.put(name, body).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.observer.call(&Call::Get(name))?;
        self.received(self.store.get(name).await)
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.observer.call(&Call::GetRange(name, range.clone()))?;
        self.received(self.store.get_range(name, range).await)
    }

    async fn head(&self, name: &str) -> Result<ObjectMeta, StoreError> {
        self.observer.call(&Call::Head(name))?;
        self.store.head(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.observer.call(&Call::List(prefix))?;
        self.store.list(prefix).await
    }

    async fn list_here(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.observer.call(&Call::ListHere(prefix))?;
        self.store.list_here(prefix).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.observer.call(&Call::Delete(name))?;
        self.store.delete(name).await
    }

    async fn abort_uploads(
        &self,
        prefix: &str,
        abandoned: &(dyn for<'n> Fn(&'n str) -> bool + Send + Sync),
    ) -> Result<u64, StoreError> {
        self.observer.call(&Call::AbortUploads(prefix))?;
        self.store.abort_uploads(prefix, abandoned).await
    }
}
