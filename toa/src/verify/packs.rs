//! Packs and listings, byte by byte. Of a pack: the whole object's hash, then its frames, its seek table and its tar.
//!
//! A pack is copied into a temporary file while it is hashed, so that it is read once, and nothing of it is decompressed
//! before its hash is known to be right.

use super::error::VerifyError;
use super::finding::{Finding, Findings, Problem, SnapshotName};
use super::frames::NamedFrame;
use super::ledger::{LedgerPack, Truth};
use super::scratch::Scratch;
use super::source::{ReadFailure, Source};
use super::tarball::{self, Tarball};
use crate::run::hash128;
use cloud_mgmt::ledger::ListingEntry;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;

/// Wrong frames of one pack that are named.
const FRAMES_NAMED: usize = 20;

/// What checking packs needs.
pub(super) struct PackCheck<'a> {
    pub source: &'a Source,
    pub scratch: &'a Scratch,
    pub truth: &'a Truth,
}

/// What became of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PackVerdict {
    /// It was read to its end: what is wrong with it is among the findings.
    Read,
    /// Nobody needs it any more.
    Gone,
}

/// A pack on the local disk.
struct Copy {
    file: File,
    hash: blake3::Hash,
}

impl PackCheck<'_> {
    /// Checks a pack that the listing has in its right size. `frames` are all that index runs name in it, `raw` the sum
    /// of its frames by the index. `read` hears of bytes that were read.
    pub fn check(
        &self,
        pack: &LedgerPack,
        frames: &[NamedFrame],
        raw: Option<u64>,
        findings: &mut Findings,
        read: &mut dyn FnMut(u64),
    ) -> Result<PackVerdict, VerifyError> {
        let hits = self.truth.users_of_pack(pack);
        let object = &pack.entry.object;
        let mut add = |problem, what: String, ino: Option<u64>| {
            let finding = Finding::new(problem, Some(object), what).hits(hits.clone());
            findings.add(match ino {
                Some(ino) => finding.on(ino),
                None => finding,
            });
        };
        let mut damaged = None;
        for _ in 0..2 {
            match self.copy(pack, read) {
                Ok(copy) if copy.hash.to_hex().as_str() == pack.entry.hash => {
                    for (problem, what, ino) in self.check_copy(copy.file, pack, frames, raw)? {
                        add(problem, what, ino);
                    }
                    return Ok(PackVerdict::Read);
                }
                // Perhaps on the way only: once more.
                Ok(copy) => damaged = Some(copy),
                Err(ReadFailure::Wrong(what)) => {
                    add(Problem::WrongBytes, what, None);
                    return Ok(PackVerdict::Read);
                }
                Err(ReadFailure::Gone) if self.truth.still_needs(object)? => {
                    add(Problem::Missing, "it was listed and is gone".to_owned(), None);
                    return Ok(PackVerdict::Read);
                }
                Err(ReadFailure::Gone) => return Ok(PackVerdict::Gone),
                Err(ReadFailure::Unknown(error)) => return Err(error),
            }
        }
        if let Some(copy) = damaged {
            let wrong = self.wrong_frames(&copy.file, pack.entry.size, frames)?;
            add(Problem::WrongBytes, damage(wrong.len(), frames.len()), None);
            for named in wrong.iter().take(FRAMES_NAMED) {
                let what = format!("the frame at byte {} is damaged; this inode has bytes in it", named.frame.offset);
                add(Problem::WrongBytes, what, Some(named.ino.0));
            }
        }
        Ok(PackVerdict::Read)
    }

    /// Checks the hash of a portable listing, which nothing but people and scripts reads.
    pub fn listing(
        &self,
        listing: &ListingEntry,
        hits: Vec<SnapshotName>,
        findings: &mut Findings,
        read: &mut dyn FnMut(u64),
    ) -> Result<(), VerifyError> {
        let mut last = None;
        for _ in 0..2 {
            let mut hasher = blake3::Hasher::new();
            let copied = self.source.read(&listing.object, listing.size, |bytes| {
                hasher.update(bytes);
                read(bytes.len() as u64);
                Ok(())
            });
            last = match copied {
                Ok(()) if hasher.finalize().to_hex().as_str() == listing.hash => return Ok(()),
                Ok(()) => Some((
                    Problem::WrongBytes,
                    "its bytes do not match the hash in the ledger; no file is hit".to_owned(),
                )),
                Err(ReadFailure::Wrong(what)) => Some((Problem::WrongBytes, what)),
                Err(ReadFailure::Gone) if self.truth.still_needs(&listing.object)? => {
                    Some((Problem::Missing, "it was listed and is gone".to_owned()))
                }
                Err(ReadFailure::Gone) => return Ok(()),
                Err(ReadFailure::Unknown(error)) => return Err(error),
            };
        }
        if let Some((problem, what)) = last {
            findings.add(Finding::new(problem, Some(&listing.object), what).hits(hits));
        }
        Ok(())
    }

    fn copy(&self, pack: &LedgerPack, read: &mut dyn FnMut(u64)) -> Result<Copy, ReadFailure> {
        let mut file = self.scratch.file()?;
        let mut hasher = blake3::Hasher::new();
        self.source.read(&pack.entry.object, pack.entry.size, |bytes| {
            hasher.update(bytes);
            read(bytes.len() as u64);
            file.write_all(bytes).map_err(self.scratch.failed("write"))
        })?;
        file.rewind().map_err(self.scratch.failed("read"))?;
        Ok(Copy { file, hash: hasher.finalize() })
    }

    /// The frames whose stored bytes do not match their hash. Nothing is decompressed.
    fn wrong_frames(&self, file: &File, size: u64, frames: &[NamedFrame]) -> Result<Vec<NamedFrame>, VerifyError> {
        let mut wrong = Vec::new();
        for named in frames {
            let frame = &named.frame;
            let is_within = frame.offset.checked_add(u64::from(frame.stored_len)).is_some_and(|end| end <= size);
            if !is_within {
                wrong.push(*named);
                continue;
            }
            let mut stored = vec![0; frame.stored_len as usize];
            file.read_exact_at(&mut stored, frame.offset).map_err(self.scratch.failed("read"))?;
            if hash128(&stored) != frame.hash {
                wrong.push(*named);
            }
        }
        Ok(wrong)
    }

    /// A pack whose bytes are those that were written: whether they are a pack, and have what the index names.
    fn check_copy(
        &self,
        file: File,
        pack: &LedgerPack,
        frames: &[NamedFrame],
        raw: Option<u64>,
    ) -> Result<Vec<(Problem, String, Option<u64>)>, VerifyError> {
        let mut faults = Vec::new();
        for named in self.wrong_frames(&file, pack.entry.size, frames)?.iter().take(FRAMES_NAMED) {
            let what = format!("the index names a frame at byte {} that the pack does not have", named.frame.offset);
            faults.push((Problem::Extent, what, Some(named.ino.0)));
        }
        let Tarball { frames: found, raw: found_raw, fault } =
            tarball::read(file, pack.entry.number, pack.entry.size).map_err(self.scratch.failed("read"))?;
        if let Some(what) = fault {
            faults.push((Problem::Malformed, what, None));
            return Ok(faults);
        }
        for named in frames {
            let frame = &named.frame;
            let at = found.binary_search_by_key(&frame.offset, |known| known.offset).ok();
            if at.and_then(|at| found.get(at)) != Some(frame) && faults.len() < FRAMES_NAMED {
                let what =
                    format!("the index names a frame at byte {} that the seek table does not have", frame.offset);
                faults.push((Problem::Extent, what, Some(named.ino.0)));
            }
        }
        if raw.is_some_and(|raw| raw != found_raw) {
            let what = format!("its frames have {found_raw} bytes, the index says {}", raw.unwrap_or_default());
            faults.push((Problem::PackUse, what, None));
        }
        Ok(faults)
    }
}

fn damage(wrong: usize, all: usize) -> String {
    let rest = match wrong {
        0 => "all frames that files use are whole".to_owned(),
        _ => format!("{wrong} of {all} frames that files use are damaged"),
    };
    format!("its bytes do not match the hash in the ledger; {rest}")
}
