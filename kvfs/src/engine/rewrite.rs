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

/// Writes again what `pick` gives bytes for; answers how many bytes moved. Not flushed. What finds no room stays as it is.
pub(super) fn rewrite(
    data: &DataStore,
    room: Room,
    window: &mut WindowValue,
    mut pick: impl FnMut(&Extent) -> FsResult<Option<Bytes>>,
) -> FsResult<u64> {
    let mut placed = Vec::with_capacity(window.extents.len());
    let mut run: Option<Run> = None;
    let mut moved = 0;
    for extent in &window.extents {
        let Some(bytes) = pick(extent)? else {
            moved += close((data, room), run.take(), &mut placed)?;
            placed.push(extent.clone());
            continue;
        };
        if run.as_ref().is_some_and(|run| run.end() != extent.start) {
            moved += close((data, room), run.take(), &mut placed)?;
        }
        let run = run.get_or_insert_with(|| Run { start: extent.start, bytes: Vec::new(), extents: Vec::new() });
        run.bytes.extend_from_slice(&bytes);
        run.extents.push(extent.clone());
    }
    moved += close((data, room), run, &mut placed)?;
    window.extents = placed;
    Ok(moved)
}

impl Run {
    fn end(&self) -> u32 {
        self.start + self.bytes.len() as u32
    }
}

fn close((data, room): (&DataStore, Room), run: Option<Run>, placed: &mut Vec<Extent>) -> FsResult<u64> {
    let Some(Run { start, bytes, extents }) = run else { return Ok(0) };
    match data.write_in(room, &bytes) {
        Ok(blob) => {
            let len = bytes.len() as u32;
            placed.push(Extent { start, len, place: Place::Segment { blob, within: 0 } });
            Ok(u64::from(len))
        }
        Err(error) if error.kind() == FailureKind::NoSpace => {
            placed.extend(extents);
            Ok(0)
        }
        Err(error) => Err(error.into()),
    }
}
