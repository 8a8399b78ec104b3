//! Records in key order that wait for the frames they name.

use super::error::CollectError;
use super::{Moved, NewPack, RecordSink};
use crate::pack::PendingRef;
use bytes::Bytes;
use kvfs::Xid;
use kvfs::ids::PackNo;
use kvfs::schema::{BlobRef, Extent, FrameRef, Place, Value, WindowValue};
use std::collections::VecDeque;

/// Records that may wait; beyond, the open frame is closed early.
const WAITING_MAX: usize = 16_384;
/// Their bytes.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// A record's value, or how to make it.
pub(super) enum Pending {
    /// Encoded.
    Ready(Bytes),
    /// A window whose extents are not all known yet.
    Window(Xid, Vec<PendingExtent>),
}

/// An extent of a window, its place perhaps not known yet.
pub(super) struct PendingExtent {
    pub start: u32,
    pub len: u32,
    pub place: PendingPlace,
}

/// The frames that are closed. The parts of one window may lie in several packs.
pub(super) struct ClosedFrames<'a> {
    pub staged: &'a [NewPack],
    pub open: Option<(PackNo, &'a [FrameRef])>,
}

impl ClosedFrames<'_> {
    fn get(&self, pack: PackNo, at: PendingRef) -> Option<FrameRef> {
        let frames = match self.open {
            Some((open, frames)) if open == pack => frames,
            _ => &self.staged.iter().rfind(|staged| staged.summary.number == pack)?.summary.frames,
        };
        frames.get(at.frame).copied()
    }
}

/// See [`PendingExtent`].
pub(super) enum PendingPlace {
    /// Stays as it is.
    Known(Place),
    /// Now in a pack, perhaps in the one that is being written; `origin` is the local blob that it came from.
    Packed { pack: PackNo, at: PendingRef, origin: Option<(BlobRef, u32)> },
}

impl Pending {
    fn is_resolved_by(&self, frames: &ClosedFrames<'_>) -> bool {
        match self {
            Self::Ready(_) => true,
            Self::Window(_, extents) => extents.iter().all(|extent| match extent.place {
                PendingPlace::Known(_) => true,
                PendingPlace::Packed { pack, at, .. } => frames.get(pack, at).is_some(),
            }),
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Ready(bytes) => bytes.len(),
            Self::Window(_, extents) => extents.len() * size_of::<PendingExtent>(),
        }
    }
}

/// See the file's first line.
#[derive(Default)]
pub(super) struct RecordQueue {
    waiting: VecDeque<(Vec<u8>, Pending)>,
    bytes: usize,
    pushed: u64,
}

impl RecordQueue {
    pub fn push(&mut self, key: Vec<u8>, value: Pending) {
        self.bytes += key.len() + value.weight();
        self.waiting.push_back((key, value));
    }

    /// Whether the queue has become so long that the open frame should be closed.
    pub fn is_long(&self) -> bool {
        self.waiting.len() > WAITING_MAX || self.bytes > WAITING_BYTES_MAX
    }

    /// Hands on what is resolved, in order.
    pub fn drain(&mut self, frames: &ClosedFrames<'_>, out: &mut dyn RecordSink) -> Result<(), CollectError> {
        while self.waiting.front().is_some_and(|(_, value)| value.is_resolved_by(frames)) {
            let Some((key, value)) = self.waiting.pop_front() else { break };
            self.bytes -= key.len() + value.weight();
            match value {
                Pending::Ready(bytes) => out.push(&key, &bytes)?,
                Pending::Window(xid, extents) => {
                    let window = resolve(xid, extents, frames, out)?;
                    out.push(&key, &window)?;
                }
            }
            self.pushed += 1;
        }
        Ok(())
    }

    /// The number of records handed on. After the last frame nothing may wait.
    pub fn finish(&self) -> Result<u64, CollectError> {
        if self.waiting.is_empty() {
            Ok(self.pushed)
        } else {
            Err(CollectError::Inconsistent(format!("{} records wait for frames that never came", self.waiting.len())))
        }
    }
}

fn resolve(
    xid: Xid,
    extents: Vec<PendingExtent>,
    frames: &ClosedFrames<'_>,
    out: &mut dyn RecordSink,
) -> Result<Bytes, CollectError> {
    let mut window = WindowValue::default();
    for extent in extents {
        let place = match extent.place {
            PendingPlace::Known(place) => place,
            PendingPlace::Packed { pack, at, origin } => {
                let open = || CollectError::Inconsistent(format!("frame {} of pack {pack} is not closed", at.frame));
                let frame = frames.get(pack, at).ok_or_else(open)?;
                if let Some((blob, blob_within)) = origin {
                    out.moved(&Moved { blob, blob_within, len: extent.len, frame, frame_within: at.within })?;
                }
                Place::Frame { frame, within: at.within }
            }
        };
        append(&mut window, Extent { start: extent.start, len: extent.len, place });
    }
    Ok(Value::Window(window.into()).encode(xid))
}

/// Appends an extent, as one with its neighbour where both lie side by side in the file and in the frame.
fn append(window: &mut WindowValue, extent: Extent) {
    if let Some(last) = window.extents.last_mut()
        && let (Place::Frame { frame, within }, Place::Frame { frame: next, within: next_within }) =
            (&last.place, &extent.place)
        && (last.end(), frame, within + last.len) == (extent.start, next, *next_within)
    {
        last.len += extent.len;
        return;
    }
    window.extents.push(extent);
}
