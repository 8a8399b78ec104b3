//! Names of objects: fixed width, no `//`, never used twice.

use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// A filesystem's human name: 1..=64 of `A-Z a-z 0-9 . _ -`, starting with a letter or digit, not ending in a UUID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// A tag that breaks the rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a valid filesystem name: 1 to 64 of letters, digits, '.', '_', '-', starting with a letter or digit"
)]
pub struct TagError(String);

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let is_uuid = |s: &str| s.len() == 36 && Uuid::try_parse(s).is_ok();
        let ends_in_uuid = text.get(text.len().saturating_sub(36)..).is_some_and(is_uuid);
        if (1..=64).contains(&text.len()) && starts_well && text.chars().all(plain) && !ends_in_uuid {
            Ok(Self(text.to_owned()))
        } else {
            Err(TagError(text.to_owned()))
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A filesystem in a bucket: `<TAG>-<UUID>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FsName {
    /// The human part.
    pub tag: Tag,
    /// The unique part.
    pub id: Uuid,
}

/// Extension of config objects.
const CONFIG: &str = ".config";

impl FsName {
    /// `<TAG>-<UUID>.config`
    pub fn config_object(&self) -> String {
        format!("{self}{CONFIG}")
    }

    /// The filesystem whose config object is `object`; `None` if it is not one.
    pub fn from_config_object(object: &str) -> Option<Self> {
        let name: Self = object.strip_suffix(CONFIG)?.parse().ok()?;
        // A UUID in capitals would be another object.
        (name.config_object() == object).then_some(name)
    }

    /// `<TAG>-<UUID>/ledger/<seq>.json`
    pub fn ledger_object(&self, seq: u64) -> String {
        format!("{self}/ledger/{seq:016x}.json")
    }

    /// `<TAG>-<UUID>/ledger-hint`
    pub fn hint_object(&self) -> String {
        format!("{self}/ledger-hint")
    }

    /// `<TAG>-<UUID>/ledger-summary/`: what all names of its ledger's summaries start with.
    pub fn summary_prefix(&self) -> String {
        format!("{self}/ledger-summary/")
    }

    /// `<TAG>-<UUID>/ledger-summary/<seq>-<op>.json.zst`, of the records up to that one.
    pub fn summary_object(&self, upto_seq: u64, op: Uuid) -> String {
        format!("{}{upto_seq:016x}-{}.json.zst", self.summary_prefix(), op.simple())
    }

    /// Whether `object` is the name of a summary of the records up to that one.
    pub fn is_summary_upto(&self, upto_seq: u64, object: &str) -> bool {
        let op = object.strip_suffix(".json.zst").and_then(|name| name.rsplit_once('-')).map(|(_, op)| op);
        op.and_then(|op| Uuid::try_parse(op).ok()).is_some_and(|op| self.summary_object(upto_seq, op) == object)
    }

    /// `<TAG>-<UUID>/pack/`: what all names of its packs start with.
    pub fn pack_prefix(&self) -> String {
        format!("{self}/pack/")
    }

    /// `<TAG>-<UUID>/idx/`: what all names of its index runs start with.
    pub fn run_prefix(&self) -> String {
        format!("{self}/idx/")
    }

    /// `<TAG>-<UUID>/listing/`: what all names of its listings start with.
    pub fn listing_prefix(&self) -> String {
        format!("{self}/listing/")
    }

    /// Whether `object` is one that snapshots are made of: a pack, a run or a listing.
    pub fn is_of_snapshots(&self, object: &str) -> bool {
        [self.pack_prefix(), self.run_prefix(), self.listing_prefix()].iter().any(|prefix| object.starts_with(prefix))
    }

    /// `<TAG>-<UUID>/pack/<epoch>-<xid>-<op>-<n>.tar.zst`
    pub fn pack_object(&self, epoch: u32, xid: u64, op: Uuid, n: u32) -> String {
        format!("{}{epoch:08x}-{xid:016x}-{}-{n:08x}.tar.zst", self.pack_prefix(), op.simple())
    }

    /// `<TAG>-<UUID>/idx/<epoch>-<xid>-<op>-<n>.run`
    pub fn run_object(&self, epoch: u32, xid: u64, op: Uuid, n: u32) -> String {
        format!("{}{epoch:08x}-{xid:016x}-{}-{n:08x}.run", self.run_prefix(), op.simple())
    }

    /// `<TAG>-<UUID>/listing/<epoch>-<xid>-<op>.ndjson.zst`
    pub fn listing_object(&self, epoch: u32, xid: u64, op: Uuid) -> String {
        format!("{}{epoch:08x}-{xid:016x}-{}.ndjson.zst", self.listing_prefix(), op.simple())
    }
}

impl fmt::Display for FsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.tag, self.id.hyphenated())
    }
}

impl FromStr for FsName {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let bad = || TagError(text.to_owned());
        let (head, id) = text.split_at_checked(text.len().saturating_sub(36)).ok_or_else(bad)?;
        let tag = head.strip_suffix('-').ok_or_else(bad)?.parse()?;
        Ok(Self { tag, id: Uuid::try_parse(id).map_err(|_| bad())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let name = FsName { tag: "home-1".parse().unwrap(), id: Uuid::from_u128(7) };
        assert_eq!(name.to_string(), "home-1-00000000-0000-0000-0000-000000000007");
        assert_eq!(FsName::from_config_object(&name.config_object()), Some(name.clone()));
        let capitals = "home-1-00000000-0000-0000-0000-00000000000A.config";
        assert_eq!(FsName::from_config_object(capitals), None, "its own objects would have other names");
        assert_eq!(name.ledger_object(26).rsplit('/').next(), Some("000000000000001a.json"));
        assert_eq!(
            name.pack_object(1, 2, Uuid::nil(), 3).rsplit('/').next(),
            Some("00000001-0000000000000002-00000000000000000000000000000000-00000003.tar.zst")
        );
    }

    #[test]
    fn what_snapshots_are_made_of_is_told_from_the_rest() {
        let name = FsName { tag: "home".parse().unwrap(), id: Uuid::from_u128(7) };
        let op = Uuid::from_u128(9);
        let listing = name.listing_object(1, 2, op);
        assert!(listing.ends_with("/listing/00000001-0000000000000002-00000000000000000000000000000009.ndjson.zst"));
        for object in [listing, name.pack_object(1, 2, op, 3), name.run_object(1, 2, op, 3)] {
            assert!(name.is_of_snapshots(&object), "{object}");
        }
        let summary = name.summary_object(1, op);
        for object in
            [name.ledger_object(1), name.config_object(), name.hint_object(), summary, "x/listing/1".to_owned()]
        {
            assert!(!name.is_of_snapshots(&object), "{object}");
        }
    }

    #[test]
    fn a_summary_is_known_by_its_name() {
        let name = FsName { tag: "home".parse().unwrap(), id: Uuid::from_u128(7) };
        let summary = name.summary_object(26, Uuid::from_u128(0xab));
        assert!(summary.ends_with("/ledger-summary/000000000000001a-000000000000000000000000000000ab.json.zst"));
        assert!(name.is_summary_upto(26, &summary) && !name.is_summary_upto(25, &summary));
        let capitals = summary.replace("ab.json", "AB.json");
        let other = FsName { tag: "home".parse().unwrap(), id: Uuid::from_u128(8) };
        for object in [capitals, other.summary_object(26, Uuid::from_u128(0xab)), name.ledger_object(26), String::new()]
        {
            assert!(!name.is_summary_upto(26, &object), "{object}");
        }
    }

    #[test]
    fn bad_tags_are_refused() {
        for bad in ["", "-a", "a/b", "a b", "é", &"x".repeat(65), "x-00000000-0000-0000-0000-000000000007"] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
    }
}
