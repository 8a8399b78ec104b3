//! The life of a snapshot: which state follows which, what a failure leads to, and the rows that survive a restart.

pub mod job;
pub mod policy;

pub use job::{Job, JobRows};
pub use policy::{FailureAction, FailurePolicy, KindPolicy};

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
    /// Trying again does not help, or nobody wants it.
    GivenUp,
    /// It shall not be published. While it is uploading, only the ledger's answer allows this: whoever raises it knows
    /// that no record of it is on its way.
    Cancelled,
}

/// The state after `event`; `None` if that cannot happen in `state`. The picture is at [`SnapshotState`].
pub fn next(state: SnapshotState, event: Event) -> Option<SnapshotState> {
    use SnapshotState::{Cancelled, Collected, Complete, Failed, Packing, Queued, Staged, Uploading};
    match (state, event) {
        (Queued, Event::Sealed) => Some(Collected),
        (Collected | Packing, Event::PackingBegun) => Some(Packing),
        (Packing, Event::PackingFinished) => Some(Staged),
        (Staged | Uploading, Event::UploadBegun) => Some(Uploading),
        (Uploading, Event::Published) => Some(Complete),
        (Staged | Uploading, Event::Spoiled) => Some(Collected),
        (Queued | Collected | Packing | Staged | Uploading, Event::GivenUp) => Some(Failed),
        (Queued | Collected | Packing | Staged | Uploading, Event::Cancelled) => Some(Cancelled),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SnapshotState::{Cancelled, Collected, Complete, Failed, Packing, Queued, Staged, Uploading};
    use std::collections::BTreeSet;

    const STATES: [SnapshotState; 8] = [Queued, Collected, Packing, Staged, Uploading, Complete, Failed, Cancelled];
    const EVENTS: [(Event, &str); 8] = [
        (Event::Sealed, "sealed"),
        (Event::PackingBegun, "packing begun"),
        (Event::PackingFinished, "packing finished"),
        (Event::UploadBegun, "upload begun"),
        (Event::Published, "published"),
        (Event::Spoiled, "spoiled"),
        (Event::GivenUp, "given up"),
        (Event::Cancelled, "cancelled"),
    ];

    /// Rows: states; columns: events.
    #[rustfmt::skip]
    const TABLE: [[Option<SnapshotState>; 8]; 8] = [
        [Some(Collected), None,          None,         None,            None,           None,            Some(Failed), Some(Cancelled)],
        [None,            Some(Packing), None,         None,            None,           None,            Some(Failed), Some(Cancelled)],
        [None,            Some(Packing), Some(Staged), None,            None,           None,            Some(Failed), Some(Cancelled)],
        [None,            None,          None,         Some(Uploading), None,           Some(Collected), Some(Failed), Some(Cancelled)],
        [None,            None,          None,         Some(Uploading), Some(Complete), Some(Collected), Some(Failed), Some(Cancelled)],
        [None; 8],
        [None; 8],
        [None; 8],
    ];

    fn name(state: SnapshotState) -> String {
        serde_json::to_value(state).unwrap().as_str().unwrap().to_owned()
    }

    #[test]
    fn every_pair_of_state_and_event() {
        for (state, row) in STATES.into_iter().zip(TABLE) {
            for ((event, _), expected) in EVENTS.into_iter().zip(row) {
                assert_eq!(next(state, event), expected, "{state:?} {event:?}");
            }
            assert_eq!(state.is_final(), row == [None; 8], "{state:?}");
        }
    }

    #[test]
    fn the_picture_in_the_documentation_shows_exactly_these_edges() {
        let mut drawn = BTreeSet::new();
        for line in include_str!("../status.rs").lines().filter(|line| line.starts_with("/// ") && line.contains("──►"))
        {
            let (from, rest) = line.trim_start_matches("/// ").split_once(" ──").unwrap();
            let (event, rest) = rest.split_once("──► ").unwrap();
            let to = rest.split_whitespace().next().unwrap();
            drawn.extend(from.split('|').map(|from| (from.to_owned(), event.to_owned(), to.to_owned())));
        }
        let mut real = BTreeSet::new();
        for state in STATES {
            for (event, called) in EVENTS {
                real.extend(next(state, event).map(|to| (name(state), called.to_owned(), name(to))));
            }
        }
        assert_eq!(drawn, real);
    }
}
