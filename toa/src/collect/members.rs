//! Dealing the bytes of a file out to its members.

use super::error::CollectError;
use super::packer::Packer;
use crate::pack::{Member, PendingRef, Range};
use kvfs::ids::PackNo;
use std::collections::VecDeque;

/// What holes read as; the fill of one block is shorter than it.
static ZEROS: [u8; 512] = [0; 512];

/// A member that is to be written, with the parts of the file whose data are still to come.
pub(super) struct Planned {
    pub member: Member,
    pub ranges: VecDeque<Range>,
}

/// The members of a file, as its bytes come by.
pub(super) struct Members {
    waiting: VecDeque<Planned>,
    open: Option<PackNo>,
}

impl Members {
    pub fn new(planned: VecDeque<Planned>) -> Self {
        Self { waiting: planned, open: None }
    }

    /// Writes bytes of the file into the member that they belong to; answers pack and place.
    pub fn data(
        &mut self,
        offset: u64,
        bytes: &[u8],
        packer: &mut Packer<'_>,
    ) -> Result<(PackNo, PendingRef), CollectError> {
        while let Some(planned) = self.waiting.front_mut() {
            let pack = match self.open {
                Some(pack) => pack,
                None => *self.open.insert(packer.begin(&planned.member)?),
            };
            planned.zeros_until(offset, packer)?;
            if let Some(range) = planned.ranges.front_mut() {
                let at = packer.data(bytes)?;
                let left = range.len.checked_sub(bytes.len() as u64);
                range.len = left.ok_or_else(|| CollectError::Inconsistent("more bytes than were surveyed".into()))?;
                range.offset += bytes.len() as u64;
                return Ok((pack, at));
            }
            packer.end()?;
            self.open = None;
            self.waiting.pop_front();
        }
        Err(CollectError::Inconsistent(format!("no member was planned for byte {offset}")))
    }

    /// Ends the last member.
    pub fn finish(mut self, packer: &mut Packer<'_>) -> Result<(), CollectError> {
        while let Some(mut planned) = self.waiting.pop_front() {
            if self.open.take().is_none() {
                packer.begin(&planned.member)?;
            }
            planned.zeros_until(u64::MAX, packer)?;
            packer.end()?;
        }
        Ok(())
    }
}

impl Planned {
    /// Fills what was rounded up to blocks: planned bytes before `offset` that no extent holds.
    fn zeros_until(&mut self, offset: u64, packer: &mut Packer<'_>) -> Result<(), CollectError> {
        while let Some(range) = self.ranges.front_mut().filter(|range| range.offset < offset || range.len == 0) {
            let mut fill = range.end().min(offset) - range.offset;
            range.offset += fill;
            range.len -= fill;
            while fill > 0 {
                let zeros = ZEROS.get(..fill as usize).unwrap_or(&ZEROS);
                packer.data(zeros)?;
                fill -= zeros.len() as u64;
            }
            if range.len > 0 {
                break;
            }
            self.ranges.pop_front();
        }
        Ok(())
    }
}
