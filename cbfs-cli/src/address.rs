//! Addresses: `[STORE#]NAME[@SNAPSHOT]`, or a path inside a mount.

use crate::failure::Failure;
use std::fmt;
use std::path::PathBuf;

/// Shown wherever an address is malformed.
const EXAMPLES: &str = "for example file:///srv/bucket#home, s3://bucket/prefix#home or home@latest";

/// What a user may write where a filesystem is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A name, perhaps with its store and a snapshot.
    Named(FsAddress),
    /// A path inside a mount, or the mount point.
    Path(PathBuf),
}

/// `[STORE#]NAME[@SNAPSHOT]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsAddress {
    /// The store's URL as written.
    pub store: Option<String>,
    /// TAG, TAG-UUID, UUID or a prefix of a UUID.
    pub name: String,
    /// A snapshot's name or id, or `latest`.
    pub snapshot: Option<String>,
}

impl FsAddress {
    /// Parses an address that must be a name.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let bad = |what: &str| Failure::invalid(format!("{text:?} is not a filesystem: {what}")).with_hint(EXAMPLES);
        let (store, rest) = match text.rsplit_once('#') {
            Some(("", _)) => return Err(bad("nothing stands before the '#'")),
            Some((store, rest)) => (Some(store.to_owned()), rest),
            None if text.contains("://") => return Err(bad("a store, but no '#NAME' behind it")),
            None => (None, text),
        };
        let (name, snapshot) = match rest.split_once('@') {
            Some((_, "")) => return Err(bad("no snapshot stands behind the '@'")),
            Some((name, snapshot)) => (name, Some(snapshot.to_owned())),
            None => (rest, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() {
            return Err(bad("the name is empty"));
        }
        if name.len() > 101 || !name.chars().all(plain) {
            return Err(bad("a name is made of letters, digits, '.', '_' and '-'"));
        }
        if snapshot.as_deref().is_some_and(|s| s.contains(['/', '\0'])) {
            return Err(bad("a snapshot's name has no '/'"));
        }
        Ok(Self { store, name: name.to_owned(), snapshot })
    }

    /// Refuses a snapshot where only a filesystem makes sense.
    pub fn without_snapshot(self) -> Result<Self, Failure> {
        match &self.snapshot {
            None => Ok(self),
            Some(snapshot) => {
                Err(Failure::invalid(format!("{self} names a snapshot, this command takes a filesystem"))
                    .with_hint(format!("leave out @{snapshot}")))
            }
        }
    }
}

impl fmt::Display for FsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(store) = &self.store {
            write!(f, "{store}#")?;
        }
        f.write_str(&self.name)?;
        match &self.snapshot {
            Some(snapshot) => write!(f, "@{snapshot}"),
            None => Ok(()),
        }
    }
}

impl Target {
    /// A path is what begins with `/` or `.`; everything else is a name.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if text.starts_with(['/', '.']) { Ok(Self::Path(text.into())) } else { FsAddress::parse(text).map(Self::Named) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureKind;

    fn parts(text: &str) -> (Option<String>, String, Option<String>) {
        let address = FsAddress::parse(text).unwrap();
        assert_eq!(address.to_string(), text);
        (address.store, address.name, address.snapshot)
    }

    #[test]
    fn the_documented_forms_are_understood() {
        let s = |text: &str| Some(text.to_owned());
        assert_eq!(parts("home"), (None, "home".into(), None));
        assert_eq!(parts("home@latest"), (None, "home".into(), s("latest")));
        assert_eq!(parts("file:///srv/a b#home"), (s("file:///srv/a b"), "home".into(), None));
        assert_eq!(
            parts("s3://b/p?endpoint=http://u@h:1&region=r#home-1@before update@2"),
            (s("s3://b/p?endpoint=http://u@h:1&region=r"), "home-1".into(), s("before update@2"))
        );
    }

    #[test]
    fn malformed_ones_are_refused_with_an_example() {
        for bad in ["", "#home", "s3://bucket", "s3://bucket#", "a/b", "home@", "@latest", "home@a/b", "ho me", "é"] {
            let failure = FsAddress::parse(bad).unwrap_err();
            assert_eq!(failure.kind, FailureKind::InvalidInput, "{bad:?}");
            assert!(failure.hint.is_some(), "{bad:?}");
        }
    }

    #[test]
    fn paths_are_told_from_names() {
        for path in ["/mnt/home", ".", "./x", "../x"] {
            assert_eq!(Target::parse(path).unwrap(), Target::Path(path.into()));
        }
        assert!(matches!(Target::parse("home").unwrap(), Target::Named(_)));
    }

    #[test]
    fn a_snapshot_is_refused_where_a_filesystem_is_meant() {
        assert!(FsAddress::parse("home").unwrap().without_snapshot().is_ok());
        assert!(FsAddress::parse("home@x").unwrap().without_snapshot().is_err());
    }
}
