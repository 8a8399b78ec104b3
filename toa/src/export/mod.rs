//! A published snapshot as one POSIX pax tar, read straight from the bucket: no daemon, no mount.
//!
//! ```text
//! Walk ──► queue (bounded) ──► Archive ──► out
//!   │ frames of what is queued     ▲
//!   └──────────► Frames ───────────┘  fetched ahead in the order of use, checked, decompressed
//! ```
//! Directories come before what is in them, files of a directory in the order of their inodes: nearly the order of their
//! bytes in the packs. The same snapshot gives the same bytes each time.

mod archive;
mod content;
mod error;
mod frames;
mod links;
mod listing;
mod open;
mod ranges;
mod walk;

pub use error::ExportError;
pub use listing::write_listing;
pub use open::{ExportSetup, open};

use crate::base::{Objects, RunBase};
use crate::tar::{Member, MemberKind};
use archive::Archive;
use cloud_mgmt::ledger::SnapshotEntry;
use content::Content;
use frames::Frames;
use kvfs::schema::{FileKind, InodeValue};
use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use walk::{Step, Walk, What};

/// Steps that are read ahead of the one that is written, at most.
const STEPS_AHEAD: usize = 2048;
/// Memory that they take, at most, bytes.
const BYTES_AHEAD: usize = 8 << 20;

/// A snapshot that can be exported.
#[derive(Debug)]
pub struct Export {
    entry: Arc<SnapshotEntry>,
    base: RunBase,
    objects: Arc<Objects>,
    fetch_timeout: Duration,
}

/// What an export did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ExportSummary {
    /// Members of the tar.
    pub members: u64,
    /// Bytes of the tar.
    pub bytes: u64,
    /// Sockets, which a tar cannot hold.
    pub skipped: u64,
}

/// Who hears how an export goes on.
pub trait ExportWatch {
    /// That many bytes of the snapshot's files are done, holes included.
    fn done(&mut self, bytes: u64);
    /// A socket, which a tar cannot hold.
    fn skipped(&mut self, path: &[u8]);
    /// Whether it shall end now.
    fn is_stopping(&self) -> bool;
}

impl Export {
    /// The snapshot.
    pub fn snapshot(&self) -> &SnapshotEntry {
        &self.entry
    }

    /// Writes the tar. Blocks; not for async tasks. When it fails, `out` ends so that every reader of tar sees that
    /// something is missing.
    pub fn write(&self, out: &mut dyn Write, watch: &mut dyn ExportWatch) -> Result<ExportSummary, ExportError> {
        let mut writer = Writer {
            archive: Archive::new(out),
            frames: Frames::new(&self.base, &self.objects, self.fetch_timeout),
            base: &self.base,
            watch,
            skipped: 0,
        };
        let written = writer.all();
        if written.is_err() {
            writer.archive.spoil();
        }
        written
    }
}

/// See [`Export::write`].
struct Writer<'a> {
    archive: Archive<'a>,
    frames: Frames<'a>,
    base: &'a RunBase,
    watch: &'a mut dyn ExportWatch,
    skipped: u64,
}

impl Writer<'_> {
    fn all(&mut self) -> Result<ExportSummary, ExportError> {
        let mut walk = Walk::new(self.base);
        let mut queue: VecDeque<Step> = VecDeque::new();
        let mut queued_bytes = 0;
        loop {
            // The windows of a large file are not all in its step: nothing behind it is read before they are.
            while queue.len() < STEPS_AHEAD
                && queued_bytes < BYTES_AHEAD
                && !queue.back().is_some_and(Step::is_partial)
                && let Some(step) = walk.next_step()?
            {
                queued_bytes += step.memory_bytes();
                step.frames(|frame| self.frames.want(frame));
                queue.push_back(step);
            }
            self.frames.pump();
            let Some(step) = queue.pop_front() else { break };
            if self.watch.is_stopping() {
                return Err(ExportError::Stopped);
            }
            queued_bytes -= step.memory_bytes();
            self.step(step)?;
        }
        walk.finish()?;
        let (members, bytes) = self.archive.finish()?;
        Ok(ExportSummary { members, bytes, skipped: self.skipped })
    }

    fn step(&mut self, step: Step) -> Result<(), ExportError> {
        let Step { path, inode, ino, what } = step;
        if inode.kind == FileKind::Socket {
            self.skipped += 1;
            self.watch.skipped(&path);
            return Ok(());
        }
        match what {
            What::Link(target) => self.bare(&member(path, ino, &inode, (MemberKind::HardLink { target }, Vec::new()))),
            What::Node { xattrs, windows, next_window } => {
                if let Some(kind) = special(&inode) {
                    return self.bare(&member(path, ino, &inode, (kind, xattrs)));
                }
                let content = Content { base: self.base, ino, size: inode.size, windows, next_window };
                let kind = content.kind().map_err(ExportError::object(&path))?;
                self.file(&member(path, ino, &inode, (kind, xattrs)), content)
            }
        }
    }

    fn bare(&mut self, member: &Member) -> Result<(), ExportError> {
        self.archive.begin(member)?;
        self.archive.end(member)
    }

    fn file(&mut self, member: &Member, content: Content<'_>) -> Result<(), ExportError> {
        let size = content.size;
        self.archive.begin(member)?;
        let told = content.write(member, &mut self.archive, &mut self.frames, self.watch)?;
        self.archive.end(member)?;
        self.watch.done(size.saturating_sub(told));
        Ok(())
    }
}

/// The kind of everything that has no data.
fn special(inode: &InodeValue) -> Option<MemberKind> {
    Some(match inode.kind {
        FileKind::Directory => MemberKind::Directory,
        FileKind::Symlink => MemberKind::Symlink { target: inode.target.to_vec() },
        FileKind::Fifo => MemberKind::Fifo,
        FileKind::CharDevice => MemberKind::CharDevice { rdev: inode.rdev },
        FileKind::BlockDevice => MemberKind::BlockDevice { rdev: inode.rdev },
        FileKind::Regular | FileKind::Socket => return None,
    })
}

fn member(
    path: Vec<u8>,
    ino: kvfs::Ino,
    inode: &InodeValue,
    (kind, xattrs): (MemberKind, Vec<(Vec<u8>, bytes::Bytes)>),
) -> Member {
    let InodeValue { mode, uid, gid, mtime, .. } = *inode;
    Member { path, kind, mode, uid, gid, mtime, xattrs, ino }
}
