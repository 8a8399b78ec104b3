//! Reading, writing and seeking.

use super::{Fs, SeekTarget};
use crate::apply::windows_of;
use crate::data::Part;
use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::op::{CopyRange, Op, Privileges};
use crate::schema::key::Parts;
use crate::schema::{Extent, FileKind, InodeValue, Key, Place, Space, Value, WINDOW_BYTES};
use crate::stack::Tiers;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// Windows that a seek looks at in one go.
const SEEK_BATCH: usize = 64;
/// So many bytes are read at once, past the host's page cache, if they lie side by side on the local disk: the kernel keeps them in the cache of the
/// mount. Below, the host's reading ahead is worth more than the copy costs.
const RUN_BYTES_MIN: usize = 512 << 10;
/// Bytes that one record copies: bounds the windows that it changes, and so the time under the locks.
const COPY_BYTES_MAX: u64 = 64 << 20;

fn file(fs: &Fs, ino: Ino) -> FsResult<Arc<InodeValue>> {
    let inode = fs.existing(ino)?;
    match inode.kind {
        FileKind::Regular => Ok(inode),
        FileKind::Directory => Err(FsError::IsDirectory),
        _ => Err(FsError::Invalid),
    }
}

pub fn read(fs: &Fs, ino: Ino, offset: u64, len: u32) -> FsResult<Bytes> {
    let size = file(fs, ino)?.size;
    let len = size.saturating_sub(offset).min(u64::from(len));
    // Held until the bytes are copied: what it names is not recycled.
    let tiers = fs.stack.load();
    let mut pieces = Vec::new();
    let mut at = 0;
    for (window, from, to) in windows_of(offset, len) {
        let value = tiers.view().window(ino, window)?;
        let here = value.pieces(from, to).into_iter();
        pieces.extend(here.filter_map(|(start, _, extent)| Some((at + (start - from) as usize, extent?))));
        at += (to - from) as usize;
    }
    if let Some(bytes) = read_run(fs, &pieces, len as usize) {
        return Ok(bytes);
    }
    let mut out = BytesMut::zeroed(len as usize);
    for (first, extent) in pieces {
        if let Some(target) = out.get_mut(first..first + extent.len as usize) {
            read_extent(fs, &tiers, &extent, target)?;
        }
    }
    Ok(out.freeze())
}

/// All `len` bytes at once, if the pieces are neighbours on the local disk too.
fn read_run(fs: &Fs, pieces: &[(usize, Extent)], len: usize) -> Option<Bytes> {
    if len < RUN_BYTES_MIN {
        return None;
    }
    let part = |(_, extent): &(usize, Extent)| match &extent.place {
        Place::Segment { blob, within } => Some(Part { blob: *blob, within: *within, len: extent.len }),
        Place::Inline(_) | Place::Frame { .. } => None,
    };
    let parts = pieces.iter().map(part).collect::<Option<Vec<Part>>>()?;
    let has_holes = parts.iter().map(|part| part.len as usize).sum::<usize>() != len;
    if has_holes { None } else { fs.engine.load_full()?.data().read_run(&parts) }
}

fn read_extent(fs: &Fs, tiers: &Tiers, extent: &Extent, target: &mut [u8]) -> FsResult<()> {
    let lost = || FsError::corrupt("an extent is longer than its bytes");
    match &extent.place {
        Place::Inline(bytes) => target.copy_from_slice(bytes.get(..target.len()).ok_or_else(lost)?),
        Place::Segment { blob, within } => {
            let engine = fs.engine.load_full().ok_or_else(|| FsError::corrupt("local bytes without local data"))?;
            engine.data().read(blob, *within, target)?;
        }
        Place::Frame { frame, within } => {
            let raw = tiers.base.read_frame(frame)?;
            let first = *within as usize;
            target.copy_from_slice(raw.get(first..first + target.len()).ok_or_else(lost)?);
        }
    }
    Ok(())
}

pub fn write(fs: &Fs, ino: Ino, offset: u64, data: &[u8], privileges: Privileges) -> FsResult<u32> {
    let len = u32::try_from(data.len()).map_err(|_| FsError::Invalid)?;
    if len == 0 {
        return Ok(0);
    }
    let engine = fs.writer()?;
    let bytes = engine.place_bytes(data)?;
    let _locked = fs.stack.locks().lock(&[ino]);
    engine.run_write(fs.clock.now(), Op::Write { ino, offset, len, privileges }, bytes)?;
    Ok(len)
}

pub fn copy_range(fs: &Fs, wanted: &CopyRange, privileges: Privileges) -> FsResult<u64> {
    let engine = fs.writer()?;
    // Inline bytes that are shared need a place of their own at the next checkpoint: a full store refuses, as for a write.
    let _room = engine.place_bytes(&[])?;
    let _locked = fs.stack.locks().lock(&[wanted.from, wanted.to]);
    let there = file(fs, wanted.from)?.size.saturating_sub(wanted.from_offset);
    let len = wanted.len.min(there).min(COPY_BYTES_MAX);
    if len == 0 {
        return Ok(0);
    }
    engine.run(fs.clock.now(), Op::CopyRange { range: CopyRange { len, ..*wanted }, privileges })?;
    Ok(len)
}

pub fn seek(fs: &Fs, ino: Ino, offset: u64, target: SeekTarget) -> FsResult<u64> {
    let size = file(fs, ino)?.size;
    if offset >= size {
        return Err(FsError::NoSuchAddress);
    }
    match target {
        SeekTarget::Data => next_data(fs, ino, offset)?.filter(|at| *at < size).ok_or(FsError::NoSuchAddress),
        SeekTarget::Hole => Ok(next_hole(fs, ino, offset)?.min(size)),
    }
}

fn next_data(fs: &Fs, ino: Ino, offset: u64) -> FsResult<Option<u64>> {
    let tiers = fs.stack.load();
    let mut window = offset / WINDOW_BYTES;
    loop {
        let rows = tiers.view().scan(ino, Space::Window, &Key::window(ino, window), SEEK_BATCH)?;
        let Some((last, _)) = rows.last() else { return Ok(None) };
        let next = number(last) + 1;
        for (key, value) in &rows {
            let Value::Window(value) = value else { continue };
            let start = number(key) * WINDOW_BYTES;
            let after = |extent: &&Extent| start + u64::from(extent.end()) > offset;
            if let Some(extent) = value.extents.iter().find(after) {
                return Ok(Some((start + u64::from(extent.start)).max(offset)));
            }
        }
        window = next;
    }
}

fn next_hole(fs: &Fs, ino: Ino, offset: u64) -> FsResult<u64> {
    let tiers = fs.stack.load();
    let mut at = offset;
    loop {
        let first = at / WINDOW_BYTES;
        let rows = tiers.view().scan(ino, Space::Window, &Key::window(ino, first), SEEK_BATCH)?;
        for (window, row) in (first..).zip(&rows) {
            let Value::Window(value) = &row.1 else { return Ok(at) };
            // A window that is not there is a hole.
            if number(&row.0) != window {
                return Ok(at);
            }
            let pieces = value.pieces((at % WINDOW_BYTES) as u32, WINDOW_BYTES as u32);
            if let Some((start, _, _)) = pieces.iter().find(|(_, _, extent)| extent.is_none()) {
                return Ok(window * WINDOW_BYTES + u64::from(*start));
            }
            at = (window + 1) * WINDOW_BYTES;
        }
        if rows.len() < SEEK_BATCH {
            return Ok(at);
        }
    }
}

fn number(key: &Key) -> u64 {
    Parts::parse(key.as_bytes()).and_then(|parts| parts.number()).unwrap_or_default()
}
