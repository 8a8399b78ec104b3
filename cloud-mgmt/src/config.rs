//! `<TAG>-<UUID>.config`: the global parameters of a filesystem, written by `create` and never again.

use crate::names::FsName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The config format that this version writes, and the newest that it reads.
pub const CONFIG_FORMAT: u32 = 1;

/// The config object. Unknown keys are ignored; an unknown entry in `features` refuses the mount, unless it starts with
/// `ro-` and the mount is read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsConfig {
    /// [`CONFIG_FORMAT`] of the writer.
    pub format: u32,
    /// The filesystem's id, for ever.
    pub id: Uuid,
    /// Its human name.
    pub tag: String,
    /// When it was created.
    pub created: jiff::Timestamp,
    /// Version of the program that created it, for people.
    pub created_by: String,
    /// The op id of the attempt that created it, so that a lost answer can be told from a lost race.
    pub op: Uuid,
    /// Features that a reader must know.
    #[serde(default)]
    pub features: Vec<String>,
    /// How the store answered the probe of its conditional writes.
    pub probe: ProbeReport,
    /// Parameters given at creation (`--set key=value`): defaults for every node, below its own settings.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// What whoever creates a filesystem decides, for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsParameters {
    /// See [`FsConfig::features`].
    pub features: Vec<String>,
    /// See [`FsConfig::settings`].
    pub settings: BTreeMap<String, String>,
}

/// How a store answered the probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Rounds of racing creates, all with exactly one winner and the winner's bytes.
    pub rounds: u32,
    /// Racers in each.
    pub racers: u32,
    /// When.
    pub checked: jiff::Timestamp,
}

/// What a node wants to do with a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessMode {
    /// Look at its snapshots.
    ReadOnly,
    /// Be its master.
    ReadWrite,
}

/// A snapshot with index runs that are split by key.
pub const SPLIT_RUNS: &str = "split-runs";
/// A snapshot whose index says who uses each pack. Whoever only reads files needs not know it.
pub const PACK_USERS: &str = "ro-pack-users";
/// A filesystem with POSIX ACLs. Readers must know it too: where a file has an ACL, the group bits of its mode are the mask,
/// and whoever took them for the group's would let it do more than it may.
pub const POSIX_ACL: &str = "posix-acl";
/// Features that this version knows.
const FEATURES_KNOWN: &[&str] = &[SPLIT_RUNS, PACK_USERS, POSIX_ACL];
/// An unknown feature with this prefix does not stop readers.
const READERS_NEED_NOT_KNOW: &str = "ro-";

/// The first entry of `features` that forbids `mode` to this version; features of configs and of snapshots follow the
/// same rule.
pub fn unknown_feature(features: &[String], mode: AccessMode) -> Option<&str> {
    let harmless = |feature: &str| mode == AccessMode::ReadOnly && feature.starts_with(READERS_NEED_NOT_KNOW);
    let known = |feature: &str| FEATURES_KNOWN.contains(&feature) || harmless(feature);
    features.iter().map(String::as_str).find(|feature| !known(feature))
}

impl FsConfig {
    /// The config in the object of `name`. A newer format is [`ConfigError::TooNew`], whatever else is in it.
    pub fn parse(name: &FsName, bytes: &[u8]) -> Result<Self, ConfigError> {
        /// All that a newer format promises to keep.
        #[derive(Deserialize)]
        struct Envelope {
            format: u32,
        }
        let object = name.config_object();
        let malformed = |detail: String| ConfigError::Malformed { object: object.clone(), detail };
        let Envelope { format } = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        if format > CONFIG_FORMAT {
            return Err(ConfigError::TooNew { object, found: format });
        }
        if format == 0 {
            return Err(malformed("format 0".into()));
        }
        let config: Self = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        if config.id != name.id || config.tag != name.tag.to_string() {
            return Err(malformed(format!("it is of {}-{}", config.tag, config.id)));
        }
        Ok(config)
    }

    /// The bytes of the object: JSON, indented for people.
    pub fn encode(&self) -> Result<Vec<u8>, ConfigError> {
        let malformed = |e: serde_json::Error| ConfigError::Malformed {
            object: format!("{}-{}.config", self.tag, self.id),
            detail: e.to_string(),
        };
        let mut bytes = serde_json::to_vec_pretty(self).map_err(malformed)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Whether the filesystem has POSIX ACLs.
    pub fn has_acls(&self) -> bool {
        self.features.iter().any(|feature| feature == POSIX_ACL)
    }

    /// Refuses what this version must not do with the filesystem.
    pub fn check_features(&self, mode: AccessMode) -> Result<(), ConfigError> {
        match unknown_feature(&self.features, mode) {
            None => Ok(()),
            Some(feature) => Err(ConfigError::UnknownFeature {
                object: format!("{}-{}.config", self.tag, self.id),
                feature: feature.to_owned(),
            }),
        }
    }
}

/// A config that this version must not use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not the JSON of a config.
    #[error("{object} is not a filesystem config: {detail}")]
    Malformed {
        /// The object.
        object: String,
        /// The parser's words.
        detail: String,
    },
    /// From a newer version.
    #[error("{object} has config format {found}; this version reads up to {CONFIG_FORMAT}")]
    TooNew {
        /// The object.
        object: String,
        /// Its format.
        found: u32,
    },
    /// A feature that this version does not know.
    #[error("{object} needs the feature {feature:?}, which this version does not know")]
    UnknownFeature {
        /// The object.
        object: String,
        /// The feature.
        feature: String,
    },
}

#[cfg(test)]
mod tests;
