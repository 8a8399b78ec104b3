//! Keys: `ino | space | rest`.

use crate::ids::{Ino, PackNo};

/// What a key of an inode holds. The numbers are the order within an inode and part of the bucket format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Space {
    /// The inode itself; no rest.
    Inode = 0x10,
    /// First window that is dead in all tiers below; no rest.
    Cut = 0x18,
    /// Extents of one window of the file; rest = window number (u64 BE).
    Window = 0x20,
    /// An extended attribute; rest = its name.
    Xattr = 0x30,
    /// An entry of this directory; rest = its name.
    Dirent = 0x40,
    /// An unlinked inode that may still be open (local tiers only, under inode 0); rest = ino (u64 BE).
    Orphan = 0x50,
    /// A pack (runs only, under inode `u64::MAX`, so that packs sort last); rest = pack number (u64 BE).
    Pack = 0x60,
    /// Who uses a pack (as [`Space::Pack`]); rest = pack number (u64 BE).
    PackUsers = 0x61,
}

impl Space {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0x10 => Self::Inode,
            0x18 => Self::Cut,
            0x20 => Self::Window,
            0x30 => Self::Xattr,
            0x40 => Self::Dirent,
            0x50 => Self::Orphan,
            0x60 => Self::Pack,
            0x61 => Self::PackUsers,
            _ => return None,
        })
    }
}

/// An encoded key. Its order is the byte order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

/// Bytes before the rest.
const HEAD: usize = 9;

impl Key {
    fn build(ino: u64, space: Space, rest: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(HEAD + rest.len());
        bytes.extend_from_slice(&ino.to_be_bytes());
        bytes.push(space as u8);
        bytes.extend_from_slice(rest);
        Self(bytes)
    }

    /// The inode's own record.
    pub fn inode(ino: Ino) -> Self {
        Self::build(ino.0, Space::Inode, &[])
    }
    /// The inode's range tombstone.
    pub fn cut(ino: Ino) -> Self {
        Self::build(ino.0, Space::Cut, &[])
    }
    /// One window of a file.
    pub fn window(ino: Ino, window: u64) -> Self {
        Self::build(ino.0, Space::Window, &window.to_be_bytes())
    }
    /// An extended attribute.
    pub fn xattr(ino: Ino, name: &[u8]) -> Self {
        Self::build(ino.0, Space::Xattr, name)
    }
    /// A directory entry.
    pub fn dirent(parent: Ino, name: &[u8]) -> Self {
        Self::build(parent.0, Space::Dirent, name)
    }
    /// The mark of an unlinked inode.
    pub fn orphan(ino: Ino) -> Self {
        Self::build(0, Space::Orphan, &ino.0.to_be_bytes())
    }
    /// A pack.
    pub fn pack(pack: PackNo) -> Self {
        Self::build(u64::MAX, Space::Pack, &pack.0.to_be_bytes())
    }
    /// The users of a pack.
    pub fn pack_users(pack: PackNo) -> Self {
        Self::build(u64::MAX, Space::PackUsers, &pack.0.to_be_bytes())
    }
    /// The first key of a space of an inode: `[first_of(i, s), end_of(i, s))` is that space.
    pub fn first_of(ino: Ino, space: Space) -> Self {
        Self::build(ino.0, space, &[])
    }
    /// The first key after a space of an inode.
    pub fn end_of(ino: Ino, space: Space) -> Self {
        let mut key = Self::build(ino.0, space, &[]);
        if let Some(last) = key.0.last_mut() {
            *last += 1;
        }
        key
    }
    /// The first key behind all keys of an inode.
    pub fn end_of_inode(ino: Ino) -> Self {
        Self(ino.0.checked_add(1).map_or_else(|| vec![0xff; HEAD + 1], |next| next.to_be_bytes().to_vec()))
    }
    /// The key of an inode with what [`Key::split`] shows behind the number; `None` if it is not of this schema.
    pub fn of_tail(ino: Ino, tail: &[u8]) -> Option<Self> {
        let mut bytes = Vec::with_capacity(8 + tail.len());
        bytes.extend_from_slice(&ino.0.to_be_bytes());
        bytes.extend_from_slice(tail);
        Self::from_vec(bytes)
    }
    /// The inode number, and what stands behind it: space and rest.
    pub fn split(&self) -> (Ino, &[u8]) {
        match self.0.split_first_chunk::<8>() {
            Some((number, tail)) => (Ino(u64::from_be_bytes(*number)), tail),
            // Every way to a key writes the number first.
            None => (Ino(0), &[]),
        }
    }
    /// A key as read from a tier; `None` if it is not of this schema.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Parts::parse(bytes).map(|_| Self(bytes.to_vec()))
    }
    fn from_vec(bytes: Vec<u8>) -> Option<Self> {
        Parts::parse(&bytes)?;
        Some(Self(bytes))
    }
    /// The encoded bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// The encoded bytes, owned.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// A key taken apart, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The inode (the parent, for a dirent).
    pub ino: Ino,
    /// What it holds.
    pub space: Space,
    /// Name or number, see [`Space`].
    pub rest: &'a [u8],
}

/// Whether a directory can have an entry of that name: whoever restores one must not be led out of the tree.
fn is_name(name: &[u8]) -> bool {
    (1..=255).contains(&name.len())
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
        && !matches!(name, b"." | b"..")
}

impl<'a> Parts<'a> {
    /// Takes `bytes` apart; `None` if it is not a key of this schema.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (ino, tail) = bytes.split_first_chunk::<8>()?;
        let (space, rest) = tail.split_first()?;
        let space = Space::from_byte(*space)?;
        let ino = u64::from_be_bytes(*ino);
        let fits = match space {
            Space::Inode | Space::Cut => rest.is_empty(),
            Space::Window => rest.len() == 8,
            Space::Orphan => rest.len() == 8 && ino == 0,
            Space::Pack | Space::PackUsers => rest.len() == 8 && ino == u64::MAX,
            Space::Xattr => (1..=255).contains(&rest.len()),
            Space::Dirent => is_name(rest),
        };
        fits.then_some(Self { ino: Ino(ino), space, rest })
    }

    /// The inode that it is about: for an orphan mark the marked one.
    pub fn subject(&self) -> Ino {
        match self.space {
            Space::Orphan => self.number().map_or(self.ino, Ino),
            _ => self.ino,
        }
    }

    /// The number in the rest of a window, orphan or pack key.
    pub fn number(&self) -> Option<u64> {
        self.rest.try_into().ok().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_an_inode_are_neighbours_in_the_order_of_the_spaces() {
        let ino = Ino(7);
        let keys = [
            Key::inode(ino),
            Key::cut(ino),
            Key::window(ino, 0),
            Key::window(ino, 256),
            Key::xattr(ino, b"user.a"),
            Key::dirent(ino, b"x"),
            Key::end_of_inode(ino),
            Key::inode(Ino(8)),
        ];
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(Key::first_of(ino, Space::Window) < Key::window(ino, 0));
        assert!(Key::window(ino, u64::MAX) < Key::end_of(ino, Space::Window));
        assert!(Key::pack(PackNo(u64::MAX)) < Key::pack_users(PackNo(0)), "all packs, then the users of each");
        assert!(Key::pack_users(PackNo(3)) < Key::end_of_inode(Ino(u64::MAX)));
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        assert!(Key::from_bytes(b"short").is_none());
        assert!(Key::from_bytes(&[0, 0, 0, 0, 0, 0, 0, 1, 0x77]).is_none());
        assert!(Key::from_bytes(&[0, 0, 0, 0, 0, 0, 0, 1, 0x20, 1]).is_none());
        for name in [&b"."[..], b"..", b"a/b", b"a\0", b"/", &[b'x'; 256]] {
            assert!(Key::from_bytes(Key::dirent(Ino(9), name).as_bytes()).is_none(), "{name:?}");
        }
        for ino in [Ino(1), Ino(5)] {
            assert!(Key::of_tail(ino, Key::orphan(Ino(7)).split().1).is_none(), "a mark under another inode than 0");
            for key in [Key::pack(PackNo(7)), Key::pack_users(PackNo(7))] {
                assert!(Key::of_tail(ino, key.split().1).is_none(), "a pack that is not at the end");
            }
        }
        let key = Key::dirent(Ino(9), b"name");
        let parts = Parts::parse(key.as_bytes()).unwrap();
        assert_eq!((parts.ino, parts.space, parts.rest), (Ino(9), Space::Dirent, &b"name"[..]));
    }
}
