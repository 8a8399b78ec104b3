//! What can happen next in the bucket: requests land, the collector of garbage and operators append, bytes are deleted.
//!
//! These commands keep no state: each reads to the end and appends one record. An append where another record stands
//! already is never applied, and nobody waits for it; so a command is a request for the next place, sent at any time.

use crate::history::History;
use crate::record::{Put, Said, Sequence};
use crate::rules::{Deletion, Rules, Variant};
use crate::steps::Next;
use crate::trace::Step;
use crate::world::{PLACES, World};

pub fn steps(world: &World, rules: &Rules, next: &mut Next) {
    land(world, rules, next);
    let history = world.history();
    if world.commands < rules.commands {
        commands(world, rules, &history, next);
    }
    delete_bytes(world, &history, next);
    be_careless(world, rules, &history, next);
}

/// A request lands, however late.
fn land(world: &World, rules: &Rules, next: &mut Next) {
    for (n, put) in world.requests.iter().copied().enumerate().filter(|(_, put)| !put.is_none()) {
        let mut after = *world;
        let overwrites = !world.at(put).is_free();
        if overwrites {
            // Only a store that ignores the condition gets here; the request is not sent again by anybody.
            after.requests[n] = Put::NONE;
        }
        after.write(put);
        if rules.variant == Variant::BlindStore {
            after.requests[n] = Put::NONE;
        }
        next.push((Step::Lands { put, overwrites }, after));
    }
}

fn commands(world: &World, rules: &Rules, history: &History, next: &mut Next) {
    let mut send = |said: Said| {
        let put = Put::new(Sequence::Ledger, world.length(Sequence::Ledger), said);
        if world.requests.contains(&put) {
            return;
        }
        let mut after = *world;
        after.commands += 1;
        after.send(put);
        if let (Said::Condemn { objects }, Variant::CondemnNotReadBack) = (said, rules.variant) {
            after.doomed.insert(objects);
        }
        next.push((Step::Commands { put }, after));
    };
    for objects in world.objects.iter().filter(|objects| history.is_free(*objects)) {
        send(Said::Condemn { objects });
    }
    for place in (0..PLACES as u8).filter(|place| history.awaits_purge(*place)) {
        send(Said::Purge { place });
    }
    if rules.deletion == Deletion::Possible {
        let undelete = history.can_come_back() || rules.variant == Variant::UndeleteAfterPurge;
        match history.is_deleted() {
            false => send(Said::Delete),
            true if undelete => send(Said::Undelete),
            true => {}
        }
    }
}

/// Rule 9: only what a purge record names, and that for ever.
fn delete_bytes(world: &World, history: &History, next: &mut Next) {
    let purged = history.purged.iter().map(|place| history.condemns[usize::from(place)]);
    for objects in purged.filter(|objects| world.objects.has(*objects)).chain(world.doomed.iter()) {
        let mut after = *world;
        after.objects.remove(objects);
        after.doomed.remove(objects);
        next.push((Step::Deletes { objects }, after));
    }
}

/// The broken collectors: they make up their mind now and delete later.
fn be_careless(world: &World, rules: &Rules, history: &History, next: &mut Next) {
    let candidate = |objects: &u8| match rules.variant {
        Variant::NoCondemn => history.is_free(*objects),
        Variant::NoPurge => history.is_condemned(*objects),
        _ => false,
    };
    if world.doomed.0 > 0 || world.commands >= rules.commands {
        return;
    }
    for objects in world.objects.iter().filter(candidate) {
        let mut after = *world;
        after.commands += 1;
        after.doomed.insert(objects);
        next.push((Step::Dooms { objects }, after));
    }
}
