//! A store in memory that fails when it is told to.
//!
//! For tests of everything above a store: several clients of one bucket, each with its own line, its own counter of
//! calls and its own plan of faults. It also knows two ways of lying about conditional writes.

use super::object_name::{check_folder, check_name, check_prefix};
use super::{ObjectMeta, ObjectStore, PutOutcome, StoreError, StoreErrorKind};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// When a call that is to fail does so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultMoment {
    /// Before anything is done: kind Unavailable.
    Before,
    /// After it was done, the answer is lost: kind Unavailable.
    AfterApply,
    /// In the middle: a read is cut short (kind Corrupt), a write is not applied (kind Unavailable).
    Torn,
}

/// Which calls of a client fail, counted from 1 since the plan was set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    faults: BTreeMap<u64, FaultMoment>,
}

impl FaultPlan {
    /// No call fails.
    pub fn none() -> Self {
        Self::default()
    }

    /// The `nth` call fails, from 1.
    pub fn nth(nth: u64, moment: FaultMoment) -> Self {
        Self::none().and(nth, moment)
    }

    /// The `nth` call fails, too.
    #[must_use]
    pub fn and(mut self, nth: u64, moment: FaultMoment) -> Self {
        self.faults.insert(nth, moment);
        self
    }
}

/// How the bucket treats `put_if_absent`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conditions {
    /// As promised.
    #[default]
    Honoured,
    /// Looks first and writes later: right for one client, several winners in a race.
    CheckThenAct,
    /// Every n-th conditional write overwrites whatever is there.
    IgnoredEvery(u64),
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, (Bytes, SystemTime)>,
    conditions: Conditions,
    conditional_writes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Up,
    Down,
}

#[derive(Debug, Default)]
struct Client {
    calls: u64,
    since_plan: u64,
    plan: FaultPlan,
    line: Line,
}

/// One client of a bucket in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    bucket: Arc<Mutex<Bucket>>,
    client: Mutex<Client>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call under way: what it is about and how it is to fail.
struct Call<'a> {
    operation: &'static str,
    name: &'a str,
    fault: Option<FaultMoment>,
}

impl Call<'_> {
    fn error(&self, kind: StoreErrorKind, detail: impl Into<String>) -> StoreError {
        StoreError::new(kind, self.operation, self.name, detail)
    }

    /// What a write answers that has been applied.
    fn wrote<T>(&self, answer: T) -> Result<T, StoreError> {
        match self.fault {
            Some(_) => Err(self.error(StoreErrorKind::Unavailable, "injected: the answer was lost")),
            None => Ok(answer),
        }
    }

    /// What a read answers that found `answer`.
    fn read<T>(&self, answer: T) -> Result<T, StoreError> {
        match self.fault {
            Some(FaultMoment::Torn) => Err(self.error(StoreErrorKind::Corrupt, "injected: the body was cut short")),
            _ => self.wrote(answer),
        }
    }

    /// Ends a write here if it is to be torn.
    fn before_write(&self) -> Result<(), StoreError> {
        match self.fault {
            Some(FaultMoment::Torn) => Err(self.error(StoreErrorKind::Unavailable, "injected: the upload was cut")),
            _ => Ok(()),
        }
    }
}

impl MemoryStore {
    /// A client of a new, empty bucket.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another client of the same bucket, with its line up and no faults planned.
    #[must_use]
    pub fn another_client(&self) -> Self {
        Self { bucket: Arc::clone(&self.bucket), client: Mutex::default() }
    }

    /// Calls of this client so far, failed ones too.
    pub fn calls(&self) -> u64 {
        locked(&self.client).calls
    }

    /// From now on calls fail by this plan, counted from the next call.
    pub fn set_faults(&self, plan: FaultPlan) {
        let mut client = locked(&self.client);
        client.plan = plan;
        client.since_plan = 0;
    }

    /// From now on every call fails with kind Unavailable, without effect.
    pub fn offline(&self) {
        locked(&self.client).line = Line::Down;
    }

    /// The opposite of [`MemoryStore::offline`].
    pub fn online(&self) {
        locked(&self.client).line = Line::Up;
    }

    /// How the bucket treats conditional writes, of all clients.
    pub fn set_conditions(&self, conditions: Conditions) {
        locked(&self.bucket).conditions = conditions;
    }

    /// Counts the call and fails it if it must not even begin.
    async fn begin<'a>(&self, operation: &'static str, name: &'a str) -> Result<Call<'a>, StoreError> {
        // Clients on one thread must be able to get between each other's calls.
        tokio::task::yield_now().await;
        let mut client = locked(&self.client);
        client.calls += 1;
        client.since_plan += 1;
        let call = Call { operation, name, fault: client.plan.faults.get(&client.since_plan).copied() };
        if client.line == Line::Down {
            return Err(call.error(StoreErrorKind::Unavailable, "injected: the store is offline"));
        }
        if call.fault == Some(FaultMoment::Before) {
            return Err(call.error(StoreErrorKind::Unavailable, "injected: the request was lost"));
        }
        Ok(call)
    }

    fn found(&self, call: &Call<'_>) -> Result<(Bytes, SystemTime), StoreError> {
        let found = locked(&self.bucket).objects.get(call.name).cloned();
        found.ok_or_else(|| call.error(StoreErrorKind::NotFound, "no such object"))
    }

    fn metas(&self, wanted: impl Fn(&str) -> bool) -> Vec<ObjectMeta> {
        let bucket = locked(&self.bucket);
        let hits = bucket.objects.iter().filter(|(name, _)| wanted(name));
        hits.map(|(name, (body, modified))| meta(name, body, *modified)).collect()
    }
}

fn meta(name: &str, body: &Bytes, modified: SystemTime) -> ObjectMeta {
    ObjectMeta { name: name.to_owned(), size: body.len() as u64, modified: Some(modified) }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    fn url(&self) -> &'static str {
        "memory:"
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        check_name("put", name)?;
        let call = self.begin("put", name).await?;
        call.before_write()?;
        let (conditions, mut taken) = {
            let mut bucket = locked(&self.bucket);
            bucket.conditional_writes += 1;
            let taken = bucket.objects.contains_key(name);
            match bucket.conditions {
                Conditions::IgnoredEvery(n) if bucket.conditional_writes.is_multiple_of(n) => {
                    (bucket.conditions, false)
                }
                conditions => (conditions, taken),
            }
        };
        if conditions == Conditions::CheckThenAct {
            tokio::task::yield_now().await;
        }
        let mut bucket = locked(&self.bucket);
        if conditions == Conditions::Honoured {
            taken = bucket.objects.contains_key(name);
        }
        if taken {
            return call.wrote(PutOutcome::Taken);
        }
        bucket.objects.insert(name.to_owned(), (body, SystemTime::now()));
        call.wrote(PutOutcome::Created)
    }

    async fn put_file(
        &self,
        name: &str,
        file: &Path,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), StoreError> {
        check_name("upload", name)?;
        let body = tokio::fs::read(file).await.map_err(|e| {
            StoreError::new(StoreErrorKind::Invalid, "upload", name, format!("local file {}: {e}", file.display()))
        })?;
        let call = self.begin("upload", name).await?;
        call.before_write()?;
        progress(body.len() as u64);
        locked(&self.bucket).objects.insert(name.to_owned(), (body.into(), SystemTime::now()));
        call.wrote(())
    }

    async fn put(&self, name: &str, body: Bytes) -> Result<(), StoreError> {
        check_name("put", name)?;
        let call = self.begin("put", name).await?;
        call.before_write()?;
        locked(&self.bucket).objects.insert(name.to_owned(), (body, SystemTime::now()));
        call.wrote(())
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        check_name("get", name)?;
        let call = self.begin("get", name).await?;
        let (body, _) = self.found(&call)?;
        call.read(body)
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        check_name("get", name)?;
        let call = self.begin("get", name).await?;
        let (body, _) = self.found(&call)?;
        if range.start > range.end || range.end > body.len() as u64 {
            let detail = format!("bytes {}..{} of an object of {} bytes", range.start, range.end, body.len());
            return Err(call.error(StoreErrorKind::Corrupt, detail));
        }
        call.read(body.slice(range.start as usize..range.end as usize))
    }

    async fn head(&self, name: &str) -> Result<ObjectMeta, StoreError> {
        check_name("head", name)?;
        let call = self.begin("head", name).await?;
        let (body, modified) = self.found(&call)?;
        call.read(meta(name, &body, modified))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        check_prefix("list", prefix)?;
        let call = self.begin("list", prefix).await?;
        call.read(self.metas(|name| name.starts_with(prefix)))
    }

    async fn list_here(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        check_folder("list", prefix)?;
        let call = self.begin("list", prefix).await?;
        call.read(self.metas(|name| name.strip_prefix(prefix).is_some_and(|rest| !rest.contains('/'))))
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        check_name("delete", name)?;
        let call = self.begin("delete", name).await?;
        call.before_write()?;
        locked(&self.bucket).objects.remove(name);
        call.wrote(())
    }

    async fn abort_uploads(
        &self,
        prefix: &str,
        _abandoned: &(dyn for<'n> Fn(&'n str) -> bool + Send + Sync),
    ) -> Result<u64, StoreError> {
        check_prefix("abort uploads of", prefix)?;
        // An object is written in one piece.
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_planned_call_fails_and_only_that_one() {
        let store = MemoryStore::new();
        store.set_faults(FaultPlan::nth(2, FaultMoment::AfterApply).and(3, FaultMoment::Before));
        store.put("a", Bytes::from_static(b"1")).await.unwrap();
        let lost = store.put_if_absent("b", Bytes::from_static(b"2")).await.unwrap_err();
        assert_eq!(lost.kind(), StoreErrorKind::Unavailable);
        assert!(store.delete("a").await.is_err());
        assert_eq!(store.get("a").await.unwrap(), "1", "failed before it was applied");
        assert_eq!(store.get("b").await.unwrap(), "2", "applied, the answer lost");
        store.set_faults(FaultPlan::nth(1, FaultMoment::Torn).and(2, FaultMoment::Torn));
        assert_eq!(store.get("a").await.unwrap_err().kind(), StoreErrorKind::Corrupt);
        assert_eq!(store.put("a", Bytes::new()).await.unwrap_err().kind(), StoreErrorKind::Unavailable);
        assert_eq!(store.get("a").await.unwrap(), "1", "a torn upload is not visible");
        assert_eq!(store.calls(), 8);
    }

    #[tokio::test]
    async fn clients_share_the_objects_and_nothing_else() {
        let one = MemoryStore::new();
        let two = one.another_client();
        one.put("a", Bytes::from_static(b"1")).await.unwrap();
        one.offline();
        assert_eq!(one.get("a").await.unwrap_err().kind(), StoreErrorKind::Unavailable);
        assert_eq!(two.get("a").await.unwrap(), "1");
        assert_eq!((one.calls(), two.calls()), (2, 1));
        one.online();
        assert_eq!(one.list("").await.unwrap().len(), 1);
    }
}
