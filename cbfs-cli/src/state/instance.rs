//! One mount of one filesystem on this node: its directory and what `local.toml` remembers of it.

use super::files;
use crate::failure::{Failure, FailureKind};
use cloud_mgmt::config::FsConfig;
use cloud_mgmt::names::FsName;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// File of [`Local`].
const LOCAL: &str = "local.toml";
/// File of the filesystem's config, so that a master restarts without the bucket.
const CONFIG: &str = "config.json";

/// What an instance is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalRole {
    /// Writes, or did until it was deposed.
    Master,
    /// Shows a snapshot.
    Slave,
    /// A slave whose promotion was begun and not answered: it may be either.
    Promoting,
}

/// What `local.toml` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// The store's URL.
    pub store: String,
    /// `<TAG>-<UUID>`
    pub name: String,
    /// What it is for.
    pub role: LocalRole,
    /// A slave's snapshot: name, id or `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The epoch that it was last promoted to; 0 for one that began as it is. Of two masters on one node, the one that
    /// was promoted last is the master.
    #[serde(default)]
    pub promoted_to: u32,
    /// The connection whose kernel may remember a snapshot from before a promotion that moved to another one: what
    /// earlier daemons told it is unknown, and could not be voided piece by piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<u32>,
    /// Where it was mounted last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_point: Option<PathBuf>,
    /// Whether it was ever mounted: until then the bucket has the last word on everything.
    #[serde(default)]
    pub served: bool,
}

impl Local {
    /// It was promoted.
    pub fn took_over(&mut self, epoch: u32) {
        self.role = LocalRole::Master;
        self.snapshot = None;
        self.promoted_to = epoch;
    }
}

/// An instance directory.
#[derive(Clone, Debug)]
pub struct Instance {
    dir: PathBuf,
    name: FsName,
    local: Local,
}

impl Instance {
    /// Reads an instance.
    pub fn open(dir: PathBuf) -> Result<Self, Failure> {
        let path = dir.join(LOCAL);
        let text = std::fs::read_to_string(&path).map_err(|error| Failure::from_io(&error, "read", &path))?;
        let corrupt =
            |error: &dyn std::fmt::Display| Failure::new(FailureKind::Corrupt, format!("{}: {error}", path.display()));
        let local: Local = toml::from_str(&text).map_err(|error| corrupt(&error))?;
        let name = local.name.parse().map_err(|error| corrupt(&error))?;
        Ok(Self { dir, name, local })
    }

    /// Makes `dir` whole or not at all.
    pub fn create(dir: PathBuf, name: FsName, local: Local, config: &FsConfig) -> Result<Self, Failure> {
        let io = |operation: &'static str| move |error: std::io::Error| (operation, error);
        let parent = dir.parent().unwrap_or(&dir).to_owned();
        files::make_private_dir(&parent)?;
        let temp = parent.join(format!(".new-{}", uuid::Uuid::new_v4().simple()));
        files::make_private_dir(&temp)?;
        files::persist(&temp.join(CONFIG), &config.encode()?)?;
        let instance = Self { dir: temp.clone(), name, local };
        instance.save()?;
        std::fs::rename(&temp, &dir)
            .map_err(io("rename"))
            .and_then(|()| files::sync_parent(&dir).map_err(io("sync")))
            .map_err(|(operation, error)| Failure::from_io(&error, operation, &dir))?;
        Ok(Self { dir, ..instance })
    }

    /// Changes what `local.toml` says; durable on return.
    pub fn update(&mut self, change: impl FnOnce(&mut Local)) -> Result<(), Failure> {
        change(&mut self.local);
        self.save()
    }

    fn save(&self) -> Result<(), Failure> {
        let text = toml::to_string_pretty(&self.local)
            .map_err(|error| Failure::new(FailureKind::Bug, format!("encode {LOCAL}: {error}")))?;
        files::persist(&self.dir.join(LOCAL), text.as_bytes())
    }

    /// Takes away an instance that never served: there is nothing in it that anybody was told of.
    pub fn remove_unserved(self) -> Result<(), Failure> {
        if self.local.served {
            return Err(Failure::new(FailureKind::Bug, format!("{} has served", self.dir.display())));
        }
        std::fs::remove_dir_all(&self.dir).map_err(|error| Failure::from_io(&error, "remove", &self.dir))
    }

    /// The local copy of the filesystem's config.
    pub fn config(&self) -> Result<FsConfig, Failure> {
        let path = self.dir.join(CONFIG);
        let bytes = std::fs::read(&path).map_err(|error| Failure::from_io(&error, "read", &path))?;
        Ok(FsConfig::parse(&self.name, &bytes)?)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The filesystem.
    pub fn name(&self) -> &FsName {
        &self.name
    }

    /// What `local.toml` says.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Where a daemon in the background logs.
    pub fn log(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    /// The process that serves it now.
    pub fn pid(&self) -> Option<u32> {
        super::lock::holder_of(&self.dir)
    }
}
