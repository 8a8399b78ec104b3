//! The windows of a layer, a piece at a time.

use super::Emptying;
use crate::error::{FsError, FsResult};
use crate::ids::{Ino, SegmentNo, Xid};
use crate::layer::Layer;
use crate::schema::key::Parts;
use crate::schema::{Key, Place, Space, Value, WindowValue};
use crate::stack::Found;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Rows that one piece looks at.
const PIECE_ROWS: usize = 100_000;
/// Bytes that one piece moves, about.
const PIECE_BYTES: u64 = 16 << 20;
/// Extents of the rows that it keeps in memory, about.
const PIECE_EXTENTS: usize = 200_000;

/// Behind all windows.
fn end() -> Key {
    Key::first_of(Ino(u64::MAX), Space::Inode)
}

/// Shows the windows of `layer` from `from` on to `visit` until it breaks; answers where to go on, if that is not the end.
fn scan_windows(
    layer: &Layer,
    from: &[u8],
    mut visit: impl FnMut(Key, Xid, Arc<WindowValue>) -> ControlFlow<()>,
) -> FsResult<Option<Vec<u8>>> {
    let (mut seen, mut next, mut failed) = (0, None, None);
    layer.scan(from, end().as_bytes(), &mut |key, bytes| {
        if seen == PIECE_ROWS {
            next = Some(key.to_vec());
            return ControlFlow::Break(());
        }
        seen += 1;
        if Parts::parse(key).is_none_or(|parts| parts.space != Space::Window) {
            return ControlFlow::Continue(());
        }
        match (Key::from_bytes(key), Value::decode(bytes)) {
            (Some(key), Ok((xid, Value::Window(window)))) => {
                let answer = visit(key, xid, window);
                if answer.is_break() {
                    // The next piece begins behind this row, unless it is the last one.
                    seen = PIECE_ROWS;
                }
            }
            (_, Err(error)) => {
                failed = Some(FsError::corrupt(format!("{}: {error}", layer.path().display())));
                return ControlFlow::Break(());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(next), Err)
}

/// Adds what the windows from `from` on use of each segment.
pub(super) fn survey(layer: &Layer, from: &[u8], used: &mut BTreeMap<SegmentNo, u64>) -> FsResult<Option<Vec<u8>>> {
    scan_windows(layer, from, |_, _, window| {
        for extent in &window.extents {
            if let Place::Segment { blob, .. } = &extent.place {
                *used.entry(blob.segment).or_default() += u64::from(extent.len);
            }
        }
        ControlFlow::Continue(())
    })
}

pub(super) fn rows_to_move(layer: &Layer, from: &[u8], emptying: &Emptying) -> FsResult<(Vec<Found>, Option<Vec<u8>>)> {
    let (mut rows, mut bytes, mut extents) = (Vec::new(), 0, 0);
    let next = scan_windows(layer, from, |key, xid, window| {
        let concerned = emptying.bytes_in(&window);
        if concerned > 0 {
            bytes += concerned;
            extents += window.extents.len();
            rows.push((key, (xid, Value::Window(window))));
        }
        // Long lists of short extents take memory, too.
        if bytes < PIECE_BYTES && extents < PIECE_EXTENTS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok((rows, next))
}

/// Segments that `rows` name.
pub(super) fn segments_of(rows: &[Found]) -> BTreeSet<SegmentNo> {
    let windows =
        rows.iter().filter_map(|(_, (_, value))| if let Value::Window(window) = value { Some(window) } else { None });
    let places = windows.flat_map(|window| window.extents.iter().map(|extent| &extent.place));
    places.filter_map(|place| if let Place::Segment { blob, .. } = place { Some(blob.segment) } else { None }).collect()
}
