//! `<TAG>-<UUID>.config`: the global parameters of a filesystem, written by `create` and never again.

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
