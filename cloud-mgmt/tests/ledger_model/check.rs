//! What must hold in every world.

use crate::history::History;
use crate::record::{Record, Said};
use crate::rules::{Rules, Variant};
use crate::steps::Actor;
use crate::world::{Disk, SLOTS, World};
use std::fmt;

/// What a broken rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Harm {
    /// A snapshot that was called complete is not official.
    CompleteIsNotOfficial,
    /// An official snapshot has lost objects.
    LostObjects,
    /// Readers refuse an official record, and all after it.
    RefusedRecord,
    /// A snapshot builds on other objects than those of its official parent.
    WrongBase,
    /// A reign is not built on all that was official below it.
    ForgottenSnapshot,
    /// Two processes know all records and both believe to reign.
    TwoMasters,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CompleteIsNotOfficial => "a complete snapshot is not official (I4)",
            Self::LostObjects => "an official snapshot has lost its objects (I3)",
            Self::RefusedRecord => "an official record breaks the rules, readers stop before it (I5)",
            Self::WrongBase => "a snapshot builds on objects that are not its official parent's (I3)",
            Self::ForgottenSnapshot => "a reign is not built on all that was official below it (I5)",
            Self::TwoMasters => "two processes that have read everything both reign (I5)",
        })
    }
}

/// The first thing that does not hold.
pub fn harm(world: &World, rules: &Rules) -> Option<Harm> {
    if let Some(harm) = in_ledger(world.official(), rules.variant) {
        return Some(harm);
    }
    let history = world.history();
    if !world.complete.is_in(history.snapshots) {
        return Some(Harm::CompleteIsNotOfficial);
    }
    if !history.is_deleted() && !history.used.is_in(world.objects) {
        return Some(Harm::LostObjects);
    }
    if world.disks.iter().any(|disk| forgets(disk, world.official())) {
        return Some(Harm::ForgottenSnapshot);
    }
    let masters = (0..SLOTS).filter(|slot| {
        let actor = Actor::new(world, rules, *slot);
        actor.has_read_all() && actor.reigns()
    });
    (masters.count() > 1).then_some(Harm::TwoMasters)
}

fn in_ledger(official: &[Record], variant: Variant) -> Option<Harm> {
    let mut history = History::default();
    for (place, said) in official.iter().filter_map(|record| record.said()).enumerate() {
        if !history.admits(said) && !is_let_pass(said, variant) {
            return Some(Harm::RefusedRecord);
        }
        if let Said::Snapshot { under, .. } = said
            && under != history.newest.objects
        {
            return Some(Harm::WrongBase);
        }
        history.fold(place, said);
    }
    None
}

/// Readers are as careless as the writers of these variants, so that the search gets to the loss.
fn is_let_pass(said: Said, variant: Variant) -> bool {
    match variant {
        Variant::TwoSequences | Variant::CondemnedIsPublished => matches!(said, Said::Snapshot { .. }),
        Variant::UndeleteAfterPurge => said == Said::Undelete,
        _ => false,
    }
}

/// Whether snapshots of older epochs are official that this master's base does not contain.
fn forgets(disk: &Disk, official: &[Record]) -> bool {
    if disk.epoch == 0 || !disk.intent.is_none() {
        return false;
    }
    let mut known = disk.base.id == 0;
    official.iter().filter_map(|record| record.said()).any(|said| match said {
        Said::Snapshot { snap, epoch, .. } => {
            let forgotten = known && epoch < disk.epoch;
            known |= snap.id == disk.base.id;
            forgotten
        }
        _ => false,
    })
}
