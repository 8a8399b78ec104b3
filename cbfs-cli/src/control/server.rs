//! The server: HTTP on a unix socket, for the user of the daemon and root.

use super::handlers;
use super::service::Service;
use crate::failure::{Failure, FailureKind};
use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// The user at the other end; `None`: the kernel did not say.
#[derive(Clone, Copy, Debug)]
struct Peer(Option<u32>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|peer| peer.uid()))
    }
}

/// Serves until `end`, then finishes what is under way.
pub async fn serve(listener: UnixListener, service: Arc<dyn Service>, end: CancellationToken) -> std::io::Result<()> {
    let app = routes(service).layer(middleware::from_fn(only_for_us));
    axum::serve(listener, app.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(end.cancelled_owned())
        .await
}

fn routes(service: Arc<dyn Service>) -> Router {
    Router::new()
        .route("/v1/status", get(handlers::status))
        .route("/v1/openapi.json", get(handlers::openapi))
        .route("/v1/promotions", post(handlers::promote_only))
        .route("/v1/shutdown", post(handlers::shut_down))
        .route("/v1/upgrade", post(handlers::upgrade))
        .route("/v1/filesystems/{fs}", get(handlers::filesystem))
        .route("/v1/filesystems/{fs}/config", get(handlers::config))
        .route("/v1/filesystems/{fs}/snapshots", get(handlers::snapshots).post(handlers::request_snapshot))
        .route("/v1/filesystems/{fs}/snapshots/{id}", get(handlers::snapshot).delete(handlers::cancel_snapshot))
        .route("/v1/filesystems/{fs}/promotions", post(handlers::promote))
        .fallback(|request: Request| async move {
            Failure::not_found(format!("there is nothing at {}", request.uri().path()))
        })
        .with_state(service)
}

/// The socket's mode keeps others out; this holds also where somebody changes it.
async fn only_for_us(ConnectInfo(peer): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    let own = rustix::process::geteuid().as_raw();
    match peer.0 {
        Some(uid) if uid == 0 || uid == own => next.run(request).await,
        _ => Failure::new(FailureKind::Denied, "this socket serves its owner and root alone").into_response(),
    }
}
