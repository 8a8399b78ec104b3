//! copy_file_range: the target gets extents with the places of the source's bytes. No byte is read or written.

use super::content::{end_of, regular, windows_of};
use super::{Draft, attributes};
use crate::error::{FsError, FsResult};
use crate::op::{CopyRange, Privileges};
use crate::schema::{Extent, Time, WINDOW_BYTES};
use std::sync::Arc;

pub fn copy(draft: &mut Draft<'_>, range: &CopyRange, privileges: Privileges, time: Time) -> FsResult<()> {
    let source = regular(draft, range.from)?;
    let mut target = regular(draft, range.to)?;
    let from_end = range.from_offset.checked_add(range.len).ok_or(FsError::Invalid)?;
    let to_end = end_of(range.to_offset, range.len)?;
    let overlaps = range.from == range.to && range.from_offset < to_end && range.to_offset < from_end;
    if range.len == 0 || from_end > source.size || overlaps {
        return Err(FsError::Invalid);
    }
    for (window, start, end) in windows_of(range.to_offset, range.len) {
        let skipped = window * WINDOW_BYTES + u64::from(start) - range.to_offset;
        let shown = extents_of(draft, range, skipped, (start, end))?;
        let mut value = draft.window(range.to, window)?;
        if shown.is_empty() && value.is_empty() {
            continue;
        }
        let before = value.stored_bytes();
        let replaced = Arc::make_mut(&mut value);
        replaced.clear(start, end);
        for extent in shown {
            replaced.put(extent);
        }
        target.stored = (target.stored + value.stored_bytes()).saturating_sub(before);
        draft.put_window(range.to, window, value);
    }
    target.size = target.size.max(to_end);
    if privileges == Privileges::Drop {
        attributes::drop_privileges(draft, range.to, &mut target)?;
    }
    target.mtime = time;
    target.ctime = time;
    draft.put_inode(range.to, target)
}

/// The source's extents `skipped` bytes into the range, moved to `[start, end)` of a window of the target. The two
/// windows hardly ever begin at the same byte, so that these come from one or two windows of the source.
fn extents_of(draft: &Draft<'_>, range: &CopyRange, skipped: u64, at: (u32, u32)) -> FsResult<Vec<Extent>> {
    let (mut start, end) = at;
    let mut shown = Vec::new();
    for (window, from, to) in windows_of(range.from_offset + skipped, u64::from(end - start)) {
        let value = draft.window(range.from, window)?;
        let pieces = value.extents.iter().filter_map(|extent| extent.slice(from, to));
        shown.extend(pieces.map(|piece| Extent { start: piece.start - from + start, ..piece }));
        start += to - from;
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::apply;
    use crate::base::EmptyBase;
    use crate::ids::{Ino, SegmentNo, Xid};
    use crate::op::{Entry, NewInode, Op, Payload, Record};
    use crate::schema::{BlobRef, FileKind, Place};
    use crate::stack::{Overlay, Stack, Tiers};
    use bytes::Bytes;
    use std::sync::Arc;

    const MIB: u64 = WINDOW_BYTES;
    const A: Ino = Ino(2);
    const B: Ino = Ino(3);

    /// Two empty files in memory.
    struct Files {
        stack: Stack,
        xid: u64,
    }

    impl Files {
        fn new() -> Self {
            let stack = Stack::read_only(Arc::new(EmptyBase));
            let tiers = Tiers { active: Some(Arc::new(Overlay::default())), ..stack.load().duplicate() };
            stack.swap(tiers);
            let mut files = Self { stack, xid: 0 };
            let inode = |ino, kind, mode| {
                let target = Bytes::new();
                NewInode { ino, kind, mode, uid: 7, gid: 7, rdev: 0, target }
            };
            files.run(Op::Root(inode(Ino::ROOT, FileKind::Directory, 0o755)), Payload::None).unwrap();
            for (ino, name) in [(A, b"a"), (B, b"b")] {
                let at = Entry { parent: Ino::ROOT, name: Bytes::from_static(name) };
                files.run(Op::Make { at, inode: inode(ino, FileKind::Regular, 0o6755) }, Payload::None).unwrap();
            }
            files
        }

        fn run(&mut self, op: Op, payload: Payload) -> FsResult<()> {
            self.xid += 1;
            let tiers = self.stack.load();
            let mut draft = Draft::new(tiers.view());
            let time = Time { secs: self.xid as i64, nanos: 0 };
            apply(&Record { time, op, payload, requested: None }, &mut draft)?;
            tiers.active.as_ref().unwrap().apply(&draft.into_changes(), Xid(self.xid));
            Ok(())
        }

        fn write(&mut self, ino: Ino, offset: u64, payload: Payload, len: u32) {
            self.run(Op::Write { ino, offset, len, privileges: Privileges::Keep }, payload).unwrap();
        }

        fn copy(&mut self, from: (Ino, u64), to: (Ino, u64), len: u64) -> FsResult<()> {
            let ((from, from_offset), (to, to_offset)) = (from, to);
            let range = CopyRange { from, from_offset, to, to_offset, len };
            self.run(Op::CopyRange { range, privileges: Privileges::Drop }, Payload::None)
        }

        /// All extents of a file: where in the file, how long, which place.
        fn extents(&self, ino: Ino) -> Vec<(u64, u32, Place)> {
            let tiers = self.stack.load();
            let windows = (0..8).map(|number| (number, tiers.view().window(ino, number).unwrap()));
            let all = windows.flat_map(|(number, value)| value.extents.clone().into_iter().map(move |e| (number, e)));
            all.map(|(number, e)| (number * MIB + u64::from(e.start), e.len, e.place)).collect()
        }

        fn stat(&self, ino: Ino) -> (u64, u64, u32, i64) {
            let inode = self.stack.load().view().inode(ino).unwrap().unwrap();
            (inode.size, inode.stored, inode.mode, inode.mtime.secs)
        }
    }

    fn blob(segment: u64, len: u32) -> BlobRef {
        BlobRef { segment: SegmentNo(segment), offset: 4096, len, crc: 1 }
    }

    fn at(blob: BlobRef, within: u32) -> Place {
        Place::Segment { blob, within }
    }

    #[test]
    fn the_target_names_the_same_places_across_windows_and_holes() {
        let mut files = Files::new();
        let (first, second) = (blob(1, MIB as u32), blob(2, 10_000));
        files.write(A, 0, Payload::Stored(vec![first]), MIB as u32);
        files.write(A, MIB + 5_000, Payload::Stored(vec![second]), 10_000);
        let old = blob(9, MIB as u32);
        files.write(B, MIB, Payload::Stored(vec![old]), MIB as u32);
        // From the last 100 bytes of window 0 to the middle of the second blob, to a place 1,000 bytes before a border.
        files.copy((A, MIB - 100), (B, 2 * MIB - 1_000), 100 + 5_000 + 6_000).unwrap();
        let expected = vec![
            (MIB, MIB as u32 - 1_000, at(old, 0)),
            (2 * MIB - 1_000, 100, at(first, MIB as u32 - 100)),
            (2 * MIB + 4_100, 6_000, at(second, 0)),
        ];
        assert_eq!(files.extents(B), expected, "what was under the hole of the source is gone");
        let stored = MIB - 1_000 + 100 + 6_000;
        assert_eq!(files.stat(B), (2 * MIB + 10_100, stored, 0o755, files.xid as i64));
        assert_eq!(files.stat(A).2, 0o6755, "the source is only read");
    }

    #[test]
    fn inline_bytes_are_shared_within_one_file_too() {
        let mut files = Files::new();
        files.write(A, 10, Payload::Inline(Bytes::from_static(b"0123456789")), 10);
        files.copy((A, 12), (A, 20), 5).unwrap();
        files.copy((A, 20), (A, MIB - 2), 5).unwrap();
        let inline = |text: &'static [u8]| Place::Inline(Bytes::from_static(text));
        let expected =
            vec![(10, 15, inline(b"012345678923456")), (MIB - 2, 2, inline(b"23")), (MIB, 3, inline(b"456"))];
        assert_eq!(files.extents(A), expected);
        assert_eq!(files.stat(A).1, 20);
        // The hole in front of them takes the place of bytes.
        files.copy((A, 0), (A, MIB - 2), 5).unwrap();
        assert_eq!(files.extents(A), expected[..1]);
        assert_eq!(files.stat(A).1, 15);
    }

    #[test]
    fn an_overlap_and_what_is_behind_the_end_are_refused() {
        let mut files = Files::new();
        files.write(A, 0, Payload::Inline(Bytes::from_static(b"0123456789")), 10);
        for (from, to, len) in [((A, 0), (A, 4), 5), ((A, 4), (A, 0), 5), ((A, 0), (A, 0), 1), ((A, 6), (B, 0), 5)] {
            assert!(matches!(files.copy(from, to, len), Err(FsError::Invalid)), "{from:?} {to:?} {len}");
        }
        assert!(matches!(files.copy((A, 0), (B, i64::MAX as u64 - 3), 5), Err(FsError::FileTooLarge)));
        assert!(matches!(files.copy((A, 0), (Ino::ROOT, 0), 5), Err(FsError::IsDirectory)));
        files.copy((A, 0), (A, 5), 5).unwrap();
        assert_eq!(files.stat(A).0, 10);
    }
}
