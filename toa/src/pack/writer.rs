//! Writing a pack, member by member.

use super::error::PackError;
use super::frames::{FrameStream, PackSummary, PendingRef};
use super::{FRAME_RAW_BYTES, MIXED_FRAME_RAW_BYTES};
use crate::tar::{self, Member};
use kvfs::ids::{Epoch, PackNo};
use kvfs::schema::FrameRef;
use std::path::Path;
use uuid::Uuid;

/// What the global header says of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackIdentity {
    /// The filesystem.
    pub fs: Uuid,
    /// The pack's number in it.
    pub number: PackNo,
    /// The epoch that writes it.
    pub epoch: Epoch,
}

/// Writes one pack as a stream; memory is bounded by a few frames.
///
/// A member is [`begin`](Self::begin), [`data`](Self::data) as often as needed, [`end`](Self::end). Members of up to
/// 1 MiB with header share frames; the data of a larger one have frames of their own.
pub struct PackWriter {
    stream: FrameStream,
    member: Option<OpenMember>,
}

struct OpenMember {
    left: u64,
    padding: usize,
    shares_frames: Shares,
}

#[derive(PartialEq, Eq)]
enum Shares {
    Yes,
    No,
}

impl std::fmt::Debug for PackWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackWriter").field("size", &self.stream.size()).finish_non_exhaustive()
    }
}

impl PackWriter {
    /// Starts the pack at `path`; what an interrupted attempt left there is replaced.
    pub fn create(path: &Path, identity: PackIdentity) -> Result<Self, PackError> {
        let mut stream = FrameStream::create(path, identity.number)?;
        stream.put(&tar::global(identity.fs, identity.number, identity.epoch.0))?;
        stream.close()?;
        Ok(Self { stream, member: None })
    }

    /// Writes the headers of `member`; its [`data_bytes`](super::MemberKind::data_bytes) bytes must follow.
    pub fn begin(&mut self, member: &Member) -> Result<(), PackError> {
        if self.member.is_some() {
            return Err(PackError::Member("the member before it is still open"));
        }
        let head = tar::encode(member)?;
        let left = member.kind.data_bytes();
        let padding = tar::padding(left);
        let whole = head.len() as u64 + left + padding as u64;
        let shares_frames = if whole <= FRAME_RAW_BYTES as u64 { Shares::Yes } else { Shares::No };
        if shares_frames == Shares::Yes && self.stream.open_bytes() as u64 + whole > MIXED_FRAME_RAW_BYTES as u64 {
            self.stream.close()?;
        }
        self.stream.put(&head)?;
        if shares_frames == Shares::No {
            self.stream.close()?;
        }
        self.member = Some(OpenMember { left, padding, shares_frames });
        Ok(())
    }

    /// Appends data of the open member, at most 1 MiB at once; they will lie in one frame.
    pub fn data(&mut self, bytes: &[u8]) -> Result<PendingRef, PackError> {
        let open = self.member.as_mut().ok_or(PackError::Member("data without a member"))?;
        open.left =
            open.left.checked_sub(bytes.len() as u64).ok_or(PackError::Member("more data than the header says"))?;
        let frame_bytes_max = match open.shares_frames {
            Shares::Yes => MIXED_FRAME_RAW_BYTES,
            Shares::No => FRAME_RAW_BYTES,
        };
        self.stream.place(bytes, frame_bytes_max)
    }

    /// Ends the open member.
    pub fn end(&mut self) -> Result<(), PackError> {
        let open = self.member.take().ok_or(PackError::Member("no member is open"))?;
        if open.left > 0 {
            return Err(PackError::Member("less data than the header says"));
        }
        if open.shares_frames == Shares::No {
            self.stream.close()?;
        }
        self.stream.put(&[0; tar::BLOCK][..open.padding])
    }

    /// Ends the open frame now, and waits until references into it can be resolved.
    pub fn close_frame(&mut self) -> Result<(), PackError> {
        self.stream.close()?;
        self.stream.settle()
    }

    /// The frames that are in the file, up to the last one but a few: a [`PendingRef`] below their number is resolved.
    pub fn frames(&self) -> &[FrameRef] {
        self.stream.frames()
    }

    /// Bytes of the pack so far, rounded up.
    pub fn size_so_far(&self) -> u64 {
        self.stream.size()
    }

    /// Ends tar and seek table; the pack is complete when this returns. Making it durable is the business of whoever gives
    /// it its name.
    pub fn finish(mut self) -> Result<PackSummary, PackError> {
        if self.member.is_some() {
            return Err(PackError::Member("the last member is still open"));
        }
        self.stream.close()?;
        self.stream.put(&[0; 2 * tar::BLOCK])?;
        self.stream.finish()
    }
}
