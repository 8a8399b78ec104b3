//! The portable listing: for each path of a snapshot, where in which pack its bytes are (`docs/formats/listing.md`).

use super::content::{WINDOWS_HELD, Windows, extents};
use super::error::ExportError;
use super::walk::{Step, Walk, What, windows_from};
use crate::base::RunBase;
use bytes::Bytes;
use cloud_mgmt::ledger::SnapshotEntry;
use kvfs::base::BaseError;
use kvfs::schema::{Extent, FileKind, InodeValue, Place};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write};
use uuid::Uuid;

/// The format that is written.
const LISTING_FORMAT: u32 = 1;
/// zstd level.
const LEVEL: i32 = 3;

/// The first line.
#[derive(Serialize)]
struct Head<'a> {
    cbfs_listing: u32,
    fs: Uuid,
    snapshot: Uuid,
    name: Option<&'a str>,
    epoch: u32,
    xid: u64,
    requested: jiff::Timestamp,
}

/// The last line.
#[derive(Serialize)]
struct End {
    names: u64,
}

/// A name. What is bytes is text where it is UTF-8, and hex under another key where it is not.
#[derive(Default, Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Seconds, rounded down, and nanoseconds.
    mtime: (i64, u32),
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
    /// Names and values, in hex.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Goes on with the file of the line before.
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Vec<Run>>,
}

/// Offset and length in the file, then either the bytes or pack, offset and length of the frame, and offset in it.
#[derive(Serialize)]
#[serde(untagged)]
enum Run {
    Here(u64, u32, String),
    Packed(u64, u32, String, u64, u32, u32),
}

/// Writes the listing of a snapshot, compressed; memory is bounded. Blocks: fetches what is missing of the index.
pub fn write_listing(base: &RunBase, fs: Uuid, entry: &SnapshotEntry, out: &mut dyn Write) -> Result<(), ExportError> {
    let failed = |error: io::Error| ExportError::Output(error);
    let mut encoder = zstd::stream::write::Encoder::new(out, LEVEL).map_err(failed)?;
    encoder.include_checksum(true).map_err(failed)?;
    let SnapshotEntry { id: snapshot, epoch, xid, requested, .. } = *entry;
    let name = entry.name.as_deref();
    put(&mut encoder, &Head { cbfs_listing: LISTING_FORMAT, fs, snapshot, name, epoch, xid, requested })?;
    let mut walk = Walk::new(base);
    let mut names = 0;
    while let Some(step) = walk.next_step()? {
        write_step(base, step, &mut encoder)?;
        names += 1;
    }
    walk.finish()?;
    put(&mut encoder, &End { names })?;
    encoder.finish().map_err(failed)?.flush().map_err(failed)
}

fn put(out: &mut impl Write, line: &impl Serialize) -> Result<(), ExportError> {
    let mut text = serde_json::to_vec(line).map_err(|error| ExportError::Output(error.into()))?;
    text.push(b'\n');
    out.write_all(&text).map_err(ExportError::Output)
}

fn write_step(base: &RunBase, step: Step, out: &mut impl Write) -> Result<(), ExportError> {
    let Step { path, ino, inode, what } = step;
    let (xattrs, windows, mut next) = match what {
        What::Link(first) => {
            let (target, target_hex) = text(&first);
            return put(out, &Line { kind: "link", target, target_hex, ..common(&path, &inode) });
        }
        What::Node { xattrs, windows, next_window } => (xattrs, windows, next_window),
    };
    let wrong = |error| ExportError::object(&path)(error);
    let mut line = Line { xattrs: in_hex(&xattrs), ..common(&path, &inode) };
    match inode.kind {
        FileKind::Symlink => (line.target, line.target_hex) = text(&inode.target),
        FileKind::CharDevice | FileKind::BlockDevice => line.device = Some(crate::tar::device(inode.rdev)),
        FileKind::Regular => {
            line.size = Some(inode.size);
            line.data = Some(runs(base, &windows, inode.size).map_err(wrong)?);
        }
        FileKind::Directory | FileKind::Fifo | FileKind::Socket => {}
    }
    put(out, &line)?;
    while let Some(first) = next {
        let (windows, after) = windows_from(base, ino, first, WINDOWS_HELD).map_err(wrong)?;
        let data = Some(runs(base, &windows, inode.size).map_err(wrong)?);
        put(out, &Line { more: Some(true), size: Some(inode.size), data, ..common(&path, &inode) })?;
        next = after;
    }
    Ok(())
}

fn common(path: &[u8], inode: &InodeValue) -> Line {
    let InodeValue { mode, uid, gid, mtime, .. } = *inode;
    let (path, path_hex) = text(path);
    let kind = match inode.kind {
        FileKind::Regular => "file",
        FileKind::Directory => "dir",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDevice => "char",
        FileKind::BlockDevice => "block",
    };
    Line { path, path_hex, kind, mode, uid, gid, mtime: (mtime.secs, mtime.nanos), ..Line::default() }
}

/// As text, or in hex.
fn text(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(hex(bytes))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String has no way to fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn in_hex(xattrs: &[(Vec<u8>, Bytes)]) -> Vec<(String, String)> {
    xattrs.iter().map(|(name, value)| (hex(name), hex(value))).collect()
}

fn runs(base: &RunBase, windows: &Windows, size: u64) -> Result<Vec<Run>, BaseError> {
    extents(windows, size).map(|(offset, extent)| run(base, offset, &extent)).collect()
}

fn run(base: &RunBase, offset: u64, extent: &Extent) -> Result<Run, BaseError> {
    match &extent.place {
        Place::Inline(bytes) => Ok(Run::Here(offset, extent.len, hex(bytes))),
        Place::Frame { frame, within } => {
            let object = base.pack(frame.pack)?;
            let pack = object.name.rsplit('/').next().unwrap_or_default().to_owned();
            Ok(Run::Packed(offset, extent.len, pack, frame.offset, frame.stored_len, *within))
        }
        Place::Segment { .. } => Err(BaseError::Corrupt("the index names bytes of another machine".into())),
    }
}
