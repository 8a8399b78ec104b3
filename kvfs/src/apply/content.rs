//! The bytes of files: writing, truncating, punching.

use super::{Draft, attributes};
use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::op::{AllocateMode, Payload, Privileges};
use crate::schema::{Extent, FileKind, InodeValue, Place, Time, WINDOW_BYTES, WindowValue};
use std::sync::Arc;

/// Largest file, bytes: what a signed 64-bit offset can name.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// What a write brings.
#[derive(Clone, Copy)]
pub struct WriteBytes<'p> {
    /// At which byte of the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u32,
    /// The bytes.
    pub payload: &'p Payload,
}

/// The windows that `[offset, offset + len)` touches: `(window, from, to)`, offsets within the window.
pub fn windows_of(offset: u64, len: u64) -> impl Iterator<Item = (u64, u32, u32)> {
    let end = offset.saturating_add(len);
    let last = if len == 0 { 0 } else { end.div_ceil(WINDOW_BYTES) };
    let first = if len == 0 { 0 } else { offset / WINDOW_BYTES };
    (first..last).map(move |window| {
        let start = window * WINDOW_BYTES;
        let from = offset.saturating_sub(start);
        let to = (end - start).min(WINDOW_BYTES);
        (window, from as u32, to as u32)
    })
}

pub fn regular(draft: &mut Draft<'_>, ino: Ino) -> FsResult<InodeValue> {
    let inode = draft.inode(ino)?;
    match inode.kind {
        FileKind::Regular => Ok(inode),
        FileKind::Directory => Err(FsError::IsDirectory),
        _ => Err(FsError::Invalid),
    }
}

pub fn end_of(offset: u64, len: u64) -> FsResult<u64> {
    offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(FsError::FileTooLarge)
}

pub fn write(
    draft: &mut Draft<'_>,
    ino: Ino,
    bytes: WriteBytes<'_>,
    privileges: Privileges,
    time: Time,
) -> FsResult<()> {
    let mut inode = regular(draft, ino)?;
    let end = end_of(bytes.offset, u64::from(bytes.len))?;
    for (start, len, place) in pieces(bytes)? {
        let mut skipped = 0;
        for (window, from, to) in windows_of(start, u64::from(len)) {
            let extent = Extent { start: from, len: to - from, place: part(&place, skipped, to - from) };
            skipped += to - from;
            let delta = draft.splice(ino, window, (from, to), Some(extent))?;
            inode.stored = inode.stored.saturating_add_signed(delta);
        }
    }
    inode.size = inode.size.max(end);
    if privileges == Privileges::Drop {
        attributes::drop_privileges(draft, ino, &mut inode)?;
    }
    inode.mtime = time;
    inode.ctime = time;
    draft.put_inode(ino, inode)
}

/// The runs of bytes of a write: `(offset in the file, length, place of the first byte)`.
pub(super) fn pieces(bytes: WriteBytes<'_>) -> FsResult<Vec<(u64, u32, Place)>> {
    let wrong = || FsError::corrupt("a write whose bytes do not have its length");
    let pieces: Vec<_> = match bytes.payload {
        Payload::None => Vec::new(),
        Payload::Inline(inline) => vec![(bytes.offset, inline.len() as u32, Place::Inline(inline.clone()))],
        Payload::Stored(blobs) => {
            let mut at = bytes.offset;
            let mut pieces = Vec::with_capacity(blobs.len());
            for blob in blobs {
                pieces.push((at, blob.len, Place::Segment { blob: *blob, within: 0 }));
                at += u64::from(blob.len);
            }
            pieces
        }
    };
    let sum: u64 = pieces.iter().map(|(_, len, _)| u64::from(*len)).sum();
    if sum == u64::from(bytes.len) { Ok(pieces) } else { Err(wrong()) }
}

/// `len` of the same bytes, from `by` on.
pub(super) fn part(place: &Place, by: u32, len: u32) -> Place {
    match place {
        Place::Inline(bytes) => {
            let first = (by as usize).min(bytes.len());
            let last = (first + len as usize).min(bytes.len());
            Place::Inline(bytes.slice(first..last))
        }
        Place::Segment { blob, within } => Place::Segment { blob: *blob, within: within + by },
        Place::Frame { frame, within } => Place::Frame { frame: *frame, within: within + by },
    }
}

/// Clears a part of a window as the view has it, and keeps the inode's count of stored bytes.
fn clear_window(
    draft: &mut Draft<'_>,
    ino: Ino,
    inode: &mut InodeValue,
    what: (u64, Arc<WindowValue>),
    range: (u32, u32),
) {
    let (window, mut value) = what;
    let gone = value.stored_bytes_in(range.0, range.1);
    if gone > 0 {
        Arc::make_mut(&mut value).clear(range.0, range.1);
        inode.stored = inode.stored.saturating_sub(gone);
        draft.put_window(ino, window, value);
    }
}

/// Makes `[from, to)` of a file a hole. Whole windows go without being rewritten where there are none.
fn clear(draft: &mut Draft<'_>, ino: Ino, inode: &mut InodeValue, range: (u64, u64)) -> FsResult<()> {
    let (from, to) = range;
    let edge = |window: u64| window == from / WINDOW_BYTES || window == (to - 1) / WINDOW_BYTES;
    for (window, value) in draft.windows(ino, from / WINDOW_BYTES, to.div_ceil(WINDOW_BYTES))? {
        let start = window * WINDOW_BYTES;
        let (lo, hi) = if edge(window) {
            (from.saturating_sub(start) as u32, (to - start).min(WINDOW_BYTES) as u32)
        } else {
            (0, WINDOW_BYTES as u32)
        };
        clear_window(draft, ino, inode, (window, value), (lo, hi));
    }
    Ok(())
}

/// Truncates or extends; what comes back later between the new and the old end is zero.
pub fn resize(draft: &mut Draft<'_>, ino: Ino, inode: &mut InodeValue, size: u64) -> FsResult<()> {
    match inode.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Err(FsError::IsDirectory),
        _ => return Err(FsError::Invalid),
    }
    if size > FILE_BYTES_MAX {
        return Err(FsError::FileTooLarge);
    }
    if size < inode.size {
        let first_dead = size.div_ceil(WINDOW_BYTES);
        let partial = (size % WINDOW_BYTES) as u32;
        if partial > 0 {
            let window = size / WINDOW_BYTES;
            let value = draft.window(ino, window)?;
            clear_window(draft, ino, inode, (window, value), (partial, WINDOW_BYTES as u32));
        }
        if size == 0 {
            inode.stored = 0;
        } else {
            let gone: u64 = draft
                .windows(ino, first_dead, inode.size.div_ceil(WINDOW_BYTES))?
                .iter()
                .map(|(_, v)| v.stored_bytes())
                .sum();
            inode.stored = inode.stored.saturating_sub(gone);
        }
        if inode.size > first_dead * WINDOW_BYTES {
            draft.cut(ino, first_dead);
        }
    }
    inode.size = size;
    Ok(())
}

pub fn allocate(
    draft: &mut Draft<'_>,
    ino: Ino,
    range: (u64, u64),
    how: (AllocateMode, Privileges),
    time: Time,
) -> FsResult<()> {
    let ((offset, len), (mode, privileges)) = (range, how);
    let mut inode = regular(draft, ino)?;
    if len == 0 {
        return Err(FsError::Invalid);
    }
    let end = end_of(offset, len)?;
    if matches!(mode, AllocateMode::PunchHole | AllocateMode::ZeroRange | AllocateMode::ZeroRangeKeepSize) {
        clear(draft, ino, &mut inode, (offset, end))?;
    }
    if matches!(mode, AllocateMode::Extend | AllocateMode::ZeroRange) {
        inode.size = inode.size.max(end);
    }
    if privileges == Privileges::Drop {
        attributes::drop_privileges(draft, ino, &mut inode)?;
    }
    inode.mtime = time;
    inode.ctime = time;
    draft.put_inode(ino, inode)
}
