//! Look-ups in a run, wherever its nodes come from.

use super::cursor::RunCursor;
use super::footer::{FOOTER_BYTES, Footer};
use super::node::NodeCursor;
use super::{Hash128, Node, NodePtr, RunError};
use bytes::Bytes;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the nodes of one run come from: a local file, or the proxy.
pub trait NodeSource {
    /// What can go wrong there.
    type Error: From<RunError>;
    /// The node at `pointer`, checked; `level` is 0 for a leaf.
    fn node(&self, pointer: &NodePtr, level: u8) -> Result<Arc<Node>, Self::Error>;
}

/// An open run.
#[derive(Clone, Debug)]
pub struct Tree<S> {
    footer: Footer,
    source: S,
}

impl<S: NodeSource> Tree<S> {
    /// A run with this footer, which the caller has checked.
    pub fn new(footer: Footer, source: S) -> Self {
        Self { footer, source }
    }

    /// Its footer.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Where its nodes come from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The value of exactly `key`, as it was pushed (a tombstone is a value here).
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, S::Error> {
        let (Some(mut pointer), depth) = (self.footer.root, self.footer.depth) else {
            return Ok(None);
        };
        for level in (1..depth).rev() {
            let node = self.load(&pointer, level)?;
            let mut cursor = NodeCursor::default();
            if !cursor.seek_child(&node, key) {
                return Ok(None);
            }
            pointer = cursor.pointer(&node).ok_or(RunError::Corrupt("an inner record is no pointer"))?;
        }
        let leaf = self.load(&pointer, 0)?;
        Ok(leaf.find(key).map(Bytes::copy_from_slice))
    }

    /// A cursor in front of the first record with a key not below `from`.
    pub fn cursor(&self, from: &[u8]) -> RunCursor<'_, S> {
        RunCursor::new(self, from)
    }

    /// The node at `pointer`, if that lies within the run.
    pub(super) fn load(&self, pointer: &NodePtr, level: u8) -> Result<Arc<Node>, S::Error> {
        if pointer.end().is_none_or(|end| end > self.footer.tree_bytes) {
            return Err(RunError::Corrupt("a node lies outside of the run").into());
        }
        self.source.node(pointer, level)
    }
}

/// The nodes of a run in a local file.
#[derive(Debug)]
pub struct FileNodes {
    file: File,
    path: PathBuf,
}

impl NodeSource for FileNodes {
    type Error = RunError;

    fn node(&self, pointer: &NodePtr, level: u8) -> Result<Arc<Node>, RunError> {
        let mut stored = vec![0; pointer.stored_len as usize];
        self.file.read_exact_at(&mut stored, pointer.offset).map_err(RunError::io("read", &self.path))?;
        Node::decode(&stored, pointer, level).map(Arc::new)
    }
}

impl Tree<FileNodes> {
    /// Opens a run in a local file. `root` is the hash that the ledger holds; `None` trusts the file itself.
    pub fn open_file(path: &Path, root: Option<&Hash128>) -> Result<Self, RunError> {
        let file = File::open(path).map_err(RunError::io("open", path))?;
        Self::of_file(file, path, root)
    }

    /// The same of a file that is open already, perhaps without a name: `path` is what errors call it.
    pub fn of_file(file: File, path: &Path, root: Option<&Hash128>) -> Result<Self, RunError> {
        let size = file.metadata().map_err(RunError::io("stat", path))?.len();
        let at = size.checked_sub(FOOTER_BYTES as u64).ok_or(RunError::Corrupt("shorter than a footer"))?;
        let mut bytes = [0; FOOTER_BYTES];
        file.read_exact_at(&mut bytes, at).map_err(RunError::io("read", path))?;
        let footer = match root {
            Some(root) => Footer::decode(&bytes, size, root)?,
            None => Footer::decode_unanchored(&bytes, size)?,
        };
        Ok(Self::new(footer, FileNodes { file, path: path.to_owned() }))
    }
}
