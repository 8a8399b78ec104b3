//! Writes in one request.

use super::super::{PutOutcome, StoreError};
use super::S3Store;
use super::fault::Subject;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Builder, StalledStreamProtectionConfig};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use std::time::Duration;

/// The slowest line on which an upload is given its time.
const LINE_BYTES_PER_SECOND: u64 = 256 << 10;

impl S3Store {
    /// The conditional write: one request, whatever comes of it. Repeated after a lost answer it would be told "taken"
    /// of its own success; only the caller can read and tell (I4).
    pub(super) async fn put_once(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        // One attempt, because only the caller can tell its own success from a lost race: it gets the time of all.
        let limits = self.limits(body.len() as u64, self.operation_timeout()).retry_config(RetryConfig::disabled());
        let request = self.client.put_object().bucket(&self.bucket).key(self.key(name)).if_none_match("*");
        let answer = request.body(ByteStream::from(body)).customize().config_override(limits).send().await;
        match answer {
            Ok(_) => Ok(PutOutcome::Created),
            // 412 alone is "taken": 409 means that the store could not decide between two of us.
            Err(e) if e.raw_response().is_some_and(|answer| answer.status().as_u16() == 412) => Ok(PutOutcome::Taken),
            Err(e) => Err(self.subject("put", name).error(&e)),
        }
    }

    /// Writes or overwrites, repeated as need be.
    pub(super) async fn put_plain(&self, subject: &Subject<'_>, body: Bytes) -> Result<(), StoreError> {
        let limits = self.upload_limits(body.len() as u64);
        let request = self.client.put_object().bucket(&self.bucket).key(self.key(subject.name));
        let answer = request.body(ByteStream::from(body)).customize().config_override(limits).send().await;
        answer.map(drop).map_err(|e| subject.error(&e))
    }

    /// Limits that leave a slow line the time to send that many bytes; the usual ones count from the first byte sent.
    /// A line on which nothing moves at all is given up earlier.
    pub(super) fn upload_limits(&self, bytes: u64) -> Builder {
        self.limits(bytes, self.attempt_timeout())
    }

    fn limits(&self, bytes: u64, attempt: Duration) -> Builder {
        let sending = Duration::from_millis(bytes * 1000 / LINE_BYTES_PER_SECOND);
        let attempt = attempt + sending;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(self.attempt_timeout())
            .read_timeout(attempt)
            .operation_attempt_timeout(attempt)
            .operation_timeout(self.operation_timeout() + sending)
            .build();
        let stalled = StalledStreamProtectionConfig::enabled().grace_period(self.attempt_timeout()).build();
        Builder::new().timeout_config(timeouts).stalled_stream_protection(stalled)
    }
}
