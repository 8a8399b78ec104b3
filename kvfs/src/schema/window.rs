//! The extents of one window of a file.
//!
//! A window is 1 MiB of a file and the unit of change: a value lists all its extents, so that tiers merge by key alone
//! and interval arithmetic never crosses a window. A data frame of a pack holds exactly one window of a big file.

use crate::ids::{PackNo, SegmentNo};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Bytes of a file that one window covers.
pub const WINDOW_BYTES: u64 = 1 << 20;

/// Neighbouring inline bytes become one extent up to this length: small appends must not make long lists.
const JOINED_INLINE_BYTES_MAX: usize = 32 << 10;

/// Bytes in a local data segment, as written in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// The segment.
    pub segment: SegmentNo,
    /// Where it starts in the segment, bytes.
    pub offset: u32,
    /// Its length, bytes.
    pub len: u32,
    /// crc32c of all of it.
    pub crc: u32,
}

/// One frame of a pack in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FrameRef {
    /// The pack; its `pack n` record names the object.
    pub pack: PackNo,
    /// Where the compressed frame starts in the object, bytes.
    pub offset: u64,
    /// Compressed length, bytes.
    pub stored_len: u32,
    /// Decompressed length, bytes; at most 16 MiB.
    pub raw_len: u32,
    /// BLAKE3 of the compressed bytes, first 128 bits; checked before anything is decompressed.
    pub hash: [u8; 16],
}

/// Where the bytes of an extent are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Right here (small).
    Inline(Bytes),
    /// In a local data segment, `within` bytes into the blob. Never leaves this machine.
    Segment {
        /// The blob.
        blob: BlobRef,
        /// First byte of the extent in the blob.
        within: u32,
    },
    /// In a pack, `within` bytes into the decompressed frame.
    Frame {
        /// The frame.
        frame: FrameRef,
        /// First byte of the extent in the decompressed frame.
        within: u32,
    },
}

/// A run of bytes within a window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Offset in the window, bytes.
    pub start: u32,
    /// Length, bytes; never 0.
    pub len: u32,
    /// The bytes.
    pub place: Place,
}

/// All extents of a window: ordered, not overlapping; what is between them is a hole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowValue {
    /// See the type.
    pub extents: Vec<Extent>,
}

impl Extent {
    /// First offset behind it.
    pub fn end(&self) -> u32 {
        self.start + self.len
    }

    fn inline_bytes(&self) -> usize {
        if let Place::Inline(bytes) = &self.place { bytes.len() } else { 0 }
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.inline_bytes()
    }

    /// Takes `next` in, if it goes on exactly where this one ends: the following bytes of the same place, or few inline.
    fn join(&mut self, next: &Extent) -> bool {
        if self.end() != next.start {
            return false;
        }
        match (&mut self.place, &next.place) {
            (Place::Inline(mine), Place::Inline(more)) if mine.len() + more.len() <= JOINED_INLINE_BYTES_MAX => {
                *mine = [mine.as_ref(), more.as_ref()].concat().into();
            }
            (Place::Segment { blob, within }, Place::Segment { blob: other, within: next_within })
                if blob == other && *within + self.len == *next_within => {}
            (Place::Frame { frame, within }, Place::Frame { frame: other, within: next_within })
                if frame == other && *within + self.len == *next_within => {}
            _ => return false,
        }
        self.len += next.len;
        true
    }

    /// The part of it in `[from, to)`; `None` if there is none.
    pub fn slice(&self, from: u32, to: u32) -> Option<Extent> {
        let (start, end) = (self.start.max(from), self.end().min(to));
        if start >= end {
            return None;
        }
        let (skip, len) = (start - self.start, end - start);
        let place = match &self.place {
            Place::Inline(bytes) => {
                let first = (skip as usize).min(bytes.len());
                let last = (first + len as usize).min(bytes.len());
                Place::Inline(bytes.slice(first..last))
            }
            Place::Segment { blob, within } => Place::Segment { blob: *blob, within: within + skip },
            Place::Frame { frame, within } => Place::Frame { frame: *frame, within: within + skip },
        };
        Some(Extent { start, len, place })
    }
}

impl WindowValue {
    /// Whether it is all hole.
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// Bytes in extents.
    pub fn stored_bytes(&self) -> u64 {
        self.extents.iter().map(|e| u64::from(e.len)).sum()
    }

    /// Bytes that the value itself carries.
    pub fn inline_bytes(&self) -> usize {
        self.extents.iter().map(Extent::inline_bytes).sum()
    }

    /// Bytes in extents within `[from, to)`.
    pub fn stored_bytes_in(&self, from: u32, to: u32) -> u64 {
        let first = self.extents.partition_point(|e| e.end() <= from);
        let within = self.extents.iter().skip(first).take_while(|e| e.start < to);
        within.map(|e| u64::from(e.end().min(to).saturating_sub(e.start.max(from)))).sum()
    }

    /// Makes `[from, to)` a hole.
    pub fn clear(&mut self, from: u32, to: u32) {
        if from < to {
            self.splice(from, to, None);
        }
    }

    /// Puts `extent` over whatever was there.
    pub fn put(&mut self, extent: Extent) {
        self.splice(extent.start, extent.end(), Some(extent));
    }

    /// Replaces `[from, to)`, which is not empty, by `new`, which fills it, or by a hole. Costs what the neighbourhood
    /// has, not what the window has. Answers by how much memory it grew, bytes.
    pub fn splice(&mut self, from: u32, to: u32, mut new: Option<Extent>) -> i64 {
        let first = self.extents.partition_point(|e| e.end() <= from);
        let behind = self.extents.partition_point(|e| e.start < to).max(first);
        let touched = self.extents.get(first..behind).unwrap_or_default();
        let mut left = touched.first().and_then(|e| e.slice(0, from));
        let right = touched.last().and_then(|e| e.slice(to, WINDOW_BYTES as u32));
        let neighbourhood = first.saturating_sub(1);
        let (len, before) = (self.extents.len(), self.memory_bytes_of(neighbourhood, behind));
        if let Some(extent) = &new {
            let neighbour = match &mut left {
                Some(left) => Some(left),
                None => first.checked_sub(1).and_then(|at| self.extents.get_mut(at)),
            };
            if neighbour.is_some_and(|neighbour| neighbour.join(extent)) {
                new = None;
            }
        }
        self.extents.splice(first..behind, [left, new, right].into_iter().flatten());
        let behind = behind + self.extents.len() - len;
        self.memory_bytes_of(neighbourhood, behind) as i64 - before as i64
    }

    /// Memory that the list takes, bytes.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes_of(0, self.extents.len())
    }

    fn memory_bytes_of(&self, first: usize, behind: usize) -> usize {
        let extents = self.extents.get(first..behind).unwrap_or_default();
        extents.iter().map(Extent::memory_bytes).sum()
    }

    /// The extents and holes of `[from, to)` in order: `(start, len, place)` with `None` for a hole.
    pub fn pieces(&self, from: u32, to: u32) -> Vec<(u32, u32, Option<Extent>)> {
        let mut pieces = Vec::new();
        let mut at = from;
        for extent in self.extents.iter().filter_map(|e| e.slice(from, to)) {
            if extent.start > at {
                pieces.push((at, extent.start - at, None));
            }
            at = extent.end();
            pieces.push((extent.start, extent.len, Some(extent)));
        }
        if at < to {
            pieces.push((at, to - at, None));
        }
        pieces
    }

    /// Whether it keeps its own rules; checked on everything that is read.
    pub fn is_sound(&self) -> bool {
        let ordered = self.extents.windows(2).all(|pair| match pair {
            [a, b] => a.start.checked_add(a.len).is_some_and(|end| end <= b.start),
            _ => false,
        });
        ordered
            && self.extents.iter().all(|e| {
                let room = match &e.place {
                    Place::Inline(bytes) => bytes.len() == e.len as usize,
                    Place::Segment { blob, within } => within.checked_add(e.len).is_some_and(|end| end <= blob.len),
                    Place::Frame { frame, within } => within.checked_add(e.len).is_some_and(|end| end <= frame.raw_len),
                };
                let end = e.start.checked_add(e.len).is_some_and(|end| u64::from(end) <= WINDOW_BYTES);
                e.len > 0 && end && room
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline(start: u32, text: &'static [u8]) -> Extent {
        Extent { start, len: text.len() as u32, place: Place::Inline(Bytes::from_static(text)) }
    }

    #[test]
    fn a_put_replaces_what_it_covers_and_keeps_the_rest() {
        let mut window = WindowValue::default();
        window.put(inline(0, b"aaaaaaaaaa"));
        window.put(inline(3, b"bbb"));
        assert!(window.is_sound());
        assert_eq!(window.extents, vec![inline(0, b"aaabbb"), inline(6, b"aaaa")]);
        window.clear(2, 7);
        assert_eq!(window.extents, vec![inline(0, b"aa"), inline(7, b"aaa")]);
        assert_eq!(window.stored_bytes(), 5);
    }

    #[test]
    fn a_splice_says_how_memory_grew() {
        let mut window = WindowValue::default();
        let mut bytes = 0;
        let text = [b'x'; 64];
        for (from, to, fill) in
            [(0, 64, true), (10, 20, false), (15, 40, true), (40, 50, true), (0, 64, false), (3, 9, true)]
        {
            let place = Place::Inline(Bytes::copy_from_slice(&text[..(to - from) as usize]));
            let new = fill.then_some(Extent { start: from, len: to - from, place });
            bytes += window.splice(from, to, new);
            assert!(window.is_sound());
            assert_eq!(bytes, window.memory_bytes() as i64);
            assert_eq!(window.stored_bytes_in(from, to), if fill { u64::from(to - from) } else { 0 });
        }
        assert_eq!(window.stored_bytes_in(5, 100), 4);
    }

    #[test]
    fn only_what_goes_on_in_the_same_place_is_joined() {
        let blob = BlobRef { segment: SegmentNo(1), offset: 0, len: 100, crc: 0 };
        let part = |start, len, within| Extent { start, len, place: Place::Segment { blob, within } };
        let mut window = WindowValue::default();
        window.put(part(0, 10, 0));
        window.put(part(10, 10, 10));
        window.put(part(20, 10, 50));
        assert_eq!(window.extents, vec![part(0, 20, 0), part(20, 10, 50)]);
    }

    #[test]
    fn pieces_show_the_holes() {
        let mut window = WindowValue::default();
        window.put(inline(4, b"xx"));
        let shape: Vec<_> = window.pieces(0, 8).into_iter().map(|(at, len, e)| (at, len, e.is_some())).collect();
        assert_eq!(shape, vec![(0, 4, false), (4, 2, true), (6, 2, false)]);
    }
}
