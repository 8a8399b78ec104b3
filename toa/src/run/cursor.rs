//! Walks the records of a run in order.

use super::node::NodeCursor;
use super::tree::{NodeSource, Tree};
use super::{Node, NodePtr, RunError};
use bytes::Bytes;
use std::sync::Arc;

/// A place in a run. After an error it stands where it stood: the step can be tried again.
#[derive(Debug)]
pub struct RunCursor<'t, S> {
    tree: &'t Tree<S>,
    /// Root first; the last one is a leaf once the cursor has started.
    path: Descent,
    state: State,
    /// Records that it has not stood on, by the footer.
    left: u64,
}

/// The nodes from the root down, each with the record that leads on.
type Descent = Vec<(Arc<Node>, NodeCursor)>;

#[derive(Debug)]
enum State {
    Before(Vec<u8>),
    Within,
    End,
}

impl<'t, S: NodeSource> RunCursor<'t, S> {
    pub(super) fn new(tree: &'t Tree<S>, from: &[u8]) -> Self {
        Self { tree, path: Vec::new(), state: State::Before(from.to_vec()), left: tree.footer().records }
    }

    /// Steps to the next record; `false` behind the last one.
    pub fn advance(&mut self) -> Result<bool, S::Error> {
        let started = match &self.state {
            State::Before(from) => self.start(from)?,
            State::Within => None,
            State::End => return Ok(false),
        };
        if let Some((path, on_record)) = started {
            self.path = path;
            self.state = State::Within;
            if on_record {
                return self.counted();
            }
        }
        if self.step()? {
            return self.counted();
        }
        self.state = State::End;
        Ok(false)
    }

    /// A forged tree, whose nodes are children several times over, must not keep anybody for ever.
    fn counted(&mut self) -> Result<bool, S::Error> {
        self.left = self.left.checked_sub(1).ok_or(RunError::Corrupt("more records than the footer counts"))?;
        Ok(true)
    }

    /// Key of the record that it stands on; only after `advance` said `true`.
    pub fn key(&self) -> &[u8] {
        self.path.last().map_or(&[], |(_, cursor)| cursor.key())
    }

    /// Value of the record that it stands on; only after `advance` said `true`.
    pub fn value(&self) -> &[u8] {
        self.path.last().map_or(&[], |(node, cursor)| cursor.value(node))
    }

    /// Descends to `from`: the path, and whether it ends on a record.
    fn start(&self, from: &[u8]) -> Result<Option<(Descent, bool)>, S::Error> {
        let footer = self.tree.footer();
        let Some(mut pointer) = footer.root else { return Ok(Some((Vec::new(), false))) };
        let mut path = Vec::with_capacity(usize::from(footer.depth));
        for level in (1..footer.depth).rev() {
            let node = self.tree.load(&pointer, level)?;
            let mut cursor = NodeCursor::default();
            // Smaller than every separator cannot be (the leftmost one is empty); a forged node falls to its first child.
            if !cursor.seek_child(&node, from) && !cursor.seek(&node, &[]) {
                return Err(RunError::Corrupt("an inner node without children").into());
            }
            pointer = child_of(&node, &cursor)?;
            path.push((node, cursor));
        }
        let leaf = self.tree.load(&pointer, 0)?;
        let mut cursor = NodeCursor::default();
        let on_record = cursor.seek(&leaf, from);
        path.push((leaf, cursor));
        Ok(Some((path, on_record)))
    }

    /// To the next record of the leaf, or over the lowest ancestor that has a next child. Loads first, moves then.
    fn step(&mut self) -> Result<bool, S::Error> {
        let Some((leaf, cursor)) = self.path.last_mut() else { return Ok(false) };
        if cursor.advance(leaf) {
            return Ok(true);
        }
        let leaf_at = self.path.len() - 1;
        for at in (0..leaf_at).rev() {
            let Some((node, cursor)) = self.path.get(at) else { continue };
            let mut cursor = cursor.clone();
            if !cursor.advance(node) {
                continue;
            }
            let mut tail = Vec::with_capacity(leaf_at - at);
            let mut pointer = child_of(node, &cursor)?;
            for level in (0..leaf_at - at).rev() {
                let node = self.tree.load(&pointer, level as u8)?;
                let mut cursor = NodeCursor::default();
                if !cursor.advance(&node) {
                    return Err(RunError::Corrupt("a node without records").into());
                }
                if level > 0 {
                    pointer = child_of(&node, &cursor)?;
                }
                tail.push((node, cursor));
            }
            if let Some(place) = self.path.get_mut(at) {
                place.1 = cursor;
            }
            self.path.truncate(at + 1);
            self.path.extend(tail);
            return Ok(true);
        }
        Ok(false)
    }
}

/// The remaining records, copied: for merging. An error can be followed by a new attempt at the same step.
impl<S: NodeSource> Iterator for RunCursor<'_, S> {
    type Item = Result<(Bytes, Bytes), S::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(true) => Some(Ok((Bytes::copy_from_slice(self.key()), Bytes::copy_from_slice(self.value())))),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

fn child_of(node: &Node, cursor: &NodeCursor) -> Result<NodePtr, RunError> {
    cursor.pointer(node).ok_or(RunError::Corrupt("an inner record is no pointer"))
}
