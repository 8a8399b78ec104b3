//! Uploads of files: small ones in one request, large ones in parts.

use super::super::{StoreError, StoreErrorKind};
use super::S3Store;
use super::connect::retries;
use super::fault::Subject;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Files up to here go in one request.
const PLAIN_BYTES_MAX: u64 = 16 << 20;
/// The usual size of a part: with eight in flight 64 MiB of memory.
const PART_BYTES: u64 = 8 << 20;
/// S3 takes no more parts than this, so parts of huge files grow.
const PARTS_MAX: u64 = 10_000;

/// A part gets more attempts than other requests: with it fails the whole file.
const PART_ATTEMPTS: u32 = 6;

/// A file being sent.
struct Source<'a> {
    subject: Subject<'a>,
    file: Arc<File>,
    path: &'a Path,
    size: u64,
}

/// An upload in parts that is aborted unless it is completed: its parts cost money and no listing shows them.
struct Parts<'a> {
    store: &'a S3Store,
    key: String,
    id: Option<String>,
}

impl S3Store {
    /// Sends the file. `progress` is told the bytes that the server has confirmed.
    pub(super) async fn upload(
        &self,
        name: &str,
        path: &Path,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), StoreError> {
        let subject = self.subject("upload", name);
        let source = Source::open(subject, path)?;
        if source.size > PLAIN_BYTES_MAX {
            return self.upload_parts(&source, progress).await;
        }
        let body = source.read(0..source.size).await?;
        self.put_plain(&subject, body).await?;
        progress(source.size);
        Ok(())
    }

    async fn upload_parts(
        &self,
        source: &Source<'_>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), StoreError> {
        let mut parts = self.begin_parts(source.subject).await?;
        let sent = AtomicU64::new(0);
        let sending = source.ranges().enumerate().map(|(n, range)| {
            let (sent, parts) = (&sent, &parts);
            async move {
                let length = range.end - range.start;
                let part = parts.send(source, n as i32 + 1, range).await?;
                fail::fail_point!("s3::part_sent");
                progress(sent.fetch_add(length, Ordering::Relaxed) + length);
                Ok::<_, StoreError>(part)
            }
        });
        let done = stream::iter(sending).buffered(self.options.concurrency.max(1)).try_collect().await;
        let outcome = match done {
            Ok(done) => parts.complete(source, done).await,
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            parts.abort().await;
        }
        parts.id = None;
        outcome
    }

    async fn begin_parts(&self, subject: Subject<'_>) -> Result<Parts<'_>, StoreError> {
        let key = self.key(subject.name);
        let begun = self.client.create_multipart_upload().bucket(&self.bucket).key(&key).send().await;
        let id = begun.map_err(|e| subject.error(&e))?.upload_id;
        if id.is_none() {
            return Err(subject.new_error(StoreErrorKind::Corrupt, "the answer has no upload id"));
        }
        Ok(Parts { store: self, key, id })
    }
}

/// An upload in parts that the server still keeps.
pub(super) struct LeftUpload {
    /// The object's name.
    pub(super) name: String,
    id: String,
}

impl S3Store {
    /// All uploads in parts that were begun and neither completed nor aborted, of names that start with `prefix`.
    pub(super) async fn uploads_below(&self, prefix: &str) -> Result<Vec<LeftUpload>, StoreError> {
        let subject = self.subject("list uploads of", prefix);
        let mut found = Vec::new();
        let (mut key, mut id): (Option<String>, Option<String>) = (None, None);
        loop {
            let request = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(self.key(prefix));
            let request = request.set_key_marker(key.clone()).set_upload_id_marker(id.clone());
            let page = request.send().await.map_err(|e| subject.error(&e))?;
            let next = (page.next_key_marker.clone(), page.next_upload_id_marker.clone());
            found.extend(page.uploads().iter().filter_map(|upload| {
                let name = upload.key()?.strip_prefix(&self.prefix)?.to_owned();
                name.starts_with(prefix).then_some(())?;
                Some(LeftUpload { name, id: upload.upload_id()?.to_owned() })
            }));
            if page.is_truncated() != Some(true) {
                return Ok(found);
            }
            if next.0.is_none() || next == (key, id) {
                return Err(subject.new_error(StoreErrorKind::Corrupt, "the list goes on but does not say where"));
            }
            (key, id) = next;
        }
    }

    pub(super) async fn abort_upload(&self, upload: &LeftUpload) -> Result<(), StoreError> {
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(self.key(&upload.name));
        match request.upload_id(&upload.id).send().await.map_err(|e| self.subject("abort", &upload.name).error(&e)) {
            // Somebody else was faster.
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

impl<'a> Source<'a> {
    fn open(subject: Subject<'a>, path: &'a Path) -> Result<Self, StoreError> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, file) = opened.map_err(|e| local(subject, path, &e))?;
        Ok(Self { subject, file: Arc::new(file), path, size })
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let file = Arc::clone(&self.file);
        let reading = tokio::task::spawn_blocking(move || {
            let mut body = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut body, range.start).map(|()| Bytes::from(body))
        });
        let read = reading.await.unwrap_or_else(|stopped| Err(io::Error::other(stopped)));
        read.map_err(|e| local(self.subject, self.path, &e))
    }

    fn ranges(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        let (size, part) = (self.size, PART_BYTES.max(self.size.div_ceil(PARTS_MAX)));
        (0..size.div_ceil(part)).map(move |n| n * part..((n + 1) * part).min(size))
    }
}

/// The file at this end is the trouble, not the store.
fn local(subject: Subject<'_>, path: &Path, error: &io::Error) -> StoreError {
    subject.new_error(StoreErrorKind::Invalid, format!("local file {}: {error}", path.display()))
}

impl Parts<'_> {
    async fn send(&self, source: &Source<'_>, number: i32, range: Range<u64>) -> Result<CompletedPart, StoreError> {
        // The parts in flight share the line.
        let sharing = self.store.options.concurrency.max(1) as u64;
        let limits = self.store.upload_limits((range.end - range.start) * sharing);
        let limits = limits.retry_config(retries(PART_ATTEMPTS));
        let body = source.read(range).await?;
        let request = self.store.client.upload_part().bucket(&self.store.bucket).key(&self.key);
        let request = request.set_upload_id(self.id.clone()).part_number(number).body(body.into());
        let answer = request.customize().config_override(limits).send().await;
        let etag = answer.map_err(|e| source.subject.error(&e))?.e_tag;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(etag).build())
    }

    async fn complete(&self, source: &Source<'_>, done: Vec<CompletedPart>) -> Result<(), StoreError> {
        let done = CompletedMultipartUpload::builder().set_parts(Some(done)).build();
        let request = self.store.client.complete_multipart_upload().bucket(&self.store.bucket).key(&self.key);
        let request = request.set_upload_id(self.id.clone()).multipart_upload(done);
        // The server may copy all parts before it answers.
        let limits = self.store.upload_limits(source.size.min(PLAIN_BYTES_MAX));
        let Err(e) = request.customize().config_override(limits).send().await else { return Ok(()) };
        // After a lost answer the SDK's own repetition is told that there is no such upload: look what is there.
        match super::ObjectStore::head(self.store, source.subject.name).await {
            Ok(there) if there.size == source.size => Ok(()),
            _ => Err(source.subject.error(&e)),
        }
    }

    async fn abort(&mut self) {
        let Some(id) = self.id.take() else { return };
        let request = self.store.client.abort_multipart_upload().bucket(&self.store.bucket);
        if let Err(e) = request.key(&self.key).upload_id(id).send().await {
            let error = self.store.subject("abort", &self.key).error(&e);
            tracing::warn!(%error, "parts of a failed upload may be left in the bucket");
        }
    }
}

impl Drop for Parts<'_> {
    /// For a caller who gave up in the middle.
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else { return };
        let request = self.store.client.abort_multipart_upload().bucket(&self.store.bucket);
        let request = request.key(&self.key).upload_id(id);
        runtime.spawn(async move {
            if let Err(error) = request.send().await {
                tracing::warn!(%error, "parts of an abandoned upload may be left in the bucket");
            }
        });
    }
}
