//! What the proxy holds, in memory: sizes, pins, order of use. Touches no disk.

use super::ProxyError;
use lru::LruCache;
use std::collections::HashMap;
use std::sync::Arc;

/// A part of an object that is one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// One chunk of it.
    Chunk(u32),
}

/// A file that may be evicted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Loose {
    pub(super) object: Arc<str>,
    pub(super) part: Part,
}

/// Why a file may not be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pin {
    /// Not in the bucket yet.
    Staged,
    /// Wanted locally.
    Kept,
}

#[derive(Debug)]
pub(super) struct Index {
    max: u64,
    pinned: HashMap<Arc<str>, (Pin, u64)>,
    loose: LruCache<Loose, u64>,
    pinned_bytes: u64,
    loose_bytes: u64,
    /// Promised to files that are being written.
    reserved_bytes: u64,
}

impl Index {
    pub(super) fn new(max: u64) -> Self {
        Self {
            max,
            pinned: HashMap::new(),
            loose: LruCache::unbounded(),
            pinned_bytes: 0,
            loose_bytes: 0,
            reserved_bytes: 0,
        }
    }

    /// `(pinned, loose, reserved)` bytes.
    pub(super) fn bytes(&self) -> (u64, u64, u64) {
        (self.pinned_bytes, self.loose_bytes, self.reserved_bytes)
    }

    /// Promises `bytes`. The answer lists the files that had to be given up, least recently used first: they are out of
    /// the index already, and the caller removes them before it writes.
    pub(super) fn reserve(&mut self, bytes: u64) -> Result<Vec<Loose>, ProxyError> {
        let taken = self.pinned_bytes + self.reserved_bytes;
        let free = self.max.saturating_sub(taken);
        if bytes > free {
            return Err(ProxyError::Full { needed: bytes, free, max: self.max });
        }
        self.reserved_bytes += bytes;
        Ok(self.shrink())
    }

    /// Gives up loose files until everything fits.
    pub(super) fn shrink(&mut self) -> Vec<Loose> {
        let mut victims = Vec::new();
        while self.pinned_bytes + self.reserved_bytes + self.loose_bytes > self.max {
            let Some((victim, len)) = self.loose.pop_lru() else { break };
            self.loose_bytes -= len;
            victims.push(victim);
        }
        victims
    }

    /// Gives up loose files of `bytes` in all, if there are so many.
    pub(super) fn give_up(&mut self, bytes: u64) -> Vec<Loose> {
        let (mut victims, mut given) = (Vec::new(), 0);
        while given < bytes {
            let Some((victim, len)) = self.loose.pop_lru() else { break };
            self.loose_bytes -= len;
            given += len;
            victims.push(victim);
        }
        victims
    }

    /// Takes a promise back: the file is written (and added), or given up.
    pub(super) fn unreserve(&mut self, bytes: u64) {
        self.reserved_bytes = self.reserved_bytes.saturating_sub(bytes);
    }

    pub(super) fn add_loose(&mut self, file: Loose, len: u64) {
        self.remove_loose(&file);
        self.loose_bytes += len;
        self.loose.put(file, len);
    }

    pub(super) fn remove_loose(&mut self, file: &Loose) -> Option<u64> {
        let len = self.loose.pop(file)?;
        self.loose_bytes -= len;
        Some(len)
    }

    /// Marks as just used; the length, if it is there.
    pub(super) fn touch(&mut self, file: &Loose) -> Option<u64> {
        self.loose.get(file).copied()
    }

    pub(super) fn add_pinned(&mut self, object: Arc<str>, pin: Pin, len: u64) {
        self.remove_pinned(&object);
        self.pinned_bytes += len;
        self.pinned.insert(object, (pin, len));
    }

    pub(super) fn remove_pinned(&mut self, object: &str) -> Option<(Pin, u64)> {
        let (pin, len) = self.pinned.remove(object)?;
        self.pinned_bytes -= len;
        Some((pin, len))
    }

    pub(super) fn pinned(&self, object: &str) -> Option<(Pin, u64)> {
        self.pinned.get(object).copied()
    }

    /// All objects with this pin, sorted by name.
    pub(super) fn all_pinned(&self, pin: Pin) -> Vec<(Arc<str>, u64)> {
        let found = self.pinned.iter().filter(|(_, (p, _))| *p == pin);
        let mut objects: Vec<_> = found.map(|(object, (_, len))| (Arc::clone(object), *len)).collect();
        objects.sort();
        objects
    }
}
