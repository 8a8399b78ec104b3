//! The pack that is being written, with the records that wait for it.

use super::error::CollectError;
use super::records::{ClosedFrames, Pending, RecordQueue};
use super::{CollectInput, Limits, NewPack, PackSink, RecordSink};
use crate::pack::{Member, PackIdentity, PackWriter, PendingRef};
use kvfs::ids::{Epoch, PackNo};
use std::path::PathBuf;
use uuid::Uuid;

/// What an open frame, headers and the seek table may add to the bytes that are being written.
const FRAME_SLACK_BYTES: u64 = 4 << 20;

/// See the file's first line.
pub(super) struct Packer<'a> {
    fs: Uuid,
    epoch: Epoch,
    limits: Limits,
    sink: &'a mut dyn PackSink,
    out: &'a mut dyn RecordSink,
    next: PackNo,
    open: Option<OpenPack>,
    queue: RecordQueue,
    done: Vec<NewPack>,
}

struct OpenPack {
    number: PackNo,
    path: PathBuf,
    writer: PackWriter,
}

impl<'a> Packer<'a> {
    pub fn new(input: &CollectInput<'_>, sink: &'a mut dyn PackSink, out: &'a mut dyn RecordSink) -> Self {
        Self {
            fs: input.fs,
            epoch: input.changes.epoch(),
            limits: input.limits,
            sink,
            out,
            next: input.next_pack,
            open: None,
            queue: RecordQueue::default(),
            done: Vec::new(),
        }
    }

    /// Begins a member, in a new pack if this one is full; answers the pack that it is in.
    pub fn begin(&mut self, member: &Member) -> Result<PackNo, CollectError> {
        if self.open.as_ref().is_some_and(|pack| self.is_full(pack, member.kind.data_bytes())) {
            self.stage()?;
        }
        let pack = if let Some(pack) = &mut self.open {
            pack
        } else {
            let number = self.next;
            self.next = PackNo(number.0 + 1);
            let path = self.sink.path(number)?;
            let writer = PackWriter::create(&path, PackIdentity { fs: self.fs, number, epoch: self.epoch })?;
            self.open.insert(OpenPack { number, path, writer })
        };
        pack.writer.begin(member)?;
        Ok(pack.number)
    }

    /// A pack stays below 1.25 times the target: a large member begins a new one, unless this one is nearly empty.
    fn is_full(&self, pack: &OpenPack, coming: u64) -> bool {
        let (size, target) = (pack.writer.size_so_far(), self.limits.pack_bytes_target);
        size >= target || (size >= target / 4 && size + coming > target + target / 4)
    }

    /// Data of the open member.
    pub fn data(&mut self, bytes: &[u8]) -> Result<PendingRef, CollectError> {
        let coming = self.writer()?.size_so_far() + bytes.len() as u64 + FRAME_SLACK_BYTES;
        self.sink.growing(coming)?;
        Ok(self.writer()?.data(bytes)?)
    }

    /// Ends the open member.
    pub fn end(&mut self) -> Result<(), CollectError> {
        Ok(self.writer()?.end()?)
    }

    /// A member without data.
    pub fn bare(&mut self, member: &Member) -> Result<(), CollectError> {
        self.begin(member)?;
        self.end()
    }

    fn writer(&mut self) -> Result<&mut PackWriter, CollectError> {
        let pack = self.open.as_mut().ok_or_else(|| CollectError::Inconsistent("no pack is open".into()))?;
        Ok(&mut pack.writer)
    }

    /// The next record in key order.
    pub fn record(&mut self, key: Vec<u8>, value: Pending) -> Result<(), CollectError> {
        self.queue.push(key, value);
        if self.queue.is_long()
            && let Some(pack) = &mut self.open
        {
            pack.writer.close_frame()?;
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<(), CollectError> {
        let open = self.open.as_ref().map(|pack| (pack.number, pack.writer.frames()));
        self.queue.drain(&ClosedFrames { staged: &self.done, open }, self.out)
    }

    /// Ends the open pack, if there is one, and hands it on.
    pub fn stage(&mut self) -> Result<(), CollectError> {
        let Some(pack) = self.open.take() else { return Ok(()) };
        let summary = pack.writer.finish()?;
        self.sink.staged(&summary, &pack.path)?;
        fail::fail_point!("collect::pack_staged");
        self.done.push(NewPack { object: self.sink.object(summary.number), summary });
        self.drain()
    }

    /// The packs that were staged.
    pub fn packs(&self) -> &[NewPack] {
        &self.done
    }

    /// All packs, the first number not used, and the number of records.
    pub fn finish(self) -> Result<(Vec<NewPack>, PackNo, u64), CollectError> {
        Ok((self.done, self.next, self.queue.finish()?))
    }
}
