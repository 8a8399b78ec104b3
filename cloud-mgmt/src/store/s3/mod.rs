//! A bucket of an S3 server.
//!
//! The SDK repeats what may be repeated. The one thing that must not be is the conditional write: repeated after a lost
//! answer it is told "taken" of its own success. What the SDK does not repeat is a body that is cut short: see [`read`].

mod attempts;
mod connect;
mod fault;
mod read;
#[cfg(test)]
mod tests;
mod upload;
mod write;

use super::object_name::{check_folder, check_name, check_prefix};
use super::{ObjectMeta, ObjectStore, PutOutcome, RequestCounter, S3Address, StoreError, StoreErrorKind, StoreOptions};
use async_trait::async_trait;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::DateTime;
use bytes::Bytes;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A bucket of an S3 server, or a folder in it.
#[derive(Clone, Debug)]
pub struct S3Store {
    client: Client,
    url: String,
    /// What answers, for messages: the endpoint, or AWS and the region.
    endpoint: String,
    bucket: String,
    /// Empty, or ends with `/`.
    prefix: String,
    options: StoreOptions,
    counter: Arc<RequestCounter>,
}

impl S3Store {
    /// A client with the credentials of the environment, the AWS profile or the container; on AWS itself (no endpoint
    /// given) the machine's role, too. Sends nothing to the store.
    pub async fn connect(address: &S3Address, options: StoreOptions) -> Result<Self, StoreError> {
        Ok(Self::from_plan(address, connect::plan(address, options, None).await?, options))
    }

    /// A client with these credentials.
    pub async fn connect_with(
        address: &S3Address,
        options: StoreOptions,
        credentials: SharedCredentialsProvider,
    ) -> Result<Self, StoreError> {
        Ok(Self::from_plan(address, connect::plan(address, options, Some(credentials)).await?, options))
    }

    fn from_plan(address: &S3Address, plan: connect::Plan, options: StoreOptions) -> Self {
        let counter = Arc::<RequestCounter>::default();
        let config = plan.config.to_builder().interceptor(attempts::CountAttempts(Arc::clone(&counter))).build();
        Self {
            client: Client::from_conf(config),
            url: address.to_string(),
            endpoint: plan.endpoint,
            bucket: address.bucket.clone(),
            prefix: if address.prefix.is_empty() { String::new() } else { format!("{}/", address.prefix) },
            options,
            counter,
        }
    }

    /// Counts every request that this client and its clones send, repetitions and parts of large objects too.
    pub fn counter(&self) -> &Arc<RequestCounter> {
        &self.counter
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn attempt_timeout(&self) -> Duration {
        Duration::from_millis(self.options.attempt_timeout_ms)
    }

    fn operation_timeout(&self) -> Duration {
        Duration::from_millis(self.options.operation_timeout_ms)
    }

    async fn list_pages(&self, prefix: &str, delimiter: Option<&str>) -> Result<Vec<ObjectMeta>, StoreError> {
        let subject = self.subject("list", prefix);
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(self.key(prefix));
            let request = request.set_delimiter(delimiter.map(str::to_owned)).set_continuation_token(token.clone());
            let page = request.send().await.map_err(|e| subject.error(&e))?;
            let next = page.next_continuation_token().map(str::to_owned);
            let truncated = page.is_truncated() == Some(true);
            found.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| self.meta_of(&object)));
            if !truncated {
                break;
            }
            if next.is_none() || next == token {
                return Err(subject.new_error(StoreErrorKind::Corrupt, "the list goes on but does not say where"));
            }
            token = next;
        }
        found.retain(|meta: &ObjectMeta| meta.name.starts_with(prefix));
        // Servers that keep objects in folders list folder by folder, and pages may overlap while others write.
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found.dedup_by(|a, b| a.name == b.name);
        Ok(found)
    }

    /// `None` for what is not ours: other prefixes, markers of folders.
    fn meta_of(&self, object: &aws_sdk_s3::types::Object) -> Option<ObjectMeta> {
        let name = object.key()?.strip_prefix(&self.prefix)?;
        if name.is_empty() || name.ends_with('/') {
            return None;
        }
        let size = u64::try_from(object.size()?).ok()?;
        Some(ObjectMeta { name: name.to_owned(), size, modified: time_of(object.last_modified()) })
    }

    /// Whether a missing object is so because the bucket is: a HEAD has no body that would say so.
    async fn bucket_is_missing(&self) -> bool {
        let answer = self.client.head_bucket().bucket(&self.bucket).send().await;
        answer.is_err_and(|e| self.subject("head", "").error(&e).is_not_found())
    }
}

fn time_of(time: Option<&DateTime>) -> Option<SystemTime> {
    time.and_then(|time| SystemTime::try_from(*time).ok())
}

#[async_trait]
impl ObjectStore for S3Store {
    fn url(&self) -> &str {
        &self.url
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        check_name("put", name)?;
        self.put_once(name, body).await
    }

    async fn put_file(
        &self,
        name: &str,
        file: &Path,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), StoreError> {
        check_name("upload", name)?;
        self.upload(name, file, progress).await
    }

    async fn put(&self, name: &str, body: Bytes) -> Result<(), StoreError> {
        check_name("put", name)?;
        self.put_plain(&self.subject("put", name), body).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        check_name("get", name)?;
        self.read_whole(name).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        check_name("get", name)?;
        self.read_range(name, range).await
    }

    async fn head(&self, name: &str) -> Result<ObjectMeta, StoreError> {
        check_name("head", name)?;
        let subject = self.subject("head", name);
        let answer = match self.client.head_object().bucket(&self.bucket).key(self.key(name)).send().await {
            Ok(answer) => answer,
            Err(e) => {
                let error = subject.error(&e);
                if error.is_not_found() && self.bucket_is_missing().await {
                    return Err(subject.no_bucket());
                }
                return Err(error);
            }
        };
        let size = answer.content_length().and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| subject.new_error(StoreErrorKind::Corrupt, "the answer has no length"))?;
        Ok(ObjectMeta { name: name.to_owned(), size, modified: time_of(answer.last_modified()) })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        check_prefix("list", prefix)?;
        self.list_pages(prefix, None).await
    }

    async fn list_here(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        check_folder("list", prefix)?;
        let mut found = self.list_pages(prefix, Some("/")).await?;
        found.retain(|meta| !meta.name[prefix.len()..].contains('/'));
        Ok(found)
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        check_name("delete", name)?;
        let answer = self.client.delete_object().bucket(&self.bucket).key(self.key(name)).send().await;
        match answer.map_err(|e| self.subject("delete", name).error(&e)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn abort_uploads(
        &self,
        prefix: &str,
        abandoned: &(dyn for<'n> Fn(&'n str) -> bool + Send + Sync),
    ) -> Result<u64, StoreError> {
        check_prefix("abort uploads of", prefix)?;
        let mut left = self.uploads_below(prefix).await?;
        left.retain(|upload| abandoned(&upload.name));
        for upload in &left {
            self.abort_upload(upload).await?;
        }
        Ok(left.len() as u64)
    }
}
