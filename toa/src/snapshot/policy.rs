//! What becomes of a snapshot that cannot be published now: by who asked for it, and by how lasting the failure is.

use crate::status::FailureClass;
use kvfs::op::SnapshotKind;
use std::time::Duration;
use uuid::Uuid;

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureAction {
    /// Try again, with growing pauses, for as long as it takes.
    Retry,
    /// Make way for a newer snapshot as soon as there is one: it has all the changes of this one.
    Supersede,
    /// End it as failed; what it changed goes with the next one.
    GiveUp,
}

/// The actions for one kind of snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindPolicy {
    /// For a failure that may go away by itself.
    pub transient: FailureAction,
    /// For one that lasts.
    pub persistent: FailureAction,
}

/// The whole policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePolicy {
    /// Snapshots that somebody asked for.
    pub user: KindPolicy,
    /// Those of the timer.
    pub periodic: KindPolicy,
    /// A failure that lasts longer is persistent.
    pub persistent_after: Duration,
}

impl Default for FailurePolicy {
    /// Nobody's snapshot is given up without being told to; those of the timer make way for newer ones.
    fn default() -> Self {
        Self {
            user: KindPolicy { transient: FailureAction::Retry, persistent: FailureAction::Retry },
            periodic: KindPolicy { transient: FailureAction::Retry, persistent: FailureAction::Supersede },
            persistent_after: Duration::from_secs(3600),
        }
    }
}

/// What happens now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is tried again.
    Retry,
    /// It ends in favour of that one.
    Supersede(Uuid),
    /// It ends as failed.
    GiveUp,
}

/// Whether waiting alone can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It can.
    Time,
    /// A person has to do something: credentials, permissions.
    Person,
}

impl FailurePolicy {
    /// How lasting a failure is that has gone on for `lasting`.
    pub fn class(&self, lasting: Duration, remedy: Remedy) -> FailureClass {
        if remedy == Remedy::Person || lasting >= self.persistent_after {
            FailureClass::Persistent
        } else {
            FailureClass::Transient
        }
    }

    /// What becomes of a snapshot of that kind; `successor` is the newest sealed one behind it.
    pub fn verdict(&self, kind: SnapshotKind, class: FailureClass, successor: Option<Uuid>) -> Verdict {
        let policy = match kind {
            SnapshotKind::User => self.user,
            SnapshotKind::Periodic => self.periodic,
        };
        let action = match class {
            FailureClass::Transient => policy.transient,
            FailureClass::Persistent => policy.persistent,
        };
        match (action, successor) {
            (FailureAction::GiveUp, _) => Verdict::GiveUp,
            (FailureAction::Supersede, Some(by)) => Verdict::Supersede(by),
            (FailureAction::Supersede, None) | (FailureAction::Retry, _) => Verdict::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_of_every_kind_and_class() {
        use FailureAction::{GiveUp, Retry, Supersede};
        let newer = Uuid::from_u128(7);
        for action in [Retry, Supersede, GiveUp] {
            for kind in [SnapshotKind::User, SnapshotKind::Periodic] {
                for class in [FailureClass::Transient, FailureClass::Persistent] {
                    // Everything else is set to something different, so that a mixed-up field shows.
                    let other = if action == Retry { GiveUp } else { Retry };
                    let mut policy = FailurePolicy {
                        user: KindPolicy { transient: other, persistent: other },
                        periodic: KindPolicy { transient: other, persistent: other },
                        persistent_after: Duration::from_secs(1),
                    };
                    let of_kind = if kind == SnapshotKind::User { &mut policy.user } else { &mut policy.periodic };
                    match class {
                        FailureClass::Transient => of_kind.transient = action,
                        FailureClass::Persistent => of_kind.persistent = action,
                    }
                    let (with, without) = match action {
                        Retry => (Verdict::Retry, Verdict::Retry),
                        Supersede => (Verdict::Supersede(newer), Verdict::Retry),
                        GiveUp => (Verdict::GiveUp, Verdict::GiveUp),
                    };
                    assert_eq!(policy.verdict(kind, class, Some(newer)), with, "{action:?} {kind:?} {class:?}");
                    assert_eq!(policy.verdict(kind, class, None), without, "{action:?} {kind:?} {class:?}");
                }
            }
        }
    }

    #[test]
    fn a_failure_is_persistent_when_it_lasts_or_needs_a_person() {
        let policy = FailurePolicy { persistent_after: Duration::from_secs(60), ..FailurePolicy::default() };
        let class = |seconds, remedy| policy.class(Duration::from_secs(seconds), remedy);
        assert_eq!(class(59, Remedy::Time), FailureClass::Transient);
        assert_eq!(class(60, Remedy::Time), FailureClass::Persistent);
        assert_eq!(class(0, Remedy::Person), FailureClass::Persistent);
    }
}
