//! Writes a run in one pass over sorted records.

use super::footer::{DEPTH_MAX, Footer, RUN_FORMAT};
use super::node::{KEY_BYTES_MAX, NODE_BYTES, NodeBuilder, NodePtr, VALUE_BYTES_MAX};
use super::{Hash128, RunError, hash128};
use kvfs::Xid;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// zstd level of nodes: higher ones gain 2 % for three times the work.
const ZSTD_LEVEL: i32 = 3;

/// What [`RunWriter::finish`] wrote; the ledger's `RunEntry` takes it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunSummary {
    /// Bytes of the file.
    pub size: u64,
    /// BLAKE3-128 of the footer: the root of the run's hash tree.
    pub root: Hash128,
    /// Number of records.
    pub records: u64,
    /// Records are newer than this …
    pub xid_from: Xid,
    /// … and not newer than this.
    pub xid: Xid,
}

/// A run being written. Memory: one node and about 80 bytes per finished leaf, so that all inner nodes stand together
/// at the end of the file and one ranged GET of the tail opens it.
#[derive(Debug)]
pub struct RunWriter {
    sink: Sink,
    leaf: NodeBuilder,
    /// Separator of the leaf being filled: nothing that sorts before it is in this leaf or a later one.
    separator: Vec<u8>,
    children: Vec<Child>,
    last_key: Option<Vec<u8>>,
    records: u64,
    range: (Xid, Xid),
}

/// A finished node, as its parent lists it.
#[derive(Debug)]
struct Child {
    separator: Vec<u8>,
    pointer: NodePtr,
}

impl RunWriter {
    /// Starts a run of the changes `xid_from+1 ..= xid` in the file `path`, which is created or emptied.
    pub fn create(path: &Path, xid_from: Xid, xid: Xid) -> Result<Self, RunError> {
        let file = File::create(path).map_err(RunError::io("create", path))?;
        let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)
            .and_then(|mut c| c.include_checksum(true).map(|()| c))
            .map_err(RunError::io("compress", path))?;
        Ok(Self {
            sink: Sink {
                file: BufWriter::with_capacity(256 << 10, file),
                path: path.to_owned(),
                compressor: Zstd(compressor),
                at: 0,
            },
            leaf: NodeBuilder::new(0),
            separator: Vec::new(),
            children: Vec::new(),
            last_key: None,
            records: 0,
            range: (xid_from, xid),
        })
    }

    /// Adds a record. Keys ascend strictly, else [`RunError::Order`].
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), RunError> {
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(RunError::TooLarge { key: key.len(), value: value.len() });
        }
        if self.last_key.as_ref().is_some_and(|last| key <= last.as_slice()) {
            return Err(RunError::Order);
        }
        if self.leaf.is_full_for(key, value) {
            self.close_leaf()?;
            self.separator = shortest_between(self.last_key.as_deref().unwrap_or_default(), key);
        }
        self.leaf.push(key, value);
        let last = self.last_key.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        self.records += 1;
        Ok(())
    }

    /// Writes the inner levels and the footer. On return the file is complete; making it durable is the business of whoever
    /// gives it its name: one that is merged at once never gets one.
    pub fn finish(mut self) -> Result<RunSummary, RunError> {
        let mut depth = 0;
        if self.records > 0 {
            self.close_leaf()?;
            depth = 1;
        }
        let mut level = std::mem::take(&mut self.children);
        while level.len() > 1 {
            level = self.write_level(depth, &level)?;
            depth += 1;
        }
        if depth > DEPTH_MAX {
            return Err(RunError::Corrupt("more levels than a reader accepts"));
        }
        let (xid_from, xid) = self.range;
        let footer = Footer {
            min_reader: RUN_FORMAT,
            depth,
            xid_from,
            xid,
            records: self.records,
            root: level.first().map(|child| child.pointer),
            tree_bytes: self.sink.at,
        }
        .encode();
        self.sink.write(&footer)?;
        fail::fail_point!("run::before_sync");
        self.sink.flush()?;
        Ok(RunSummary { size: self.sink.at, root: hash128(&footer), records: self.records, xid_from, xid })
    }

    /// Bytes written so far, without what is still in memory: at most one node.
    pub fn size(&self) -> u64 {
        self.sink.at
    }

    /// The same with the node in memory, as large as it is before it is compressed.
    pub fn size_with_open_node(&self) -> u64 {
        self.sink.at + self.leaf.raw_bytes()
    }

    fn close_leaf(&mut self) -> Result<(), RunError> {
        let pointer = self.sink.write_node(&mut self.leaf)?;
        self.children.push(Child { separator: std::mem::take(&mut self.separator), pointer });
        Ok(())
    }

    /// Writes the nodes of one inner level over `children`; the answer is the list for the level above.
    fn write_level(&mut self, level: u8, children: &[Child]) -> Result<Vec<Child>, RunError> {
        let mut parents = Vec::new();
        let mut node = NodeBuilder::new(level);
        let mut separator: &[u8] = &[];
        for child in children {
            let pointer = child.pointer.encode();
            // A node with a single child would not shrink the level: a separator is far below half a node.
            if node.is_full_for(&child.separator, &pointer) {
                parents.push(Child { separator: separator.to_vec(), pointer: self.sink.write_node(&mut node)? });
                separator = &child.separator;
            }
            node.push(&child.separator, &pointer);
        }
        parents.push(Child { separator: separator.to_vec(), pointer: self.sink.write_node(&mut node)? });
        Ok(parents)
    }
}

/// The shortest key that is greater than `before` and not greater than `key`, for `before < key`.
fn shortest_between(before: &[u8], key: &[u8]) -> Vec<u8> {
    let shared = before.iter().zip(key).take_while(|(a, b)| a == b).count();
    key.get(..=shared).unwrap_or(key).to_vec()
}

/// Compressor state, which has no `Debug` of its own.
struct Zstd(zstd::bulk::Compressor<'static>);

impl std::fmt::Debug for Zstd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Zstd")
    }
}

/// The file behind a writer.
#[derive(Debug)]
struct Sink {
    file: BufWriter<File>,
    path: PathBuf,
    compressor: Zstd,
    at: u64,
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), RunError> {
        self.file.write_all(bytes).map_err(RunError::io("write", &self.path))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Compresses and writes the node, and empties the builder.
    fn write_node(&mut self, node: &mut NodeBuilder) -> Result<NodePtr, RunError> {
        let raw = node.finish();
        let stored = self.compressor.0.compress(&raw).map_err(RunError::io("compress", &self.path))?;
        let pointer = NodePtr {
            offset: self.at,
            stored_len: stored.len() as u32,
            raw_len: raw.len() as u32,
            hash: hash128(&stored),
        };
        self.write(&stored)?;
        Ok(pointer)
    }

    fn flush(&mut self) -> Result<(), RunError> {
        self.file.flush().map_err(RunError::io("write", &self.path))
    }
}

// A leaf takes one record more than its nominal size; the reader's limit must hold even for the largest one.
const _: () = assert!(NODE_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX + 64 < super::node::RAW_BYTES_MAX);
