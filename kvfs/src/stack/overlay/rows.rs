//! What memory has of one inode: its rows in key order.
//!
//! Most inodes have two or three rows, a few have a million. A short sorted list serves the first kind, a tree the
//! second; the inode's own record, which nearly every operation asks for, stands apart.

use crate::schema::Space;
use crate::stack::Stamped;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::mem;
use std::ops::Bound;

/// A key behind its inode number: space and rest. Names up to 23 bytes need no memory of their own.
pub(super) type Tail = SmallVec<[u8; 24]>;

/// Longer lists become trees.
const LIST_MAX: usize = 16;
const INODE_TAIL: &[u8] = &[Space::Inode as u8];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rows {
    inode: Option<Stamped>,
    others: Others,
}

#[derive(Debug)]
enum Others {
    Few(Vec<(Tail, Stamped)>),
    Many(BTreeMap<Tail, Stamped>),
}

impl Default for Others {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Rows {
    pub(super) fn get(&self, tail: &[u8]) -> Option<&Stamped> {
        if tail == INODE_TAIL {
            return self.inode.as_ref();
        }
        match &self.others {
            Others::Few(list) => list.get(position(list, tail).ok()?).map(|(_, stamped)| stamped),
            Others::Many(tree) => tree.get(tail),
        }
    }

    pub(super) fn get_mut(&mut self, tail: &[u8]) -> Option<&mut Stamped> {
        if tail == INODE_TAIL {
            return self.inode.as_mut();
        }
        match &mut self.others {
            Others::Few(list) => {
                let at = position(list, tail).ok()?;
                list.get_mut(at).map(|(_, stamped)| stamped)
            }
            Others::Many(tree) => tree.get_mut(tail),
        }
    }

    /// Puts a row; answers with the one that it replaces.
    pub(super) fn insert(&mut self, tail: &[u8], stamped: Stamped) -> Option<Stamped> {
        if tail == INODE_TAIL {
            return self.inode.replace(stamped);
        }
        if let Others::Few(list) = &mut self.others {
            match position(list, tail) {
                Ok(at) => return list.get_mut(at).map(|(_, old)| mem::replace(old, stamped)),
                Err(at) if list.len() < LIST_MAX => {
                    list.insert(at, (Tail::from_slice(tail), stamped));
                    return None;
                }
                Err(_) => self.others = Others::Many(mem::take(list).into_iter().collect()),
            }
        }
        match &mut self.others {
            Others::Many(tree) => tree.insert(Tail::from_slice(tail), stamped),
            Others::Few(_) => None,
        }
    }

    /// Takes the rows of `[from, end)` out.
    pub(super) fn remove_range(&mut self, from: &[u8], end: &[u8]) -> Vec<(Tail, Stamped)> {
        let within = |tail: &[u8]| from <= tail && tail < end;
        let mut removed = Vec::new();
        if within(INODE_TAIL) {
            removed.extend(self.inode.take().map(|inode| (Tail::from_slice(INODE_TAIL), inode)));
        }
        match &mut self.others {
            Others::Few(list) => removed.extend(list.extract_if(.., |(tail, _)| within(tail))),
            Others::Many(tree) => {
                let range = (Bound::Included(from), Bound::Excluded(end));
                let doomed: Vec<Tail> = tree.range::<[u8], _>(range).map(|(tail, _)| tail.clone()).collect();
                removed.extend(doomed.into_iter().filter_map(|tail| tree.remove_entry(&tail)));
            }
        }
        removed
    }

    /// The rows of `[from, end)` in order; no `end` is all of them.
    pub(super) fn range<'r>(
        &'r self,
        from: &'r [u8],
        end: Option<&'r [u8]>,
    ) -> impl Iterator<Item = (&'r [u8], &'r Stamped)> {
        let within = move |tail: &[u8]| end.is_none_or(|end| tail < end);
        let inode = self.inode.as_ref().filter(|_| from <= INODE_TAIL && within(INODE_TAIL));
        let (list, tree) = match &self.others {
            Others::Few(list) => {
                let first = list.partition_point(|(tail, _)| tail.as_slice() < from);
                (Some(list.iter().skip(first).map(|(tail, stamped)| (tail.as_slice(), stamped))), None)
            }
            Others::Many(tree) => {
                let rows = tree.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
                (None, Some(rows.map(|(tail, stamped)| (tail.as_slice(), stamped))))
            }
        };
        let others = list.into_iter().flatten().chain(tree.into_iter().flatten());
        inode.map(|inode| (INODE_TAIL, inode)).into_iter().chain(others.take_while(move |(tail, _)| within(tail)))
    }
}

fn position(list: &[(Tail, Stamped)], tail: &[u8]) -> Result<usize, usize> {
    list.binary_search_by(|(other, _)| other.as_slice().cmp(tail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Xid;
    use crate::schema::Value;
    use proptest::prelude::*;

    fn tail() -> impl Strategy<Value = Vec<u8>> {
        let name = prop::collection::vec(0u8..3, 1..4);
        prop_oneof![1 => Just(INODE_TAIL.to_vec()), 4 => name.prop_map(|name| [&[Space::Dirent as u8], &name[..]].concat())]
    }

    proptest! {
        #[test]
        fn rows_are_a_sorted_map(steps in prop::collection::vec((tail(), tail(), 0u8..8), 1..120)) {
            let (mut rows, mut model) = (Rows::default(), BTreeMap::<Vec<u8>, u64>::new());
            for (n, (from, end, what)) in steps.into_iter().enumerate() {
                if what == 0 && from <= end {
                    let mut doomed: Vec<_> = model.range(from.clone()..end.clone()).map(|(k, v)| (k.clone(), *v)).collect();
                    model.retain(|key, _| !doomed.iter().any(|(gone, _)| gone == key));
                    let mut gone: Vec<_> =
                        rows.remove_range(&from, &end).into_iter().map(|(k, (x, _))| (k.to_vec(), x.0)).collect();
                    gone.sort();
                    doomed.sort();
                    prop_assert_eq!(gone, doomed);
                } else {
                    let old = rows.insert(&from, (Xid(n as u64), Value::Orphan)).map(|(xid, _)| xid.0);
                    prop_assert_eq!(old, model.insert(from.clone(), n as u64));
                }
                prop_assert_eq!(rows.get(&end).map(|(xid, _)| xid.0), model.get(&end).copied());
                prop_assert_eq!(rows.get_mut(&end).map(|(xid, _)| xid.0), model.get(&end).copied());
                let shown: Vec<_> = rows.range(&from, Some(&end)).map(|(k, (x, _))| (k.to_vec(), x.0)).collect();
                let expected: Vec<_> =
                    model.iter().filter(|(k, _)| **k >= from && **k < end).map(|(k, v)| (k.clone(), *v)).collect();
                prop_assert_eq!(shown, expected);
                prop_assert_eq!(rows.range(&[], None).count(), model.len());
            }
        }
    }
}
