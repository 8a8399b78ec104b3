//! How often the kernel has been told of each inode: what it still holds.

use crate::ids::Ino;
use parking_lot::Mutex;
use std::collections::HashMap;

/// A power of two.
const SHARDS: usize = 64;

/// The kernel's references, by inode.
#[derive(Debug)]
pub(super) struct Lookups {
    shards: [Mutex<HashMap<Ino, u64>>; SHARDS],
}

impl Lookups {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }

    fn shard(&self, ino: Ino) -> &Mutex<HashMap<Ino, u64>> {
        // Numbers are handed out one after another: their low bits spread well.
        &self.shards[ino.0 as usize & (SHARDS - 1)]
    }

    /// An entry of `ino` goes to the kernel.
    pub(super) fn remember(&self, ino: Ino) {
        *self.shard(ino).lock().entry(ino).or_insert(0) += 1;
    }

    /// The kernel drops `count` references; with the last one `gone` is called.
    ///
    /// `gone` runs under the shard's lock: a look-up that brings the inode back must not slip between the last
    /// reference and its end, or an unlink behind it would lose a file that is open again.
    pub(super) fn forget(&self, ino: Ino, count: u64, gone: impl FnOnce(Ino)) {
        let mut shard = self.shard(ino).lock();
        let Some(held) = shard.get_mut(&ino) else { return };
        *held = held.saturating_sub(count);
        if *held == 0 {
            shard.remove(&ino);
            gone(ino);
        }
    }

    /// The kernel drops `count` references, of which some may have been handed out by an earlier process: nobody can
    /// say whether the last one is among them.
    pub(super) fn forget_some(&self, ino: Ino, count: u64) {
        let mut shard = self.shard(ino).lock();
        if let Some(held) = shard.get_mut(&ino) {
            *held = held.saturating_sub(count);
            if *held == 0 {
                shard.remove(&ino);
            }
        }
    }

    /// Calls `gone` unless this process has handed out a reference that the kernel has not dropped.
    pub(super) fn if_not_held(&self, ino: Ino, gone: impl FnOnce(Ino)) {
        let shard = self.shard(ino).lock();
        if !shard.contains_key(&ino) {
            gone(ino);
        }
    }

    /// Everything that the kernel holds now.
    pub(super) fn held(&self) -> Vec<Ino> {
        self.shards.iter().flat_map(|shard| shard.lock().keys().copied().collect::<Vec<_>>()).collect()
    }

    /// The connection is gone and with it every reference.
    pub(super) fn forget_all(&self, mut gone: impl FnMut(Ino)) {
        for shard in &self.shards {
            for (ino, _) in std::mem::take(&mut *shard.lock()) {
                gone(ino);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_inode_is_gone_exactly_when_all_its_entries_are(steps in prop::collection::vec((0_u64..80, 0_u64..4), 1..300)) {
            let (lookups, mut model) = (Lookups::new(), HashMap::<u64, u64>::new());
            for (ino, forgotten) in steps {
                if forgotten == 0 {
                    lookups.remember(Ino(ino));
                    *model.entry(ino).or_default() += 1;
                    continue;
                }
                let mut gone = Vec::new();
                lookups.forget(Ino(ino), forgotten, |ino| gone.push(ino.0));
                let held = model.get(&ino).copied().unwrap_or(0);
                let expected = if held > 0 && held <= forgotten { vec![ino] } else { vec![] };
                prop_assert_eq!(gone, expected);
                if held <= forgotten { model.remove(&ino); } else { model.insert(ino, held - forgotten); }
            }
            let mut held: Vec<u64> = lookups.held().into_iter().map(|ino| ino.0).collect();
            let mut expected: Vec<u64> = model.keys().copied().collect();
            held.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(&held, &expected);
            let mut rest = Vec::new();
            lookups.forget_all(|ino| rest.push(ino.0));
            rest.sort_unstable();
            prop_assert_eq!(rest, expected);
            prop_assert!(lookups.held().is_empty());
        }
    }
}
