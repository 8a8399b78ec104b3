//! The client of the control API, for the commands.

use super::api::{DaemonStatus, Promotion, PromotionRequest, SettingList, SnapshotList, SnapshotRequest, SnapshotView};
use super::problem::Problem;
use super::socket;
use crate::failure::{Failure, FailureKind};
use crate::state::lock;
use cloud_mgmt::names::FsName;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// A daemon answers local questions at once; it may be busy, not absent for longer than this.
const ANSWER_WITHIN: Duration = Duration::from_secs(9);
/// A promotion replays the ledger, which may be long; the daemon gives up itself where the store is away.
const PROMOTION_WITHIN: Duration = Duration::from_secs(300);

/// Between looks for the next daemon.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// One daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    base: String,
}

impl Client {
    /// The daemon of a filesystem that listens there.
    pub fn new(socket: PathBuf, name: &FsName) -> Self {
        Self { socket, base: format!("/v1/filesystems/{name}") }
    }

    /// `GET /v1/status`
    pub async fn status(&self) -> Result<DaemonStatus, Failure> {
        self.get("/v1/status").await
    }

    /// `GET …/config`
    pub async fn settings(&self) -> Result<SettingList, Failure> {
        self.get(&format!("{}/config", self.base)).await
    }

    /// `GET …/snapshots`
    pub async fn snapshots(&self) -> Result<SnapshotList, Failure> {
        self.get(&format!("{}/snapshots", self.base)).await
    }

    /// `GET …/snapshots/{id}`
    pub async fn snapshot(&self, id_or_name: &str) -> Result<SnapshotView, Failure> {
        self.get(&format!("{}/snapshots/{}", self.base, escape(id_or_name))).await
    }

    /// `POST …/snapshots`
    pub async fn request_snapshot(&self, request: &SnapshotRequest, key: Uuid) -> Result<SnapshotView, Failure> {
        let head = self.post(&format!("{}/snapshots", self.base)).header("idempotency-key", key.to_string());
        parse(&exchange(&self.socket, with_body(head, request)?, ANSWER_WITHIN).await?)
    }

    /// `DELETE …/snapshots/{id}`
    pub async fn cancel_snapshot(&self, id_or_name: &str) -> Result<SnapshotView, Failure> {
        let path = format!("{}/snapshots/{}", self.base, escape(id_or_name));
        let head = Request::builder().method(Method::DELETE).uri(path).header("host", "cbfs");
        let request = head.body(Full::default()).map_err(malformed)?;
        parse(&exchange(&self.socket, request, ANSWER_WITHIN).await?)
    }

    /// `POST …/promotions`
    pub async fn promote(&self, epoch: u32) -> Result<Promotion, Failure> {
        let head = self.post(&format!("{}/promotions", self.base));
        let request = with_body(head, &PromotionRequest { epoch })?;
        parse(&exchange(&self.socket, request, PROMOTION_WITHIN).await?)
    }

    /// `POST /v1/upgrade`
    pub async fn upgrade(&self) -> Result<(), Failure> {
        let request = self.post("/v1/upgrade").body(Full::default()).map_err(malformed)?;
        exchange(&self.socket, request, ANSWER_WITHIN).await.map(drop)
    }

    /// `POST /v1/shutdown`
    pub async fn shut_down(&self) -> Result<(), Failure> {
        let request = self.post("/v1/shutdown").body(Full::default()).map_err(malformed)?;
        exchange(&self.socket, request, ANSWER_WITHIN).await.map(drop)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let head = Request::builder().method(Method::GET).uri(path).header("host", "cbfs");
        let request = head.body(Full::default()).map_err(malformed)?;
        parse(&exchange(&self.socket, request, ANSWER_WITHIN).await?)
    }

    fn post(&self, path: &str) -> hyper::http::request::Builder {
        let head = Request::builder().method(Method::POST).uri(path).header("host", "cbfs");
        head.header("content-type", "application/json")
    }
}

fn with_body(
    head: hyper::http::request::Builder,
    body: &impl serde::Serialize,
) -> Result<Request<Full<Bytes>>, Failure> {
    let bytes = serde_json::to_vec(body)
        .map_err(|error| Failure::new(FailureKind::Bug, format!("encode the request: {error}")))?;
    head.body(Full::new(bytes.into())).map_err(malformed)
}

fn malformed(error: hyper::http::Error) -> Failure {
    Failure::invalid(format!("this cannot be asked of the daemon: {error}"))
}

/// A name in a path: everything but unreserved characters is escaped.
fn escape(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// One request, one connection.
async fn exchange(socket: &Path, request: Request<Full<Bytes>>, within: Duration) -> Result<Bytes, Failure> {
    let lost = |error: hyper::Error| {
        Failure::new(FailureKind::Unavailable, format!("the daemon on {} broke off: {error}", socket.display()))
            .with_hint("cbfs status shows whether it still runs; its log is daemon.log in the instance directory")
    };
    let talk = async {
        let stream = connect(socket).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(lost)?.to_bytes();
        connection.abort();
        refuse_problem(status, bytes)
    };
    tokio::time::timeout(within, talk).await.unwrap_or_else(|_| {
        let what =
            format!("the daemon on {} gave no answer within {}", socket.display(), humantime::format_duration(within));
        Err(Failure::new(FailureKind::Unavailable, what))
    })
}

/// Connects to the daemon; to the next one, if that is about to come.
async fn connect(socket: &Path) -> Result<tokio::net::UnixStream, Failure> {
    loop {
        let refused = match socket::connect(socket).await {
            Err(failure) if failure.kind == FailureKind::NotFound => failure,
            answer => return answer,
        };
        // While a mount is without a daemon, its holder keeps the lock. The caller has a limit.
        if socket.parent().and_then(lock::holder_of).is_none() {
            return Err(refused);
        }
        tokio::time::sleep(CONNECT_PAUSE).await;
    }
}

fn refuse_problem(status: StatusCode, bytes: Bytes) -> Result<Bytes, Failure> {
    if status.is_success() {
        return Ok(bytes);
    }
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => Err(problem.into()),
        Err(_) => Err(Failure::new(FailureKind::Bug, format!("the daemon answered {status}"))),
    }
}

fn parse<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::new(FailureKind::Bug, format!("the daemon's answer cannot be read: {error}")))
}
