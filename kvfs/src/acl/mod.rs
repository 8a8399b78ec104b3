//! POSIX ACLs: their bytes, their rules, and what becomes of them by chmod and by inheritance.
//!
//! Pure: nothing here knows of inodes or of a kernel. The bytes are those of `linux/posix_acl_xattr.h`, the rules those of
//! Linux for every filesystem: `posix_acl_valid`, `posix_acl_equiv_mode`, `posix_acl_chmod` and `posix_acl_create`. Named
//! entries may come in any order and twice, as there: libacl is stricter than the kernel, and what another filesystem
//! holds must be storable here.

use crate::error::{FsError, FsResult};

/// The attribute that decides who may do what with a file.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of a directory that what is made in it begins with.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The kernel takes the value of no longer one from a FUSE filesystem: it would refuse every access.
const VALUE_BYTES_MAX: usize = 4096;
/// The only version of the bytes that there is.
const VERSION: u32 = 2;
/// Bytes of an entry.
const ENTRY_BYTES: usize = 8;
/// What stands for the id of an entry that needs none.
const NO_ID: u32 = u32::MAX;
/// `rwxrwxrwx`
const PERMISSIONS: u32 = 0o777;

/// Whether a filesystem has ACLs; settled for ever when it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AclSupport {
    /// It refuses them.
    #[default]
    Absent,
    /// The kernel decides by them.
    Enforced,
}

/// Which of the two ACLs that a directory may have; other files have the first alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclKind {
    /// [`ACCESS`]
    Access,
    /// [`DEFAULT`]
    Default,
}

impl AclKind {
    /// What the attribute `name` holds, if an ACL.
    pub fn of(name: &[u8]) -> Option<Self> {
        match name {
            ACCESS => Some(Self::Access),
            DEFAULT => Some(Self::Default),
            _ => None,
        }
    }

    /// The attribute's name.
    pub fn name(self) -> &'static [u8] {
        match self {
            Self::Access => ACCESS,
            Self::Default => DEFAULT,
        }
    }
}

/// Whom an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The file's owner.
    Owner,
    /// This user.
    User(u32),
    /// The file's group.
    OwningGroup,
    /// This group.
    Group(u32),
    /// Nobody: what named entries and the owning group may have at most.
    Mask,
    /// Everybody else.
    Other,
}

/// One line of an ACL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// Whom it is about.
    pub who: Who,
    /// `rwx`, 0..=7.
    pub permissions: u32,
}

impl AclEntry {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first_chunk::<2>()?;
        let (permissions, id) = rest.split_first_chunk::<2>()?;
        let id = u32::from_le_bytes(id.try_into().ok()?);
        let who = match u16::from_le_bytes(*tag) {
            0x01 => Who::Owner,
            0x02 => Who::User(id),
            0x04 => Who::OwningGroup,
            0x08 => Who::Group(id),
            0x10 => Who::Mask,
            0x20 => Who::Other,
            _ => return None,
        };
        let permissions = u32::from(u16::from_le_bytes(*permissions));
        (permissions <= 7).then_some(Self { who, permissions })
    }

    fn encode(self) -> impl Iterator<Item = u8> {
        let (tag, id) = match self.who {
            Who::Owner => (0x01_u16, NO_ID),
            Who::User(id) => (0x02, id),
            Who::OwningGroup => (0x04, NO_ID),
            Who::Group(id) => (0x08, id),
            Who::Mask => (0x10, NO_ID),
            Who::Other => (0x20, NO_ID),
        };
        let permissions = self.permissions as u16;
        tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes())
    }
}

/// The entries in the bytes of an attribute, whatever they are together; `None` if the bytes are not that at all.
pub fn entries(value: &[u8]) -> Option<Vec<AclEntry>> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || entries.len() % ENTRY_BYTES != 0 {
        return None;
    }
    entries.chunks_exact(ENTRY_BYTES).map(AclEntry::parse).collect()
}

/// A valid ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    entries: Vec<AclEntry>,
}

impl Acl {
    /// The ACL in the bytes of an attribute; `None` if there are no entries, which stands for no ACL.
    pub fn parse(value: &[u8]) -> FsResult<Option<Self>> {
        if value.is_empty() {
            return Ok(None);
        }
        let entries = entries(value).ok_or(FsError::Invalid)?;
        if entries.is_empty() {
            return Ok(None);
        }
        if !is_valid(&entries) {
            return Err(FsError::Invalid);
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(FsError::ValueTooLarge);
        }
        Ok(Some(Self { entries }))
    }

    /// The bytes of the attribute.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        bytes.extend(self.entries.iter().flat_map(|entry| entry.encode()));
        bytes
    }

    /// Whether it says more than a mode can: then the attribute is kept.
    pub fn exceeds_mode(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.who, Who::User(_) | Who::Group(_) | Who::Mask))
    }

    /// `mode` with the permission bits that this ACL gives: those of the group are the mask, if there is one.
    pub fn mode(&self, mode: u32) -> u32 {
        let group = if self.has_mask() { Who::Mask } else { Who::OwningGroup };
        let bits = self.entries.iter().fold(0, |bits, entry| match entry.who {
            Who::Owner => bits | entry.permissions << 6,
            Who::Other => bits | entry.permissions,
            who if who == group => bits | entry.permissions << 3,
            _ => bits,
        });
        mode & !PERMISSIONS | bits
    }

    /// The same ACL after chmod(2) to `mode`.
    #[must_use]
    pub fn chmod(&self, mode: u32) -> Self {
        self.with_bits(|_, bits| bits, mode)
    }

    /// What something new begins with in a directory whose default ACL this is, if it is asked for with `mode`: its own
    /// ACL, from which its mode follows. The umask has no say.
    #[must_use]
    pub fn inherit(&self, mode: u32) -> Self {
        self.with_bits(|had, bits| had & bits, mode)
    }

    /// The entries that are bits of the mode, each by `new` from what it has and what `mode` has for it.
    fn with_bits(&self, new: impl Fn(u32, u32) -> u32, mode: u32) -> Self {
        let group = if self.has_mask() { Who::Mask } else { Who::OwningGroup };
        let changed = self.entries.iter().map(|entry| {
            let bits = match entry.who {
                Who::Owner => mode >> 6,
                Who::Other => mode,
                who if who == group => mode >> 3,
                _ => return *entry,
            };
            AclEntry { who: entry.who, permissions: new(entry.permissions, bits & 7) }
        });
        Self { entries: changed.collect() }
    }

    fn has_mask(&self) -> bool {
        self.entries.iter().any(|entry| entry.who == Who::Mask)
    }
}

/// Owner, users, owning group, groups, mask, other, in this order; the mask is there if anybody is named.
fn is_valid(entries: &[AclEntry]) -> bool {
    let rank = |who| match who {
        Who::Owner => 0,
        Who::User(_) => 1,
        Who::OwningGroup => 2,
        Who::Group(_) => 3,
        Who::Mask => 4,
        Who::Other => 5,
    };
    let is_ordered = entries.windows(2).all(|pair| match pair {
        [a, b] => {
            rank(a.who) < rank(b.who)
                || matches!((a.who, b.who), (Who::User(_), Who::User(_)) | (Who::Group(_), Who::Group(_)))
        }
        _ => true,
    });
    let has = |wanted: &dyn Fn(Who) -> bool| entries.iter().any(|entry| wanted(entry.who));
    let names_anybody = has(&|who| matches!(who, Who::User(_) | Who::Group(_)));
    is_ordered
        && has(&|who| who == Who::Owner)
        && has(&|who| who == Who::OwningGroup)
        && has(&|who| who == Who::Other)
        && (!names_anybody || has(&|who| who == Who::Mask))
        && !has(&|who| matches!(who, Who::User(NO_ID) | Who::Group(NO_ID)))
}

#[cfg(test)]
mod tests;
