//! From the SDK's errors to ours.

use super::super::{StoreError, StoreErrorKind};
use super::S3Store;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use std::error::Error;
use std::io;

/// What is being done on which object of which store: the parts of an error that do not depend on what went wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) operation: &'static str,
    pub(super) name: &'a str,
    store: &'a S3Store,
}

impl S3Store {
    pub(super) fn subject<'a>(&'a self, operation: &'static str, name: &'a str) -> Subject<'a> {
        Subject { operation, name, store: self }
    }
}

impl Subject<'_> {
    pub(super) fn new_error(&self, kind: StoreErrorKind, detail: impl Into<String>) -> StoreError {
        let object = if self.name.is_empty() { &self.store.url } else { self.name };
        StoreError::new(kind, self.operation, object, detail)
    }

    pub(super) fn no_bucket(&self) -> StoreError {
        let detail = format!("{} has no bucket {:?}", self.store.endpoint, self.store.bucket);
        self.new_error(StoreErrorKind::NoBucket, detail)
    }

    /// Bytes of an object came.
    pub(super) fn received(&self, bytes: usize) {
        self.store.counter.received(bytes as u64);
    }

    /// No answer in time.
    pub(super) fn timed_out(&self) -> StoreError {
        let detail = format!("{} timed out", self.store.endpoint);
        self.new_error(StoreErrorKind::Unavailable, detail)
    }

    /// What an error of the SDK means to the caller.
    pub(super) fn error<E>(&self, error: &SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let Some(refused) = cause::<CredentialsError>(error) {
            return self.no_credentials(refused);
        }
        match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                self.refused(status, answer.err().code(), answer.err().message())
            }
            SdkError::TimeoutError(_) => self.timed_out(),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => self.timed_out(),
            SdkError::DispatchFailure(_) => self.unreachable(error),
            SdkError::ResponseError(answer) => {
                let status = answer.raw().status();
                let detail = format!("{} sent an unreadable answer ({status}): {}", self.store.endpoint, root(error));
                self.new_error(StoreErrorKind::Unavailable, detail)
            }
            _ => self.new_error(StoreErrorKind::Invalid, format!("the request cannot be sent: {}", root(error))),
        }
    }

    fn no_credentials(&self, refused: &CredentialsError) -> StoreError {
        let detail = match refused {
            CredentialsError::CredentialsNotLoaded(_) => {
                "no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE".to_owned()
            }
            _ => format!("the credentials cannot be loaded: {}", root(refused)),
        };
        self.new_error(StoreErrorKind::Denied, detail)
    }

    fn unreachable(&self, error: &(dyn Error + 'static)) -> StoreError {
        let endpoint = &self.store.endpoint;
        let detail = match cause::<io::Error>(error).map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => format!("connection refused by {endpoint}"),
            Some(io::ErrorKind::ConnectionReset) => format!("connection reset by {endpoint}"),
            Some(io::ErrorKind::TimedOut) => format!("{endpoint} timed out"),
            _ => format!("cannot talk to {endpoint}: {}", root(error)),
        };
        self.new_error(StoreErrorKind::Unavailable, detail)
    }

    /// An answer of the server that is no success.
    fn refused(&self, status: u16, code: Option<&str>, message: Option<&str>) -> StoreError {
        let kind = kind_of(status, code.unwrap_or_default());
        if kind == StoreErrorKind::NoBucket {
            return self.no_bucket();
        }
        if kind == StoreErrorKind::NotFound {
            return self.new_error(kind, "no such object");
        }
        let mut detail = format!("{} answered {status}", self.store.endpoint);
        for part in [code, message].into_iter().flatten().filter(|part| !part.is_empty()) {
            detail = format!("{detail} {part}");
        }
        if let Some(hint) = hint_of(status, code.unwrap_or_default()) {
            detail = format!("{detail} ({hint})");
        }
        self.new_error(kind, detail)
    }
}

/// What the caller can do about an answer; everything that may be better later is Unavailable.
fn kind_of(status: u16, code: &str) -> StoreErrorKind {
    match (status, code) {
        (_, "NoSuchBucket") => StoreErrorKind::NoBucket,
        // An upload in parts that is gone is no missing object.
        (_, "NoSuchUpload") => StoreErrorKind::Unavailable,
        (_, "RequestTimeout" | "SlowDown" | "BadDigest" | "IncompleteBody" | "OperationAborted") => {
            StoreErrorKind::Unavailable
        }
        (_, "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage") | (507, _) => StoreErrorKind::NoSpace,
        (_, "ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId" | "RequestTimeTooSkewed") | (401 | 403, _) => {
            StoreErrorKind::Denied
        }
        (404, _) => StoreErrorKind::NotFound,
        (416, _) => StoreErrorKind::Corrupt,
        (501, _) => StoreErrorKind::Unsupported,
        (408 | 409 | 412 | 425 | 429, _) => StoreErrorKind::Unavailable,
        (300..=499, _) => StoreErrorKind::Invalid,
        _ => StoreErrorKind::Unavailable,
    }
}

fn hint_of(status: u16, code: &str) -> Option<&'static str> {
    match (status, code) {
        (_, "InvalidAccessKeyId") => Some("the server does not know this AWS_ACCESS_KEY_ID"),
        (_, "SignatureDoesNotMatch") => Some("AWS_SECRET_ACCESS_KEY does not belong to the access key"),
        (_, "ExpiredToken" | "InvalidToken") => Some("the session is over: renew the credentials"),
        (_, "RequestTimeTooSkewed") => Some("the clock of this machine is wrong"),
        (_, "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException")
        | (301 | 307, _) => Some("the bucket is in another region: give ?region=…"),
        (401 | 403, _) => Some("these credentials may not do that"),
        _ => None,
    }
}

/// The first error of that type in the chain of causes.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

/// The innermost cause: the outer ones say "dispatch failure" and the like.
pub(super) fn root(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |&error| error.source()).last().unwrap_or(error).to_string()
}
