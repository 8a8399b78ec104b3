//! Reads that go on where a cut body ended.
//!
//! A body that ends early is asked for again from there on, under the condition that the object is still the one that
//! the first answer came from. Reads end with the bytes or, when nothing comes any more, with an error: never with a
//! part of the bytes, never with parts of two objects.

use super::super::{StoreError, StoreErrorKind};
use super::S3Store;
use super::fault::{Subject, root};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// Ranges from twice this size on are read in pieces of this size, several at once.
const PIECE_BYTES: u64 = 8 << 20;
/// Requests in a row that bring less than [`PROGRESS_BYTES`].
const POOR_ATTEMPTS_MAX: u32 = 5;
/// What makes another attempt worth it.
const PROGRESS_BYTES: usize = 64 << 10;
/// Before the second attempt, times the poor attempts so far.
const PAUSE: Duration = Duration::from_millis(50);
/// A length that a server claims is believed up to here when memory is set aside.
const RESERVE_BYTES_MAX: u64 = 64 << 20;

/// A read under way.
struct Transfer<'a> {
    subject: Subject<'a>,
    /// What is wanted; for the whole object its end is known from the first answer on.
    start: u64,
    end: Option<u64>,
    etag: Option<String>,
    body: BytesMut,
}

impl S3Store {
    /// The whole object.
    pub(super) async fn read_whole(&self, name: &str) -> Result<Bytes, StoreError> {
        let subject = self.subject("get", name);
        let whole = Transfer { subject, start: 0, end: None, etag: None, body: BytesMut::new() };
        Ok(self.transfer(whole).await?.body.freeze())
    }

    /// The bytes of `range`.
    pub(super) async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let subject = self.subject("get", name);
        if range.start >= range.end {
            return self.read_nothing(subject, &range).await;
        }
        let piece = |start: u64, end, etag| Transfer { subject, start, end: Some(end), etag, body: BytesMut::new() };
        if range.end - range.start < 2 * PIECE_BYTES {
            return Ok(self.transfer(piece(range.start, range.end, None)).await?.body.freeze());
        }
        // The first piece tells which object the others must come from.
        let first_end = range.start + PIECE_BYTES;
        let Transfer { mut body, etag, .. } = self.transfer(piece(range.start, first_end, None)).await?;
        body.reserve((range.end - first_end) as usize);
        let starts = (first_end..range.end).step_by(PIECE_BYTES as usize);
        let reading = starts.map(|start| self.transfer(piece(start, range.end.min(start + PIECE_BYTES), etag.clone())));
        let mut pieces = stream::iter(reading).buffered(self.options.concurrency.max(1));
        while let Some(piece) = pieces.try_next().await? {
            body.extend_from_slice(&piece.body);
        }
        Ok(body.freeze())
    }

    /// Goes on until all of it is there or nothing comes any more.
    async fn transfer<'a>(&self, mut transfer: Transfer<'a>) -> Result<Transfer<'a>, StoreError> {
        let subject = transfer.subject;
        let mut poor = 0;
        let mut progressed = Instant::now();
        loop {
            let before = transfer.body.len();
            let limit = progressed + self.operation_timeout();
            let cut = match tokio::time::timeout_at(limit, self.continue_read(&mut transfer)).await {
                Ok(Ok(None)) => return Ok(transfer),
                Ok(Ok(Some(cut))) => cut,
                Ok(Err(error)) => return Err(error),
                Err(_) => subject.timed_out(),
            };
            if transfer.body.len() - before >= PROGRESS_BYTES {
                poor = 0;
                progressed = Instant::now();
            } else {
                poor += 1;
            }
            if poor >= POOR_ATTEMPTS_MAX || progressed.elapsed() >= self.operation_timeout() {
                return Err(cut);
            }
            tracing::debug!(name = subject.name, got = transfer.body.len(), error = %cut, "resuming a read");
            tokio::time::sleep(PAUSE * poor).await;
        }
    }

    /// No bytes at all, which a range of HTTP cannot say; still the object must be there and long enough.
    async fn read_nothing(&self, subject: Subject<'_>, range: &Range<u64>) -> Result<Bytes, StoreError> {
        let size = super::ObjectStore::head(self, subject.name).await?.size;
        if range.start == range.end && range.end <= size {
            return Ok(Bytes::new());
        }
        let detail = format!("bytes {}..{} of an object of {size} bytes", range.start, range.end);
        Err(subject.new_error(StoreErrorKind::Corrupt, detail))
    }

    /// One request for what is missing. `None`: it is complete; `Some`: the body was cut, for this reason.
    async fn continue_read(&self, transfer: &mut Transfer<'_>) -> Result<Option<StoreError>, StoreError> {
        let subject = transfer.subject;
        let request = self.client.get_object().bucket(&self.bucket).key(self.key(subject.name));
        let request = request.set_range(transfer.range_header()).set_if_match(transfer.etag.clone());
        let mut answer = request.send().await.map_err(|e| transfer.refused(&e))?;
        transfer.check(&answer)?;
        let cut = loop {
            match tokio::time::timeout(self.attempt_timeout(), answer.body.next()).await {
                Ok(Some(Ok(chunk))) => transfer.take(&chunk)?,
                Ok(Some(Err(e))) => break format!("{} stopped in the middle: {}", self.endpoint, root(&e)),
                Ok(None) => break format!("{} stopped in the middle", self.endpoint),
                Err(_) => break format!("{} timed out in the middle", self.endpoint),
            }
        };
        let is_cut = !transfer.is_complete();
        Ok(is_cut.then(|| subject.new_error(StoreErrorKind::Unavailable, cut)))
    }
}

impl Transfer<'_> {
    /// Where the missing part starts.
    fn position(&self) -> u64 {
        self.start + self.body.len() as u64
    }

    fn is_complete(&self) -> bool {
        self.end == Some(self.position())
    }

    fn range_header(&self) -> Option<String> {
        self.end.map(|end| format!("bytes={}-{}", self.position(), end - 1))
    }

    fn corrupt(&self, detail: impl Into<String>) -> StoreError {
        self.subject.new_error(StoreErrorKind::Corrupt, detail)
    }

    fn refused(&self, error: &SdkError<GetObjectError, HttpResponse>) -> StoreError {
        let status = error.raw_response().map(|answer| answer.status().as_u16());
        match status {
            Some(412) if self.etag.is_some() => self.corrupt("the object was replaced while it was read"),
            Some(416) => self.corrupt(format!("the object ends before byte {}", self.position())),
            _ => self.subject.error(error),
        }
    }

    /// Refuses an answer of other bytes than were asked for.
    fn check(&mut self, answer: &GetObjectOutput) -> Result<(), StoreError> {
        let etag = answer.e_tag().map(str::to_owned);
        if self.etag.is_some() && self.etag != etag {
            return Err(self.corrupt("the object was replaced while it was read"));
        }
        let length = answer.content_length().and_then(|length| u64::try_from(length).ok());
        let length = length.ok_or_else(|| self.corrupt("the answer has no length"))?;
        if self.body.is_empty() {
            self.body.reserve(length.min(RESERVE_BYTES_MAX) as usize);
        }
        self.etag = etag;
        let end = *self.end.get_or_insert(self.start + length);
        let wanted = end - self.position();
        if length != wanted {
            return Err(self.corrupt(format!("asked for {wanted} bytes, the answer has {length}")));
        }
        let from = format!("bytes {}-", self.position());
        match answer.content_range() {
            Some(range) if !range.starts_with(&from) => Err(self.corrupt(format!("asked for {from}…, got {range}"))),
            // Without this header the answer starts at the start of the object.
            None if self.position() != 0 => Err(self.corrupt("the server ignores ranges")),
            _ => Ok(()),
        }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        let room = self.end.map_or(0, |end| end - self.position());
        if chunk.len() as u64 > room {
            return Err(self.corrupt("the body is longer than the answer said"));
        }
        self.body.extend_from_slice(chunk);
        self.subject.received(chunk.len());
        Ok(())
    }
}
