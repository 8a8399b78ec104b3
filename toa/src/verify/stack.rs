//! The runs of a snapshot as one index, read from copies on this machine.

use crate::base::visible::{self, OpenTree, Part, StackedRun};
use crate::run::{FileNodes, Node, NodePtr, NodeSource, RunErrorKind, Tree};
use bytes::Bytes;
use cloud_mgmt::ledger::SnapshotEntry;
use kvfs::Ino;
use kvfs::base::{BaseError, Visit};
use kvfs::ids::PackNo;
use kvfs::schema::{Key, PackUsersValue, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Directories above a file at most, where its path is shown.
const PATH_DEPTH_MAX: usize = 1000;

/// A run, or a part of one, on the local disk, whose every node was checked.
#[derive(Clone, Debug)]
pub(super) struct LocalRun {
    tree: Arc<Tree<FileNodes>>,
    /// Its first and its last inode.
    inos: Option<(Ino, Ino)>,
}

impl LocalRun {
    pub fn new(tree: Tree<FileNodes>, inos: Option<(Ino, Ino)>) -> Self {
        Self { tree: Arc::new(tree), inos }
    }
}

/// The nodes of a [`LocalRun`].
#[derive(Clone, Debug)]
pub(super) struct LocalNodes(Arc<Tree<FileNodes>>);

impl NodeSource for LocalNodes {
    type Error = BaseError;

    fn node(&self, pointer: &NodePtr, level: u8) -> Result<Arc<Node>, BaseError> {
        self.0.source().node(pointer, level).map_err(|error| match error.kind() {
            RunErrorKind::Io | RunErrorKind::NoSpace => BaseError::Unavailable(error.to_string().into()),
            _ => BaseError::Corrupt(error.to_string().into()),
        })
    }
}

impl OpenTree for Tree<LocalNodes> {
    type Nodes = LocalNodes;

    fn tree(&self) -> Result<&Tree<LocalNodes>, BaseError> {
        Ok(self)
    }
}

/// See the file's first line.
pub(super) struct Stack {
    runs: Vec<StackedRun<Tree<LocalNodes>>>,
    /// Why this cannot be what the snapshot shows: parts with keys that are not theirs.
    pub misplaced: Vec<String>,
}

impl Stack {
    /// The runs of a snapshot; `None` if one of them is not sound.
    pub fn of(entry: &SnapshotEntry, sound: &HashMap<String, LocalRun>) -> Option<Self> {
        let mut stack = Self { runs: Vec::new(), misplaced: Vec::new() };
        for run in entry.stacked_runs() {
            let mut parts = Vec::with_capacity(run.len());
            for (at, part) in run.iter().enumerate() {
                let local = sound.get(&part.object)?;
                let from = part.ino_from.unwrap_or(0);
                let end = run.get(at + 1).and_then(|next| next.ino_from);
                if let Some((first, last)) = local.inos
                    && (first.0 < from || end.is_some_and(|end| end <= last.0))
                {
                    let what = format!("{}: inodes {first} to {last}, listed as a part from {from} on", part.object);
                    stack.misplaced.push(what);
                }
                let tree = Tree::new(local.tree.footer().clone(), LocalNodes(Arc::clone(&local.tree)));
                parts.push(Part { from: Ino(from), tree });
            }
            stack.runs.push(StackedRun { parts });
        }
        Some(stack)
    }

    /// Visits every live record in key order.
    pub fn scan(&self, visit: &mut Visit<'_>) -> Result<(), BaseError> {
        visible::scan(&self.runs, (&[], Key::end_of_inode(Ino(u64::MAX)).as_bytes()), visit)
    }

    fn live(&self, key: &Key) -> Option<Value> {
        let bytes: Option<Bytes> = visible::get(&self.runs, key.as_bytes()).ok().flatten();
        bytes.and_then(|bytes| Value::decode(&bytes).ok()).map(|(_, value)| value)
    }

    /// Who uses a pack, if the index says so.
    pub fn users(&self, pack: PackNo) -> Option<PackUsersValue> {
        match self.live(&Key::pack_users(pack)) {
            Some(Value::PackUsers(users)) => Some(users),
            _ => None,
        }
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
