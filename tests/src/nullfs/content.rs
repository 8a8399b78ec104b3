//! The bytes of a sparse file in memory.

use bytes::{Bytes, BytesMut};
use kvfs::fs::api::SeekTarget;
use std::collections::BTreeMap;

/// The grain of holes.
pub(super) const CHUNK_BYTES: u64 = 64 << 10;

/// A sparse file: chunks that were written, and a length. Bytes beyond the length are always zero.
#[derive(Default)]
pub(super) struct Content {
    chunks: BTreeMap<u64, Box<[u8]>>,
    len: u64,
}

/// A part of one chunk: the chunk, from where, how long.
fn pieces(offset: u64, end: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut at = offset;
    std::iter::from_fn(move || {
        let (chunk, start) = (at / CHUNK_BYTES, at % CHUNK_BYTES);
        let len = (CHUNK_BYTES - start).min(end.checked_sub(at).filter(|rest| *rest > 0)?);
        at += len;
        Some((chunk, start as usize, len as usize))
    })
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes in chunks.
    pub(super) fn stored(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK_BYTES
    }

    pub(super) fn read(&self, offset: u64, len: u32) -> Bytes {
        let end = offset.saturating_add(u64::from(len)).min(self.len);
        let mut out = BytesMut::with_capacity(end.saturating_sub(offset) as usize);
        for (chunk, start, len) in pieces(offset, end) {
            match self.chunks.get(&chunk).and_then(|bytes| bytes.get(start..start + len)) {
                Some(bytes) => out.extend_from_slice(bytes),
                None => out.resize(out.len() + len, 0),
            }
        }
        out.freeze()
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let end = offset.saturating_add(data.len() as u64);
        let mut rest = data;
        for (chunk, start, len) in pieces(offset, end) {
            let (now, later) = rest.split_at(len.min(rest.len()));
            rest = later;
            let bytes = self.chunks.entry(chunk).or_insert_with(|| vec![0; CHUNK_BYTES as usize].into());
            if let Some(place) = bytes.get_mut(start..start + len) {
                place.copy_from_slice(now);
            }
        }
        if !data.is_empty() {
            self.len = self.len.max(end);
        }
    }

    /// Makes `[offset, end)` zeros; whole chunks become holes.
    pub(super) fn erase(&mut self, offset: u64, end: u64) {
        let end = end.min(self.chunks.last_key_value().map_or(0, |(chunk, _)| (chunk + 1) * CHUNK_BYTES));
        for (chunk, start, len) in pieces(offset, end) {
            if len as u64 == CHUNK_BYTES {
                self.chunks.remove(&chunk);
            } else if let Some(place) = self.chunks.get_mut(&chunk).and_then(|bytes| bytes.get_mut(start..start + len))
            {
                place.fill(0);
            }
        }
    }

    pub(super) fn resize(&mut self, len: u64) {
        if len < self.len {
            self.erase(len, self.len.next_multiple_of(CHUNK_BYTES));
            self.chunks.split_off(&len.div_ceil(CHUNK_BYTES));
        }
        self.len = len;
    }

    /// `None` is ENXIO.
    pub(super) fn seek(&self, offset: u64, target: SeekTarget) -> Option<u64> {
        if offset >= self.len {
            return None;
        }
        let (first, end) = (offset / CHUNK_BYTES, self.len.div_ceil(CHUNK_BYTES));
        let found = match target {
            SeekTarget::Data => *self.chunks.range(first..).next()?.0,
            SeekTarget::Hole => (first..end).find(|chunk| !self.chunks.contains_key(chunk)).unwrap_or(end),
        };
        let at = (found * CHUNK_BYTES).max(offset);
        match target {
            SeekTarget::Data => Some(at).filter(|at| *at < self.len),
            SeekTarget::Hole => Some(at.min(self.len)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_file_reads_as_a_flat_one() {
        let (mut content, mut flat) = (Content::default(), Vec::new());
        for (offset, len) in [(3_u64, 10_usize), (200_000, 70_000), (65_530, 12), (0, 1)] {
            let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8 + 1).collect();
            content.write(offset, &data);
            flat.resize(flat.len().max(offset as usize + len), 0);
            flat[offset as usize..offset as usize + len].copy_from_slice(&data);
        }
        content.erase(66_000, 140_000);
        flat[66_000..140_000].fill(0);
        content.resize(220_000);
        content.resize(300_000);
        flat.truncate(220_000);
        flat.resize(300_000, 0);
        assert_eq!(&content.read(0, 1 << 20)[..], &flat[..]);
        assert_eq!(content.seek(0, SeekTarget::Hole), Some(2 * CHUNK_BYTES));
        assert_eq!(content.seek(2 * CHUNK_BYTES, SeekTarget::Data), Some(3 * CHUNK_BYTES));
        assert_eq!(content.seek(299_999, SeekTarget::Data), None);
        assert_eq!(content.seek(299_999, SeekTarget::Hole), Some(299_999));
    }
}
