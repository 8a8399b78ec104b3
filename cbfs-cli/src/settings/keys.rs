//! The settings that exist: name, environment variable, type, default.

use crate::failure::Failure;
use std::time::Duration;
use toa::FailureAction;

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
    /// As [`Shape::Duration`], or `0` for never.
    Interval,
    /// `retry`, `supersede` or `give-up`.
    Action,
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
/// Journal that is kept for a reader that is behind.
pub const JOURNAL_MAX_BYTES: Key = key("journal.max_bytes", "CBFS_JOURNAL_MAX_BYTES", Shape::Bytes, Some("1GiB"));
/// How long a read of bytes that are not here waits for the store.
pub const FETCH_TIMEOUT: Key = key("fetch.timeout", "CBFS_FETCH_TIMEOUT", Shape::Duration, Some("30s"));
/// Objects uploaded at once.
pub const UPLOAD_CONCURRENCY: Key = key("upload.concurrency", "CBFS_UPLOAD_CONCURRENCY", Shape::Count, Some("4"));
/// Whether each snapshot comes with a portable listing.
pub const SNAPSHOT_LISTING: Key = key("snapshot.listing", "CBFS_SNAPSHOT_LISTING", Shape::Switch, Some("off"));
/// Whether a daemon that dies is followed by another one, and the mount goes on.
pub const DAEMON_RESTART: Key = key("daemon.restart", "CBFS_DAEMON_RESTART", Shape::Switch, Some("on"));

/// A snapshot is taken so often, if something has changed.
pub const SNAPSHOT_INTERVAL: Key = key("snapshot.interval", "CBFS_SNAPSHOT_INTERVAL", Shape::Interval, Some("0"));
/// A snapshot that fails for longer is a matter for a person.
pub const PERSISTENT_AFTER: Key =
    key("failure.persistent_after", "CBFS_FAILURE_PERSISTENT_AFTER", Shape::Duration, Some("1h"));
/// What becomes of a snapshot that somebody asked for and that fails for a while.
pub const USER_TRANSIENT: Key =
    key("failure.user_transient", "CBFS_FAILURE_USER_TRANSIENT", Shape::Action, Some("retry"));
/// And for longer.
pub const USER_PERSISTENT: Key =
    key("failure.user_persistent", "CBFS_FAILURE_USER_PERSISTENT", Shape::Action, Some("retry"));
/// The same for a periodic one.
pub const PERIODIC_TRANSIENT: Key =
    key("failure.periodic_transient", "CBFS_FAILURE_PERIODIC_TRANSIENT", Shape::Action, Some("retry"));
/// And for longer.
pub const PERIODIC_PERSISTENT: Key =
    key("failure.periodic_persistent", "CBFS_FAILURE_PERIODIC_PERSISTENT", Shape::Action, Some("supersede"));
/// What is run when a person should hear of something.
pub const ALERT_COMMAND: Key = key("alert.command", "CBFS_ALERT_COMMAND", Shape::Text, None);

/// All of them.
pub const KEYS: [Key; 17] = [
    STORE,
    MOUNT_POINT,
    CHECK_INTERVAL,
    PROXY_MAX_BYTES,
    KVS_MAX_DISK,
    JOURNAL_MAX_BYTES,
    FETCH_TIMEOUT,
    UPLOAD_CONCURRENCY,
    SNAPSHOT_LISTING,
    DAEMON_RESTART,
    SNAPSHOT_INTERVAL,
    PERSISTENT_AFTER,
    USER_TRANSIENT,
    USER_PERSISTENT,
    PERIODIC_TRANSIENT,
    PERIODIC_PERSISTENT,
    ALERT_COMMAND,
];

/// The key of that dotted name.
pub fn find(name: &str) -> Option<Key> {
    KEYS.into_iter().find(|key| key.name == name)
}

/// The longest duration that makes sense here.
const DURATION_MAX: Duration = Duration::from_secs(366 * 86_400);

/// Snapshots that follow each other faster are of no use to anybody.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

impl Key {
    /// Whether the filesystem's own configuration may hold it: everybody who can write the bucket could set it on all
    /// nodes.
    pub fn may_be_shared(&self) -> bool {
        self.name != ALERT_COMMAND.name
    }

    /// Whether `text` can be read; `source` is named in the error.
    pub fn check(&self, text: &str, source: &str) -> Result<(), Failure> {
        match self.shape {
            Shape::Text => self.non_empty(text, source),
            Shape::Duration => self.duration(text, source).map(drop),
            Shape::Bytes => self.bytes(text, source).map(drop),
            Shape::Count => self.count(text, source).map(drop),
            Shape::Switch => self.switch(text, source).map(drop),
            Shape::Interval => self.interval(text, source).map(drop),
            Shape::Action => self.action(text, source).map(drop),
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

    /// As a duration, or `None` for never.
    pub fn interval(&self, text: &str, source: &str) -> Result<Option<Duration>, Failure> {
        match humantime::parse_duration(text) {
            Ok(time) if time.is_zero() => Ok(None),
            Ok(time) if (INTERVAL_MIN..=DURATION_MAX).contains(&time) => Ok(Some(time)),
            _ if text == "0" || text == "off" => Ok(None),
            _ => Err(self.malformed(text, source, "a duration from 1s to a year such as 15m, or 0 for never")),
        }
    }

    /// As what becomes of a snapshot that fails.
    pub fn action(&self, text: &str, source: &str) -> Result<FailureAction, Failure> {
        match text {
            "retry" => Ok(FailureAction::Retry),
            "supersede" => Ok(FailureAction::Supersede),
            "give-up" => Ok(FailureAction::GiveUp),
            _ => Err(self.malformed(text, source, "retry, supersede or give-up")),
        }
    }

    fn non_empty(&self, text: &str, source: &str) -> Result<(), Failure> {
        if text.is_empty() { Err(self.malformed(text, source, "some text")) } else { Ok(()) }
    }

    fn malformed(&self, text: &str, source: &str, wanted: &str) -> Failure {
        Failure::invalid(format!("setting {} = {text:?} ({source}): this must be {wanted}", self.name))
    }
}
