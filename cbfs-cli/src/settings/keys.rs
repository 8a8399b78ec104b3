//! The settings that exist: name, environment variable, type, default.

use crate::failure::Failure;
use std::time::Duration;

/// How a setting's text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Any text.
    Text,
    /// `30s`, `5m` …
    Duration,
    /// `10GiB`, `500MB` or a number of bytes.
    Bytes,
    /// A number from 1.
    Count,
    /// `on` or `off`.
    Switch,
}

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted name, as in the files and in `--set`.
    pub name: &'static str,
    /// Environment variable.
    pub env: &'static str,
    /// How its text is read.
    pub shape: Shape,
    /// Text of the default; `None`: not set.
    pub default: Option<&'static str>,
}

const fn key(name: &'static str, env: &'static str, shape: Shape, default: Option<&'static str>) -> Key {
    Key { name, env, shape, default }
}

/// Where filesystems are looked for that are named without a store.
pub const STORE: Key = key("store", "CBFS_STORE", Shape::Text, None);
/// Where `cbfs mount FS` mounts without a directory.
pub const MOUNT_POINT: Key = key("mount_point", "CBFS_MOUNT_POINT", Shape::Text, None);
/// A master re-reads the ledger at least this often.
pub const CHECK_INTERVAL: Key = key("check_interval", "CBFS_CHECK_INTERVAL", Shape::Duration, Some("30s"));
/// Hard limit of the local cache of bucket objects.
pub const PROXY_MAX_BYTES: Key = key("proxy.max_bytes", "CBFS_PROXY_MAX_BYTES", Shape::Bytes, Some("10GiB"));
/// Hard limit of the local key-value store.
pub const KVS_MAX_DISK: Key = key("kvs.max_disk", "CBFS_KVS_MAX_DISK", Shape::Bytes, None);
/// How long a read of bytes that are not here waits for the store.
pub const FETCH_TIMEOUT: Key = key("fetch.timeout", "CBFS_FETCH_TIMEOUT", Shape::Duration, Some("30s"));
/// Objects uploaded at once.
pub const UPLOAD_CONCURRENCY: Key = key("upload.concurrency", "CBFS_UPLOAD_CONCURRENCY", Shape::Count, Some("4"));
/// Whether a daemon that dies is followed by another one, and the mount goes on.
pub const DAEMON_RESTART: Key = key("daemon.restart", "CBFS_DAEMON_RESTART", Shape::Switch, Some("on"));

/// All of them.
pub const KEYS: [Key; 8] = [
    STORE,
    MOUNT_POINT,
    CHECK_INTERVAL,
    PROXY_MAX_BYTES,
    KVS_MAX_DISK,
    FETCH_TIMEOUT,
    UPLOAD_CONCURRENCY,
    DAEMON_RESTART,
];

/// The key of that dotted name.
pub fn find(name: &str) -> Option<Key> {
    KEYS.into_iter().find(|key| key.name == name)
}

/// The longest duration that makes sense here.
const DURATION_MAX: Duration = Duration::from_secs(366 * 86_400);

impl Key {
    /// Whether `text` can be read; `source` is named in the error.
    pub fn check(&self, text: &str, source: &str) -> Result<(), Failure> {
        match self.shape {
            Shape::Text => self.non_empty(text, source),
            Shape::Duration => self.duration(text, source).map(drop),
            Shape::Bytes => self.bytes(text, source).map(drop),
            Shape::Count => self.count(text, source).map(drop),
            Shape::Switch => self.switch(text, source).map(drop),
        }
    }

    /// As a duration.
    pub fn duration(&self, text: &str, source: &str) -> Result<Duration, Failure> {
        match humantime::parse_duration(text) {
            Ok(time) if !time.is_zero() && time <= DURATION_MAX => Ok(time),
            _ => Err(self.malformed(text, source, "a duration such as 30s or 5m, from 1ns to a year")),
        }
    }

    /// As bytes.
    pub fn bytes(&self, text: &str, source: &str) -> Result<u64, Failure> {
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) if size.0 > 0 => Ok(size.0),
            _ => Err(self.malformed(text, source, "a size such as 10GiB or 500MB")),
        }
    }

    /// As a number from 1.
    pub fn count(&self, text: &str, source: &str) -> Result<usize, Failure> {
        match text.parse::<usize>() {
            Ok(count @ 1..=1024) => Ok(count),
            _ => Err(self.malformed(text, source, "a number from 1 to 1024")),
        }
    }

    /// As a switch.
    pub fn switch(&self, text: &str, source: &str) -> Result<bool, Failure> {
        match text {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(self.malformed(text, source, "on or off")),
        }
    }

    fn non_empty(&self, text: &str, source: &str) -> Result<(), Failure> {
        if text.is_empty() { Err(self.malformed(text, source, "some text")) } else { Ok(()) }
    }

    fn malformed(&self, text: &str, source: &str, wanted: &str) -> Failure {
        Failure::invalid(format!("setting {} = {text:?} ({source}): this must be {wanted}", self.name))
    }
}
