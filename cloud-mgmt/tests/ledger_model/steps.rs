//! What can happen next: steps of the nodes.

use crate::history::History;
use crate::record::{Put, Said, Sequence, Snap};
use crate::rules::{Rules, Twin, Variant};
use crate::trace::{Fate, Found, Step};
use crate::world::{Disk, Process, SLOTS, World};

/// The worlds that are one step away, each with that step.
pub type Next = Vec<(Step, World)>;

/// All of them.
pub fn successors(world: &World, rules: &Rules, next: &mut Next) {
    for slot in 0..SLOTS {
        if world.processes[slot].life > 0 {
            Actor::new(world, rules, slot).steps(next);
        }
    }
    crate::bucket::steps(world, rules, next);
    for (_, after) in next {
        after.canonical(rules.variant);
    }
}

/// A process with what it knows.
pub struct Actor<'a> {
    world: &'a World,
    rules: &'a Rules,
    slot: usize,
    process: Process,
    disk: Disk,
    history: History,
    read_all: bool,
}

impl<'a> Actor<'a> {
    pub fn new(world: &'a World, rules: &'a Rules, slot: usize) -> Self {
        let process = world.processes[slot];
        let lengths = (world.length(Sequence::Ledger), world.length(Sequence::Epochs));
        Self {
            world,
            rules,
            slot,
            process,
            disk: world.disks[slot],
            history: world.read_by(&process),
            read_all: (usize::from(process.read), usize::from(process.read_epochs)) == lengths,
        }
    }

    /// Rule 5, by what this process has read.
    pub fn reigns(&self) -> bool {
        let (disk, history) = (&self.disk, &self.history);
        let mine = (disk.epoch, disk.node, self.process.life) == (history.epoch, history.master, history.life);
        disk.epoch > 0 && mine && self.process.confirmed && !history.is_deleted()
    }

    pub fn has_read_all(&self) -> bool {
        self.read_all
    }

    fn steps(&self, next: &mut Next) {
        if self.process.sending.is_none() {
            self.go_on(next);
        } else {
            self.look(next);
        }
        if self.world.restarts < self.rules.restarts {
            self.restart(next);
        }
        self.twin(next);
    }

    fn go_on(&self, next: &mut Next) {
        if !self.read_all {
            self.read(next);
        }
        if self.reigns() {
            self.prepare(next);
        }
        // An append where somebody else's record stands already is a detour to reading it.
        if self.read_all {
            self.begin_reign(next);
        }
        if self.read_all || self.rules.variant == Variant::GuessedPlace {
            self.publish(next);
        }
    }

    fn after(&self) -> After {
        After { world: *self.world, slot: self.slot, variant: self.rules.variant }
    }

    fn read(&self, next: &mut Next) {
        let mut after = self.after();
        let (read, epochs) = (self.world.length(Sequence::Ledger), self.world.length(Sequence::Epochs));
        (after.process().read, after.process().read_epochs) = (read as u8, epochs as u8);
        let history = after.world.read_by(&self.process_after(&after));
        let other = history.epoch > self.disk.epoch || history.master != self.disk.node || history.is_deleted();
        let other_life = history.life != self.process.life && self.process.confirmed;
        let fate = if self.disk.epoch > 0 && (other || other_life) { Fate::Parks } else { Fate::GoesOn };
        if fate == Fate::Parks {
            after.park();
        }
        next.push((Step::Reads { slot: self.slot, upto: read, fate }, after.world));
    }

    fn process_after(&self, after: &After) -> Process {
        after.world.processes[self.slot]
    }

    /// A snapshot is asked for; its objects go to the bucket.
    fn prepare(&self, next: &mut Next) {
        let mut after = self.after();
        if self.disk.job.id == 0 && self.world.snapshots < self.rules.snapshots {
            after.world.snapshots += 1;
            after.disk().job = Snap { id: after.world.snapshots, objects: 0 };
            next.push((Step::Asks { slot: self.slot, id: after.world.snapshots }, after.world));
        } else if self.disk.job.id > 0 && self.disk.job.objects == 0 && self.world.attempts < self.rules.attempts {
            after.world.attempts += 1;
            let snap = Snap { objects: after.world.attempts, ..self.disk.job };
            after.disk().job = snap;
            after.world.objects.insert(snap.objects);
            next.push((Step::Uploads { slot: self.slot, snap }, after.world));
        }
    }

    /// Rules 5, 7 and 10.
    fn publish(&self, next: &mut Next) {
        let (job, variant) = (self.disk.job, self.rules.variant);
        if job.objects == 0 || !self.reigns() {
            return;
        }
        let mut after = self.after();
        if let Some(official) = self.history.snapshot(job.id) {
            after.world.complete.insert(job.id);
            let base = if variant == Variant::OwnAttemptIsOfficial { job } else { official };
            (after.disk().base, after.disk().job) = (base, Snap::default());
            next.push((Step::FindsItself { slot: self.slot, official }, after.world));
            return;
        }
        let lenient = matches!(variant, Variant::NoParentCheck | Variant::GuessedPlace);
        if self.history.newest.id != self.disk.base.id && !lenient {
            after.park();
            next.push((Step::FindsStranger { slot: self.slot, newest: self.history.newest }, after.world));
            return;
        }
        if self.history.is_condemned(job.objects) && variant != Variant::CondemnedIsPublished {
            after.disk().job.objects = 0;
            next.push((Step::FindsCondemned { slot: self.slot, objects: job.objects }, after.world));
            return;
        }
        let parent = if variant == Variant::NoParentCheck { self.history.newest.id } else { self.disk.base.id };
        let (life, epoch) = (self.process.life, self.disk.epoch);
        let said = Said::Snapshot { snap: job, parent, under: self.disk.base.objects, life, epoch };
        let skipped = usize::from(variant == Variant::SkippedPlace);
        self.append(Put::new(Sequence::Ledger, self.world.length(Sequence::Ledger) + skipped, said), next);
    }

    /// Rules 6 and 8.
    fn begin_reign(&self, next: &mut Next) {
        let (disk, history) = (&self.disk, &self.history);
        if history.is_deleted() || history.epoch == 0 {
            return;
        }
        let resumes =
            disk.epoch > 0 && !self.process.confirmed && (history.epoch, history.master) == (disk.epoch, disk.node);
        let promotes = disk.epoch == 0 && history.epoch < self.rules.epochs;
        if !resumes && !promotes {
            return;
        }
        let number = history.epoch + u8::from(promotes);
        let said = Said::Epoch { number, node: disk.node, life: self.process.life };
        let two = self.rules.variant == Variant::TwoSequences;
        let sequence = if two { Sequence::Epochs } else { Sequence::Ledger };
        self.append(Put::new(sequence, self.world.length(sequence), said), next);
    }

    /// Rule 2: the intent is on the disk before the request leaves.
    fn append(&self, put: Put, next: &mut Next) {
        let mut after = self.after();
        after.disk().intent = put;
        after.process().sending = put;
        after.world.send(put);
        next.push((Step::Sends { slot: self.slot, put }, after.world));
    }

    /// Rules 3 and 4.
    fn look(&self, next: &mut Next) {
        let put = self.process.sending;
        let mut after = self.after();
        let there = self.world.at(put);
        let found = match (there.is_free(), self.rules.variant) {
            (false, Variant::TakenIsFailed) => after.clean_up(put),
            (false, _) if there == put.record() => after.applied(put),
            (false, _) => after.lost(put),
            (true, Variant::FreeIsGivenUp) => after.clean_up(put),
            (true, _) if self.world.requests.contains(&put) => return,
            (true, _) => after.again(put),
        };
        next.push((Step::Looks { slot: self.slot, put, found }, after.world));
    }

    fn restart(&self, next: &mut Next) {
        let mut after = self.after();
        after.world.restarts += 1;
        if self.rules.variant == Variant::NoIntent {
            after.clean_up(self.disk.intent);
        }
        let life = after.new_life(self.slot, self.process.life);
        next.push((Step::Restarts { slot: self.slot, life }, after.world));
    }

    /// A second life of a node that has something to lose.
    fn twin(&self, next: &mut Next) {
        let slot = SLOTS - 1;
        if self.world.twins > 0 || self.rules.twin == Twin::Never || self.disk.epoch == 0 {
            return;
        }
        let mut after = self.after();
        after.world.twins += 1;
        after.world.disks[slot] = self.disk;
        let life = after.new_life(slot, self.process.life);
        next.push((Step::Doubles { slot: self.slot, life }, after.world));
    }
}

/// A world that a process is about to change.
struct After {
    world: World,
    slot: usize,
    variant: Variant,
}

impl After {
    fn process(&mut self) -> &mut Process {
        &mut self.world.processes[self.slot]
    }

    fn disk(&mut self) -> &mut Disk {
        &mut self.world.disks[self.slot]
    }

    fn new_life(&mut self, slot: usize, before: u8) -> u8 {
        let sending = self.world.disks[slot].intent;
        let stored = self.variant == Variant::StoredIncarnation;
        if !stored {
            self.world.lives += 1;
        }
        let life = if stored { before } else { self.world.lives };
        self.world.processes[slot] = Process { life, confirmed: stored, sending, ..Process::default() };
        life
    }

    /// Deposed: the branch is left as it is, nothing is deleted.
    fn park(&mut self) {
        if self.variant == Variant::OwnerDeletes {
            let objects = self.disk().job.objects;
            self.world.objects.remove(objects);
        }
        let disk = self.disk();
        (disk.epoch, disk.base, disk.job) = (0, Snap::default(), Snap::default());
        self.process().confirmed = false;
    }

    fn resolve(&mut self) {
        self.process().sending = Put::NONE;
        self.disk().intent = Put::NONE;
    }

    /// The record is seen to be there (rule 3).
    fn applied(&mut self, put: Put) -> Found {
        self.resolve();
        match put.record().said() {
            Some(Said::Epoch { number, life, .. }) => {
                let below = if put.sequence() == Sequence::Ledger { put.place() } else { self.world.official().len() };
                let base = History::of(&self.world.ledger[..below], &[]).newest;
                if number > self.disk().epoch {
                    (self.disk().epoch, self.disk().base, self.disk().job) = (number, base, Snap::default());
                }
                let process = self.process();
                process.confirmed |= life == process.life;
            }
            Some(Said::Snapshot { snap, .. }) => {
                self.world.complete.insert(snap.id);
                let disk = self.disk();
                if disk.epoch > 0 {
                    disk.base = snap;
                }
                if disk.job.id == snap.id {
                    disk.job = Snap::default();
                }
            }
            _ => {}
        }
        let process = self.process();
        let read = match put.sequence() {
            Sequence::Ledger => &mut process.read,
            Sequence::Epochs => &mut process.read_epochs,
        };
        if usize::from(*read) == put.place() {
            *read += 1;
        }
        Found::Own
    }

    /// Another record is there: it never was and never will be applied. The objects stay for the next place.
    fn lost(&mut self, put: Put) -> Found {
        if self.variant == Variant::OwnerDeletes {
            self.clean_up(put);
        }
        self.resolve();
        Found::Another
    }

    fn again(&mut self, put: Put) -> Found {
        self.world.send(put);
        Found::Free
    }

    /// The mistake: "it failed", so its objects go and it is built anew.
    fn clean_up(&mut self, put: Put) -> Found {
        self.resolve();
        if let Some(Said::Snapshot { snap, .. }) = put.record().said() {
            self.world.objects.remove(snap.objects);
            if self.disk().job == snap {
                self.disk().job.objects = 0;
            }
        }
        Found::BelievedFailed
    }
}
