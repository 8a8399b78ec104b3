//! Failures over HTTP: `application/problem+json` (RFC 9457).

use crate::failure::{Failure, FailureKind};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A problem document; `kind` says what `status` alone cannot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The kind of failure.
    pub kind: FailureKind,
    /// The kind in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What failed on which object.
    pub detail: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let meaning = failure.kind.meaning();
        Self {
            kind: failure.kind,
            title: meaning.name.replace('-', " "),
            status: meaning.http,
            detail: failure.message,
            hint: failure.hint,
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { kind: problem.kind, message: problem.detail, hint: problem.hint }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = Problem::from(self);
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(problem)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}
