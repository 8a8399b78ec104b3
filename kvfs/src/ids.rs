//! The numbers that name things. A newtype each, so that they cannot be mixed up.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An inode number: `epoch << 40 | counter`. Never used again, in any epoch or branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ino(pub u64);

/// The number of a journal record: consecutive from 1. Xid 0 is the state before the first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Xid(pub u64);

/// One reign of one master, counted from 1. Epoch 0 is "nobody yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u32);

/// The number of a pack within a filesystem: never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackNo(pub u64);

/// The number of a local data segment: never used again, although its file is recycled under a new number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentNo(pub u64);

impl Ino {
    /// The root directory of every filesystem; FUSE fixes this number.
    pub const ROOT: Ino = Ino(1);
    /// Bits of the counter part.
    pub const COUNTER_BITS: u32 = 40;

    /// The lowest inode number that `epoch` may hand out.
    #[must_use]
    pub fn first_of(epoch: Epoch) -> Ino {
        Ino((u64::from(epoch.0) << Self::COUNTER_BITS) | 1)
    }

    /// The number that follows.
    #[must_use]
    pub fn next(self) -> Ino {
        Ino(self.0 + 1)
    }
}

impl Xid {
    /// The number that follows.
    #[must_use]
    pub fn next(self) -> Xid {
        Xid(self.0 + 1)
    }
}

impl Epoch {
    /// The number that follows.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

macro_rules! display_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}
display_number!(Ino, Xid, Epoch, PackNo, SegmentNo);
