//! Drawing steps. Names are few and files small, so that steps meet each other.

use super::action::{Action, Stamp, Step, User};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rustix::fs::{AtFlags, FallocateFlags, FileType, OFlags, RenameFlags, XattrFlags};

/// Open files.
pub const SLOTS: usize = 6;

/// A reproducible source of steps.
pub struct Draw {
    rng: StdRng,
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "\u{fc}nicode \n"];
const XATTRS: [&str; 6] = ["user.one", "user.two", "trusted.x", "security.x", "system.x", "nonsense"];
/// None has sgid without the group's x: see docs/semantics.md.
const MODES: [u32; 12] = [0o644, 0o755, 0o600, 0o777, 0o000, 0o111, 0o1777, 0o2775, 0o2755, 0o4755, 0o6777, 0o4644];
const STAMPS: [(i64, i64); 7] = [
    (-1, 999_999_999),
    (-2, 500_000_000),
    (-1_000_000_000, 1),
    (0, 0),
    (1_000_000_000, 123_456_789),
    (2_147_483_648 - 1_000_000_000, 5),
    (4_102_444_800, 7),
];

impl Draw {
    /// The same seed gives the same steps.
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed) }
    }

    /// The next one.
    pub fn step(&mut self) -> Step {
        let user = match self.rng.random_range(0..10) {
            0 | 1 => User::Plain(1000),
            2 => User::Plain(1001),
            _ => User::Root,
        };
        let mut action = self.action();
        if let (User::Plain(_), Action::Chown { uid, gid: None, .. }) = (user, &mut action) {
            // chown(2) of nobody by a stranger: FUSE does not pass it as what it is, see docs/semantics.md.
            uid.get_or_insert(0);
        }
        Step { user, action }
    }

    fn action(&mut self) -> Action {
        match self.rng.random_range(0..100) {
            0..30 => self.name_action(),
            30..55 => self.attribute_action(),
            _ => self.content_action(),
        }
    }

    fn name_action(&mut self) -> Action {
        let at = self.path();
        match self.rng.random_range(0..30) {
            0..5 => Action::Mkdir { at, mode: self.mode() },
            5..7 => {
                let kinds = [FileType::Fifo, FileType::Socket, FileType::CharacterDevice, FileType::RegularFile];
                Action::Mknod { at, kind: self.pick(&kinds), mode: self.mode() }
            }
            7..9 => {
                // None leads out of the tree: both sides would meet there.
                let targets = ["a", "b/c", "d", "nowhere/at all", "a/b/c", "."];
                Action::Symlink { at, target: self.pick(&targets).into() }
            }
            9..13 => {
                let flags = self.pick(&[AtFlags::empty(), AtFlags::empty(), AtFlags::SYMLINK_FOLLOW]);
                Action::Link { from: at, to: self.path(), flags }
            }
            13..18 => Action::Unlink { at },
            18..21 => Action::Rmdir { at },
            _ => {
                let flags = [
                    RenameFlags::empty(),
                    RenameFlags::empty(),
                    RenameFlags::empty(),
                    RenameFlags::NOREPLACE,
                    RenameFlags::EXCHANGE,
                    RenameFlags::EXCHANGE | RenameFlags::NOREPLACE,
                ];
                Action::Rename { from: at, to: self.path(), flags: self.pick(&flags) }
            }
        }
    }

    fn attribute_action(&mut self) -> Action {
        let at = self.path();
        let follow = self.pick(&[AtFlags::empty(), AtFlags::SYMLINK_NOFOLLOW]);
        let name = self.pick(&XATTRS);
        match self.rng.random_range(0..40) {
            0..5 => Action::Stat { at, flags: follow },
            5..7 => Action::ReadLink { at },
            7..10 => Action::List { at },
            10..12 => Action::Access { at, mode: self.rng.random_range(0..8) },
            12..17 => Action::Chmod { at, mode: self.mode() },
            17..22 => {
                let ids = [None, Some(0), Some(1000), Some(1001), Some(4_000_000_000)];
                Action::Chown { at, uid: self.pick(&ids), gid: self.pick(&ids), flags: follow }
            }
            22..28 => Action::Times { at, atime: self.stamp(), mtime: self.stamp(), flags: follow },
            28..32 => {
                let flags = self.pick(&[XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE]);
                Action::SetXattr { at, name, len: self.pick(&[0, 1, 40, 300]), flags }
            }
            32..35 => Action::GetXattr { at, name, room: self.pick(&[0, 20, 1000]) },
            35..37 => Action::ListXattrs { at },
            _ => Action::RemoveXattr { at, name },
        }
    }

    fn content_action(&mut self) -> Action {
        let slot = self.slot();
        let offset = self.offset();
        match self.rng.random_range(0..50) {
            0..12 => self.open(slot),
            12..14 => Action::Close { slot },
            14..22 => Action::Write { slot, offset, len: self.len() as usize, fill: self.rng.random() },
            22..27 => Action::Read { slot, offset, len: self.len() as usize },
            27..30 => Action::Truncate { slot, len: offset },
            30..36 => {
                let flags = [
                    FallocateFlags::empty(),
                    FallocateFlags::KEEP_SIZE,
                    FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    FallocateFlags::ZERO_RANGE,
                    FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
                    FallocateFlags::PUNCH_HOLE,
                ];
                Action::Allocate { slot, flags: self.pick(&flags), offset, len: self.len() }
            }
            36..41 => {
                let to = (self.slot(), self.offset());
                Action::CopyRange { from: (slot, offset), to, len: self.len() as usize }
            }
            41..43 => Action::Fstat { slot },
            43 => Action::Fsync { slot },
            44 => Action::Fchmod { slot, mode: self.mode() },
            45..48 => Action::Ftimes { slot, atime: self.stamp(), mtime: self.stamp() },
            _ => Action::Seek { slot, offset },
        }
    }

    fn open(&mut self, slot: usize) -> Action {
        let access = self.pick(&[OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR, OFlags::RDWR, OFlags::RDWR]);
        let mut flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        for (flag, one_in) in [
            (OFlags::CREATE, 2),
            (OFlags::EXCL, 6),
            (OFlags::TRUNC, 8),
            (OFlags::APPEND, 6),
            (OFlags::NOFOLLOW, 8),
            (OFlags::DIRECTORY, 20),
        ] {
            if self.rng.random_ratio(1, one_in) {
                flags |= flag;
            }
        }
        Action::Open { slot, at: self.path(), flags, mode: self.mode() }
    }

    fn path(&mut self) -> String {
        let depth = self.pick(&[1, 1, 2, 2, 2, 3]);
        let mut parts: Vec<String> = (0..depth).map(|_| self.pick(&NAMES).to_owned()).collect();
        match self.rng.random_range(0..60) {
            0 => parts.push(String::new()),
            1 => parts.push(".".into()),
            2 => parts.push("..".into()),
            3 => parts.push("n".repeat(255)),
            4 => parts.push("n".repeat(256)),
            _ => {}
        }
        parts.join("/")
    }

    /// Around the borders of windows (1 MiB) and blocks.
    fn offset(&mut self) -> u64 {
        match self.rng.random_range(0..6) {
            0 | 1 => self.rng.random_range(0..20_000),
            2 => self.rng.random_range(0..5) * 4096,
            3 | 4 => self.rng.random_range(1_040_000..1_060_000),
            _ => self.rng.random_range(0..2_200_000),
        }
    }

    fn len(&mut self) -> u64 {
        match self.rng.random_range(0..8) {
            0 => 0,
            1..4 => self.rng.random_range(1..2_000),
            4 => 4096 * self.rng.random_range(1..6),
            5 | 6 => self.rng.random_range(10_000..40_000),
            _ => self.rng.random_range(100_000..1_100_000),
        }
    }

    fn slot(&mut self) -> usize {
        self.rng.random_range(0..SLOTS)
    }

    fn mode(&mut self) -> u32 {
        self.pick(&MODES)
    }

    fn stamp(&mut self) -> Stamp {
        match self.rng.random_range(0..6) {
            0 => Stamp::Now,
            1 => Stamp::Omit,
            _ => {
                let (secs, nanos) = self.pick(&STAMPS);
                Stamp::At(secs, nanos)
            }
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.choose(&mut self.rng).unwrap_or(&from[0])
    }
}
