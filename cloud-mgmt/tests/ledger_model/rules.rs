//! Which protocol is searched, and how far.

/// Which rule of `docs/formats/ledger.md` is broken, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// None.
    Proper,
    /// Rule 1: the next place is guessed by listing, records below it unread.
    GuessedPlace,
    /// Rule 1: a place is left free for another append of one's own.
    SkippedPlace,
    /// Rule 2: a restarted node has forgotten what it sent, and cleans up.
    NoIntent,
    /// Rule 3: "taken" is believed to mean "failed", and the objects are cleaned up.
    TakenIsFailed,
    /// Rule 4: a place that is still free is given up, and the objects are cleaned up.
    FreeIsGivenUp,
    /// Rule 5: the newest snapshot is taken for one's own base, whatever it is.
    NoParentCheck,
    /// Rule 7: a snapshot that is official already is a success, and so are the objects of one's own attempt at it.
    OwnAttemptIsOfficial,
    /// Rule 8: the incarnation is kept on the disk and used again by the next life.
    StoredIncarnation,
    /// Rule 9: objects that nothing references are deleted without a word.
    NoCondemn,
    /// Rule 9: they are deleted when the condemn record is sent, not when it is known to be there.
    CondemnNotReadBack,
    /// Rule 9: they are deleted on a condemn record, without the last word of a purge record.
    NoPurge,
    /// Rule 9: who failed for certain deletes its leftovers itself.
    OwnerDeletes,
    /// Rule 10: condemned objects are published.
    CondemnedIsPublished,
    /// Epochs have a sequence of their own.
    TwoSequences,
    /// A deletion is taken back though bytes are being deleted.
    UndeleteAfterPurge,
    /// The store ignores the condition.
    BlindStore,
}

/// Whether a second life of a node runs beside the first, each with the disk as it was then: a former life that was
/// believed dead and lost its disk to the next one, or a copy of the disk that somebody started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twin {
    Never,
    Possible,
}

/// Whether operators delete the filesystem and take that back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    Never,
    Possible,
}

/// What is searched.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub variant: Variant,
    pub nodes: usize,
    pub epochs: u8,
    pub snapshots: u8,
    /// Uploads for them, in all.
    pub attempts: u8,
    pub restarts: u8,
    /// Records of the collector of garbage and of operators, in all.
    pub commands: u8,
    pub deletion: Deletion,
    pub twin: Twin,
}

impl Rules {
    pub fn broken(self, variant: Variant) -> Self {
        Self { variant, ..self }
    }
}

/// Two nodes, one after the other master, and restarts.
pub const REIGNS: Rules = Rules {
    variant: Variant::Proper,
    nodes: 2,
    epochs: 4,
    snapshots: 3,
    attempts: 3,
    restarts: 2,
    commands: 0,
    deletion: Deletion::Never,
    twin: Twin::Never,
};

/// The same with a collector of garbage.
pub const GARBAGE: Rules = Rules { epochs: 2, snapshots: 2, restarts: 1, commands: 3, ..REIGNS };

/// A filesystem that is deleted and comes back, while its objects are condemned.
pub const DELETION: Rules =
    Rules { epochs: 2, snapshots: 2, attempts: 2, restarts: 0, commands: 5, deletion: Deletion::Possible, ..REIGNS };

/// A life that was believed dead goes on, beside the next one and another node.
pub const ZOMBIE: Rules =
    Rules { epochs: 2, snapshots: 2, attempts: 2, restarts: 1, commands: 1, twin: Twin::Possible, ..REIGNS };

/// The two lives of one node alone, for longer.
pub const TWINS: Rules =
    Rules { nodes: 1, epochs: 2, attempts: 4, restarts: 1, commands: 1, twin: Twin::Possible, ..REIGNS };

/// All of it, with how far the long search goes.
pub const SCENARIOS: [(&str, Rules, Rules); 5] = [
    ("reigns", REIGNS, Rules { epochs: 5, attempts: 3, restarts: 3, ..REIGNS }),
    ("garbage", GARBAGE, Rules { epochs: 3, commands: 4, ..GARBAGE }),
    ("deletion", DELETION, Rules { restarts: 1, ..DELETION }),
    ("zombie", ZOMBIE, Rules { epochs: 3, commands: 0, ..ZOMBIE }),
    ("twins", TWINS, Rules { restarts: 2, ..TWINS }),
];
