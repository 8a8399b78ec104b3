//! One source of settings: a flat table of known keys, provided to figment under the source's name.

use super::keys::{self, KEYS};
use crate::failure::Failure;
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use std::collections::BTreeMap;
use std::path::Path;

/// Source of the variables; the variable's name is added where it is shown.
pub(super) const ENVIRONMENT: &str = "environment";

/// Where some values come from.
#[derive(Clone, Debug)]
pub struct Layer {
    /// For people.
    source: String,
    values: BTreeMap<String, String>,
}

/// The error for a key that does not exist.
pub(super) fn unknown(name: &str, source: &str) -> Failure {
    let known: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    Failure::invalid(format!("{source}: there is no setting {name:?}"))
        .with_hint(format!("the settings are {}", known.join(", ")))
}

impl Layer {
    /// What holds when nobody says otherwise.
    pub fn defaults() -> Self {
        let values = KEYS.iter().filter_map(|key| Some((key.name.to_owned(), key.default?.to_owned()))).collect();
        Self { source: "default".to_owned(), values }
    }

    /// What `create --set` left in the bucket. Keys of newer versions are passed over, and those that a bucket must not
    /// decide.
    pub fn filesystem_config(settings: &BTreeMap<String, String>) -> Self {
        let known = |(key, _): &(&String, &String)| keys::find(key).is_some_and(|key| key.may_be_shared());
        let values = settings.iter().filter(known).map(|(k, v)| (k.clone(), v.clone())).collect();
        Self { source: "filesystem config".to_owned(), values }
    }

    /// A TOML file; one that is not there is empty. A key that does not exist is an error: it is a typo.
    pub fn file(path: &Path) -> Result<Self, Failure> {
        let source = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Failure::from_io(&error, "read", path)),
        };
        let table: toml::Table = text.parse().map_err(|error| Failure::invalid(format!("{source}: {error}")))?;
        let mut values = BTreeMap::new();
        flatten("", &table, &source, &mut values)?;
        Ok(Self { source, values })
    }

    /// `CBFS_…` variables; an empty one counts as not set.
    pub fn environment(variables: &BTreeMap<String, String>) -> Self {
        let value = |key: &keys::Key| {
            let text = variables.get(key.env).filter(|text| !text.is_empty())?;
            Some((key.name.to_owned(), text.clone()))
        };
        Self { source: ENVIRONMENT.to_owned(), values: KEYS.iter().filter_map(value).collect() }
    }

    /// `--set key=value`, checked.
    pub fn flags(flags: &[(String, String)]) -> Result<Self, Failure> {
        if let Some((name, _)) = flags.iter().find(|(name, _)| keys::find(name).is_none()) {
            return Err(unknown(name, "--set"));
        }
        Ok(Self { source: "flag --set".to_owned(), values: flags.iter().cloned().collect() })
    }
}

/// Turns `[proxy] max_bytes = …` into `proxy.max_bytes`.
fn flatten(
    prefix: &str,
    table: &toml::Table,
    source: &str,
    values: &mut BTreeMap<String, String>,
) -> Result<(), Failure> {
    for (name, value) in table {
        let name = format!("{prefix}{name}");
        let text = match value {
            toml::Value::Table(inner) => {
                flatten(&format!("{name}."), inner, source, values)?;
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            _ => return Err(Failure::invalid(format!("{source}: {name} must be a text or a whole number"))),
        };
        if keys::find(&name).is_none() {
            return Err(unknown(&name, source));
        }
        values.insert(name, text);
    }
    Ok(())
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut all = Dict::new();
        for (name, text) in &self.values {
            let mut parts = name.rsplit('.');
            let last = parts.next().unwrap_or(name);
            let leaf = Value::from(text.clone());
            match parts.next() {
                None => {
                    all.insert(last.to_owned(), leaf);
                }
                Some(folder) => {
                    let inner = all.entry(folder.to_owned()).or_insert_with(|| Value::from(Dict::new()));
                    if let Value::Dict(_, inner) = inner {
                        inner.insert(last.to_owned(), leaf);
                    }
                }
            }
        }
        Ok(Map::from([(Profile::Default, all)]))
    }
}
