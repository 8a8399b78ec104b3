//! The bytes of one file: where it has any, and then the bytes themselves.

use super::ExportWatch;
use super::archive::Archive;
use super::error::ExportError;
use super::frames::Frames;
use super::ranges::Ranges;
use super::walk::windows_from;
use crate::base::RunBase;
use crate::tar::{Member, MemberKind, Range};
use bytes::Bytes;
use kvfs::Ino;
use kvfs::base::BaseError;
use kvfs::schema::{Extent, Place, WINDOW_BYTES, WindowValue};
use std::collections::VecDeque;
use std::sync::Arc;

/// Windows of a large file that are read from the index at once.
pub(super) const WINDOWS_HELD: usize = 64;

/// Windows with their numbers, in order.
pub(super) type Windows = Vec<(u64, Arc<WindowValue>)>;

/// A file's windows; those of a large one are read twice, a part at a time.
pub(super) struct Content<'a> {
    pub base: &'a RunBase,
    pub ino: Ino,
    pub size: u64,
    /// The first ones.
    pub windows: Windows,
    /// Where the others begin.
    pub next_window: Option<u64>,
}

impl Content<'_> {
    /// Surveys the whole file for its header.
    pub fn kind(&self) -> Result<MemberKind, BaseError> {
        let mut ranges = Ranges::new(self.size);
        let survey = |ranges: &mut Ranges, windows: &Windows| {
            for (offset, extent) in extents(windows, self.size) {
                ranges.add(offset, u64::from(extent.len));
            }
        };
        survey(&mut ranges, &self.windows);
        let mut next = self.next_window;
        while let Some(first) = next {
            let (windows, after) = windows_from(self.base, self.ino, first, WINDOWS_HELD)?;
            survey(&mut ranges, &windows);
            next = after;
        }
        Ok(MemberKind::File { size: self.size, ranges: ranges.finish() })
    }

    /// Writes the data of `member`; answers how many bytes `watch` was told of.
    pub fn write(
        self,
        member: &Member,
        archive: &mut Archive<'_>,
        frames: &mut Frames<'_>,
        watch: &mut dyn ExportWatch,
    ) -> Result<u64, ExportError> {
        let MemberKind::File { ranges, .. } = &member.kind else { return Ok(0) };
        let mut body = Body { member, ranges: ranges.iter().copied().collect(), archive };
        let (mut windows, mut next, mut told) = (self.windows, self.next_window, 0);
        loop {
            let following = match next {
                Some(first) => windows_from(self.base, self.ino, first, WINDOWS_HELD),
                None => Ok((Windows::new(), None)),
            };
            let (following, after) = following.map_err(ExportError::object(&member.path))?;
            frames_of(&following, self.size, |frame| frames.want(frame));
            if watch.is_stopping() {
                return Err(ExportError::Stopped);
            }
            for (offset, extent) in extents(&windows, self.size) {
                let bytes = bytes_of(&extent, frames).map_err(ExportError::object(&member.path))?;
                body.put(offset, &bytes)?;
                watch.done(bytes.len() as u64);
                told += bytes.len() as u64;
            }
            if following.is_empty() {
                break;
            }
            (windows, next) = (following, after);
        }
        body.zeros_until(u64::MAX)?;
        Ok(told)
    }
}

/// The extents of some windows with their offsets in the file, as far as it goes.
pub(super) fn extents(windows: &Windows, size: u64) -> impl Iterator<Item = (u64, Extent)> {
    windows.iter().flat_map(move |(number, window)| {
        let start = number.saturating_mul(WINDOW_BYTES);
        let end = size.saturating_sub(start).min(WINDOW_BYTES) as u32;
        let shown = window.extents.iter().filter_map(move |extent| extent.slice(0, end));
        shown.map(move |extent| (start.saturating_add(u64::from(extent.start)), extent))
    })
}

/// Shows each frame that the windows need.
pub(super) fn frames_of(windows: &Windows, size: u64, mut visit: impl FnMut(&kvfs::schema::FrameRef)) {
    for (_, extent) in extents(windows, size) {
        if let Place::Frame { frame, .. } = &extent.place {
            visit(frame);
        }
    }
}

fn bytes_of(extent: &Extent, frames: &mut Frames<'_>) -> Result<Bytes, BaseError> {
    let corrupt = |what: String| BaseError::Corrupt(what.into());
    let bytes = match &extent.place {
        Place::Inline(bytes) => bytes.clone(),
        Place::Frame { frame, within } => {
            let raw = frames.take(frame)?;
            let (from, end) = (*within as usize, *within as usize + extent.len as usize);
            if end > raw.len() {
                let what = format!("pack {}: the frame at {} has no byte {end}", frame.pack, frame.offset);
                return Err(corrupt(what));
            }
            raw.slice(from..end)
        }
        Place::Segment { .. } => return Err(corrupt("the index names bytes of another machine".into())),
    };
    if bytes.len() != extent.len as usize {
        return Err(corrupt(format!("an extent of {} bytes holds {}", extent.len, bytes.len())));
    }
    Ok(bytes)
}

/// The data of a member: what is in no extent and was widened to whole blocks is zeros.
struct Body<'a, 'w> {
    member: &'a Member,
    ranges: VecDeque<Range>,
    archive: &'a mut Archive<'w>,
}

impl Body<'_, '_> {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ExportError> {
        self.zeros_until(offset)?;
        let len = bytes.len() as u64;
        match self.ranges.front_mut() {
            Some(range) if range.offset == offset && range.len >= len => {
                range.offset += len;
                range.len -= len;
                self.archive.data(self.member, bytes)
            }
            _ => Err(ExportError::index(&self.member.path, format!("byte {offset} was not there a moment ago"))),
        }
    }

    fn zeros_until(&mut self, offset: u64) -> Result<(), ExportError> {
        while let Some(range) = self.ranges.front_mut().filter(|range| range.offset < offset || range.len == 0) {
            let fill = range.end().min(offset).saturating_sub(range.offset);
            range.offset += fill;
            range.len -= fill;
            self.archive.zeros(self.member, fill)?;
            if self.ranges.front().is_some_and(|range| range.len > 0) {
                break;
            }
            self.ranges.pop_front();
        }
        Ok(())
    }
}
