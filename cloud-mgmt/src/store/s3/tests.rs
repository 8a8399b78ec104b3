//! Against a server that answers by a script: what the client sends, and what it makes of bad answers.

use super::*;
use crate::store::{Addressing, Requests};
use aws_credential_types::Credentials;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const OPTIONS: StoreOptions = StoreOptions { attempt_timeout_ms: 400, operation_timeout_ms: 2_000, concurrency: 4 };

/// What the server does with one request.
#[derive(Clone, Debug)]
enum Answer {
    /// Status, headers, body.
    Full(u16, &'static str, String),
    /// Status, headers, the length that is announced, the bytes that are sent before the connection is closed.
    Cut(u16, &'static str, usize, String),
    /// Like `Cut`, but the connection stays open and silent.
    Stall(u16, &'static str, usize, String),
    /// Closes without an answer.
    Close,
    /// Never answers.
    Hang,
}

/// What becomes of the connection after an answer.
enum Then {
    GoOn,
    Close,
    Hang,
}

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<Answer>,
    /// Heads of the requests so far, in lower case.
    requests: Vec<String>,
}

struct Server {
    script: Arc<Mutex<Script>>,
    endpoint: String,
}

impl Server {
    async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script { answers: answers.into(), requests: Vec::new() }));
        let shared = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { script, endpoint }
    }

    async fn store(&self) -> S3Store {
        store_at(&self.endpoint).await
    }

    fn requests(&self) -> Vec<String> {
        self.script.lock().unwrap().requests.clone()
    }
}

async fn store_at(endpoint: &str) -> S3Store {
    let address = S3Address {
        bucket: "bucket".into(),
        prefix: "pre/fix".into(),
        endpoint: Some(endpoint.into()),
        region: Some("us-east-1".into()),
        addressing: Some(Addressing::Path),
    };
    let credentials = SharedCredentialsProvider::new(Credentials::new("key", "secret", None, None, "test"));
    S3Store::connect_with(&address, OPTIONS, credentials).await.unwrap()
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>) {
    let mut pending = Vec::new();
    while let Some(head) = read_request(&mut stream, &mut pending).await {
        let answer = {
            let mut script = script.lock().unwrap();
            script.requests.push(head);
            script.answers.pop_front().unwrap_or(Answer::Full(500, "", "unexpected request".into()))
        };
        let (status, headers, length, body, then) = match answer {
            Answer::Full(status, headers, body) => (status, headers, body.len(), body, Then::GoOn),
            Answer::Cut(status, headers, length, body) => (status, headers, length, body, Then::Close),
            Answer::Stall(status, headers, length, body) => (status, headers, length, body, Then::Hang),
            Answer::Close => return,
            Answer::Hang => return std::future::pending().await,
        };
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{headers}\r\n");
        // A client that has given up does not wait for its answer.
        if stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.is_err()
            || stream.flush().await.is_err()
        {
            return;
        }
        match then {
            Then::GoOn => {}
            Then::Close => return,
            Then::Hang => return std::future::pending().await,
        }
    }
}

/// The head of the next request, its body read and dropped.
async fn read_request(stream: &mut TcpStream, pending: &mut Vec<u8>) -> Option<String> {
    let end = loop {
        if let Some(at) = pending.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(pending).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(pending[..end].to_vec()).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    while pending.len() < end + length {
        if stream.read_buf(pending).await.ok()? == 0 {
            return None;
        }
    }
    pending.drain(..end + length);
    Some(head)
}

fn refusal(status: u16, code: &str) -> Answer {
    Answer::Full(status, "", format!("<Error><Code>{code}</Code><Message>because</Message></Error>"))
}

#[tokio::test]
async fn a_conditional_write_is_sent_once_whatever_comes_of_it() {
    for (answer, expected) in [
        (Answer::Full(200, "", String::new()), Ok(PutOutcome::Created)),
        (refusal(412, "PreconditionFailed"), Ok(PutOutcome::Taken)),
        (refusal(409, "ConditionalRequestConflict"), Err(StoreErrorKind::Unavailable)),
        (refusal(500, "InternalError"), Err(StoreErrorKind::Unavailable)),
        (refusal(503, "SlowDown"), Err(StoreErrorKind::Unavailable)),
        (refusal(403, "AccessDenied"), Err(StoreErrorKind::Denied)),
        (refusal(404, "NoSuchBucket"), Err(StoreErrorKind::NoBucket)),
        (refusal(501, "NotImplemented"), Err(StoreErrorKind::Unsupported)),
        (refusal(507, "InsufficientStorage"), Err(StoreErrorKind::NoSpace)),
        (Answer::Close, Err(StoreErrorKind::Unavailable)),
        (Answer::Hang, Err(StoreErrorKind::Unavailable)),
    ] {
        let server = Server::start(vec![answer.clone()]).await;
        let outcome = server.store().await.put_if_absent("x/y", Bytes::from_static(b"body")).await;
        assert_eq!(outcome.map_err(|e| e.kind()), expected, "{answer:?}");
        let requests = server.requests();
        assert_eq!(requests.len(), 1, "{answer:?}: {requests:?}");
        assert!(requests[0].starts_with("put /bucket/pre/fix/x/y"), "{requests:?}");
        assert!(requests[0].contains("if-none-match: *"), "{requests:?}");
    }
}

#[tokio::test]
async fn an_overwrite_is_repeated() {
    let server = Server::start(vec![Answer::Close, refusal(503, "SlowDown"), Answer::Full(200, "", String::new())]);
    let server = server.await;
    let store = server.store().await;
    store.put("x", Bytes::from_static(b"body")).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    let counted = Requests { put: 3, repeated: 2, bytes_sent: 12, ..Requests::default() };
    assert_eq!(store.counter().sums(), counted, "what the SDK repeats by itself counts");
    assert!(!requests.iter().any(|head| head.contains("if-none-match")), "{requests:?}");
}

#[tokio::test]
async fn a_cut_body_is_resumed_where_it_stopped() {
    let server = Server::start(vec![
        Answer::Cut(200, "ETag: \"e\"\r\n", 10, "0123".into()),
        Answer::Cut(206, "ETag: \"e\"\r\nContent-Range: bytes 4-9/10\r\n", 6, "45".into()),
        Answer::Full(206, "ETag: \"e\"\r\nContent-Range: bytes 6-9/10\r\n", "6789".into()),
    ])
    .await;
    let store = server.store().await;
    assert_eq!(store.get("x").await.unwrap(), "0123456789");
    assert_eq!(store.counter().sums(), Requests { get: 3, bytes_received: 10, ..Requests::default() });
    let requests = server.requests();
    assert!(!requests[0].contains("range:"));
    assert!(requests[1].contains("range: bytes=4-9") && requests[1].contains("if-match: \"e\""), "{requests:?}");
    assert!(requests[2].contains("range: bytes=6-9"), "{requests:?}");
}

#[tokio::test]
async fn a_silent_body_is_resumed_elsewhere() {
    let server = Server::start(vec![
        Answer::Stall(200, "ETag: \"e\"\r\n", 10, "0123".into()),
        Answer::Full(206, "ETag: \"e\"\r\nContent-Range: bytes 4-9/10\r\n", "456789".into()),
    ])
    .await;
    assert_eq!(server.store().await.get("x").await.unwrap(), "0123456789");
}

#[tokio::test]
async fn an_empty_object_is_read() {
    let server = Server::start(vec![Answer::Full(200, "ETag: \"e\"\r\n", String::new())]).await;
    assert_eq!(server.store().await.get("x").await.unwrap(), "");
}

#[tokio::test]
async fn a_cut_range_is_resumed_and_gives_up_in_the_end() {
    let cut = |range: &'static str, length| Answer::Cut(206, range, length, "a".into());
    let server = Server::start(vec![
        cut("ETag: \"e\"\r\nContent-Range: bytes 100-109/1000\r\n", 10),
        cut("ETag: \"e\"\r\nContent-Range: bytes 101-109/1000\r\n", 9),
        cut("ETag: \"e\"\r\nContent-Range: bytes 102-109/1000\r\n", 8),
        cut("ETag: \"e\"\r\nContent-Range: bytes 103-109/1000\r\n", 7),
        cut("ETag: \"e\"\r\nContent-Range: bytes 104-109/1000\r\n", 6),
    ])
    .await;
    let error = server.store().await.get_range("x", 100..110).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
    let requests = server.requests();
    assert_eq!(requests.len(), 5);
    assert!(requests[4].contains("range: bytes=104-109"), "{requests:?}");
}

#[tokio::test]
async fn an_object_replaced_in_the_middle_is_noticed() {
    let first = || Answer::Cut(200, "ETag: \"old\"\r\n", 10, "0123".into());
    let honest = refusal(412, "PreconditionFailed");
    let ignorant = Answer::Full(206, "ETag: \"new\"\r\nContent-Range: bytes 4-9/10\r\n", "xxxxxx".into());
    for second in [honest, ignorant] {
        let server = Server::start(vec![first(), second]).await;
        let error = server.store().await.get("x").await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("replaced"), "{error}");
    }
}

#[tokio::test]
async fn answers_of_other_bytes_are_refused() {
    for answer in [
        // The whole object instead of the range, of the same length even.
        Answer::Full(200, "", "0123456789".into()),
        Answer::Full(200, "", "0123".into()),
        // Another range, a shorter one, none.
        Answer::Full(206, "Content-Range: bytes 0-3/10\r\n", "0123".into()),
        Answer::Full(206, "Content-Range: bytes 4-5/6\r\n", "45".into()),
        refusal(416, "InvalidRange"),
    ] {
        let server = Server::start(vec![answer.clone()]).await;
        let error = server.store().await.get_range("x", 4..8).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn refusals_say_what_helps() {
    for (answer, kind, words) in [
        (refusal(403, "InvalidAccessKeyId"), StoreErrorKind::Denied, "AWS_ACCESS_KEY_ID"),
        (refusal(403, "SignatureDoesNotMatch"), StoreErrorKind::Denied, "AWS_SECRET_ACCESS_KEY"),
        (refusal(403, "RequestTimeTooSkewed"), StoreErrorKind::Denied, "clock"),
        (refusal(400, "AuthorizationHeaderMalformed"), StoreErrorKind::Invalid, "region"),
        (refusal(404, "NoSuchBucket"), StoreErrorKind::NoBucket, "no bucket \"bucket\""),
        (refusal(404, "NoSuchKey"), StoreErrorKind::NotFound, "no such object"),
    ] {
        let server = Server::start(vec![answer]).await;
        let error = server.store().await.get("x").await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = store_at(&endpoint).await.get("x").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains(&format!("connection refused by {endpoint}")), "{error}");

    let server = Server::start(vec![Answer::Hang; 8]).await;
    let error = server.store().await.head("x").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("timed out") && error.to_string().contains(&server.endpoint), "{error}");
}

#[tokio::test]
async fn a_missing_bucket_is_no_missing_object() {
    let missing = || Answer::Full(404, "", String::new());
    let server = Server::start(vec![missing(), missing()]).await;
    assert_eq!(server.store().await.head("x").await.unwrap_err().kind(), StoreErrorKind::NoBucket);
    let server = Server::start(vec![missing(), Answer::Full(200, "", String::new())]).await;
    assert_eq!(server.store().await.head("x").await.unwrap_err().kind(), StoreErrorKind::NotFound);
}

#[tokio::test]
async fn pages_of_a_list_are_joined_and_sorted() {
    let page = |rest: &str, keys: &[&str]| {
        let object = |key: &&str| format!("<Contents><Key>pre/fix/{key}</Key><Size>3</Size></Contents>");
        let objects = keys.iter().map(object).collect::<Vec<_>>().concat();
        Answer::Full(200, "", format!("<ListBucketResult>{rest}{objects}</ListBucketResult>"))
    };
    let more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t1</NextContinuationToken>";
    let server = Server::start(vec![page(more, &["a/2", "a/1", "a/"]), page("", &["a-b", "a/2"])]).await;
    let listed = server.store().await.list("a").await.unwrap();
    let names: Vec<_> = listed.iter().map(|meta| meta.name.as_str()).collect();
    assert_eq!(names, ["a-b", "a/1", "a/2"]);
    assert!(server.requests()[1].contains("continuation-token=t1"));

    let endless = "<IsTruncated>true</IsTruncated>";
    let server = Server::start(vec![page(endless, &["a"])]).await;
    assert_eq!(server.store().await.list("a").await.unwrap_err().kind(), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn a_failed_upload_in_parts_is_aborted() {
    let begun = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
    let mut answers = vec![Answer::Full(200, "", begun.into())];
    answers.extend(std::iter::repeat_n(refusal(403, "AccessDenied"), 8));
    let server = Server::start(answers).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(20 << 20).unwrap();
    let error = server.store().await.put_file("x", file.path(), &|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Denied, "{error}");
    // Another part may still arrive behind it.
    let requests = server.requests();
    let aborts = |request: &&String| request.starts_with("delete ") && request.contains("uploadid=u1");
    assert_eq!(requests.iter().filter(aborts).count(), 1, "{requests:?}");
}

#[tokio::test]
async fn an_upload_in_parts_that_is_given_up_is_aborted() {
    let begun = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
    let mut answers = vec![Answer::Full(200, "", begun.into())];
    answers.extend([Answer::Hang, Answer::Hang, Answer::Hang, Answer::Full(204, "", String::new())]);
    let server = Server::start(answers).await;
    let store = server.store().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(20 << 20).unwrap();
    let mut upload = Box::pin(store.put_file("x", file.path(), &|_| {}));
    while server.requests().len() < 4 {
        let slice = tokio::time::timeout(Duration::from_millis(5), &mut upload).await;
        assert!(slice.is_err(), "the parts are not answered: {slice:?}");
    }
    drop(upload);
    while server.requests().len() < 5 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let last = server.requests().pop().unwrap();
    assert!(last.starts_with("delete ") && last.contains("uploadid=u1"), "{last}");
}

#[tokio::test]
async fn a_lost_answer_to_the_last_step_of_an_upload_is_looked_up() {
    let begun = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
    let part = || Answer::Full(200, "ETag: \"p\"\r\n", String::new());
    let mut answers = vec![Answer::Full(200, "", begun.into()), part(), part(), part()];
    // Done, but the answer is lost; the repetition finds no upload; the object is there.
    answers.extend([Answer::Close, refusal(404, "NoSuchUpload"), Answer::Cut(200, "", 20 << 20, String::new())]);
    let server = Server::start(answers).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(20 << 20).unwrap();
    let most = std::sync::atomic::AtomicU64::new(0);
    let progress = |bytes| {
        most.fetch_max(bytes, std::sync::atomic::Ordering::Relaxed);
    };
    let store = server.store().await;
    store.put_file("x", file.path(), &progress).await.unwrap();
    assert_eq!(most.into_inner(), 20 << 20);
    let counted = store.counter().sums();
    assert_eq!((counted.part, counted.repeated, counted.head, counted.total()), (6, 1, 1, 7), "{counted:?}");
    assert!(counted.bytes_sent >= 20 << 20, "{counted:?}");
    assert!(server.requests().last().unwrap().starts_with("head "), "{:?}", server.requests());
}

#[tokio::test]
async fn a_local_file_that_is_not_there_is_not_the_stores_fault() {
    let server = Server::start(Vec::new()).await;
    let missing = Path::new("/nonexistent/file");
    let error = server.store().await.put_file("x", missing, &|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Invalid);
    assert!(server.requests().is_empty());
}
