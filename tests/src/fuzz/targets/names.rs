//! Names: objects, filesystems, files of the proxy, store addresses.

use crate::fuzz::{Target, verdict};
use cloud_mgmt::names::FsName;
use cloud_mgmt::store::{MemoryStore, ObjectStore, StoreErrorKind, StoreUrl};
use toa::proxy::name::{escape, unescape, unescape_chunk};
use tokio::runtime::Builder;

pub const OBJECT: Target = Target { name: "object-name", seeds: objects, words: WORDS, parse: object };
pub const PROXY: Target = Target { name: "proxy-name", seeds: files, words: WORDS, parse: file };
pub const STORE_URL: Target = Target { name: "store-url", seeds: urls, words: WORDS, parse: url };

const WORDS: &[&str] = &[
    "..",
    "//",
    "/",
    ".tmp",
    "%2F",
    "%00",
    "%",
    "@",
    "#",
    "?",
    "&",
    "=",
    "s3://",
    "file://",
    "endpoint=",
    "http://",
    "region=",
    "path-style=",
    ".config",
    "[",
    "]",
    ":",
    "\u{e9}",
    "\0",
];

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn objects() -> Vec<Vec<u8>> {
    let id = "00000000-0000-0000-0000-0000000000f5";
    texts(&[
        &format!("home-{id}.config"),
        &format!("home-{id}/ledger/0000000000000001.json"),
        &format!("a.b_c-{id}/pack/00000001-0000000000000001-{}-00000000.tar.zst", id.replace('-', "")),
    ])
}

/// A name that a store takes cannot leave its place; what is read as a filesystem is written the same.
fn object(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let fs = FsName::from_config_object(&text);
    if let Some(name) = &fs {
        assert_eq!(name.config_object(), text, "a filesystem with two names");
    }
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let store = MemoryStore::new();
    let error = runtime.block_on(store.get(&text)).expect_err("an empty store");
    let listed = runtime.block_on(store.list(&text)).is_ok();
    if error.kind() == StoreErrorKind::NotFound {
        assert!(text.len() <= 900 && !text.contains('\0') && !text.starts_with(".tmp/"));
        assert!(text.split('/').all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255), "{text:?}");
        assert!(listed, "a name is a prefix");
    }
    format!("{}, prefix {listed}, filesystem {}", verdict(&format!("{:?}", error.kind())), fs.is_some())
}

fn files() -> Vec<Vec<u8>> {
    texts(&["home-1%2Fpack%2F1.tar.zst", "home-1%2Fidx%2F1.run@17", "a%25b"])
}

/// Files of the proxy name an object in one way alone, and no other file.
fn file(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let object = unescape(&text);
    if let Some(object) = &object {
        assert_eq!(escape(object).expect("it came from a name"), text);
    }
    let chunk = unescape_chunk(&text);
    if let Some((object, number)) = &chunk {
        assert_eq!(format!("{}@{number}", escape(object).expect("it came from a name")), text);
    }
    if let Ok(name) = escape(&text) {
        assert!(!name.contains('/') && name != "." && name != ".." && name.len() <= 240);
        assert_eq!(unescape(&name).as_deref(), Some(&*text));
    }
    format!("{} {}", object.is_some(), chunk.is_some())
}

fn urls() -> Vec<Vec<u8>> {
    texts(&[
        "s3://my-bucket/backups/x?endpoint=https://s3.example.org:9000/path&region=eu-central-1&path-style=true",
        "file:///srv/a%20b",
        "s3://bucket",
    ])
}

fn url(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.parse::<StoreUrl>() {
        Ok(url) => {
            let shown = url.to_string();
            let again: StoreUrl = shown.parse().expect("what is shown can be typed");
            assert_eq!(again, url, "{shown}");
            match url {
                StoreUrl::S3(address) => format!(
                    "s3 {} {} {} {:?}",
                    address.prefix.is_empty(),
                    address.endpoint.is_some(),
                    address.region.is_some(),
                    address.addressing
                ),
                StoreUrl::Directory(_) => "directory".into(),
            }
        }
        Err(error) => {
            let message = error.to_string();
            let why = REFUSALS.iter().find(|why| message.contains(**why));
            format!("refused: {why:?}")
        }
    }
}

/// What the messages have in common that do not repeat the input.
const REFUSALS: [&str; 14] = [
    "has no '#'",
    "unknown scheme",
    "a directory is written",
    "must start with",
    "takes no '?'",
    "must be absolute",
    "must not contain '..'",
    "credentials do not belong",
    "is not a bucket name",
    "a component",
    "'//'",
    "unknown parameter",
    "twice",
    "true or false",
];
