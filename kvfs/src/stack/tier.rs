//! What the stack asks of a tier.

use super::Stamped;
use crate::base::Base;
use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::layer::Layer;
use crate::schema::key::Parts;
use crate::schema::{Key, Space, Value};
use std::fmt;
use std::ops::ControlFlow;

/// A key with what a tier holds for it.
pub type Found = (Key, Stamped);

/// One tier: sorted keys with values, tombstones and cuts.
pub trait Tier: Sync {
    /// What this tier says of `key`; `None` if nothing.
    fn find(&self, key: &Key) -> FsResult<Option<Stamped>>;
    /// At most `limit` entries of `[from, end)` in order.
    fn collect(&self, from: &[u8], end: &[u8], limit: usize) -> FsResult<Vec<Found>>;

    /// Whether this tier has anything that hides: a cheap answer for most tiers.
    fn hides_any(&self) -> bool;

    /// Whether this tier hides what tiers below say of the key.
    fn hides(&self, parts: &Parts<'_>) -> FsResult<bool> {
        if !self.hides_any() || !matches!(parts.space, Space::Window | Space::Xattr | Space::Cut) {
            return Ok(false);
        }
        if let (Space::Window, Some(window)) = (parts.space, parts.number())
            && let Some((_, Value::Cut(first))) = self.find(&Key::cut(parts.ino))?
            && window >= first
        {
            return Ok(true);
        }
        Ok(matches!(self.find(&Key::inode(parts.ino))?, Some((_, Value::Tombstone))))
    }
}

/// Decodes an entry of a durable tier.
pub(crate) fn decode(origin: &dyn fmt::Display, value: &[u8]) -> FsResult<Stamped> {
    Value::decode(value).map_err(|error| FsError::corrupt(format!("{origin}: {error}")))
}

fn entry(origin: &str, key: &[u8], value: &[u8]) -> FsResult<Found> {
    let key = Key::from_bytes(key).ok_or_else(|| FsError::corrupt(format!("{origin}: a key of no known kind")))?;
    Ok((key, decode(&origin, value)?))
}

impl Tier for Layer {
    fn hides_any(&self) -> bool {
        self.is_hiding()
    }

    fn find(&self, key: &Key) -> FsResult<Option<Stamped>> {
        self.read(key.as_bytes(), |bytes| decode(&self.path().display(), bytes))?.transpose()
    }

    fn collect(&self, from: &[u8], end: &[u8], limit: usize) -> FsResult<Vec<Found>> {
        gather("a layer", limit, |visit| self.scan(from, end, visit))
    }
}

/// The base as a tier: it holds live values only and hides nothing.
pub struct BaseTier<'b>(pub &'b dyn Base);

impl BaseTier<'_> {
    /// See [`Base::ino_end`].
    pub fn ino_end(&self) -> Ino {
        self.0.ino_end()
    }
}

impl Tier for BaseTier<'_> {
    fn find(&self, key: &Key) -> FsResult<Option<Stamped>> {
        let found = self.0.get(key.as_bytes())?;
        found.map(|bytes| decode(&"the base snapshot", &bytes)).transpose()
    }

    fn collect(&self, from: &[u8], end: &[u8], limit: usize) -> FsResult<Vec<Found>> {
        gather("the base snapshot", limit, |visit| Ok(self.0.scan(from, end, visit)?))
    }

    fn hides_any(&self) -> bool {
        false
    }
}

fn gather(
    origin: &str,
    limit: usize,
    scan: impl FnOnce(&mut crate::base::Visit<'_>) -> FsResult<()>,
) -> FsResult<Vec<Found>> {
    let mut found = Vec::new();
    let mut problem = None;
    scan(&mut |key, value| match entry(origin, key, value) {
        Ok(row) => {
            found.push(row);
            if found.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
        Err(error) => {
            problem = Some(error);
            ControlFlow::Break(())
        }
    })?;
    problem.map_or(Ok(found), Err)
}
