//! The portable listing of a snapshot, staged like its packs.

use super::Agent;
use crate::base::RunBase;
use crate::collect::{CollectError, CollectErrorKind};
use crate::error::AgentError;
use crate::export::{ExportError, write_listing};
use crate::proxy::StagedFile;
use cloud_mgmt::ledger::{ListingEntry, SnapshotEntry};
use kvfs::base::BaseError;
use std::fs::File;
use std::io::{self, Write};
use uuid::Uuid;

/// Room that is reserved in advance, bytes.
const ROOM_BYTES: u64 = 1 << 20;

/// Whether each snapshot comes with a portable listing (`docs/formats/listing.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// One object more for each snapshot, which costs a walk over the whole tree.
    On,
    /// Only the index.
    Off,
}

impl Agent {
    /// Writes the listing of a snapshot whose run is staged.
    pub(super) fn stage_listing(&self, manifest: &SnapshotEntry, object: &str) -> Result<ListingEntry, AgentError> {
        let base = RunBase::open(&self.objects, manifest)?.waiting();
        let file = self.with_room(manifest.id, || self.proxy.stage(object, ROOM_BYTES))?;
        let disk =
            |error: io::Error| AgentError::from(CollectError::sink("writing the listing", kind_of(&error), error));
        let out = File::create(file.path()).map_err(disk)?;
        let mut out =
            ListingFile { agent: self, snapshot: manifest.id, file, out, hasher: blake3::Hasher::new(), size: 0 };
        write_listing(&base, self.setup.name.id, manifest, &mut out).map_err(of_listing)?;
        let ListingFile { file, hasher, size, .. } = out;
        file.commit()?;
        Ok(ListingEntry { object: object.to_owned(), size, hash: hasher.finalize().to_hex().to_string() })
    }
}

fn of_listing(error: ExportError) -> AgentError {
    match error {
        ExportError::Open(error) => error,
        ExportError::Object { source, .. } => source.into(),
        wrong @ (ExportError::Index { .. } | ExportError::Member { .. }) => {
            BaseError::Corrupt(format!("listing: {wrong}").into()).into()
        }
        ExportError::Output(error) => {
            // What the room for it says is told as it is: a cancelled snapshot, an agent that stops, a full disk.
            match error.downcast::<CollectError>() {
                Ok(room) => room.into(),
                Err(error) => CollectError::sink("writing the listing", kind_of(&error), error).into(),
            }
        }
        ExportError::Stopped => AgentError::Stopping,
    }
}

fn kind_of(error: &io::Error) -> CollectErrorKind {
    if error.kind() == io::ErrorKind::StorageFull { CollectErrorKind::NoSpace } else { CollectErrorKind::Io }
}

/// A file in the proxy that asks for room before it grows (I7).
struct ListingFile<'a> {
    agent: &'a Agent,
    snapshot: Uuid,
    file: StagedFile,
    out: File,
    hasher: blake3::Hasher,
    size: u64,
}

impl Write for ListingFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.size + bytes.len() as u64 + ROOM_BYTES;
        self.agent.room_for(self.snapshot, &mut self.file, room).map_err(io::Error::other)?;
        let written = self.out.write(bytes)?;
        if let Some(bytes) = bytes.get(..written) {
            self.hasher.update(bytes);
        }
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
