//! The parts of a run that is being written into the proxy.

use super::Agent;
use super::stage::Naming;
use crate::base::RunBase;
use crate::base::part::StoredPart;
use crate::base::visible::{OpenTree, Part};
use crate::collect::{CollectError, PartRecords, PartSink, RunRecords, StackedPart, StackedParts, cursor_records};
use crate::error::AgentError;
use crate::proxy::StagedFile;
use crate::run::{FileNodes, RunSummary, RunWriter, Tree};
use cloud_mgmt::ledger::RunEntry;
use kvfs::{Ino, Xid};

/// Room that a part reserves before its size is known, bytes.
const PART_ROOM_BYTES: u64 = 1 << 20;
/// What is going on when a run cannot be written.
const WRITING: &str = "writing the run";
/// … or read.
const MERGING: &str = "reading a run to merge it";

/// See the file's first line.
pub(super) struct StagedParts<'a> {
    agent: &'a Agent,
    naming: &'a Naming,
    xids: (Xid, Xid),
    /// Number of the next object.
    next: u32,
    open: Option<(StagedFile, RunWriter)>,
    done: Vec<FinishedPart>,
}

/// One that is complete and has no name yet.
pub(super) struct FinishedPart {
    from: Ino,
    file: StagedFile,
    summary: RunSummary,
}

impl<'a> StagedParts<'a> {
    /// Parts of a run of the changes `xids.0`+1 ..= `xids.1`; their objects are numbered from `first` on.
    pub(super) fn new(agent: &'a Agent, naming: &'a Naming, first: u32, xids: (Xid, Xid)) -> Self {
        Self { agent, naming, xids, next: first, open: None, done: Vec::new() }
    }

    /// The complete parts, in key order.
    pub(super) fn into_done(self) -> Vec<FinishedPart> {
        self.done
    }

    fn none_open() -> CollectError {
        CollectError::Inconsistent("no part of a run is open".into())
    }
}

impl PartSink for StagedParts<'_> {
    fn begin(&mut self) -> Result<(), CollectError> {
        let object = self.naming.run(self.next);
        self.next += 1;
        let agent = self.agent;
        let file = agent.with_room(self.naming.snapshot, || agent.proxy.stage(&object, PART_ROOM_BYTES))?;
        let writer = RunWriter::create(file.path(), self.xids.0, self.xids.1);
        self.open = Some((file, writer.map_err(|error| CollectError::of_run(WRITING, error))?));
        Ok(())
    }

    fn push(&mut self, key: &[u8], value: &[u8]) -> Result<u64, CollectError> {
        let (file, writer) = self.open.as_mut().ok_or_else(Self::none_open)?;
        self.agent.room_for(self.naming.snapshot, file, writer.size() + PART_ROOM_BYTES)?;
        writer.push(key, value).map_err(|error| CollectError::of_run(WRITING, error))?;
        Ok(writer.size_with_open_node())
    }

    fn end(&mut self, from: Ino) -> Result<(), CollectError> {
        let (file, writer) = self.open.take().ok_or_else(Self::none_open)?;
        let summary = writer.finish().map_err(|error| CollectError::of_run(WRITING, error))?;
        self.done.push(FinishedPart { from, file, summary });
        Ok(())
    }
}

impl FinishedPart {
    /// Gives it its name; the answer is what a manifest says of it as a part.
    pub(super) fn commit(self) -> Result<RunEntry, AgentError> {
        let RunSummary { size, root, records, xid_from, xid } = self.summary;
        let object = self.file.object().to_owned();
        self.file.commit()?;
        let root = root.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let ino_from = Some(self.from.0);
        Ok(RunEntry { object, size, root, xid_from: xid_from.0, xid: xid.0, records, ino_from })
    }
}

/// A run as a manifest lists it, of its parts in whatever order.
pub(super) fn listed(mut parts: Vec<RunEntry>) -> Vec<RunEntry> {
    parts.sort_by_key(|part| part.ino_from);
    let is_split = parts.len() > 1;
    if let Some(first) = parts.first_mut() {
        // Whatever lies before it has no keys.
        first.ino_from = is_split.then_some(0);
    }
    parts
}

/// Complete parts that are read again.
pub(super) struct OpenParts(Vec<(Ino, u64, FilePart)>);

struct FilePart(Tree<FileNodes>);

impl OpenParts {
    pub(super) fn open(parts: &[FinishedPart]) -> Result<Self, AgentError> {
        let open = |part: &FinishedPart| {
            let tree = Tree::<FileNodes>::open_file(part.file.path(), Some(&part.summary.root))?;
            Ok((part.from, part.summary.size, FilePart(tree)))
        };
        parts.iter().map(open).collect::<Result<_, AgentError>>().map(Self)
    }

    /// The run that they are.
    pub(super) fn stacked(&self) -> StackedParts<'_> {
        self.0.iter().map(|(from, size, part)| StackedPart { from: *from, size: *size, records: part }).collect()
    }
}

/// The runs of a base, newest first.
pub(super) fn stacked(base: &RunBase) -> Vec<StackedParts<'_>> {
    base.runs().iter().map(|run| run.parts.iter().map(stacked_part).collect()).collect()
}

fn stacked_part(part: &Part<StoredPart>) -> StackedPart<'_> {
    StackedPart { from: part.from, size: part.tree.object().size, records: &part.tree }
}

impl PartRecords for StoredPart {
    fn records(&self, key: &[u8]) -> RunRecords<'_> {
        match self.tree() {
            Ok(tree) => cursor_records(tree, key, CollectError::Base),
            Err(error) => Box::new(std::iter::once(Err(error.into()))),
        }
    }
}

impl PartRecords for FilePart {
    fn records(&self, key: &[u8]) -> RunRecords<'_> {
        cursor_records(&self.0, key, |error| CollectError::of_run(MERGING, error))
    }
}
