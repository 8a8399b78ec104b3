//! Settings of a node: flag > environment > local files > the filesystem's config > default, each value with its source.

pub mod keys;
mod layers;
#[cfg(test)]
mod tests;

pub use keys::KEYS;
pub use layers::Layer;

use crate::failure::{Failure, FailureKind};
use cloud_mgmt::names::FsName;
use figment::Figment;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use toa::{FailurePolicy, KindPolicy};
use utoipa::ToSchema;

/// One setting with its value and where that came from: a line of `cbfs status --config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettingView {
    /// Dotted name.
    pub key: String,
    /// Its text; null: not set.
    pub value: Option<String>,
    /// `flag --set`, `environment CBFS_…`, a file, `filesystem config` or `default`.
    pub source: String,
}

/// What a filesystem's agent needs of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A master re-reads the ledger at least this often.
    pub check_interval: Duration,
    /// Hard limit of the proxy, bytes.
    pub proxy_max_bytes: u64,
    /// Hard limit of the key-value store, bytes.
    pub kvs_max_bytes: Option<u64>,
    /// Journal that is kept for a reader that is behind, bytes.
    pub journal_max_bytes: u64,
    /// How long a read waits for the store.
    pub fetch_timeout: Duration,
    /// Objects uploaded at once.
    pub upload_concurrency: usize,
    /// A snapshot is taken so often, if something has changed.
    pub snapshot_interval: Option<Duration>,
    /// What becomes of snapshots that cannot be published.
    pub failure: FailurePolicy,
    /// Whether each snapshot comes with a portable listing.
    pub listing: toa::Listing,
}

/// What becomes of a mount whose daemon dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Another daemon follows.
    On,
    /// It ends.
    Off,
}

/// Where settings come from, besides the defaults.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// Folder of `cbfs.toml` and `fs.d/`.
    pub config_dir: &'a Path,
    /// The process's environment.
    pub environment: &'a BTreeMap<String, String>,
    /// `--set key=value`.
    pub flags: &'a [(String, String)],
}

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Settings {
    lines: Vec<SettingView>,
}

impl Settings {
    /// Those of the node alone: no filesystem is known yet.
    pub fn of_node(sources: &Sources<'_>) -> Result<Self, Failure> {
        Self::merge(&[
            Layer::defaults(),
            Layer::file(&sources.config_dir.join("cbfs.toml"))?,
            Layer::environment(sources.environment),
            Layer::flags(sources.flags)?,
        ])
    }

    /// Those of a filesystem; `global` are the ones in its config.
    pub fn of_filesystem(
        sources: &Sources<'_>,
        name: &FsName,
        global: &BTreeMap<String, String>,
    ) -> Result<Self, Failure> {
        let own = sources.config_dir.join("fs.d");
        Self::merge(&[
            Layer::defaults(),
            Layer::filesystem_config(global),
            Layer::file(&sources.config_dir.join("cbfs.toml"))?,
            Layer::file(&own.join(format!("{}.toml", name.tag)))?,
            Layer::file(&own.join(format!("{name}.toml")))?,
            Layer::environment(sources.environment),
            Layer::flags(sources.flags)?,
        ])
    }

    /// Later layers win.
    fn merge(layers: &[Layer]) -> Result<Self, Failure> {
        let figment = layers.iter().fold(Figment::new(), |all, layer| all.merge(layer));
        let mut lines = Vec::with_capacity(KEYS.len());
        for key in KEYS {
            let line = match figment.find_value(key.name) {
                Err(error) if error.missing() => {
                    SettingView { key: key.name.to_owned(), value: None, source: "default".to_owned() }
                }
                Err(error) => return Err(Failure::invalid(error.to_string())),
                Ok(value) => {
                    let source = figment.get_metadata(value.tag()).map_or_else(String::new, |m| m.name.to_string());
                    let source = if source == layers::ENVIRONMENT { format!("{source} {}", key.env) } else { source };
                    let text = value.into_string().unwrap_or_default();
                    key.check(&text, &source)?;
                    SettingView { key: key.name.to_owned(), value: Some(text), source }
                }
            };
            lines.push(line);
        }
        Ok(Self { lines })
    }

    /// Every setting, in the order of the table.
    pub fn lines(&self) -> &[SettingView] {
        &self.lines
    }

    /// The text of a setting.
    pub fn text(&self, key: keys::Key) -> Option<&str> {
        self.line(key).and_then(|line| line.value.as_deref())
    }

    fn line(&self, key: keys::Key) -> Option<&SettingView> {
        self.lines.iter().find(|line| line.key == key.name)
    }

    /// What the agent needs.
    pub fn limits(&self) -> Result<Limits, Failure> {
        Ok(Limits {
            check_interval: self.read(keys::CHECK_INTERVAL, keys::Key::duration)?,
            proxy_max_bytes: self.read(keys::PROXY_MAX_BYTES, keys::Key::bytes)?,
            kvs_max_bytes: match self.text(keys::KVS_MAX_DISK) {
                None => None,
                Some(_) => Some(self.read(keys::KVS_MAX_DISK, keys::Key::bytes)?),
            },
            journal_max_bytes: self.read(keys::JOURNAL_MAX_BYTES, keys::Key::bytes)?,
            fetch_timeout: self.read(keys::FETCH_TIMEOUT, keys::Key::duration)?,
            upload_concurrency: self.read(keys::UPLOAD_CONCURRENCY, keys::Key::count)?,
            listing: if self.read(keys::SNAPSHOT_LISTING, keys::Key::switch)? {
                toa::Listing::On
            } else {
                toa::Listing::Off
            },
            snapshot_interval: self.read(keys::SNAPSHOT_INTERVAL, keys::Key::interval)?,
            failure: self.failure_policy()?,
        })
    }

    fn failure_policy(&self) -> Result<FailurePolicy, Failure> {
        let of_kind = |transient, persistent| -> Result<KindPolicy, Failure> {
            Ok(KindPolicy {
                transient: self.read(transient, keys::Key::action)?,
                persistent: self.read(persistent, keys::Key::action)?,
            })
        };
        Ok(FailurePolicy {
            user: of_kind(keys::USER_TRANSIENT, keys::USER_PERSISTENT)?,
            periodic: of_kind(keys::PERIODIC_TRANSIENT, keys::PERIODIC_PERSISTENT)?,
            persistent_after: self.read(keys::PERSISTENT_AFTER, keys::Key::duration)?,
        })
    }

    /// What becomes of a mount whose daemon dies.
    pub fn restart(&self) -> Result<Restart, Failure> {
        let on = self.read(keys::DAEMON_RESTART, keys::Key::switch)?;
        Ok(if on { Restart::On } else { Restart::Off })
    }

    fn read<T>(
        &self,
        key: keys::Key,
        parse: impl Fn(&keys::Key, &str, &str) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let missing = || Failure::new(FailureKind::Bug, format!("setting {} has no default", key.name));
        let line = self.line(key).ok_or_else(missing)?;
        parse(&key, line.value.as_deref().ok_or_else(missing)?, &line.source)
    }
}

/// `key=value` of a `--set`, for a known key with a readable value.
pub fn parse_assignment(text: &str) -> Result<(String, String), Failure> {
    let (name, value) = text.split_once('=').ok_or_else(|| {
        Failure::invalid(format!("--set {text}: expected key=value, for example proxy.max_bytes=20GiB"))
    })?;
    let key = keys::find(name).ok_or_else(|| layers::unknown(name, "--set"))?;
    key.check(value, "flag --set")?;
    Ok((name.to_owned(), value.to_owned()))
}
