//! Live bytes of packs: which packs the snapshot uses, how much of each, and which inodes do.

use super::error::CollectError;
use super::rows::{Row, View};
use super::{DeadPack, NewPack, Pins};
use kvfs::Ino;
use kvfs::ids::PackNo;
use kvfs::schema::value::PackValue;
use kvfs::schema::{Extent, Key, PackUsersValue, Place, Space, UserRanges, Value, WindowValue};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Changes of live bytes against the base.
pub(super) struct Usage<'a> {
    view: View<'a>,
    pins: &'a Pins,
    /// Packs that orphans of this very change set read.
    orphaned: BTreeSet<PackNo>,
    delta: BTreeMap<PackNo, i64>,
    /// Inodes of changed windows by the packs that they use.
    users: BTreeMap<PackNo, UserRanges>,
}

/// What becomes of the records of packs, each in key order.
#[derive(Default)]
pub(super) struct Settled {
    pub packs: Vec<(PackNo, PackChange)>,
    /// `None`: the record goes.
    pub users: Vec<(PackNo, Option<PackUsersValue>)>,
}

/// A pack whose record changes.
pub(super) enum PackChange {
    /// It has this record now.
    Record(PackValue),
    /// Nothing uses it any more.
    Dead(DeadPack),
}

/// Pack and bytes of an extent that lies in a pack.
pub(super) fn frame_use(extent: &Extent) -> Option<(PackNo, u32)> {
    match &extent.place {
        Place::Frame { frame, .. } => Some((frame.pack, extent.len)),
        _ => None,
    }
}

impl<'a> Usage<'a> {
    pub fn new(view: View<'a>, pins: &'a Pins) -> Self {
        Self { view, pins, orphaned: BTreeSet::new(), delta: BTreeMap::new(), users: BTreeMap::new() }
    }

    /// `bytes` of `pack` are used (once more) by the snapshot, by `ino`. The only way in which a pack gains users.
    pub fn add(&mut self, ino: Ino, pack: PackNo, bytes: u32) {
        *self.delta.entry(pack).or_default() += i64::from(bytes);
        self.users.entry(pack).or_default().insert(ino);
    }

    /// A window of the base is not part of the snapshot.
    pub fn drop_window(&mut self, window: &WindowValue) {
        for (pack, bytes) in window.extents.iter().filter_map(frame_use) {
            *self.delta.entry(pack).or_default() -= i64::from(bytes);
        }
    }

    /// The base's value of a window, if any, is replaced.
    pub fn replace(&mut self, key: &Key) -> Result<(), CollectError> {
        if let Some(value) = self.view.base_get(key)?
            && let Value::Window(window) = super::rows::decode(key.as_bytes(), &value)?.1
        {
            self.drop_window(&window);
        }
        Ok(())
    }

    /// An orphan reads the packs of this window although the snapshot does not.
    pub fn pin(&mut self, window: &WindowValue) {
        self.orphaned.extend(window.extents.iter().filter_map(frame_use).map(|(pack, _)| pack));
    }

    /// The windows of `ino` in the base from `first` on: `visit` says what becomes of each.
    pub fn each_in_base(
        &mut self,
        ino: Ino,
        first: u64,
        mut visit: impl FnMut(&mut Self, u64, WindowValue),
    ) -> Result<(), CollectError> {
        let mut rows = self.view.in_base(Key::window(ino, first), Key::end_of(ino, Space::Window));
        while let Some(row) = rows.next()? {
            if let Some((number, window)) = as_window(&row)? {
                visit(self, number, window);
            }
        }
        Ok(())
    }

    /// What becomes of the packs' records, in key order. A pack without a user keeps its record until a snapshot has told
    /// that it is dead: as long as an orphan holds it, and as long as there are more than one snapshot can tell of.
    pub fn settle(mut self, new: &[NewPack], dead_max: usize) -> Result<Settled, CollectError> {
        let first_new = new.first().map_or(PackNo(u64::MAX), |pack| pack.summary.number);
        let mut old = self.unused_in_base()?;
        for (&number, &delta) in self.delta.range(..first_new).filter(|(_, delta)| **delta != 0) {
            if let Some(value) = self.settle_old(number, delta)? {
                old.insert(number, (value, Recorded::Now));
            }
        }
        let (mut settled, mut dead) = (Settled::default(), 0);
        for (number, (value, recorded)) in old {
            let held = self.pins.held.contains(&number) || self.orphaned.contains(&number);
            if value.live == 0 && !held && dead < dead_max {
                dead += 1;
                settled.packs.push((number, PackChange::Dead(DeadPack { number, object: value.object })));
                settled.users.extend(self.recorded_users(number)?.map(|_| (number, None)));
                self.users.remove(&number);
            } else if recorded == Recorded::Now {
                settled.packs.push((number, PackChange::Record(value)));
                settled.users.extend(self.more_users(number)?.map(|users| (number, Some(users))));
            }
        }
        for pack in new {
            let live = self.delta.get(&pack.summary.number).copied().unwrap_or(0).max(0) as u64;
            let (size, raw) = (pack.summary.size, pack.summary.raw);
            let value = PackValue { object: pack.object.clone(), size, live, raw };
            settled.packs.push((pack.summary.number, PackChange::Record(value)));
            let users = self.users.remove(&pack.summary.number).unwrap_or_default();
            settled.users.push((pack.summary.number, Some(PackUsersValue::new(live, users))));
        }
        // Bytes that went from one file to another: as many are in use as before.
        for number in self.users.keys().copied().collect::<Vec<_>>() {
            settled.users.extend(self.more_users(number)?.map(|users| (number, Some(users))));
        }
        settled.users.sort_unstable_by_key(|(number, _)| *number);
        Ok(settled)
    }

    /// The users of a pack of the base with those that it gained, if it gained any; a pack of a version that did not write
    /// them down has none.
    fn more_users(&mut self, number: PackNo) -> Result<Option<PackUsersValue>, CollectError> {
        let Some(mut users) = self.users.remove(&number) else { return Ok(None) };
        let Some(old) = self.recorded_users(number)? else { return Ok(None) };
        users.extend(&old);
        let all = PackUsersValue::new(old.live, users);
        Ok(Some(all).filter(|all| *all != old))
    }

    fn recorded_users(&self, number: PackNo) -> Result<Option<PackUsersValue>, CollectError> {
        let key = Key::pack_users(number);
        match self.view.base_get(&key)? {
            Some(value) => match super::rows::decode(key.as_bytes(), &value)?.1 {
                Value::PackUsers(users) => Ok(Some(users)),
                _ => Ok(None),
            },
            None => Ok(None),
        }
    }

    /// Packs that the base knows to be without a user. Their records are few: one for each pack, at the end of the keys.
    fn unused_in_base(&self) -> Result<BTreeMap<PackNo, (PackValue, Recorded)>, CollectError> {
        let mut unused = BTreeMap::new();
        let mut rows = self.view.in_base(Key::pack(PackNo(0)), Key::pack(PackNo(u64::MAX)));
        while let Some(row) = rows.next()? {
            if let (Some(number), Value::Pack(pack)) = (row.parts()?.number(), row.decode()?.1)
                && pack.live == 0
            {
                unused.insert(PackNo(number), (pack, Recorded::Before));
            }
        }
        Ok(unused)
    }

    /// The record of a pack of the base after the change.
    fn settle_old(&self, number: PackNo, delta: i64) -> Result<Option<PackValue>, CollectError> {
        let key = Key::pack(number);
        let old = match self.view.base_get(&key)? {
            Some(value) => super::rows::decode(key.as_bytes(), &value)?.1,
            None => Value::Tombstone,
        };
        let Value::Pack(old) = old else {
            // Only the bookkeeping is lost; the worst outcome is a pack that is kept for ever.
            tracing::warn!(pack = number.0, "the base has no record of a pack that its files use");
            return Ok(None);
        };
        let Some(live) = old.live.checked_add_signed(delta) else {
            tracing::warn!(pack = number.0, live = old.live, delta, "live bytes of a pack would be negative");
            return Ok(None);
        };
        Ok(Some(PackValue { live, ..old }))
    }
}

/// Whether the record of a pack is in the base as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    Before,
    Now,
}

/// Number and value of a window row that is not a tombstone.
pub(super) fn as_window(row: &Row) -> Result<Option<(u64, WindowValue)>, CollectError> {
    let number = row.parts()?.number().unwrap_or_default();
    match row.decode()?.1 {
        Value::Window(window) => Ok(Some((number, Arc::unwrap_or_clone(window)))),
        _ => Ok(None),
    }
}
