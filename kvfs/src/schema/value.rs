//! Values: `xid | kind | body`.

use super::inode::InodeValue;
use super::users::PackUsersValue;
use super::window::WindowValue;
use crate::ids::{Ino, Xid};
use crate::schema::FileKind;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirentValue {
    /// What the name stands for.
    pub ino: Ino,
    /// Its kind, so that a listing needs no inode look-up.
    pub kind: FileKind,
}

/// A pack of the bucket (index runs only).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackValue {
    /// Object name below the filesystem's prefix.
    pub object: String,
    /// Size of the object, bytes.
    pub size: u64,
    /// Raw bytes that files of this snapshot still use.
    pub live: u64,
    /// Raw bytes in all its frames.
    pub raw: u64,
}

/// A decoded value. Inodes and windows are shared: a tier in memory hands them out without copying them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The key is gone, whatever lower tiers say. Of an inode: its windows and xattrs too.
    Tombstone,
    /// Space `Inode`.
    Inode(Arc<InodeValue>),
    /// Space `Cut`: windows from this number on are dead in the tiers below.
    Cut(u64),
    /// Space `Window`.
    Window(Arc<WindowValue>),
    /// Space `Xattr`: the attribute's bytes.
    Xattr(Bytes),
    /// Space `Dirent`.
    Dirent(DirentValue),
    /// Space `Orphan`: the mark alone.
    Orphan,
    /// Space `Pack`.
    Pack(PackValue),
    /// Space `PackUsers`.
    PackUsers(PackUsersValue),
}

/// Bytes that are not a value of this schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Shorter than xid and kind.
    #[error("a value of {0} bytes is too short")]
    Short(usize),
    /// A kind that this version does not know.
    #[error("value kind {0} is unknown")]
    UnknownKind(u8),
    /// The body does not decode.
    #[error("a value of kind {0} does not decode")]
    Body(u8),
}

/// Bytes before the body: xid and kind.
pub const VALUE_HEAD: usize = 9;
const TOMBSTONE: u8 = 0;

impl Value {
    fn kind(&self) -> u8 {
        match self {
            Self::Tombstone => TOMBSTONE,
            Self::Inode(_) => 1,
            Self::Cut(_) => 2,
            Self::Window(_) => 3,
            Self::Xattr(_) => 4,
            Self::Dirent(_) => 5,
            Self::Orphan => 6,
            Self::Pack(_) => 7,
            Self::PackUsers(_) => 8,
        }
    }

    /// The bytes of this value, written by record `xid`.
    pub fn encode(&self, xid: Xid) -> Bytes {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&xid.0.to_be_bytes());
        bytes.push(self.kind());
        let done = match self {
            Self::Tombstone | Self::Orphan => Ok(bytes),
            Self::Inode(v) => postcard::to_extend(v.as_ref(), bytes),
            Self::Cut(v) => postcard::to_extend(v, bytes),
            Self::Window(v) => postcard::to_extend(v.as_ref(), bytes),
            Self::Xattr(v) => {
                bytes.extend_from_slice(v);
                Ok(bytes)
            }
            Self::Dirent(v) => postcard::to_extend(v, bytes),
            Self::Pack(v) => postcard::to_extend(v, bytes),
            Self::PackUsers(v) => postcard::to_extend(v, bytes),
        };
        // Writing plain data into a Vec has no way to fail: none of these types has a custom serialiser that refuses.
        done.map(Bytes::from).unwrap_or_default()
    }

    /// Decodes what [`Value::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<(Xid, Self), ValueError> {
        let (head, body) = bytes.split_at_checked(VALUE_HEAD).ok_or(ValueError::Short(bytes.len()))?;
        let (xid, kind) = head.split_first_chunk::<8>().ok_or(ValueError::Short(bytes.len()))?;
        let kind = kind.first().copied().unwrap_or(TOMBSTONE);
        let bad = |_| ValueError::Body(kind);
        let value = match kind {
            TOMBSTONE => Self::Tombstone,
            1 => Self::Inode(Arc::new(postcard::from_bytes(body).map_err(bad)?)),
            2 => Self::Cut(postcard::from_bytes(body).map_err(bad)?),
            3 => {
                let window: WindowValue = postcard::from_bytes(body).map_err(bad)?;
                if !window.is_sound() {
                    return Err(ValueError::Body(kind));
                }
                Self::Window(Arc::new(window))
            }
            4 => Self::Xattr(Bytes::copy_from_slice(body)),
            5 => Self::Dirent(postcard::from_bytes(body).map_err(bad)?),
            6 => Self::Orphan,
            7 => Self::Pack(postcard::from_bytes(body).map_err(bad)?),
            8 => {
                let users: PackUsersValue = postcard::from_bytes(body).map_err(bad)?;
                if !users.is_sound() {
                    return Err(ValueError::Body(kind));
                }
                Self::PackUsers(users)
            }
            unknown => return Err(ValueError::UnknownKind(unknown)),
        };
        Ok((Xid(u64::from_be_bytes(*xid)), value))
    }

    /// Whether encoded `bytes` are a tombstone, without decoding them.
    pub fn is_tombstone(bytes: &[u8]) -> bool {
        bytes.get(VALUE_HEAD - 1) == Some(&TOMBSTONE)
    }

    /// The xid of encoded `bytes`, without decoding them.
    pub fn xid_of(bytes: &[u8]) -> Option<Xid> {
        bytes.first_chunk::<8>().map(|xid| Xid(u64::from_be_bytes(*xid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_garbage_is_refused() {
        let value = Value::Dirent(DirentValue { ino: Ino(77), kind: FileKind::Fifo });
        let bytes = value.encode(Xid(5));
        assert_eq!(Value::decode(&bytes), Ok((Xid(5), value)));
        assert_eq!(Value::xid_of(&bytes), Some(Xid(5)));
        assert!(Value::is_tombstone(&Value::Tombstone.encode(Xid(9))));
        assert_eq!(Value::decode(&bytes[..4]), Err(ValueError::Short(4)));
        assert_eq!(Value::decode(&[0, 0, 0, 0, 0, 0, 0, 1, 99]), Err(ValueError::UnknownKind(99)));
        assert_eq!(Value::decode(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 255]), Err(ValueError::Body(1)));
    }
}
