//! A part of a run in the bucket, or a whole one: opened at once, or when it is first asked.

use super::objects::{ObjectRef, Objects, Piece, Wait};
use super::visible::OpenTree;
use crate::run::{FOOTER_BYTES, Footer, Hash128, Node, NodePtr, NodeSource, RunError, Tree};
use cloud_mgmt::ledger::RunEntry;
use kvfs::base::BaseError;
use std::sync::{Arc, OnceLock};

/// What the first request of a run brings from its end: its footer and, up to some millions of files, all inner nodes.
const TAIL_BYTES: u64 = 1 << 20;

/// The nodes of a run in the bucket.
#[derive(Clone, Debug)]
pub(crate) struct ObjectNodes {
    objects: Arc<Objects>,
    object: ObjectRef,
    wait: Wait,
}

impl From<RunError> for BaseError {
    fn from(error: RunError) -> Self {
        Self::Corrupt(error.to_string().into())
    }
}

impl NodeSource for ObjectNodes {
    type Error = BaseError;

    fn node(&self, pointer: &NodePtr, level: u8) -> Result<Arc<Node>, BaseError> {
        let piece =
            Piece { object: self.object.clone(), offset: pointer.offset, len: pointer.stored_len, hash: pointer.hash };
        let decode = |stored: &[u8]| {
            let name = |error| BaseError::Corrupt(format!("{}: {error}", self.object.name).into());
            Node::decode(stored, pointer, level).map_err(name)
        };
        self.objects.node(&piece, decode, (level, self.wait))
    }
}

/// See the file's first line.
#[derive(Debug)]
pub(crate) struct StoredPart {
    nodes: ObjectNodes,
    root: Hash128,
    /// Xid range and number of records, as the ledger tells them.
    told: (u64, u64, u64),
    tree: OnceLock<Tree<ObjectNodes>>,
}

impl StoredPart {
    /// The part that the ledger describes, not opened yet.
    pub(super) fn new(objects: &Arc<Objects>, run: &RunEntry) -> Result<Self, BaseError> {
        let wrong = |why: &str| BaseError::Corrupt(format!("{}: {why}", run.object).into());
        let root = parse_root(&run.root).ok_or_else(|| wrong("the ledger has no valid root hash of it"))?;
        let object = ObjectRef { name: run.object.as_str().into(), size: run.size };
        let nodes = ObjectNodes { objects: Arc::clone(objects), object, wait: Wait::Never };
        Ok(Self { nodes, root, told: (run.xid_from, run.xid, run.records), tree: OnceLock::new() })
    }

    /// The same for a thread that may wait.
    pub(super) fn waiting(&self) -> Self {
        let nodes = ObjectNodes { wait: Wait::ForNetwork, ..self.nodes.clone() };
        let tree = self.tree.get().map(|open| Tree::new(open.footer().clone(), nodes.clone()));
        Self { nodes, tree: tree.map_or_else(OnceLock::new, OnceLock::from), ..*self }
    }

    /// Its object.
    pub(crate) fn object(&self) -> &ObjectRef {
        &self.nodes.object
    }

    /// The hash of its footer.
    pub(super) fn root(&self) -> &Hash128 {
        &self.root
    }

    /// Opens it, unless it is open; may wait for the network.
    pub(super) fn open(&self, wait: Wait) -> Result<&Tree<ObjectNodes>, BaseError> {
        if let Some(open) = self.tree.get() {
            return Ok(open);
        }
        let footer = self.read_footer(wait)?;
        Ok(self.tree.get_or_init(|| Tree::new(footer, self.nodes.clone())))
    }

    fn read_footer(&self, wait: Wait) -> Result<Footer, BaseError> {
        let object = &self.nodes.object;
        let wrong = |why: &str| BaseError::Corrupt(format!("{}: {why}", object.name).into());
        let offset = object.size.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| wrong("shorter than a footer"))?;
        let piece = Piece { object: object.clone(), offset, len: FOOTER_BYTES as u32, hash: self.root };
        let warm_from = object.size.saturating_sub(TAIL_BYTES);
        let bytes = match wait {
            Wait::Never => self.nodes.objects.read_warm(&piece, warm_from)?,
            Wait::ForNetwork => self.nodes.objects.fetch(&piece, warm_from)?,
        };
        let footer = Footer::decode(&bytes, object.size, &self.root).map_err(|error| wrong(&error.to_string()))?;
        if (footer.xid_from.0, footer.xid.0, footer.records) != self.told {
            return Err(wrong("the ledger tells another xid range or record count"));
        }
        Ok(footer)
    }
}

impl OpenTree for StoredPart {
    type Nodes = ObjectNodes;

    fn tree(&self) -> Result<&Tree<ObjectNodes>, BaseError> {
        self.open(self.nodes.wait)
    }
}

/// 32 hex digits.
fn parse_root(text: &str) -> Option<Hash128> {
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| digits)?;
    Some(number.to_be_bytes())
}
