//! The runs of a snapshot as one index, read from copies on this machine.

use crate::base::visible::{self, Aged};
use crate::run::{FileNodes, Node, NodePtr, NodeSource, RunErrorKind, Tree};
use bytes::Bytes;
use kvfs::Ino;
use kvfs::base::{BaseError, Visit};
use kvfs::schema::{Key, Value};
use std::sync::Arc;

/// Directories above a file at most, where its path is shown.
const PATH_DEPTH_MAX: usize = 1000;

/// A run on the local disk whose every node was checked.
#[derive(Clone, Debug)]
pub(super) struct LocalRun(Arc<Tree<FileNodes>>);

impl LocalRun {
    pub fn new(tree: Tree<FileNodes>) -> Self {
        Self(Arc::new(tree))
    }
}

impl NodeSource for LocalRun {
    type Error = BaseError;

    fn node(&self, pointer: &NodePtr, level: u8) -> Result<Arc<Node>, BaseError> {
        self.0.source().node(pointer, level).map_err(|error| match error.kind() {
            RunErrorKind::Io | RunErrorKind::NoSpace => BaseError::Unavailable(error.to_string().into()),
            _ => BaseError::Corrupt(error.to_string().into()),
        })
    }
}

/// See the file's first line.
pub(super) struct Stack {
    runs: Vec<Aged<LocalRun>>,
}

impl Stack {
    /// Of runs, newest first. Those of one xid range are one run, split by key.
    pub fn new(runs: &[LocalRun]) -> Self {
        let mut stack: Vec<Aged<LocalRun>> = Vec::with_capacity(runs.len());
        for (at, run) in runs.iter().enumerate() {
            let footer = run.0.footer().clone();
            let same = stack.last().filter(|last| {
                let other = last.tree.footer();
                (other.xid_from, other.xid) == (footer.xid_from, footer.xid)
            });
            let age = same.map_or(at, |last| last.age);
            stack.push(Aged { age, tree: Tree::new(footer, run.clone()) });
        }
        Self { runs: stack }
    }

    /// Visits every live record in key order.
    pub fn scan(&self, visit: &mut Visit<'_>) -> Result<(), BaseError> {
        visible::scan(&self.runs, (&[], Key::end_of_inode(Ino(u64::MAX)).as_bytes()), visit)
    }

    fn live(&self, key: &Key) -> Option<Value> {
        let bytes: Option<Bytes> = visible::get(&self.runs, key.as_bytes()).ok().flatten();
        bytes.and_then(|bytes| Value::decode(&bytes).ok()).map(|(_, value)| value)
    }

    /// A path of the inode, if its own hint leads to the root.
    pub fn path(&self, ino: Ino) -> Option<String> {
        let (mut at, mut path) = (ino, String::new());
        for _ in 0..PATH_DEPTH_MAX {
            if at == Ino::ROOT {
                return Some(if path.is_empty() { "/".to_owned() } else { path });
            }
            let Some(Value::Inode(inode)) = self.live(&Key::inode(at)) else { return None };
            match self.live(&Key::dirent(inode.parent, &inode.name)) {
                Some(Value::Dirent(entry)) if entry.ino == at => {}
                _ => return None,
            }
            path = format!("/{}{path}", String::from_utf8_lossy(&inode.name));
            at = inode.parent;
        }
        None
    }
}
