//! Exhaustive search of the ledger protocol: two nodes, arbitrary delay, lost answers, crashes. Every reachable state is
//! looked at. The rules hold; each broken variant must be caught, or the search proves nothing.
//!
//! The abstract: a store with create-if-absent, requests that land late or never answer, and nodes that follow rules 1 to
//! 7 of `docs/formats/ledger.md`, without incarnations. A snapshot is (epoch, node, n); its objects are in the bucket from before its record.

// Tests may; clippy knows it of test functions alone, not of their helpers.
#![allow(clippy::panic, clippy::print_stdout)]

use std::collections::{HashSet, VecDeque};

const NODES: usize = 2;

type Snap = (u8, u8, u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Record {
    Epoch { number: u8, node: u8 },
    Snapshot { snap: Snap, parent: Option<Snap> },
}

/// Which rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// None.
    Proper,
    /// Rule 3: "taken" is believed to mean "failed", and the objects are cleaned up.
    TakenIsFailed,
    /// Rule 1: the next place is guessed by listing, records below it unread.
    GuessedPlace,
    /// Rule 4: a place that is still free is given up.
    FreeIsGivenUp,
    /// Epochs have a sequence of their own.
    TwoSequences,
    /// Rule 2: a restarted node has forgotten what it sent, and cleans up.
    NoIntent,
    /// The store ignores the condition.
    BlindStore,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    epochs: u8,
    snapshots: usize,
    crashes: u8,
}

/// A request under way, or an intent: identical by nature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Put {
    from: u8,
    /// 0: the ledger; 1: the sequence of epochs (variant [`Variant::TwoSequences`] alone).
    sequence: u8,
    place: u8,
    record: Record,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Answer {
    put: Put,
    created: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Node {
    // On disk.
    epoch: u8,
    parent: Option<Snap>,
    uploaded: Option<Snap>,
    next_snap: u8,
    intent: Option<Put>,
    // In memory.
    read: [Vec<Record>; 2],
    waits: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    sequences: [Vec<Option<Record>>; 2],
    objects: Vec<Snap>,
    nodes: Vec<Node>,
    requests: Vec<Put>,
    answers: Vec<Answer>,
    /// Snapshots that their master has called complete.
    complete: Vec<Snap>,
    crashes: u8,
}

impl World {
    fn new(variant: Variant) -> Self {
        let first = Some(Record::Epoch { number: 1, node: 0 });
        let sequences = if variant == Variant::TwoSequences { [vec![], vec![first]] } else { [vec![first], vec![]] };
        let mut nodes = vec![Node { next_snap: 1, ..Node::default() }; NODES];
        nodes[0].epoch = 1;
        Self { sequences, objects: vec![], nodes, requests: vec![], answers: vec![], complete: vec![], crashes: 0 }
    }

    fn at(&self, put: &Put) -> Option<Record> {
        self.sequences[usize::from(put.sequence)].get(usize::from(put.place)).copied().flatten()
    }

    /// What is official: the records up to the first free place, in the order of the sequence.
    fn official(&self) -> Vec<Record> {
        self.sequences[0].iter().map_while(|record| *record).collect()
    }

    /// Joins worlds that differ by nothing that can ever matter: the order of sets, answers that nobody waits for, and
    /// requests that can neither be applied nor answer anybody.
    fn canonical(mut self, variant: Variant) -> Self {
        let waiting = |put: &Put, nodes: &[Node]| {
            nodes.get(usize::from(put.from)).is_some_and(|node| node.waits && node.intent == Some(*put))
        };
        self.answers.retain(|answer| waiting(&answer.put, &self.nodes));
        if variant != Variant::BlindStore {
            let free: Vec<_> = self.requests.iter().map(|put| self.at(put).is_none()).collect();
            let mut free = free.into_iter();
            self.requests.retain(|put| free.next() == Some(true) || waiting(put, &self.nodes));
        }
        for list in [&mut self.objects, &mut self.complete] {
            list.sort_unstable();
        }
        self.requests.sort_unstable();
        self.requests.dedup();
        self.answers.sort_unstable();
        self.answers.dedup();
        self
    }
}

fn newest_epoch(records: &[Record]) -> Option<(u8, u8)> {
    records.iter().rev().find_map(|record| match record {
        Record::Epoch { number, node } => Some((*number, *node)),
        Record::Snapshot { .. } => None,
    })
}

fn snapshots(records: &[Record]) -> Vec<Snap> {
    let snap = |record: &Record| match record {
        Record::Snapshot { snap, .. } => Some(*snap),
        Record::Epoch { .. } => None,
    };
    records.iter().filter_map(snap).collect()
}

/// What must hold in every world.
fn violation(world: &World, variant: Variant) -> Option<&'static str> {
    let official = world.official();
    let published = snapshots(&official);
    if world.complete.iter().any(|snap| !published.contains(snap)) {
        return Some("a complete snapshot is not official (I4)");
    }
    if published.iter().any(|snap| !world.objects.contains(snap)) {
        return Some("an official snapshot has lost its objects (I3)");
    }
    if (1..published.len()).any(|n| published[..n].contains(&published[n])) {
        return Some("a snapshot is official twice");
    }
    let mut epoch = if variant == Variant::TwoSequences { world.epoch_of_two_sequences() } else { 0 };
    let mut newest = None;
    for record in &official {
        match record {
            Record::Epoch { number, .. } if *number != epoch + 1 => return Some("epochs are not consecutive (I5)"),
            Record::Epoch { number, .. } => epoch = *number,
            Record::Snapshot { snap, .. } if variant != Variant::TwoSequences && snap.0 != epoch => {
                return Some("a snapshot of an epoch that is over (I5)");
            }
            Record::Snapshot { parent, .. } if *parent != newest => return Some("a snapshot without its parent (I5)"),
            Record::Snapshot { snap, .. } => newest = Some(*snap),
        }
    }
    world.nodes.iter().find_map(|node| {
        let wrong_base = node.epoch > 0 && node.intent.is_none() && node.lost_its_base(&published);
        wrong_base.then_some("a reign is not built on all that was official below it (I5)")
    })
}

impl World {
    /// The newest snapshot below a place: it never changes once the place is taken. With two sequences there is no
    /// "below", so it is the newest of all at the time.
    fn base(&self, put: &Put) -> Option<Snap> {
        let official = self.official();
        let below = if put.sequence == 0 { usize::from(put.place) } else { official.len() };
        snapshots(official.get(..below).unwrap_or(&official)).last().copied()
    }

    fn epoch_of_two_sequences(&self) -> u8 {
        newest_epoch(&self.sequences[1].iter().flatten().copied().collect::<Vec<_>>()).map_or(0, |(number, _)| number)
    }
}

impl Node {
    /// Snapshots of older epochs that are official and that this master's base does not contain.
    fn lost_its_base(&self, published: &[Snap]) -> bool {
        let base = self.parent.and_then(|parent| published.iter().position(|snap| *snap == parent));
        let below = base.map_or(0, |base| base + 1);
        published.iter().skip(below).any(|snap| snap.0 < self.epoch)
    }

    fn reigns(&self, id: u8, variant: Variant) -> bool {
        let sequence = usize::from(variant == Variant::TwoSequences);
        self.epoch > 0 && newest_epoch(&self.read[sequence]) == Some((self.epoch, id))
    }

    fn newest_read(&self) -> Option<Snap> {
        snapshots(&self.read[0]).last().copied()
    }

    /// Takes a record in, that it has read or written.
    fn learn(&mut self, id: u8, sequence: u8, record: Record) {
        self.read[usize::from(sequence)].push(record);
        if let Record::Epoch { number, node } = record
            && node != id
            && number > self.epoch
        {
            // Deposed: the branch is parked, nothing is deleted.
            self.epoch = 0;
            self.uploaded = None;
        }
    }

    /// The intent is known to be applied; `base` is the newest snapshot below its place.
    fn applied(&mut self, id: u8, base: Option<Snap>, complete: &mut Vec<Snap>) {
        let Some(put) = self.intent.take() else { return };
        self.waits = false;
        match put.record {
            Record::Epoch { number, .. } => {
                self.epoch = number;
                self.parent = base;
                self.uploaded = None;
            }
            Record::Snapshot { snap, .. } => {
                complete.push(snap);
                self.parent = Some(snap);
                self.uploaded = None;
            }
        }
        if self.read[usize::from(put.sequence)].len() == usize::from(put.place) {
            self.learn(id, put.sequence, put.record);
        }
    }
}

/// All worlds one step away.
fn successors(world: &World, variant: Variant, limits: Limits) -> Vec<World> {
    let mut next = Vec::new();
    for id in 0..NODES {
        read_on(world, id, &mut next);
        start_append(world, id, variant, limits, &mut next);
        look_at_place(world, id, variant, &mut next);
        crash(world, id, variant, limits, &mut next);
    }
    store_acts(world, variant, &mut next);
    answer_arrives(world, variant, &mut next);
    next
}

fn read_on(world: &World, id: usize, next: &mut Vec<World>) {
    let node = &world.nodes[id];
    for sequence in 0..2u8 {
        let records = &world.sequences[usize::from(sequence)];
        let place = node.read[usize::from(sequence)].len();
        let own = node.intent.is_some_and(|put| put.sequence == sequence && usize::from(put.place) == place);
        if let Some(Some(record)) = records.get(place)
            && !own
        {
            let mut after = world.clone();
            after.nodes[id].learn(id as u8, sequence, *record);
            next.push(after);
        }
    }
}

fn start_append(world: &World, id: usize, variant: Variant, limits: Limits, next: &mut Vec<World>) {
    let node = &world.nodes[id];
    if node.intent.is_some() {
        return;
    }
    let total = snapshots(&world.official()).len() + world.nodes.iter().filter(|node| node.uploaded.is_some()).count();
    let reigns = node.reigns(id as u8, variant);
    if reigns && node.uploaded.is_none() && total < limits.snapshots {
        let mut after = world.clone();
        let snap = (node.epoch, id as u8, node.next_snap);
        after.nodes[id].next_snap += 1;
        after.nodes[id].uploaded = Some(snap);
        after.objects.push(snap);
        next.push(after);
    }
    if let Some(snap) = node.uploaded
        && reigns
        && (node.newest_read() == node.parent || variant == Variant::GuessedPlace)
    {
        let listed = world.sequences[0].len();
        let place = if variant == Variant::GuessedPlace { listed } else { node.read[0].len() };
        let record = Record::Snapshot { snap, parent: node.parent };
        send_first(world, id, Put { from: id as u8, sequence: 0, place: place as u8, record }, next);
    }
    let sequence = u8::from(variant == Variant::TwoSequences);
    let read = &node.read[usize::from(sequence)];
    if let Some((latest, master)) = newest_epoch(read)
        && usize::from(master) != id
        && latest < limits.epochs
    {
        let record = Record::Epoch { number: latest + 1, node: id as u8 };
        send_first(world, id, Put { from: id as u8, sequence, place: read.len() as u8, record }, next);
    }
}

/// Rule 2: the intent is on disk before the request leaves.
fn send_first(world: &World, id: usize, put: Put, next: &mut Vec<World>) {
    let mut after = world.clone();
    after.nodes[id].intent = Some(put);
    after.nodes[id].waits = true;
    after.requests.push(put);
    next.push(after);
}

/// An answer is late, or a restarted node has an intent: it looks at the place (rule 3).
fn look_at_place(world: &World, id: usize, variant: Variant, next: &mut Vec<World>) {
    let node = &world.nodes[id];
    let Some(put) = node.intent else { return };
    let mut after = world.clone();
    match world.at(&put) {
        Some(found) if found == put.record => after.nodes[id].applied(id as u8, world.base(&put), &mut after.complete),
        Some(found) => {
            let node = &mut after.nodes[id];
            node.intent = None;
            node.waits = false;
            if node.read[usize::from(put.sequence)].len() == usize::from(put.place) {
                node.learn(id as u8, put.sequence, found);
            }
        }
        None if variant == Variant::FreeIsGivenUp => clean_up(&mut after, id, put),
        None if !node.waits || !world.requests.contains(&put) => {
            after.nodes[id].waits = true;
            after.requests.push(put);
        }
        None => return,
    }
    next.push(after);
}

/// The mistake: "it failed", so its objects go and it is built anew.
fn clean_up(world: &mut World, id: usize, put: Put) {
    let node = &mut world.nodes[id];
    node.intent = None;
    node.waits = false;
    if let Record::Snapshot { snap, .. } = put.record {
        node.uploaded = None;
        world.objects.retain(|object| *object != snap);
    }
}

fn crash(world: &World, id: usize, variant: Variant, limits: Limits, next: &mut Vec<World>) {
    if world.crashes >= limits.crashes {
        return;
    }
    let mut after = world.clone();
    after.crashes += 1;
    if variant == Variant::NoIntent
        && let Some(put) = after.nodes[id].intent
    {
        clean_up(&mut after, id, put);
    }
    let node = &mut after.nodes[id];
    node.read = [vec![], vec![]];
    node.waits = false;
    after.answers.retain(|answer| usize::from(answer.put.from) != id);
    next.push(after);
}

/// A request lands, however late; its answer comes back or is lost, or a library between sends it once more. One that
/// never lands is one that has not landed yet.
fn store_acts(world: &World, variant: Variant, next: &mut Vec<World>) {
    for (n, put) in world.requests.iter().enumerate() {
        let mut after = world.clone();
        after.requests.remove(n);
        let created = world.at(put).is_none() || variant == Variant::BlindStore;
        if created {
            let records = &mut after.sequences[usize::from(put.sequence)];
            records.resize(records.len().max(usize::from(put.place) + 1), None);
            records[usize::from(put.place)] = Some(put.record);
        }
        next.push(after.clone());
        if created && variant != Variant::BlindStore {
            let mut again = after.clone();
            again.requests.push(*put);
            next.push(again);
        }
        after.answers.push(Answer { put: *put, created });
        next.push(after);
    }
}

fn answer_arrives(world: &World, variant: Variant, next: &mut Vec<World>) {
    for (n, answer) in world.answers.iter().enumerate() {
        let mut after = world.clone();
        after.answers.remove(n);
        let id = usize::from(answer.put.from);
        if world.nodes[id].intent == Some(answer.put) && world.nodes[id].waits {
            match (answer.created, variant) {
                (true, _) => after.nodes[id].applied(answer.put.from, world.base(&answer.put), &mut after.complete),
                (false, Variant::TakenIsFailed) => clean_up(&mut after, id, answer.put),
                // It has to look.
                (false, _) => after.nodes[id].waits = false,
            }
        }
        next.push(after);
    }
}

#[derive(Debug)]
enum Outcome {
    Holds { worlds: usize, epochs: u8, complete: usize },
    Broken { what: &'static str, steps: u32 },
}

fn search(variant: Variant, limits: Limits) -> Outcome {
    let first = World::new(variant);
    let mut seen = HashSet::from([fingerprint(&first)]);
    let mut queue = VecDeque::from([(first, 0)]);
    let (mut epochs, mut complete) = (0, 0);
    while let Some((world, steps)) = queue.pop_front() {
        if let Some(what) = violation(&world, variant) {
            return Outcome::Broken { what, steps };
        }
        epochs = epochs.max(newest_epoch(&world.official()).map_or(0, |(number, _)| number));
        complete = complete.max(world.complete.len());
        for after in successors(&world, variant, limits) {
            let after = after.canonical(variant);
            if seen.insert(fingerprint(&after)) {
                queue.push_back((after, steps + 1));
            }
        }
    }
    Outcome::Holds { worlds: seen.len(), epochs, complete }
}

/// 128 bits stand for a world: the chance that two of a few million share them is nil.
fn fingerprint(world: &World) -> u128 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, world).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

fn limits() -> Limits {
    if std::env::var_os("CBFS_TEST_MODEL_LARGE").is_some() {
        Limits { epochs: 3, snapshots: 3, crashes: 2 }
    } else {
        Limits { epochs: 3, snapshots: 2, crashes: 1 }
    }
}

#[test]
fn the_protocol_holds_in_every_reachable_world() {
    let limits = limits();
    match search(Variant::Proper, limits) {
        Outcome::Holds { worlds, epochs, complete } => {
            println!("{worlds} worlds");
            assert!(worlds > 10_000, "a search of {worlds} worlds proves nothing");
            assert_eq!((epochs, complete), (limits.epochs, limits.snapshots), "the limits are reached");
        }
        broken @ Outcome::Broken { .. } => panic!("{broken:?}"),
    }
}

#[test]
fn each_broken_rule_is_caught() {
    use Variant::{BlindStore, FreeIsGivenUp, GuessedPlace, NoIntent, TakenIsFailed, TwoSequences};
    for variant in [TakenIsFailed, GuessedPlace, FreeIsGivenUp, TwoSequences, NoIntent, BlindStore] {
        match search(variant, limits()) {
            Outcome::Broken { what, steps } => println!("{variant:?}: {what}, after {steps} steps"),
            holds @ Outcome::Holds { .. } => panic!("{variant:?} is not caught: {holds:?}"),
        }
    }
}
