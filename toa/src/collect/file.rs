//! The bytes of one file: what goes into which member, and the windows that come of it.

use super::error::CollectError;
use super::members::{Members, Planned};
use super::records::{Pending, PendingExtent, PendingPlace};
use super::rows::local;
use super::usage::frame_use;
use super::walk::{Group, Walk, WindowRows};
use crate::pack::{Member, MemberKind, PendingRef, Range};
use bytes::Bytes;
use kvfs::Ino;
use kvfs::schema::{BlobRef, Extent, InodeValue, Key, Place, Value, WINDOW_BYTES, WindowValue};
use std::collections::VecDeque;
use std::sync::Arc;

/// Inline bytes of a window that stay inline in the index; they are in the tar as well.
const INLINE_BYTES_MAX: u64 = 1024;

/// What changed in the windows of a file.
#[derive(Default)]
struct Survey {
    /// Bytes that are in no pack yet, joined where they touch.
    ranges: Vec<Range>,
    /// Numbers of the changed windows: first and last of each unbroken row.
    windows: Vec<(u64, u64)>,
    /// Whether some bytes of changed windows are in packs already.
    has_frames: bool,
}

impl Survey {
    fn add(&mut self, number: u64, window: &WindowValue) {
        match self.windows.last_mut() {
            Some(last) if last.1 + 1 == number => last.1 = number,
            _ => self.windows.push((number, number)),
        }
        for extent in &window.extents {
            if frame_use(extent).is_some() {
                self.has_frames = true;
                continue;
            }
            let range = Range { offset: number * WINDOW_BYTES + u64::from(extent.start), len: u64::from(extent.len) };
            match self.ranges.last_mut() {
                Some(last) if last.end() == range.offset => last.len += range.len,
                _ => self.ranges.push(range),
            }
        }
    }

    fn has_window(&self, number: u64) -> bool {
        let at = self.windows.partition_point(|row| row.1 < number);
        self.windows.get(at).is_some_and(|row| row.0 <= number)
    }
}

impl Walk<'_> {
    /// Ships the new bytes of a regular file and hands on its windows.
    pub(super) fn file(&mut self, inode: &InodeValue, group: &Group) -> Result<(), CollectError> {
        let new = self.is_new(group.ino)?;
        if group.windows.is_empty() && group.cut.is_none() && !new {
            return Ok(());
        }
        let survey = self.survey(inode, group)?;
        if self.view.is_old(group.ino) {
            self.usage.each_in_base(group.ino, group.cut_at()?, |usage, number, window| {
                if !survey.has_window(number) {
                    usage.drop_window(&window);
                }
            })?;
        }
        let mut members = Members::new(self.plan(inode, group, survey)?);
        let mut rows = WindowRows::new(self.view, group);
        while let Some(row) = rows.next()? {
            let number = row.parts()?.number().unwrap_or_default();
            if self.view.is_old(group.ino) {
                self.usage.replace(&Key::window(group.ino, number))?;
            }
            match row.decode()? {
                (_, Value::Tombstone) => self.pass(group.ino, row)?,
                (xid, Value::Window(window)) => {
                    let window = clipped(Arc::unwrap_or_clone(window), number, inode.size);
                    let extents = self.ship(group.ino, number, window, &mut members)?;
                    self.packer.record(row.key, Pending::Window(xid, extents))?;
                }
                _ => return Err(CollectError::Inconsistent(format!("a window of inode {} is none", group.ino))),
            }
        }
        members.finish(&mut self.packer)
    }

    fn survey(&self, inode: &InodeValue, group: &Group) -> Result<Survey, CollectError> {
        let mut survey = Survey::default();
        let mut rows = WindowRows::new(self.view, group);
        while let Some(row) = rows.next()? {
            let number = row.parts()?.number().unwrap_or_default();
            match row.decode()?.1 {
                Value::Window(window) => survey.add(number, &clipped(Arc::unwrap_or_clone(window), number, inode.size)),
                _ => survey.add(number, &WindowValue::default()),
            }
        }
        Ok(survey)
    }

    /// The members that the local bytes go into. A file none of whose bytes is in a pack is a member under its own
    /// path; of any other only the new bytes are shipped, as parts: a sparse member at the real path would destroy an
    /// older copy when it is extracted.
    fn plan(&mut self, inode: &InodeValue, group: &Group, survey: Survey) -> Result<VecDeque<Planned>, CollectError> {
        let new = self.is_new(group.ino)?;
        if survey.ranges.is_empty() && (survey.has_frames || !new) {
            return Ok(VecDeque::new());
        }
        let whole = !survey.has_frames && (new || !self.shows_base(group, &survey)?);
        let limit = self.input.limits.member_bytes();
        let mut planned = VecDeque::new();
        let mut rest = if whole { in_blocks(survey.ranges, inode.size) } else { VecDeque::from(survey.ranges) };
        let path = if whole {
            let ranges = take(&mut rest, limit);
            let kind = MemberKind::File { size: inode.size, ranges: ranges.clone() };
            let member = self.named_member(inode, group, kind)?;
            let path = member.path.clone();
            planned.push_back(Planned { member, ranges: ranges.into() });
            Some(path)
        } else {
            self.paths.by_hint(group.ino, inode)?
        };
        if let Some(path) = path.filter(|_| !rest.is_empty()) {
            planned.push_back(Planned { member: part_pointer(group.ino, inode, &path), ranges: VecDeque::new() });
        }
        while let Some(range) = rest.pop_front() {
            let mut one = VecDeque::from([range]);
            while !one.is_empty() {
                let piece = take(&mut one, limit);
                planned.extend(piece.first().map(|piece| part(group.ino, inode, *piece)));
            }
        }
        Ok(planned)
    }

    /// Whether the file still shows bytes of a window that did not change.
    fn shows_base(&self, group: &Group, survey: &Survey) -> Result<bool, CollectError> {
        let end = Key::window(group.ino, group.cut_at()?);
        let mut rows = self.view.in_base(Key::window(group.ino, 0), end);
        while let Some(row) = rows.next()? {
            if let Some((number, window)) = super::usage::as_window(&row)?
                && !survey.has_window(number)
                && !window.is_empty()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the local bytes of a window; runs of neighbouring extents go out in one piece.
    fn ship(
        &mut self,
        ino: Ino,
        number: u64,
        window: WindowValue,
        members: &mut Members,
    ) -> Result<Vec<PendingExtent>, CollectError> {
        let inline: u64 =
            window.extents.iter().filter(|e| matches!(e.place, Place::Inline(_))).map(|e| u64::from(e.len)).sum();
        let keeps_inline = if inline <= INLINE_BYTES_MAX { Inline::Stays } else { Inline::Moves };
        let mut shipped = Vec::with_capacity(window.extents.len());
        let mut extents = window.extents.into_iter().peekable();
        while let Some(extent) = extents.next() {
            if let Some((pack, len)) = frame_use(&extent) {
                self.usage.add(ino, pack, len);
                shipped.push(PendingExtent {
                    start: extent.start,
                    len: extent.len,
                    place: PendingPlace::Known(extent.place),
                });
                continue;
            }
            let mut end = extent.end();
            let mut run = vec![extent];
            while let Some(next) = extents.next_if(|next| next.start == end && frame_use(next).is_none()) {
                end = next.end();
                run.push(next);
            }
            self.ship_run((ino, number), run, keeps_inline, members, &mut shipped)?;
        }
        Ok(shipped)
    }

    fn ship_run(
        &mut self,
        (ino, number): (Ino, u64),
        run: Vec<Extent>,
        inline: Inline,
        members: &mut Members,
        shipped: &mut Vec<PendingExtent>,
    ) -> Result<(), CollectError> {
        let Some(start) = run.first().map(|extent| extent.start) else { return Ok(()) };
        let bytes = self.bytes_of_run(&run)?;
        let offset = number * WINDOW_BYTES + u64::from(start);
        let (pack, first) = members.data(offset, &bytes, &mut self.packer)?;
        for Extent { start: at, len, place } in run {
            let origin = match &place {
                Place::Segment { blob, within } => Some((*blob, *within)),
                _ => None,
            };
            let place = if origin.is_none() && inline == Inline::Stays {
                PendingPlace::Known(place)
            } else {
                self.usage.add(ino, pack, len);
                let within = first.within + (at - start);
                PendingPlace::Packed { pack, at: PendingRef { within, ..first }, origin }
            };
            shipped.push(PendingExtent { start: at, len, place });
        }
        Ok(())
    }

    fn bytes_of_run(&mut self, run: &[Extent]) -> Result<Bytes, CollectError> {
        if let [only] = run {
            return self.bytes_of(only);
        }
        let mut all = Vec::with_capacity(run.iter().map(|extent| extent.len as usize).sum());
        for extent in run {
            all.extend_from_slice(&self.bytes_of(extent)?);
        }
        Ok(all.into())
    }

    fn bytes_of(&mut self, extent: &Extent) -> Result<Bytes, CollectError> {
        match &extent.place {
            Place::Inline(bytes) => Ok(bytes.clone()),
            Place::Segment { blob, within } => {
                let bytes = self.blob(blob)?;
                let (from, end) = (*within as usize, (*within + extent.len) as usize);
                if end > bytes.len() {
                    return Err(CollectError::Inconsistent(format!("{blob:?} has only {} bytes", bytes.len())));
                }
                Ok(bytes.slice(from..end))
            }
            Place::Frame { frame, .. } => Err(CollectError::Inconsistent(format!("{frame:?} is not local"))),
        }
    }

    fn blob(&mut self, blob: &BlobRef) -> Result<Bytes, CollectError> {
        if let Some(bytes) = self.blobs.get(blob) {
            return Ok(bytes.clone());
        }
        let bytes = local(|| self.input.changes.read_blob(blob))?;
        self.blobs.put(*blob, bytes.clone());
        Ok(bytes)
    }
}

/// What becomes of inline extents.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inline {
    Stays,
    Moves,
}

/// The unit of the data of a sparse member, bytes.
const TAR_BLOCK: u64 = 512;

/// Ranges widened to whole blocks, within the file: tar cannot say smaller ones.
fn in_blocks(ranges: Vec<Range>, size: u64) -> VecDeque<Range> {
    let mut widened: VecDeque<Range> = VecDeque::with_capacity(ranges.len());
    for range in ranges {
        let from = range.offset / TAR_BLOCK * TAR_BLOCK;
        let end = range.end().next_multiple_of(TAR_BLOCK).min(size);
        match widened.back_mut() {
            Some(last) if last.end() >= from => last.len = end - last.offset,
            _ => widened.push_back(Range { offset: from, len: end - from }),
        }
    }
    widened
}

/// A window without what lies behind the end of the file.
fn clipped(mut window: WindowValue, number: u64, size: u64) -> WindowValue {
    let end = size.saturating_sub(number.saturating_mul(WINDOW_BYTES)).min(WINDOW_BYTES);
    window.clear(end as u32, WINDOW_BYTES as u32);
    window
}

/// Takes ranges of at most `limit` bytes in all from the front; a range is divided between two windows only.
fn take(ranges: &mut VecDeque<Range>, limit: u64) -> Vec<Range> {
    let (mut taken, mut room) = (Vec::new(), limit);
    while let Some(range) = ranges.pop_front() {
        if range.len <= room {
            room -= range.len;
            taken.push(range);
            continue;
        }
        let cut = (range.offset + room) / WINDOW_BYTES * WINDOW_BYTES;
        if cut > range.offset {
            taken.push(Range { offset: range.offset, len: cut - range.offset });
            ranges.push_front(Range { offset: cut, len: range.end() - cut });
        } else {
            ranges.push_front(range);
        }
        break;
    }
    taken
}

fn part(ino: Ino, inode: &InodeValue, range: Range) -> Planned {
    let path = format!(".cbfs/part/{ino}/{}", range.offset).into_bytes();
    Planned { member: own_member(ino, inode, path, MemberKind::Part { len: range.len }), ranges: [range].into() }
}

/// A link beside the parts to the file that they belong to, so that a short script can put them there.
fn part_pointer(ino: Ino, inode: &InodeValue, path: &[u8]) -> Member {
    let target = [b"../../../", path].concat();
    own_member(ino, inode, format!(".cbfs/part/{ino}/file").into_bytes(), MemberKind::Symlink { target })
}

fn own_member(ino: Ino, inode: &InodeValue, path: Vec<u8>, kind: MemberKind) -> Member {
    let (uid, gid) = (inode.uid, inode.gid);
    Member { path, kind, mode: 0o600, uid, gid, mtime: inode.mtime, xattrs: Vec::new(), ino }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_divided_between_windows_and_lose_nothing() {
        let w = WINDOW_BYTES;
        let all = [Range { offset: 5, len: 3 * w }, Range { offset: 4 * w + 7, len: 2 * w + 9 }];
        for limit in [w, w + 1, 2 * w, 3 * w - 1, 100 * w] {
            let mut rest = VecDeque::from(all);
            let mut bytes = 0;
            while !rest.is_empty() {
                let taken = take(&mut rest, limit);
                let sum: u64 = taken.iter().map(|range| range.len).sum();
                assert!(sum > 0 && sum <= limit);
                let cut = rest.front().is_none_or(|next| {
                    taken.last().is_none_or(|last| last.end() < next.offset || next.offset % w == 0)
                });
                assert!(cut, "limit {limit}");
                bytes += sum;
            }
            assert_eq!(bytes, 5 * w + 9);
        }
    }

    #[test]
    fn a_survey_knows_its_windows() {
        let mut survey = Survey::default();
        for number in [0, 1, 2, 7, 9] {
            survey.add(number, &WindowValue::default());
        }
        let known: Vec<_> = (0..12).filter(|number| survey.has_window(*number)).collect();
        assert_eq!(known, [0, 1, 2, 7, 9]);
        assert_eq!(survey.windows.len(), 3);
    }
}
