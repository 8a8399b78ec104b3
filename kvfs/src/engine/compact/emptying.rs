//! Segments that are being emptied: whatever is about to be written to the top layer and lies in one of them gets another
//! place first.

use crate::data::{DataError, DataStore, Room};
use crate::engine::rewrite::{Moved, rewrite};
use crate::error::FsResult;
use crate::ids::SegmentNo;
use crate::schema::{BlobRef, Extent, Place, WindowValue};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Blobs kept at hand while a window is written again: its extents often lie in few.
const RECENT_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub(in crate::engine) struct Emptying {
    segments: BTreeSet<SegmentNo>,
    /// What of the store it may take.
    room: Room,
    /// Something in them cannot be read: they stay, so that whoever repairs the disk finds the rest.
    unreadable: BTreeSet<SegmentNo>,
}

impl Default for Emptying {
    fn default() -> Self {
        Self { segments: BTreeSet::new(), room: Room::Ordinary, unreadable: BTreeSet::new() }
    }
}

impl Emptying {
    /// From now on these are emptied, and no others.
    pub(super) fn begin(&mut self, segments: BTreeSet<SegmentNo>, room: Room) {
        self.segments = segments;
        self.room = room;
    }

    pub(super) fn end(&mut self) {
        self.segments.clear();
    }

    pub(super) fn segments(&self) -> &BTreeSet<SegmentNo> {
        &self.segments
    }

    pub(super) fn is_readable(&self, segment: SegmentNo) -> bool {
        !self.unreadable.contains(&segment)
    }

    /// Bytes of `window` that lie in segments which are being emptied.
    pub(super) fn bytes_in(&self, window: &WindowValue) -> u64 {
        window.extents.iter().filter(|extent| self.has(extent)).map(|extent| u64::from(extent.len)).sum()
    }

    fn has(&self, extent: &Extent) -> bool {
        matches!(&extent.place, Place::Segment { blob, .. } if self.segments.contains(&blob.segment))
    }

    /// Writes what of `window` lies in these segments to another one; not flushed. What cannot be
    /// read, or finds no room, stays where it is.
    pub(in crate::engine) fn relocate(&mut self, data: &DataStore, window: &mut Arc<WindowValue>) -> FsResult<Moved> {
        if self.segments.is_empty() || !window.extents.iter().any(|extent| self.has(extent)) {
            return Ok(Moved::default());
        }
        let mut recent = Recent::default();
        rewrite(data, self.room, Arc::make_mut(window), |extent| {
            let Place::Segment { blob, within } = &extent.place else { return Ok(None) };
            if !self.segments.contains(&blob.segment) {
                return Ok(None);
            }
            let read = recent.read(data, blob, (*within, extent.len));
            Ok(read.map_err(|error| self.give_up(blob.segment, &error)).ok())
        })
    }

    fn give_up(&mut self, segment: SegmentNo, error: &DataError) {
        tracing::warn!(%segment, %error, "a data segment cannot be emptied; it stays as it is");
        self.segments.remove(&segment);
        self.unreadable.insert(segment);
    }
}

/// Blobs that were read a moment ago. They are read whole: a part of one cannot be checked, and bytes that went bad must not
/// get a sum that says they are good.
#[derive(Default)]
struct Recent(VecDeque<(BlobRef, Bytes)>);

impl Recent {
    fn read(&mut self, data: &DataStore, blob: &BlobRef, (within, len): (u32, u32)) -> Result<Bytes, DataError> {
        let known = self.0.iter().find(|(other, _)| other == blob).map(|(_, bytes)| bytes.clone());
        let bytes = match known {
            Some(bytes) => bytes,
            None => data.read_all(blob)?,
        };
        let (first, end) = (within as usize, within as usize + len as usize);
        if end > bytes.len() {
            return Err(DataError::Beyond { within, bytes: len as usize, len: blob.len });
        }
        let part = bytes.slice(first..end);
        if part.len() < bytes.len() && !self.0.iter().any(|(other, _)| other == blob) {
            self.0.truncate(RECENT_MAX - 1);
            self.0.push_front((*blob, bytes));
        }
        Ok(part)
    }
}
