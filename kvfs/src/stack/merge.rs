//! Merging tiers in key order.

use super::tier::{Found, Tier};
use crate::error::FsResult;
use crate::schema::key::Parts;
use crate::schema::{Key, Space, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// A piece of a merge.
#[derive(Debug, Default)]
pub struct Batch {
    /// Merged entries in key order: tombstones and cuts are still in.
    pub entries: Vec<Found>,
    /// Where the next piece starts; `None` at the end.
    pub next: Option<Vec<u8>>,
}

/// Merges `[from, end)` of `tiers` (newest first): the newest value of each key, without what newer tiers hide.
/// Returns about `limit` entries and where to go on.
pub fn merge_batch(tiers: &[&dyn Tier], from: &[u8], end: &[u8], limit: usize) -> FsResult<Batch> {
    let mut columns = Vec::with_capacity(tiers.len());
    let mut horizon: Option<Vec<u8>> = None;
    for (at, tier) in tiers.iter().enumerate() {
        let column = tier.collect(from, end, limit)?;
        if column.is_empty() {
            continue;
        }
        if column.len() >= limit
            && let Some((last, _)) = column.last()
        {
            let last = last.as_bytes().to_vec();
            horizon = Some(horizon.map_or(last.clone(), |h| h.min(last)));
        }
        columns.push((at, column));
    }
    let next = horizon.clone().map(|mut last| {
        last.push(0);
        last
    });
    // The usual case: one tier knows, and nothing hides a name of a directory but the same name.
    if let [(_, column)] = columns.as_mut_slice()
        && is_never_hidden(from)
    {
        return Ok(Batch { entries: std::mem::take(column), next });
    }
    let mut merged: BTreeMap<Key, super::Stamped> = BTreeMap::new();
    for (at, column) in columns {
        let above = tiers.get(..at).unwrap_or_default();
        for (key, stamped) in column {
            let beyond = horizon.as_ref().is_some_and(|h| key.as_bytes() > h.as_slice());
            if beyond || is_hidden(above, &key)? {
                continue;
            }
            merge_entry(&mut merged, key, stamped);
        }
    }
    Ok(Batch { entries: merged.into_iter().collect(), next })
}

/// Whether keys from `from` on to the end of its inode can be hidden by nothing but the same key.
fn is_never_hidden(from: &[u8]) -> bool {
    from.get(8).is_some_and(|space| *space >= Space::Dirent as u8)
}

fn is_hidden(above: &[&dyn Tier], key: &Key) -> FsResult<bool> {
    let Some(parts) = Parts::parse(key.as_bytes()) else { return Ok(false) };
    if matches!(parts.space, Space::Inode | Space::Dirent | Space::Orphan | Space::Pack | Space::PackUsers) {
        return Ok(false);
    }
    for tier in above {
        if tier.hides(&parts)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Newer tiers come first: what is there stays, but the deeper of two cuts counts.
fn merge_entry(merged: &mut BTreeMap<Key, super::Stamped>, key: Key, stamped: super::Stamped) {
    match merged.entry(key) {
        Entry::Vacant(place) => {
            place.insert(stamped);
        }
        Entry::Occupied(mut place) => {
            if let (Value::Cut(newer), Value::Cut(older)) = (&mut place.get_mut().1, &stamped.1) {
                *newer = (*newer).min(*older);
            }
        }
    }
}
