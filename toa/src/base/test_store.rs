//! A bucket in memory that counts requests and misbehaves on demand.

use async_trait::async_trait;
use bytes::Bytes;
use cloud_mgmt::store::{ObjectMeta, ObjectStore, PutOutcome, StoreError, StoreErrorKind};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// How ranged requests go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They do not.
    None,
    /// Never an answer.
    Hang,
    /// One bit of each of the next `n` answers is wrong: at this offset of the object, if the answer has it.
    Flip {
        /// Answers.
        n: usize,
        /// Offset in the object, bytes.
        at: u64,
    },
    /// A clean refusal.
    Refuse(StoreErrorKind),
}

#[derive(Debug)]
pub(super) struct TestStore {
    pub(super) objects: Mutex<BTreeMap<String, Bytes>>,
    pub(super) fault: Mutex<Fault>,
    /// Every ranged request.
    pub(super) requests: Mutex<Vec<(String, Range<u64>)>>,
    /// Requests wait for this long, so that they overlap.
    pub(super) latency: std::time::Duration,
}

impl TestStore {
    pub(super) fn new() -> Self {
        Self {
            objects: Mutex::default(),
            fault: Mutex::new(Fault::None),
            requests: Mutex::default(),
            latency: std::time::Duration::ZERO,
        }
    }

    fn missing(operation: &'static str, name: &str) -> StoreError {
        StoreError::new(StoreErrorKind::NotFound, operation, name, "no such object")
    }
}

#[async_trait]
impl ObjectStore for TestStore {
    fn url(&self) -> &'static str {
        "memory:"
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        let mut objects = self.objects.lock();
        if objects.contains_key(name) {
            return Ok(PutOutcome::Taken);
        }
        objects.insert(name.to_owned(), body);
        Ok(PutOutcome::Created)
    }

    async fn put_file(
        &self,
        name: &str,
        file: &Path,
        _progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), StoreError> {
        self.put(name, std::fs::read(file).unwrap().into()).await
    }

    async fn put(&self, name: &str, body: Bytes) -> Result<(), StoreError> {
        self.objects.lock().insert(name.to_owned(), body);
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.objects.lock().get(name).cloned().ok_or_else(|| Self::missing("get", name))
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.requests.lock().push((name.to_owned(), range.clone()));
        tokio::time::sleep(self.latency).await;
        let fault = *self.fault.lock();
        match fault {
            Fault::Hang => std::future::pending().await,
            Fault::Refuse(kind) => return Err(StoreError::new(kind, "get", name, "refused")),
            Fault::None | Fault::Flip { .. } => {}
        }
        let body = self.get(name).await?;
        if range.end > body.len() as u64 {
            return Err(StoreError::new(StoreErrorKind::Corrupt, "get", name, "beyond the end"));
        }
        let mut answer = body[range.start as usize..range.end as usize].to_vec();
        if let Fault::Flip { n, at } = fault
            && n > 0
            && range.contains(&at)
        {
            answer[(at - range.start) as usize] ^= 4;
            *self.fault.lock() = Fault::Flip { n: n - 1, at };
        }
        Ok(answer.into())
    }

    async fn head(&self, name: &str) -> Result<ObjectMeta, StoreError> {
        let size = self.get(name).await?.len() as u64;
        Ok(ObjectMeta { name: name.to_owned(), size, modified: None })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        let objects = self.objects.lock();
        let found = objects.iter().filter(|(name, _)| name.starts_with(prefix));
        Ok(found.map(|(name, b)| ObjectMeta { name: name.clone(), size: b.len() as u64, modified: None }).collect())
    }

    async fn list_here(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut found = self.list(prefix).await?;
        found.retain(|meta| !meta.name[prefix.len()..].contains('/'));
        Ok(found)
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.objects.lock().remove(name);
        Ok(())
    }

    async fn abort_uploads(
        &self,
        _prefix: &str,
        _abandoned: &(dyn for<'n> Fn(&'n str) -> bool + Send + Sync),
    ) -> Result<u64, StoreError> {
        Ok(0)
    }
}
