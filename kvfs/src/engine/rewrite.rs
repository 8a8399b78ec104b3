//! Bytes of a window that get a new place in a data segment: neighbours go in one piece.

use crate::data::{DataStore, Room};
use crate::error::FsResult;
use crate::schema::{Extent, Place, WindowValue};
use crate::segment::FailureKind;
use bytes::Bytes;

/// Extents next to each other that move together.
struct Run {
    start: u32,
    bytes: Vec<u8>,
    extents: Vec<Extent>,
}

/// What came of writing a window again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub bytes: u64,
    /// Something stays as it is, since there was no room for it.
    pub lacks_room: bool,
}

impl Moved {
    pub fn add(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.lacks_room |= more.lacks_room;
    }
}

/// Writes again what `pick` gives bytes for. Not flushed. What finds no room stays as it is.
pub(super) fn rewrite(
    data: &DataStore,
    room: Room,
    window: &mut WindowValue,
    mut pick: impl FnMut(&Extent) -> FsResult<Option<Bytes>>,
) -> FsResult<Moved> {
    let mut placed = Vec::with_capacity(window.extents.len());
    let mut run: Option<Run> = None;
    let mut moved = Moved::default();
    for extent in &window.extents {
        let Some(bytes) = pick(extent)? else {
            moved.add(close((data, room), run.take(), &mut placed)?);
            placed.push(extent.clone());
            continue;
        };
        if run.as_ref().is_some_and(|run| run.end() != extent.start) {
            moved.add(close((data, room), run.take(), &mut placed)?);
        }
        let run = run.get_or_insert_with(|| Run { start: extent.start, bytes: Vec::new(), extents: Vec::new() });
        run.bytes.extend_from_slice(&bytes);
        run.extents.push(extent.clone());
    }
    moved.add(close((data, room), run, &mut placed)?);
    window.extents = placed;
    Ok(moved)
}

impl Run {
    fn end(&self) -> u32 {
        self.start + self.bytes.len() as u32
    }
}

fn close((data, room): (&DataStore, Room), run: Option<Run>, placed: &mut Vec<Extent>) -> FsResult<Moved> {
    let Some(Run { start, bytes, extents }) = run else { return Ok(Moved::default()) };
    match data.write_in(room, &bytes) {
        Ok(blob) => {
            let len = bytes.len() as u32;
            placed.push(Extent { start, len, place: Place::Segment { blob, within: 0 } });
            Ok(Moved { bytes: u64::from(len), lacks_room: false })
        }
        Err(error) if error.kind() == FailureKind::NoSpace => {
            placed.extend(extents);
            Ok(Moved { bytes: 0, lacks_room: true })
        }
        Err(error) => Err(error.into()),
    }
}
