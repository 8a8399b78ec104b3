//! Exhaustive search of the ledger protocol: every order of delays, lost answers, late arrivals, restarts, second lives of
//! a node, garbage collection and deletion, within the limits of a scenario. The rules of `docs/formats/ledger.md` hold in
//! every reachable world; each broken variant must be caught, or the search proves nothing.
//!
//! The abstract: a store with create-if-absent, requests that land late or never, nodes that follow the rules, commands
//! that keep no state. `CBFS_TEST_MODEL_LARGE=1` searches further.

// Tests may; clippy knows it of test functions alone, not of their helpers.
#![allow(clippy::panic, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod bucket;
mod check;
mod conformance;
mod history;
mod real;
mod record;
mod rules;
mod search;
mod steps;
mod trace;
mod world;

use check::Harm;
use rules::{DELETION, GARBAGE, REIGNS, Rules, SCENARIOS, TWINS, Variant, ZOMBIE};
use search::{Outcome, search};

fn is_large() -> bool {
    std::env::var_os("CBFS_TEST_MODEL_LARGE").is_some()
}

#[test]
fn the_protocol_holds_in_every_reachable_world() {
    for (name, short, long) in SCENARIOS {
        let rules = if is_large() { long } else { short };
        match search(&rules) {
            Outcome::Holds(reach) => {
                println!("{name}: {reach:?}");
                assert!(reach.worlds > 5_000, "{name}: a search of {} worlds proves nothing", reach.worlds);
                let reached = (reach.epochs, reach.complete);
                assert_eq!(reached, (rules.epochs, u32::from(rules.snapshots)), "{name}: the limits are reached");
            }
            Outcome::Broken(broken) => panic!("{name}: {broken}"),
        }
    }
}

/// Each broken rule, where it shows, and what it does.
const BROKEN: [(Variant, Rules, Harm); 16] = [
    (Variant::GuessedPlace, REIGNS, Harm::RefusedRecord),
    (Variant::SkippedPlace, REIGNS, Harm::CompleteIsNotOfficial),
    (Variant::NoIntent, REIGNS, Harm::LostObjects),
    (Variant::TakenIsFailed, REIGNS, Harm::LostObjects),
    (Variant::FreeIsGivenUp, REIGNS, Harm::LostObjects),
    (Variant::NoParentCheck, TWINS, Harm::WrongBase),
    (Variant::OwnAttemptIsOfficial, TWINS, Harm::WrongBase),
    (Variant::StoredIncarnation, ZOMBIE, Harm::TwoMasters),
    (Variant::NoCondemn, GARBAGE, Harm::LostObjects),
    (Variant::CondemnNotReadBack, GARBAGE, Harm::LostObjects),
    (Variant::NoPurge, DELETION, Harm::LostObjects),
    (Variant::OwnerDeletes, TWINS, Harm::LostObjects),
    (Variant::CondemnedIsPublished, GARBAGE, Harm::LostObjects),
    (Variant::TwoSequences, REIGNS, Harm::ForgottenSnapshot),
    (Variant::UndeleteAfterPurge, DELETION, Harm::LostObjects),
    (Variant::BlindStore, REIGNS, Harm::CompleteIsNotOfficial),
];

#[test]
fn each_broken_rule_is_caught() {
    for (variant, rules, harm) in BROKEN {
        match search(&rules.broken(variant)) {
            Outcome::Broken(broken) => {
                println!("{variant:?}: {broken}");
                assert_eq!(broken.harm, harm, "{variant:?}: {broken}");
            }
            Outcome::Holds(reach) => panic!("{variant:?} is not caught: {reach:?}"),
        }
    }
}
