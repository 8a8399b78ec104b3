//! The model: a tree in memory that does the same the simplest way.

use crate::acl::ModelAcl;
use kvfs::acl::AclKind;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) type Id = usize;
pub(crate) const ROOT: Id = 0;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    /// Shared between clones of the tree until it changes.
    File(Arc<Vec<u8>>),
    Dir(BTreeMap<Vec<u8>, Id>),
    Symlink(Vec<u8>),
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub content: Content,
    pub mode: u32,
    pub names: u32,
    pub parent: Id,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub access: Option<ModelAcl>,
    pub default: Option<ModelAcl>,
}

impl Node {
    fn new(content: Content, mode: u32, parent: Id) -> Self {
        Self { content, mode, names: 1, parent, xattrs: BTreeMap::new(), access: None, default: None }
    }

    /// Its extended attributes, ACLs among them.
    pub(crate) fn attributes(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut all = self.xattrs.clone();
        for (kind, acl) in [(AclKind::Access, &self.access), (AclKind::Default, &self.default)] {
            all.extend(acl.iter().map(|acl| (kind.name().to_vec(), acl.value())));
        }
        all
    }

    pub(crate) fn chmod(&mut self, mode: u32) {
        self.mode = mode;
        if let Some(access) = &mut self.access {
            access.set_permissions(mode);
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub nodes: BTreeMap<Id, Node>,
    next: Id,
}

/// `Err` means: refused, with whatever errno.
pub(crate) type Done<T> = Result<T, ()>;

impl Reference {
    pub(crate) fn new() -> Self {
        let content = Content::Dir(BTreeMap::new());
        let root = Node::new(content, 0o755, ROOT);
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: 1 }
    }

    pub(crate) fn dir(&self, id: Id) -> Done<&BTreeMap<Vec<u8>, Id>> {
        match self.nodes.get(&id) {
            Some(Node { content: Content::Dir(names), names: 1.., .. }) => Ok(names),
            _ => Err(()),
        }
    }

    fn dir_mut(&mut self, id: Id) -> Done<&mut BTreeMap<Vec<u8>, Id>> {
        match self.nodes.get_mut(&id) {
            Some(Node { content: Content::Dir(names), names: 1.., .. }) => Ok(names),
            _ => Err(()),
        }
    }

    pub(crate) fn is_dir(&self, id: Id) -> bool {
        matches!(self.nodes.get(&id).map(|n| &n.content), Some(Content::Dir(_)))
    }

    pub(crate) fn make(&mut self, parent: Id, name: &[u8], content: Content, mode: u32, umask: u32) -> Done<Id> {
        let id = self.next;
        let names = self.dir_mut(parent)?;
        if names.contains_key(name) {
            return Err(());
        }
        names.insert(name.to_vec(), id);
        self.next += 1;
        let default = self.nodes[&parent].default.clone().filter(|_| !matches!(content, Content::Symlink(_)));
        let mut node = Node::new(content, mode & !umask, parent);
        if let Some(default) = default {
            let access = default.clone().inherited(mode);
            node.mode = access.permissions();
            node.access = Some(access).filter(ModelAcl::is_kept);
            node.default = Some(default).filter(|_| matches!(node.content, Content::Dir(_)));
        }
        self.nodes.insert(id, node);
        Ok(id)
    }

    pub(crate) fn set_acl(&mut self, id: Id, kind: AclKind, acl: Option<ModelAcl>) -> Done<()> {
        let node = self.node(id);
        match (kind, acl) {
            (AclKind::Default, Some(_)) if !matches!(node.content, Content::Dir(_)) => return Err(()),
            (AclKind::Default, acl) => node.default = acl,
            (AclKind::Access, acl) => {
                node.mode = acl.as_ref().map_or(node.mode, |acl| node.mode & 0o7000 | acl.permissions());
                node.access = acl.filter(ModelAcl::is_kept);
            }
        }
        Ok(())
    }

    pub(crate) fn link(&mut self, id: Id, parent: Id, name: &[u8]) -> Done<()> {
        let fits = !self.is_dir(id) && self.nodes.get(&id).is_some_and(|n| n.names > 0);
        if !fits || self.dir(parent)?.contains_key(name) {
            return Err(());
        }
        self.dir_mut(parent)?.insert(name.to_vec(), id);
        self.node(id).names += 1;
        Ok(())
    }

    pub(crate) fn remove(&mut self, parent: Id, name: &[u8], want_dir: bool) -> Done<Id> {
        let id = *self.dir(parent)?.get(name).ok_or(())?;
        if self.is_dir(id) != want_dir || (want_dir && !self.dir(id)?.is_empty()) {
            return Err(());
        }
        self.dir_mut(parent)?.remove(name);
        self.node(id).names -= 1;
        Ok(id)
    }

    pub(crate) fn node(&mut self, id: Id) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of the model")
    }

    fn is_under(&self, mut id: Id, ancestor: Id) -> bool {
        loop {
            if id == ancestor {
                return true;
            }
            if id == ROOT {
                return false;
            }
            id = self.nodes[&id].parent;
        }
    }

    /// Returns what lost its last name.
    pub(crate) fn rename(&mut self, from: (Id, &[u8]), to: (Id, &[u8]), mode: super::RenameMode) -> Done<Option<Id>> {
        use super::RenameMode::{Exchange, NoReplace};
        let moved = *self.dir(from.0)?.get(from.1).ok_or(())?;
        let target = self.dir(to.0)?.get(to.1).copied();
        if self.is_dir(moved) && self.is_under(to.0, moved) {
            return Err(());
        }
        match (mode, target) {
            (Exchange, None) | (NoReplace, Some(_)) => return Err(()),
            (Exchange, Some(target)) => {
                if self.is_dir(target) && self.is_under(from.0, target) {
                    return Err(());
                }
                self.dir_mut(from.0)?.insert(from.1.to_vec(), target);
                self.node(target).parent = from.0;
                self.dir_mut(to.0)?.insert(to.1.to_vec(), moved);
                self.node(moved).parent = to.0;
                return Ok(None);
            }
            (_, Some(target)) if target == moved => return Ok(None),
            (_, Some(target)) => {
                let (a, b) = (self.is_dir(moved), self.is_dir(target));
                if a != b || (b && !self.dir(target)?.is_empty()) {
                    return Err(());
                }
                self.node(target).names -= 1;
            }
            (_, None) => {}
        }
        self.dir_mut(from.0)?.remove(from.1);
        self.dir_mut(to.0)?.insert(to.1.to_vec(), moved);
        self.node(moved).parent = to.0;
        Ok(target)
    }

    pub(crate) fn file(&mut self, id: Id) -> Done<&mut Vec<u8>> {
        match self.nodes.get_mut(&id).map(|n| &mut n.content) {
            Some(Content::File(bytes)) => Ok(Arc::make_mut(bytes)),
            _ => Err(()),
        }
    }

    /// Names of a directory, children first by name.
    pub(crate) fn subdirs(&self, id: Id) -> u32 {
        self.dir(id).map_or(0, |names| names.values().filter(|id| self.is_dir(**id)).count() as u32)
    }
}
