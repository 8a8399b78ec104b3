//! Records and requests, packed into integers: worlds are compared and hashed by the million.

use std::fmt;

/// A snapshot: its number, and the set of objects that one attempt uploaded for it. 0 is no snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snap {
    pub id: u8,
    pub objects: u8,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Epoch {
        number: u8,
        node: u8,
        life: u8,
    },
    /// `parent` is the snapshot that it names as its parent, `under` the set of objects that it was really built on.
    Snapshot {
        snap: Snap,
        parent: u8,
        under: u8,
        life: u8,
        epoch: u8,
    },
    Condemn {
        objects: u8,
    },
    /// `place` is that of the condemn record.
    Purge {
        place: u8,
    },
    Delete,
    Undelete,
}

/// A packed [`Said`]; 0 is a free place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record(u32);

/// Seven fields of four bits, the first one the kind.
fn pack(fields: [u8; 7]) -> Record {
    Record(fields.iter().rev().fold(0, |packed, field| packed << 4 | u32::from(field & 15)))
}

impl Said {
    pub fn record(self) -> Record {
        pack(match self {
            Self::Epoch { number, node, life } => [1, number, node, life, 0, 0, 0],
            Self::Snapshot { snap, parent, under, life, epoch } => {
                [2, snap.id, snap.objects, parent, under, life, epoch]
            }
            Self::Condemn { objects } => [3, objects, 0, 0, 0, 0, 0],
            Self::Purge { place } => [4, place, 0, 0, 0, 0, 0],
            Self::Delete => [5, 0, 0, 0, 0, 0, 0],
            Self::Undelete => [6, 0, 0, 0, 0, 0, 0],
        })
    }
}

impl Record {
    pub fn is_free(self) -> bool {
        self.0 == 0
    }

    pub fn bits(self) -> u32 {
        self.0
    }

    /// `None`: the place is free.
    pub fn said(self) -> Option<Said> {
        let field = |n: u32| (self.0 >> (4 * n) & 15) as u8;
        Some(match field(0) {
            1 => Said::Epoch { number: field(1), node: field(2), life: field(3) },
            2 => Said::Snapshot {
                snap: Snap { id: field(1), objects: field(2) },
                parent: field(3),
                under: field(4),
                life: field(5),
                epoch: field(6),
            },
            3 => Said::Condemn { objects: field(1) },
            4 => Said::Purge { place: field(1) },
            5 => Said::Delete,
            6 => Said::Undelete,
            _ => return None,
        })
    }
}

/// Which sequence of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    Ledger,
    /// Of epochs alone: for the broken variant that has two.
    Epochs,
}

/// A record and the place where it is to stand: a request under way, and an intent. 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Put(u64);

impl Put {
    pub const NONE: Self = Self(0);

    pub fn new(sequence: Sequence, place: usize, said: Said) -> Self {
        let high = place as u64 | if sequence == Sequence::Epochs { 1 << 8 } else { 0 };
        Self(high << 32 | u64::from(said.record().bits()))
    }

    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    pub fn bits(self) -> u64 {
        self.0
    }

    pub fn sequence(self) -> Sequence {
        if self.0 >> 40 & 1 == 1 { Sequence::Epochs } else { Sequence::Ledger }
    }

    pub fn place(self) -> usize {
        (self.0 >> 32 & 0xff) as usize
    }

    pub fn record(self) -> Record {
        Record(self.0 as u32)
    }
}

impl fmt::Display for Snap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot {} (objects {})", self.id, self.objects)
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch { number, node, life } => write!(f, "epoch {number} of node {node}, life {life}"),
            Self::Snapshot { snap, parent: 0, life, .. } => write!(f, "{snap}, the first, by life {life}"),
            Self::Snapshot { snap, parent, under, life, .. } => {
                write!(f, "{snap} on snapshot {parent} (objects {under}), by life {life}")
            }
            Self::Condemn { objects } => write!(f, "condemn objects {objects}"),
            Self::Purge { place } => write!(f, "purge what record {} condemns", place + 1),
            Self::Delete => write!(f, "delete"),
            Self::Undelete => write!(f, "undelete"),
        }
    }
}

impl fmt::Display for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sequence = if self.sequence() == Sequence::Epochs { "epochs" } else { "ledger" };
        match self.record().said() {
            Some(said) => write!(f, "{sequence}/{}: {said}", self.place() + 1),
            None => write!(f, "nothing"),
        }
    }
}
