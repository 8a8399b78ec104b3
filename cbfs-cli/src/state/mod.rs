//! The node's state directory: node id, and one instance directory per mount.
//!
//! ```text
//! <state>/node-id                      who this node is, made at its first mount
//! <state>/fs/<TAG-UUID>/               the master instance of a filesystem
//! <state>/fs/<TAG-UUID>+ro/            a slave of its newest snapshot
//! <state>/fs/<TAG-UUID>@<snapshot>/    a slave of that snapshot
//! ```
//! The names are for people: what an instance is, its `local.toml` says, since a promoted slave keeps its directory.

pub mod files;
pub mod instance;
pub mod lock;
#[cfg(test)]
mod tests;

pub use instance::{Instance, Local, LocalRole};

use crate::address::FsAddress;
use crate::failure::{Failure, FailureKind};
use cloud_mgmt::config::FsConfig;
use cloud_mgmt::names::FsName;
use std::path::{Path, PathBuf};

/// What a mount wants of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Write.
    Write,
    /// Show a snapshot: name, id or `latest`.
    Show(String),
}

impl Purpose {
    /// Whether an instance is for that.
    fn suits(&self, local: &Local) -> bool {
        match self {
            Self::Write => local.role != LocalRole::Slave,
            Self::Show(wanted) => local.role == LocalRole::Slave && local.snapshot.as_deref() == Some(wanted),
        }
    }
}

/// The state directory.
#[derive(Clone, Debug)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// That directory, made when something is first stored in it.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every instance, sorted by directory.
    pub fn instances(&self) -> Result<Vec<Instance>, Failure> {
        let folder = self.root.join("fs");
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Failure::from_io(&error, "read", &folder)),
        };
        let mut dirs = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| Failure::from_io(&error, "read", &folder))?;
            // Names with a dot in front are instances that were never finished.
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                dirs.push(entry.path());
            }
        }
        dirs.sort();
        // One that is broken must not stand in the way of all others.
        let open = |dir: PathBuf| match Instance::open(dir.clone()) {
            Ok(instance) => Some(instance),
            Err(failure) => {
                tracing::warn!(instance = %dir.display(), %failure, "this instance cannot be read");
                None
            }
        };
        Ok(dirs.into_iter().filter_map(open).collect())
    }

    /// The instances that an address means; the snapshot in it is not looked at. More than one filesystem: an error that
    /// lists them.
    pub fn of_address(&self, address: &FsAddress) -> Result<Vec<Instance>, Failure> {
        let mut found = self.instances()?;
        found.retain(|i| address.store.as_ref().is_none_or(|store| same_store(store, &i.local().store)));
        // A whole name is never ambiguous, also where it begins another one.
        let exact: Vec<_> = found.iter().filter(|i| i.name().to_string() == address.name).cloned().collect();
        if !exact.is_empty() {
            return Ok(exact);
        }
        found.retain(|i| name_matches(i.name(), &address.name));
        let mut names: Vec<_> = found.iter().map(|i| i.name().to_string()).collect();
        names.sort();
        names.dedup();
        if names.len() > 1 {
            return Err(Failure::new(
                FailureKind::Exists,
                format!("{} means more than one filesystem on this node: {}", address.name, names.join(", ")),
            )
            .with_hint(format!("give the whole name, for example {}", names[0])));
        }
        Ok(found)
    }

    /// The instance of a filesystem for a purpose.
    pub fn for_purpose(&self, address: &FsAddress, purpose: &Purpose) -> Result<Option<Instance>, Failure> {
        let mut suitable = self.of_address(address)?;
        suitable.retain(|i| purpose.suits(i.local()));
        Ok(suitable.into_iter().max_by_key(|i| i.local().promoted_to))
    }

    /// Makes the instance of a filesystem for a purpose, unless somebody was faster.
    pub fn create_instance(
        &self,
        name: &FsName,
        store: &str,
        purpose: &Purpose,
        config: &FsConfig,
    ) -> Result<Instance, Failure> {
        let _turn = lock::take_turn(&self.root)?;
        let address = FsAddress { store: Some(store.to_owned()), name: name.to_string(), snapshot: None };
        if let Some(instance) = self.for_purpose(&address, purpose)? {
            return Ok(instance);
        }
        let (suffix, role, snapshot) = match purpose {
            Purpose::Write => (String::new(), LocalRole::Master, None),
            Purpose::Show(snapshot) if snapshot == "latest" => ("+ro".to_owned(), LocalRole::Slave, Some(snapshot)),
            Purpose::Show(snapshot) => (format!("@{}", in_a_file_name(snapshot)), LocalRole::Slave, Some(snapshot)),
        };
        let local = Local {
            store: store.to_owned(),
            name: name.to_string(),
            role,
            snapshot: snapshot.cloned(),
            promoted_to: 0,
            moved: None,
            mount_point: None,
            served: false,
        };
        let dir = self.free_directory(&format!("{name}{suffix}"))?;
        Instance::create(dir, name.clone(), local, config)
    }

    /// A promoted slave keeps its directory, so the plain name may be taken.
    fn free_directory(&self, wanted: &str) -> Result<PathBuf, Failure> {
        let folder = self.root.join("fs");
        std::iter::once(wanted.to_owned())
            .chain((2..1000).map(|n| format!("{wanted}~{n}")))
            .map(|name| folder.join(name))
            .find(|path| !path.exists())
            .ok_or_else(|| Failure::new(FailureKind::Exists, format!("{} is full of {wanted}", folder.display())))
    }
}

/// Whether `text` means `name`: TAG, TAG-UUID, UUID, or a prefix of the UUID with 4 digits or more.
pub fn name_matches(name: &FsName, text: &str) -> bool {
    let digits = |text: &str| text.replace('-', "").to_ascii_lowercase();
    let prefix = digits(text);
    let is_prefix = prefix.len() >= 4 && name.id.simple().to_string().starts_with(&prefix);
    name.tag.to_string() == text || name.to_string() == text || is_prefix
}

/// Whether two store addresses are one; a trailing slash does not matter.
fn same_store(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

/// A snapshot's name is any text of a user.
fn in_a_file_name(snapshot: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    snapshot.chars().take(64).map(plain).collect()
}
