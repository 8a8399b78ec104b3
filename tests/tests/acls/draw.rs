//! Drawing steps. Names and people are few, so that steps meet each other.

use super::side::{ACCESS, Call, Caller, DEFAULT, Step, encode};
use cbfs_tests::differential::User;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const NAMES: [&str; 3] = ["a", "b", "c"];
/// A group that the first of two people may be in, and the two. Ascending, as tar brings entries back.
const IDS: [u32; 3] = [50, 1000, 1001];
const UMASKS: [u32; 4] = [0o022, 0o077, 0o000, 0o027];
const NO_ID: u32 = u32::MAX;

/// A reproducible source of steps.
pub struct Draw {
    rng: StdRng,
}

impl Draw {
    /// The same seed gives the same steps.
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed) }
    }

    pub fn step(&mut self) -> Step {
        let caller = match self.rng.random_range(0..10) {
            0..5 => Caller::root(),
            5..7 => Caller::plain(1000),
            7 => Caller { user: User::Plain(1000), groups: vec![50, 60] },
            _ => Caller::plain(1001),
        };
        Step { caller, call: self.call() }
    }

    fn call(&mut self) -> Call {
        let at = self.path();
        let (mode, umask) = (self.mode(), self.pick(&UMASKS));
        match self.rng.random_range(0..100) {
            0..22 => Call::SetAcl { at, name: self.name(), value: self.value() },
            22..26 => Call::RemoveAcl { at, name: self.name() },
            26..36 => Call::Chmod { at, mode },
            36..42 => Call::Chown { at, uid: self.pick(&IDS[1..]), gid: self.pick(&IDS) },
            42..54 => Call::Create { at, mode, umask },
            54..66 => Call::Mkdir { at, mode, umask },
            66..69 => Call::Mkfifo { at, mode, umask },
            69..71 => Call::Symlink { at },
            71..76 => Call::Rename { from: at, to: self.path() },
            76..81 => Call::Remove { at },
            _ => Call::Open { at, writes: self.chance(40) },
        }
    }

    fn path(&mut self) -> String {
        let depth = self.rng.random_range(1..4);
        let parts: Vec<&str> = (0..depth).map(|_| self.pick(&NAMES)).collect();
        parts.join("/")
    }

    fn name(&mut self) -> &'static str {
        if self.chance(50) { ACCESS } else { DEFAULT }
    }

    /// Mostly such that people come through directories.
    fn mode(&mut self) -> u32 {
        let bits =
            if self.chance(60) { self.pick(&[0o777, 0o755, 0o775, 0o666]) } else { self.rng.random_range(0..0o1000) };
        let special = if self.chance(30) { self.pick(&[0o2000, 0o4000, 0o6000, 0o1000]) } else { 0 };
        bits | special
    }

    /// An ACL, not always a good one.
    fn value(&mut self) -> Vec<u8> {
        let mut entries = vec![(1, self.bits(), NO_ID)];
        let users = [1000, 1001].map(|id| (self.chance(40), (2, self.bits(), id)));
        entries.extend(users.iter().filter(|(is_there, _)| *is_there).map(|(_, entry)| *entry));
        entries.push((4, self.bits(), NO_ID));
        let groups = IDS.map(|id| (self.chance(25), (8, self.bits(), id)));
        entries.extend(groups.iter().filter(|(is_there, _)| *is_there).map(|(_, entry)| *entry));
        let names_anybody = entries.len() > 2;
        if self.chance(if names_anybody { 95 } else { 30 }) {
            entries.push((16, self.bits(), NO_ID));
        }
        entries.push((32, self.bits(), NO_ID));
        match self.rng.random_range(0..100) {
            0..3 => entries.reverse(),
            3..5 => entries.clear(),
            5..7 => drop(entries.pop()),
            7..9 => entries.extend_from_within(..1),
            9..11 => entries.extend_from_within(1..),
            _ => {}
        }
        let mut bytes = encode(if self.chance(2) { 3 } else { 2 }, &entries);
        if self.chance(2) {
            bytes.push(0);
        }
        bytes
    }

    /// Generous: most of the time somebody may do something.
    fn bits(&mut self) -> u16 {
        if self.chance(50) { 7 } else { self.rng.random_range(0..8) }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.rng).unwrap_or(&of[0])
    }
}
