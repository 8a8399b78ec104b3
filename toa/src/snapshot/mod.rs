//! The life of a snapshot: which state follows which, and the rows that survive a restart.

pub mod job;

pub use job::{Job, JobRows};

use crate::status::SnapshotState;

/// What happens to a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its layer is sealed.
    Sealed,
    /// Packing begins, for the first time or anew.
    PackingBegun,
    /// All objects are in the proxy, and the manifest is known.
    PackingFinished,
    /// The upload begins or goes on.
    UploadBegun,
    /// The ledger has the record.
    Published,
    /// An object that it uses is condemned, or lost before it was sent: it is packed anew.
    Spoiled,
    /// Trying again does not help.
    GivenUp,
}

/// The state after `event`; `None` if that cannot happen in `state`.
pub fn next(state: SnapshotState, event: Event) -> Option<SnapshotState> {
    use SnapshotState::{Collected, Complete, Failed, Packing, Queued, Staged, Uploading};
    match (state, event) {
        (Queued, Event::Sealed) => Some(Collected),
        (Collected | Packing, Event::PackingBegun) => Some(Packing),
        (Packing, Event::PackingFinished) => Some(Staged),
        (Staged | Uploading, Event::UploadBegun) => Some(Uploading),
        (Uploading, Event::Published) => Some(Complete),
        (Staged | Uploading, Event::Spoiled) => Some(Collected),
        (Queued | Collected | Packing | Staged | Uploading, Event::GivenUp) => Some(Failed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SnapshotState::{Collected, Complete, Failed, Packing, Queued, Staged, Uploading};

    const STATES: [SnapshotState; 7] = [Queued, Collected, Packing, Staged, Uploading, Complete, Failed];
    const EVENTS: [Event; 7] = [
        Event::Sealed,
        Event::PackingBegun,
        Event::PackingFinished,
        Event::UploadBegun,
        Event::Published,
        Event::Spoiled,
        Event::GivenUp,
    ];

    /// Rows: states; columns: events.
    #[rustfmt::skip]
    const TABLE: [[Option<SnapshotState>; 7]; 7] = [
        [Some(Collected), None,          None,         None,            None,           None,            Some(Failed)],
        [None,            Some(Packing), None,         None,            None,           None,            Some(Failed)],
        [None,            Some(Packing), Some(Staged), None,            None,           None,            Some(Failed)],
        [None,            None,          None,         Some(Uploading), None,           Some(Collected), Some(Failed)],
        [None,            None,          None,         Some(Uploading), Some(Complete), Some(Collected), Some(Failed)],
        [None; 7],
        [None; 7],
    ];

    #[test]
    fn every_pair_of_state_and_event() {
        for (state, row) in STATES.into_iter().zip(TABLE) {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                assert_eq!(next(state, event), expected, "{state:?} {event:?}");
            }
        }
    }
}
