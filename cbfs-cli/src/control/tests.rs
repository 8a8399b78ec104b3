use super::api::{
    AccessView, AgentView, FilesystemStatus, Promotion, Role, SnapshotKind, SnapshotRequest, SnapshotState,
    SnapshotView,
};
use super::*;
use crate::failure::{Failure, FailureKind};
use crate::settings::SettingView;
use async_trait::async_trait;
use cloud_mgmt::names::FsName;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A filesystem whose snapshots are complete as soon as they are looked at.
struct Fake {
    name: FsName,
    keys: Mutex<BTreeMap<Uuid, Uuid>>,
    snapshots: Mutex<Vec<SnapshotView>>,
    end: CancellationToken,
}

fn agent() -> AgentView {
    AgentView {
        access: AccessView::ReadWrite,
        epoch: 4,
        confirmed: true,
        snapshot: None,
        xid: 9,
        persisted_xid: 8,
        store_reachable: Some(false),
        problem: None,
        queued: 0,
    }
}

#[async_trait]
impl Service for Fake {
    fn name(&self) -> &FsName {
        &self.name
    }

    fn status(&self) -> FilesystemStatus {
        FilesystemStatus {
            name: self.name.to_string(),
            store: "file:///b".into(),
            role: Role::Master,
            selector: None,
            mount_point: Some("/mnt".into()),
            instance: "/state".into(),
            running: true,
            pid: Some(1),
            version: Some("0".into()),
            agent: Some(agent()),
            held: None,
            requests: None,
            settings: None,
        }
    }

    fn settings(&self) -> Vec<SettingView> {
        vec![SettingView { key: "store".into(), value: None, source: "default".into() }]
    }

    fn request_snapshot(&self, request: SnapshotRequest, key: Option<Uuid>) -> Result<SnapshotView, Failure> {
        let id = *self.keys.lock().unwrap().entry(key.unwrap_or_else(Uuid::new_v4)).or_insert_with(Uuid::new_v4);
        let view = SnapshotView {
            id,
            name: request.name,
            kind: SnapshotKind::User,
            state: SnapshotState::Queued,
            cancelling: false,
            cancelled: None,
            requested: jiff::Timestamp::UNIX_EPOCH,
            xid_from: None,
            xid: 9,
            epoch: 4,
            objects_total: 0,
            objects_done: 0,
            bytes_total: 0,
            bytes_done: 0,
            rate: None,
            eta: None,
            uploaded: 0,
            attempts: 0,
            failing_since: None,
            failure: None,
            problem: None,
        };
        let mut all = self.snapshots.lock().unwrap();
        if all.iter().all(|s| s.id != id) {
            all.push(SnapshotView { state: SnapshotState::Complete, ..view.clone() });
        }
        Ok(view)
    }

    fn cancel_snapshot(&self, id_or_name: &str) -> Result<SnapshotView, Failure> {
        self.snapshot(id_or_name).map(|snapshot| SnapshotView { cancelling: true, ..snapshot })
    }

    fn snapshots(&self) -> Result<Vec<SnapshotView>, Failure> {
        Ok(self.snapshots.lock().unwrap().clone())
    }

    fn snapshot(&self, id_or_name: &str) -> Result<SnapshotView, Failure> {
        let all = self.snapshots.lock().unwrap();
        let is_it = |s: &&SnapshotView| s.id.to_string() == id_or_name || s.name.as_deref() == Some(id_or_name);
        all.iter().find(is_it).cloned().ok_or_else(|| Failure::not_found(format!("no snapshot {id_or_name}")))
    }

    async fn promote(&self, epoch: u32) -> Result<Promotion, Failure> {
        if epoch != 4 {
            return Err(Failure::new(FailureKind::EpochMismatch, format!("epoch {epoch} is not the latest"))
                .with_hint("cbfs promote home --epoch 4"));
        }
        Ok(Promotion { name: self.name.to_string(), previous_epoch: 4, epoch: 5 })
    }

    fn hand_over(&self) -> Result<(), Failure> {
        Err(Failure::new(FailureKind::Unsupported, "the mount ends with its daemon"))
    }

    fn shut_down(&self) {
        self.end.cancel();
    }
}

struct Server {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    name: FsName,
    client: Client,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// In a directory whose name is longer than a socket address.
fn start() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("x".repeat(120));
    std::fs::create_dir(&folder).unwrap();
    let socket = folder.join("control.sock");
    let name = FsName { tag: "home".parse().unwrap(), id: Uuid::from_u128(7) };
    let end = CancellationToken::new();
    let fake = Fake { name: name.clone(), keys: Mutex::default(), snapshots: Mutex::default(), end: end.clone() };
    let listener = socket::listen(&socket).unwrap();
    let task = tokio::spawn(server::serve(listener, Arc::new(fake), end));
    Server { _dir: dir, client: Client::new(socket.clone(), &name), socket, name, task }
}

/// One request as bytes, the answer as text.
async fn raw(server: &Server, request: &str) -> String {
    let mut stream = socket::connect(&server.socket).await.unwrap();
    stream.write_all(request.replace('\n', "\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.to_ascii_lowercase()
}

#[tokio::test]
async fn a_client_gets_what_the_service_says() {
    let server = start();
    let status = server.client.status().await.unwrap();
    assert_eq!(status.filesystems[0].agent, Some(agent()));
    assert_eq!(server.client.settings().await.unwrap().settings.len(), 1);

    let request = SnapshotRequest { name: Some("before update/1".into()) };
    let refused = server.client.request_snapshot(&request, Uuid::new_v4()).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::InvalidInput);
    let request = SnapshotRequest { name: Some("before update é?%1".into()) };
    let key = Uuid::new_v4();
    let first = server.client.request_snapshot(&request, key).await.unwrap();
    let again = server.client.request_snapshot(&request, key).await.unwrap();
    assert_eq!(first.id, again.id);
    assert_eq!(server.client.snapshots().await.unwrap().snapshots.len(), 1);
    let named = server.client.snapshot("before update é?%1").await.unwrap();
    assert_eq!((named.id, named.state), (first.id, SnapshotState::Complete));
    assert_eq!(server.client.snapshot("other").await.unwrap_err().kind, FailureKind::NotFound);

    assert_eq!(server.client.promote(4).await.unwrap().epoch, 5);
    let refused = server.client.promote(3).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::EpochMismatch);
    assert_eq!(refused.hint.as_deref(), Some("cbfs promote home --epoch 4"));
    assert_eq!(server.client.upgrade().await.unwrap_err().kind, FailureKind::Unsupported);
}

#[tokio::test]
async fn http_looks_as_documented() {
    let server = start();
    let base = format!("/v1/filesystems/{}", server.name);
    let accepted = raw(&server, &format!("POST {base}/snapshots HTTP/1.1\nhost: x\nconnection: close\n\n")).await;
    assert!(accepted.starts_with("http/1.1 202"), "{accepted}");
    assert!(accepted.contains(&format!("location: {base}/snapshots/")), "{accepted}");
    let other = raw(&server, "GET /v1/filesystems/other HTTP/1.1\nhost: x\nconnection: close\n\n").await;
    assert!(other.starts_with("http/1.1 404") && other.contains("application/problem+json"), "{other}");
    let nothing = raw(&server, "GET /v2 HTTP/1.1\nhost: x\nconnection: close\n\n").await;
    assert!(nothing.starts_with("http/1.1 404") && nothing.contains("\"kind\":\"not-found\""), "{nothing}");
    let key = format!("POST {base}/snapshots HTTP/1.1\nhost: x\nidempotency-key: 1\nconnection: close\n\n");
    assert!(raw(&server, &key).await.starts_with("http/1.1 400"));
    let promote = "POST /v1/promotions HTTP/1.1\nhost: x\ncontent-length: 11\nconnection: close\n\n{\"epoch\":3}";
    assert!(raw(&server, promote).await.starts_with("http/1.1 412"));
    let garbage = "POST /v1/promotions HTTP/1.1\nhost: x\ncontent-length: 2\nconnection: close\n\n[]";
    assert!(raw(&server, garbage).await.starts_with("http/1.1 400"));
}

#[tokio::test]
async fn the_description_names_every_path() {
    let server = start();
    let answer = raw(&server, "GET /v1/openapi.json HTTP/1.1\nhost: x\nconnection: close\n\n").await;
    let json: serde_json::Value = serde_json::from_str(&answer[answer.find('{').unwrap()..]).unwrap();
    let paths: Vec<_> = json["paths"].as_object().unwrap().keys().cloned().collect();
    let wanted = [
        "/v1/filesystems/{fs}",
        "/v1/filesystems/{fs}/config",
        "/v1/filesystems/{fs}/promotions",
        "/v1/filesystems/{fs}/snapshots",
        "/v1/filesystems/{fs}/snapshots/{id}",
        "/v1/promotions",
        "/v1/shutdown",
        "/v1/status",
        "/v1/upgrade",
    ];
    assert_eq!(paths, wanted);
}

#[tokio::test]
async fn the_socket_is_private_and_outlives_a_dead_daemon() {
    let server = start();
    let mode = std::fs::metadata(&server.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.client.shut_down().await.unwrap();
    server.task.await.unwrap().unwrap();
    assert!(server.socket.exists(), "what is left is as after a crash");
    // A process that another test is just starting has the socket as well, until its program begins: it takes a connection
    // and breaks it off.
    let mut refusal = server.client.status().await.unwrap_err().kind;
    for _ in 0..100 {
        if refusal != FailureKind::Unavailable {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        refusal = server.client.status().await.unwrap_err().kind;
    }
    assert_eq!(refusal, FailureKind::NotFound);
    drop(socket::listen(&server.socket).unwrap());
}

#[test]
fn names_that_mean_something_else_are_refused() {
    for bad in ["", "latest", "a/b", "a@b", "a\nb", &"x".repeat(129), "00000000-0000-0000-0000-000000000007"] {
        assert!(check_snapshot_name(bad).is_err(), "{bad:?}");
    }
    check_snapshot_name("before the update, 2nd").unwrap();
}
