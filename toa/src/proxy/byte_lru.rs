//! A map that forgets what was used longest ago once its values exceed a number of bytes.

use lru::LruCache;
use std::hash::Hash;

/// Least-recently-used cache with a limit in bytes. A value larger than the limit is not kept at all.
#[derive(Debug)]
pub struct ByteLru<K: Hash + Eq, V> {
    entries: LruCache<K, (V, usize)>,
    bytes: usize,
    bytes_max: usize,
}

impl<K: Hash + Eq, V: Clone> ByteLru<K, V> {
    /// An empty cache of at most `bytes_max` bytes of values.
    pub fn new(bytes_max: usize) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    /// The value of `key`, which becomes the most recently used.
    pub fn get(&mut self, key: &K) -> Option<V> {
        self.entries.get(key).map(|(value, _)| value.clone())
    }

    /// Puts a value that takes `bytes`, and forgets others until it fits.
    pub fn put(&mut self, key: K, value: V, bytes: usize) {
        self.remove(&key);
        if bytes > self.bytes_max {
            return;
        }
        self.bytes += bytes;
        self.entries.put(key, (value, bytes));
        while self.bytes > self.bytes_max {
            let Some((_, (_, bytes))) = self.entries.pop_lru() else { break };
            self.bytes -= bytes;
        }
    }

    /// Forgets `key`.
    pub fn remove(&mut self, key: &K) {
        if let Some((_, bytes)) = self.entries.pop(key) {
            self.bytes -= bytes;
        }
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
