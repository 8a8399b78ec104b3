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
    /// If `parts` are one piece of them.
    pub fn of(parts: &[Part]) -> Option<Self> {
        let (first, last) = (parts.first()?, parts.last()?);
        let begins = parts.iter().skip(1).all(|part| part.within == 0);
        let ends = parts
            .iter()
            .rev()
            .skip(1)
            .all(|part| u64::from(part.within) + u64::from(part.len) == u64::from(part.blob.len));
        let mut bytes = 0;
        for Part { blob, .. } in parts {
            let is_next = u64::from(blob.offset) == u64::from(first.blob.offset) + bytes;
            if blob.segment != first.blob.segment || !is_next {
                return None;
            }
            bytes += u64::from(blob.len);
        }
        let end = bytes.checked_sub(last.blob.len.into())? + u64::from(last.within) + u64::from(last.len);
        let wanted = first.within as usize..end as usize;
        let is_sound = begins && ends && wanted.start <= wanted.end && end <= bytes;
        let begin = first.blob.offset.into();
        is_sound.then_some(Self { segment: first.blob.segment, begin, bytes: bytes as usize, wanted })
    }
}
