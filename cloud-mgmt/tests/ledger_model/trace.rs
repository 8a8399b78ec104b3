//! Steps, and how they are told to people.

use crate::record::{Put, Snap};
use std::fmt;

/// What became of a process that read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    GoesOn,
    /// Its disk is not a master's any more.
    Parks,
}

/// What stood at the place of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Own,
    Another,
    Free,
    /// The broken variants draw the wrong conclusion.
    BelievedFailed,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Reads {
        slot: usize,
        upto: usize,
        fate: Fate,
    },
    Asks {
        slot: usize,
        id: u8,
    },
    Uploads {
        slot: usize,
        snap: Snap,
    },
    Sends {
        slot: usize,
        put: Put,
    },
    /// Its snapshot is official already.
    FindsItself {
        slot: usize,
        official: Snap,
    },
    /// The newest snapshot is not its base.
    FindsStranger {
        slot: usize,
        newest: Snap,
    },
    FindsCondemned {
        slot: usize,
        objects: u8,
    },
    Looks {
        slot: usize,
        put: Put,
        found: Found,
    },
    Restarts {
        slot: usize,
        life: u8,
    },
    Doubles {
        slot: usize,
        life: u8,
    },
    Lands {
        put: Put,
        overwrites: bool,
    },
    Commands {
        put: Put,
    },
    Dooms {
        objects: u8,
    },
    Deletes {
        objects: u8,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reads { slot, upto, fate } => {
                let fate = match fate {
                    Fate::GoesOn => "",
                    Fate::Parks => ": deposed, parks its branch",
                };
                write!(f, "process {slot} reads up to record {upto}{fate}")
            }
            Self::Asks { slot, id } => write!(f, "process {slot} is asked for snapshot {id}"),
            Self::Uploads { slot, snap } => write!(f, "process {slot} uploads the objects of {snap}"),
            Self::Sends { slot, put } => write!(f, "process {slot} sends {put}"),
            Self::FindsItself { slot, official } => write!(f, "process {slot} finds {official} official: complete"),
            Self::FindsStranger { slot, newest } => {
                write!(f, "process {slot} finds {newest} above its base: deposed, parks its branch")
            }
            Self::FindsCondemned { slot, objects } => {
                write!(f, "process {slot} finds objects {objects} condemned, and will upload others")
            }
            Self::Looks { slot, put, found } => {
                let found = match found {
                    Found::Own => "applied",
                    Found::Another => "another record, so it never will be applied",
                    Found::Free => "free, sends it again",
                    Found::BelievedFailed => "believes that it failed, deletes its objects",
                };
                write!(f, "process {slot} looks at {put}: {found}")
            }
            Self::Restarts { slot, life } => write!(f, "process {slot} dies and is started again, as life {life}"),
            Self::Doubles { slot, life } => {
                write!(f, "beside process {slot} a process 2 is started with the same disk, as life {life}")
            }
            Self::Lands { put, overwrites: false } => write!(f, "the store applies {put}"),
            Self::Lands { put, overwrites: true } => write!(f, "the store OVERWRITES with {put}"),
            Self::Commands { put } => write!(f, "a command sends {put}"),
            Self::Dooms { objects } => write!(f, "a collector makes up its mind to delete objects {objects}"),
            Self::Deletes { objects } => write!(f, "objects {objects} are deleted from the bucket"),
        }
    }
}
