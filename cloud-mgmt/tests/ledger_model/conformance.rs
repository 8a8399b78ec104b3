//! Random walks of the model, step by step on the real appender: the same verdicts, the same ledger.

use crate::real::Real;
use crate::rules::{DELETION, GARBAGE, REIGNS, Rules, TWINS, Variant};
use crate::steps::{Next, successors};
use crate::world::World;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;

/// Steps of one walk; few are longer.
const STEPS_MAX: usize = 60;

fn walks() -> u64 {
    std::env::var("CBFS_TEST_WALKS").ok().and_then(|text| text.parse().ok()).unwrap_or(150)
}

/// Not limits of a search: a walk costs the same whatever they are.
const WALKED: [Rules; 4] = [
    Rules { commands: 1, ..REIGNS },
    Rules { snapshots: 3, attempts: 6, restarts: 2, commands: 6, ..GARBAGE },
    Rules { snapshots: 3, attempts: 4, restarts: 2, commands: 6, ..DELETION },
    Rules { nodes: 2, attempts: 5, restarts: 2, ..TWINS },
];

async fn walk(rules: &Rules, seed: u64, seen: &mut BTreeSet<String>) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new(Variant::Proper, rules.nodes);
    let mut real = Real::new(&world).await;
    let mut told = Vec::new();
    for _ in 0..STEPS_MAX {
        let mut next = Next::new();
        successors(&world, rules, &mut next);
        if next.is_empty() {
            break;
        }
        let (step, after) = next.swap_remove(random.random_range(0..next.len()));
        told.push(step.to_string());
        let verdict = real.step(&world, step, &after).await;
        let verdict = verdict.unwrap_or_else(|error| panic!("seed {seed}: {error}\n{}", told.join("\n")));
        seen.insert(verdict.to_owned());
        world = after;
    }
}

#[tokio::test]
async fn the_appender_does_what_the_model_does() {
    let mut seen = BTreeSet::new();
    for (n, rules) in WALKED.iter().enumerate() {
        for seed in 0..walks() {
            walk(rules, seed + 1_000_000 * n as u64, &mut seen).await;
        }
    }
    println!("{seen:?}");
    let wanted = [
        "applied",
        "lost",
        "promote",
        "resume",
        "publish",
        "official already",
        "unexpected parent",
        "condemned object",
        "reigns",
        "deposed",
        "deleted",
        "condemn",
        "purge",
        "delete",
        "undelete",
    ];
    for verdict in wanted {
        assert!(seen.contains(verdict), "no walk came to {verdict:?}: {seen:?}");
    }
}
