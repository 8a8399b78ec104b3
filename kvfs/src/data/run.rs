//! Parts of a file that lie side by side on the disk: one read brings them all.

use crate::ids::SegmentNo;
use crate::schema::BlobRef;
use std::ops::Range;

/// A part of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of this one.
    pub blob: BlobRef,
    /// Begins so many bytes into it.
    pub within: u32,
    /// Bytes.
    pub len: u32,
}

impl Part {
    /// Where it begins in the segment.
    fn begin(&self) -> u64 {
        u64::from(self.blob.offset) + u64::from(self.within)
    }

    fn end(&self) -> u64 {
        self.begin() + u64::from(self.len)
    }
}

fn end_of(blob: &BlobRef) -> u64 {
    u64::from(blob.offset) + u64::from(blob.len)
}

/// Whole blobs, side by side.
pub(super) struct Run {
    pub segment: SegmentNo,
    /// Where they begin in it.
    pub begin: u64,
    /// Of all of them.
    pub bytes: usize,
    /// What the parts are of these bytes.
    pub wanted: Range<usize>,
}

impl Run {
    /// If `parts` are one piece of them: each ends with its blob, and the next one begins there with its own.
    pub fn of(parts: &[Part]) -> Option<Self> {
        let (first, last) = (parts.first()?, parts.last()?);
        let follow = |pair: &[Part]| match pair {
            [a, b] => {
                a.blob.segment == b.blob.segment && a.end() == end_of(&a.blob) && b.begin() == a.end() && b.within == 0
            }
            _ => false,
        };
        if !parts.windows(2).all(follow) || last.end() > end_of(&last.blob) {
            return None;
        }
        let begin = u64::from(first.blob.offset);
        Some(Self {
            segment: first.blob.segment,
            begin,
            bytes: (end_of(&last.blob) - begin) as usize,
            wanted: first.within as usize..(last.end() - begin) as usize,
        })
    }
}
