//! The state of everything: the bucket, the network, disks and processes.
//!
//! Answers are not in it. A process may look at its place at any time, and what it sees there is what an answer would have
//! told it, however late; an answer that is lost is a look that comes later. So each order of events with answers is
//! also one without.

use crate::history::History;
use crate::record::{Put, Record, Said, Sequence, Snap};
use crate::rules::Variant;

/// Places in the ledger.
pub const PLACES: usize = 14;
/// Places in the sequence of epochs.
pub const EPOCHS: usize = 5;
const REQUESTS: usize = 8;
/// Two nodes, and a second life of one of them, each with its disk.
pub const SLOTS: usize = 3;

/// A set of small numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(pub u16);

impl Set {
    pub fn has(self, n: u8) -> bool {
        self.0 >> n & 1 == 1
    }

    pub fn insert(&mut self, n: u8) {
        self.0 |= 1 << n;
    }

    pub fn remove(&mut self, n: u8) {
        self.0 &= !(1 << n);
    }

    pub fn is_in(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..16).filter(move |n| self.has(*n))
    }
}

/// What survives a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub node: u8,
    /// The epoch of which it is master, 0: none.
    pub epoch: u8,
    /// The snapshot on which its changes build.
    pub base: Snap,
    /// A snapshot that was asked for and is not official yet; `objects` are 0 until they are in the bucket.
    pub job: Snap,
    pub intent: Put,
}

/// A running process, on the disk of the same number; life 0: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub life: u8,
    /// The ledger confirmed its reign in this life.
    pub confirmed: bool,
    /// How many records it has read, of each sequence.
    pub read: u8,
    pub read_epochs: u8,
    /// The intent that it works on.
    pub sending: Put,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    pub ledger: [Record; PLACES],
    pub epochs: [Record; EPOCHS],
    /// Under way, sorted, free slots at the end. One that never lands is one that has not landed yet.
    pub requests: [Put; REQUESTS],
    pub disks: [Disk; SLOTS],
    pub processes: [Process; SLOTS],
    /// Sets of objects in the bucket.
    pub objects: Set,
    /// Sets that a careless collector is going to delete.
    pub doomed: Set,
    /// Snapshots that a master has called complete.
    pub complete: Set,
    /// How many there were so far.
    pub snapshots: u8,
    pub attempts: u8,
    pub lives: u8,
    pub restarts: u8,
    pub commands: u8,
    /// Second lives so far.
    pub twins: u8,
}

impl World {
    /// Node 0 is master of epoch 1.
    pub fn new(variant: Variant, nodes: usize) -> Self {
        let mut world = Self {
            ledger: [Record::default(); PLACES],
            epochs: [Record::default(); EPOCHS],
            requests: [Put::NONE; REQUESTS],
            disks: [Disk::default(); SLOTS],
            processes: [Process::default(); SLOTS],
            objects: Set::default(),
            doomed: Set::default(),
            complete: Set::default(),
            snapshots: 0,
            attempts: 0,
            lives: nodes as u8,
            restarts: 0,
            commands: 0,
            twins: 0,
        };
        for n in 0..nodes {
            world.disks[n].node = n as u8;
            world.processes[n] = Process { life: n as u8 + 1, ..Process::default() };
        }
        let first = Said::Epoch { number: 1, node: 0, life: 1 }.record();
        if variant == Variant::TwoSequences {
            world.epochs[0] = first;
            world.processes[0].read_epochs = 1;
        } else {
            world.ledger[0] = first;
            world.processes[0].read = 1;
        }
        world.disks[0].epoch = 1;
        world.processes[0].confirmed = true;
        world
    }

    pub fn sequence(&self, sequence: Sequence) -> &[Record] {
        match sequence {
            Sequence::Ledger => &self.ledger,
            Sequence::Epochs => &self.epochs,
        }
    }

    /// Records up to the first free place: those are official.
    pub fn length(&self, sequence: Sequence) -> usize {
        let records = self.sequence(sequence);
        records.iter().position(|record| record.is_free()).unwrap_or(records.len())
    }

    pub fn official(&self) -> &[Record] {
        self.ledger.get(..self.length(Sequence::Ledger)).unwrap_or(&self.ledger)
    }

    pub fn history(&self) -> History {
        History::of(self.official(), &self.epochs)
    }

    /// What a process has read.
    pub fn read_by(&self, process: &Process) -> History {
        History::of(&self.ledger[..usize::from(process.read)], &self.epochs[..usize::from(process.read_epochs)])
    }

    pub fn at(&self, put: Put) -> Record {
        self.sequence(put.sequence()).get(put.place()).copied().unwrap_or_default()
    }

    pub fn write(&mut self, put: Put) {
        let records = match put.sequence() {
            Sequence::Ledger => self.ledger.as_mut_slice(),
            Sequence::Epochs => self.epochs.as_mut_slice(),
        };
        records[put.place()] = put.record();
    }

    /// A request leaves. One that is under way already is the same request.
    pub fn send(&mut self, put: Put) {
        assert!(put.place() < self.sequence(put.sequence()).len(), "the ledger of the model is too short");
        if self.requests.contains(&put) {
            return;
        }
        let free = self.requests.iter_mut().find(|request| request.is_none()).expect("room for requests");
        *free = put;
    }

    /// Joins worlds that differ by nothing that can ever matter: the order of requests, and requests that a store that
    /// keeps its word can never apply.
    pub fn canonical(&mut self, variant: Variant) {
        for n in 0..REQUESTS {
            let request = self.requests[n];
            if variant != Variant::BlindStore && !request.is_none() && !self.at(request).is_free() {
                self.requests[n] = Put::NONE;
            }
        }
        self.requests.sort_unstable_by_key(|put| std::cmp::Reverse(put.bits()));
    }

    /// 64 bits that stand for the world. Two of a few million share them with a chance of one in a million.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = 0x243f_6a88_85a3_08d3_u64;
        let mut add = |word: u64| {
            let product = u128::from(hash.rotate_left(29) ^ word) * 0x9e37_79b9_7f4a_7c15;
            hash = (product >> 64) as u64 ^ product as u64 ^ word.rotate_left(17);
        };
        for pair in self.ledger.chunks(2).chain(self.epochs.chunks(2)) {
            add(pair.iter().fold(0, |word, record| word << 32 | u64::from(record.bits())));
        }
        self.requests.iter().for_each(|request| add(request.bits()));
        for disk in &self.disks {
            add(disk.intent.bits());
            add(bytes([disk.node, disk.epoch, disk.base.id, disk.base.objects, disk.job.id, disk.job.objects, 0, 0]));
        }
        for process in &self.processes {
            add(process.sending.bits());
            let confirmed = u8::from(process.confirmed);
            add(bytes([process.life, confirmed, process.read, process.read_epochs, 0, 0, 0, 0]));
        }
        add(u64::from(self.objects.0) << 32 | u64::from(self.doomed.0) << 16 | u64::from(self.complete.0));
        add(bytes([self.snapshots, self.attempts, self.lives, self.restarts, self.commands, self.twins, 0, 0]));
        hash
    }
}

fn bytes(bytes: [u8; 8]) -> u64 {
    u64::from_le_bytes(bytes)
}
