//! The requests of the control API, one function each.

use super::api::{
    DaemonStatus, FilesystemStatus, Promotion, PromotionRequest, SettingList, SnapshotList, SnapshotRequest,
    SnapshotView,
};
use super::problem::Problem;
use super::service::Service;
use crate::failure::{Failure, FailureKind};
use crate::state::name_matches;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use utoipa::OpenApi;
use uuid::Uuid;

type Shared = State<Arc<dyn Service>>;

/// The description that the server gives of itself.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "CBFS control API",
        description = "One daemon, one mount; on a unix socket in its instance directory."
    ),
    paths(
        status,
        filesystem,
        config,
        snapshots,
        request_snapshot,
        snapshot,
        cancel_snapshot,
        promote,
        promote_only,
        upgrade,
        shut_down
    )
)]
struct Description;

/// Runs what may wait for the disk off the threads that serve the socket.
async fn blocking<T: Send + 'static>(
    service: Arc<dyn Service>,
    work: impl FnOnce(&dyn Service) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(move || work(&*service)).await.map_err(broken)?
}

fn broken(error: tokio::task::JoinError) -> Failure {
    Failure::new(FailureKind::Bug, format!("the request broke off: {error}"))
}

/// Refuses a filesystem that this daemon does not serve.
fn check_served(service: &Arc<dyn Service>, fs: &str) -> Result<(), Failure> {
    if name_matches(service.name(), fs) {
        Ok(())
    } else {
        Err(Failure::not_found(format!("this daemon serves {}, not {fs}", service.name())))
    }
}

/// A body that must be there.
fn body<T: serde::de::DeserializeOwned>(bytes: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::invalid(format!("the body of the request: {error}")))
}

#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = DaemonStatus)))]
pub(super) async fn status(State(service): Shared) -> Result<Json<DaemonStatus>, Failure> {
    let filesystem = blocking(service, |service| Ok(service.status())).await?;
    Ok(Json(DaemonStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        filesystems: vec![filesystem],
    }))
}

pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}

#[utoipa::path(get, path = "/v1/filesystems/{fs}", params(("fs" = String, Path, description = "TAG-UUID, TAG or UUID")),
    responses((status = 200, body = FilesystemStatus), (status = 404, body = Problem)))]
pub(super) async fn filesystem(
    State(service): Shared,
    Path(fs): Path<String>,
) -> Result<Json<FilesystemStatus>, Failure> {
    check_served(&service, &fs)?;
    blocking(service, |service| Ok(service.status())).await.map(Json)
}

#[utoipa::path(get, path = "/v1/filesystems/{fs}/config", params(("fs" = String, Path)),
    responses((status = 200, body = SettingList), (status = 404, body = Problem)))]
pub(super) async fn config(State(service): Shared, Path(fs): Path<String>) -> Result<Json<SettingList>, Failure> {
    check_served(&service, &fs)?;
    Ok(Json(SettingList { settings: service.settings() }))
}

#[utoipa::path(get, path = "/v1/filesystems/{fs}/snapshots", params(("fs" = String, Path)),
    responses((status = 200, body = SnapshotList), (status = 404, body = Problem)))]
pub(super) async fn snapshots(State(service): Shared, Path(fs): Path<String>) -> Result<Json<SnapshotList>, Failure> {
    check_served(&service, &fs)?;
    let snapshots = blocking(service, <dyn Service>::snapshots).await?;
    Ok(Json(SnapshotList { snapshots }))
}

#[utoipa::path(post, path = "/v1/filesystems/{fs}/snapshots",
    params(("fs" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "UUID; the same key, the same snapshot")),
    request_body = SnapshotRequest,
    responses((status = 202, body = SnapshotView, description = "Asked for; Location says where it can be watched"),
              (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn request_snapshot(
    State(service): Shared,
    Path(fs): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Failure> {
    check_served(&service, &fs)?;
    let request: SnapshotRequest = if bytes.is_empty() { SnapshotRequest::default() } else { body(&bytes)? };
    if let Some(name) = &request.name {
        check_snapshot_name(name)?;
    }
    let key = idempotency_key(&headers)?;
    let location = format!("/v1/filesystems/{}/snapshots/", service.name());
    let snapshot = blocking(service, move |service| service.request_snapshot(request, key)).await?;
    let location = format!("{location}{}", snapshot.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(snapshot)).into_response())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<Uuid>, Failure> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().and_then(|text| text.trim_matches('"').parse().ok());
    key.map(Some).ok_or_else(|| Failure::invalid("Idempotency-Key must be a UUID"))
}

/// The agent's rule, asked before anything else is done.
pub fn check_snapshot_name(name: &str) -> Result<(), Failure> {
    Ok(toa::check_snapshot_name(name)?)
}

#[utoipa::path(get, path = "/v1/filesystems/{fs}/snapshots/{id}",
    params(("fs" = String, Path), ("id" = String, Path, description = "id or name")),
    responses((status = 200, body = SnapshotView), (status = 404, body = Problem)))]
pub(super) async fn snapshot(
    State(service): Shared,
    Path((fs, id)): Path<(String, String)>,
) -> Result<Json<SnapshotView>, Failure> {
    check_served(&service, &fs)?;
    blocking(service, move |service| service.snapshot(&id)).await.map(Json)
}

#[utoipa::path(delete, path = "/v1/filesystems/{fs}/snapshots/{id}",
    params(("fs" = String, Path), ("id" = String, Path, description = "id or name")),
    responses((status = 202, body = SnapshotView, description = "It is not published, unless the ledger has it already"),
              (status = 400, body = Problem, description = "It has ended"), (status = 404, body = Problem)))]
pub(super) async fn cancel_snapshot(
    State(service): Shared,
    Path((fs, id)): Path<(String, String)>,
) -> Result<(StatusCode, Json<SnapshotView>), Failure> {
    check_served(&service, &fs)?;
    let snapshot = blocking(service, move |service| service.cancel_snapshot(&id)).await?;
    Ok((StatusCode::ACCEPTED, Json(snapshot)))
}

#[utoipa::path(post, path = "/v1/filesystems/{fs}/promotions", params(("fs" = String, Path)), request_body = PromotionRequest,
    responses((status = 200, body = Promotion), (status = 412, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn promote(
    State(service): Shared,
    Path(fs): Path<String>,
    bytes: Bytes,
) -> Result<Json<Promotion>, Failure> {
    check_served(&service, &fs)?;
    promote_now(service, &bytes).await
}

#[utoipa::path(post, path = "/v1/promotions", request_body = PromotionRequest,
    responses((status = 200, body = Promotion), (status = 412, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn promote_only(State(service): Shared, bytes: Bytes) -> Result<Json<Promotion>, Failure> {
    promote_now(service, &bytes).await
}

/// In a task of its own: a client that goes away must not leave a promotion half done.
async fn promote_now(service: Arc<dyn Service>, bytes: &Bytes) -> Result<Json<Promotion>, Failure> {
    let PromotionRequest { epoch } = body(bytes)?;
    tokio::spawn(async move { service.promote(epoch).await }).await.map_err(broken)?.map(Json)
}

#[utoipa::path(post, path = "/v1/upgrade",
    responses((status = 202, description = "The daemon ends, and the program that is on disk now follows it"),
              (status = 501, body = Problem, description = "The mount would not survive that")))]
pub(super) async fn upgrade(State(service): Shared) -> Result<StatusCode, Failure> {
    service.hand_over()?;
    Ok(StatusCode::ACCEPTED)
}

#[utoipa::path(post, path = "/v1/shutdown", responses((status = 202, description = "The daemon unmounts and ends")))]
pub(super) async fn shut_down(State(service): Shared) -> StatusCode {
    service.shut_down();
    StatusCode::ACCEPTED
}
