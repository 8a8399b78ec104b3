//! The search through all worlds, in the order of their distance, so that what it finds is found on a shortest way.

use crate::check::{Harm, harm};
use crate::rules::Rules;
use crate::steps::{Next, successors};
use crate::trace::Step;
use crate::world::World;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

/// How a search ended.
#[derive(Debug)]
pub enum Outcome {
    /// Every reachable world was looked at, and nothing is wrong in any.
    Holds(Reach),
    Broken(Broken),
}

/// How far a search came.
#[derive(Debug, Default)]
pub struct Reach {
    pub worlds: usize,
    pub steps: u32,
    pub epochs: u8,
    pub complete: u32,
    pub records: usize,
}

/// A shortest way to a harm.
#[derive(Debug)]
pub struct Broken {
    pub harm: Harm,
    pub worlds: usize,
    pub trace: Vec<Step>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, after {} steps ({} worlds seen)", self.harm, self.trace.len(), self.worlds)?;
        for (n, step) in self.trace.iter().enumerate() {
            writeln!(f, "    {:2} {step}", n + 1)?;
        }
        Ok(())
    }
}

/// Fingerprints are hashes already.
#[derive(Default)]
pub struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("fingerprints are u64")
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Where a world was reached from: the n-th successor of an earlier one.
#[derive(Clone, Copy)]
struct Link {
    from: u32,
    nth: u32,
}

pub fn search(rules: &Rules) -> Outcome {
    let first = World::new(rules.variant, rules.nodes);
    let mut seen: HashSet<u64, BuildHasherDefault<Same>> = HashSet::default();
    seen.insert(first.fingerprint());
    let mut links = vec![Link { from: 0, nth: 0 }];
    let mut queue = VecDeque::from([(first, 0)]);
    let mut reach = Reach::default();
    let mut next = Next::new();
    let mut from = 0;
    while let Some((world, steps)) = queue.pop_front() {
        reach.note(&world, steps);
        next.clear();
        successors(&world, rules, &mut next);
        for (nth, (_, after)) in next.iter().enumerate() {
            if !seen.insert(after.fingerprint()) {
                continue;
            }
            links.push(Link { from, nth: nth as u32 });
            if let Some(harm) = harm(after, rules) {
                return Outcome::Broken(Broken { harm, worlds: links.len(), trace: trace(rules, &links) });
            }
            queue.push_back((*after, steps + 1));
        }
        from += 1;
    }
    reach.worlds = links.len();
    Outcome::Holds(reach)
}

impl Reach {
    fn note(&mut self, world: &World, steps: u32) {
        self.steps = self.steps.max(steps);
        self.epochs = self.epochs.max(world.history().epoch);
        self.complete = self.complete.max(world.complete.0.count_ones());
        self.records = self.records.max(world.official().len());
    }
}

/// The steps to the last world.
fn trace(rules: &Rules, links: &[Link]) -> Vec<Step> {
    let mut way = Vec::new();
    let mut at = links.len() - 1;
    while at > 0 {
        way.push(links[at].nth as usize);
        at = links[at].from as usize;
    }
    let mut world = World::new(rules.variant, rules.nodes);
    let mut steps = Vec::new();
    for nth in way.into_iter().rev() {
        let mut next = Next::new();
        successors(&world, rules, &mut next);
        let (step, after) = next.swap_remove(nth);
        steps.push(step);
        world = after;
    }
    steps
}
