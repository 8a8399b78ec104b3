//! Index runs: the footer, a node, a whole tree of nodes.
//!
//! Hashes are made right, else nothing would get past them; nodes are not compressed, so that a mutation reaches them.

use super::Pieces;
use crate::fuzz::{Target, verdict};
use kvfs::Xid;
use std::sync::Arc;
use toa::run::node::NodeCursor;
use toa::run::{FOOTER_BYTES, Footer, Node, NodePtr, NodeSource, RunError, Tree, hash128};

pub const FOOTER: Target = Target { name: "footer", seeds: footers, words: &["CBFSrun\n"], parse: footer };
pub const NODE: Target = Target { name: "node", seeds: nodes, words: &[], parse: node };
pub const RUN: Target = Target { name: "run", seeds: runs, words: &[], parse: run };

/// Bytes of a footer before its own hash.
const FOOTER_BODY: usize = FOOTER_BYTES - 16;

fn footers() -> Vec<Vec<u8>> {
    let root = NodePtr { offset: 10, stored_len: 300, raw_len: 900, hash: [3; 16] };
    let full = Footer {
        min_reader: 1,
        depth: 2,
        xid_from: Xid(4),
        xid: Xid(9),
        records: 40,
        root: Some(root),
        tree_bytes: 1000,
    };
    let empty = Footer { depth: 0, records: 0, root: None, tree_bytes: 0, ..full.clone() };
    [full, empty].iter().map(|footer| footer.encode()[..FOOTER_BODY].to_vec()).collect()
}

/// The size of the run is what the footer says, so that this check does not hide the others.
fn footer(body: &[u8]) -> String {
    let mut bytes = body.to_vec();
    bytes.extend(hash128(body));
    let said = Pieces(body.get(72..).unwrap_or_default()).number(8);
    let size = said.saturating_add(FOOTER_BYTES as u64);
    let root = hash128(&bytes);
    let decoded = Footer::decode(&bytes, size, &root);
    assert!(Footer::decode(&bytes, size, &[0; 16]).is_err(), "another run than the ledger's");
    match decoded {
        Ok(footer) => {
            let again = Footer::decode_unanchored(&footer.encode(), size).expect("its own encoding");
            assert_eq!(again, footer);
            format!("depth {}", footer.depth)
        }
        Err(error) => verdict(&error),
    }
}

fn varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A node by the page `docs/formats/index-run.md`.
fn raw_node(level: u8, records: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut raw = vec![level, 0, 0, 0];
    raw.extend((records.len() as u32).to_le_bytes());
    let (mut restarts, mut last) = (Vec::new(), Vec::new());
    for (n, (key, value)) in records.iter().enumerate() {
        let whole = n.is_multiple_of(16);
        let shared = if whole { 0 } else { last.iter().zip(key).take_while(|(a, b)| a == b).count() };
        if whole {
            restarts.push(raw.len() as u32);
        }
        for number in [shared, key.len() - shared, value.len()] {
            varint(number, &mut raw);
        }
        raw.extend(&key[shared..]);
        raw.extend(value);
        last.clone_from(key);
    }
    raw.extend(restarts.iter().flat_map(|restart| restart.to_le_bytes()));
    raw
}

fn records(from: usize, count: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    (from..from + count).map(|n| (format!("key{n:04}").into_bytes(), vec![n as u8; n % 5])).collect()
}

fn nodes() -> Vec<Vec<u8>> {
    let inner: Vec<_> = records(0, 3).into_iter().map(|(key, _)| (key, vec![7; 32])).collect();
    vec![raw_node(0, &records(0, 3)), raw_node(0, &records(0, 40)), raw_node(1, &inner)]
}

/// What is taken for a node can be walked and searched: its keys ascend, each is found.
fn node(raw: &[u8]) -> String {
    let level = raw.first().copied().unwrap_or(0);
    let node = match Node::from_raw(raw.to_vec(), level) {
        Ok(node) => node,
        Err(error) => return verdict(&error),
    };
    let (mut cursor, mut walked, mut last) = (NodeCursor::default(), 0, Vec::new());
    while cursor.advance(&node) {
        assert!(walked == 0 || cursor.key() > last.as_slice(), "keys do not ascend");
        assert_eq!(node.find(cursor.key()), Some(cursor.value(&node)));
        let mut other = NodeCursor::default();
        assert!(other.seek_child(&node, cursor.key()) && other.key() == cursor.key());
        assert!(level == 0 || cursor.pointer(&node).is_some(), "an inner record without a pointer");
        last = cursor.key().to_vec();
        walked += 1;
    }
    assert_eq!(walked, node.count());
    let stored = zstd::bulk::compress(raw, 1).expect("compresses");
    let (stored_len, raw_len) = (stored.len() as u32, raw.len() as u32);
    let pointer = NodePtr { offset: 0, stored_len, raw_len, hash: hash128(&stored) };
    assert!(Node::decode(&stored, &pointer, level).is_ok(), "the same node, compressed");
    assert!(Node::decode(&stored, &NodePtr { raw_len: raw_len + 1, ..pointer }, level).is_err());
    format!("level {level} records {}", walked.min(20) / 16)
}

/// Bytes behind the nodes: depth, records, root.
const TAIL: usize = 1 + 8 + 32;

fn pointer(offset: usize, len: usize) -> NodePtr {
    NodePtr { offset: offset as u64, stored_len: len as u32, raw_len: len as u32, hash: [0; 16] }
}

fn runs() -> Vec<Vec<u8>> {
    let mut flat = raw_node(0, &records(0, 20));
    let root = pointer(0, flat.len());
    flat.push(1);
    flat.extend(20_u64.to_le_bytes());
    flat.extend(root.encode());
    let (mut deep, mut children) = (Vec::new(), Vec::new());
    for (n, from) in [0, 20, 40].into_iter().enumerate() {
        let leaf = raw_node(0, &records(from, 20));
        let key = if n == 0 { Vec::new() } else { format!("key{from:04}").into_bytes() };
        children.push((key, pointer(deep.len(), leaf.len()).encode().to_vec()));
        deep.extend(leaf);
    }
    let top = raw_node(1, &children);
    let root = pointer(deep.len(), top.len());
    deep.extend(top);
    deep.push(2);
    deep.extend(60_u64.to_le_bytes());
    deep.extend(root.encode());
    vec![flat, deep]
}

/// Nodes that stand in the input as they are.
struct Raw<'a>(&'a [u8]);

impl NodeSource for Raw<'_> {
    type Error = RunError;

    fn node(&self, pointer: &NodePtr, level: u8) -> Result<Arc<Node>, RunError> {
        let end = pointer.end().ok_or(RunError::Corrupt("too far"))?;
        let bytes = self.0.get(pointer.offset as usize..end as usize).ok_or(RunError::Corrupt("beyond"))?;
        Node::from_raw(bytes.to_vec(), level).map(Arc::new)
    }
}

/// A forged tree (nodes that are their own children too) ends, after no more records than its footer says.
fn run(bytes: &[u8]) -> String {
    let Some((nodes, tail)) = bytes.split_at_checked(bytes.len().saturating_sub(TAIL)) else { return "short".into() };
    let mut tail = Pieces(tail);
    let (depth, records) = (tail.byte(), tail.number(8).min(5_000));
    let Ok(root) = <&[u8; 32]>::try_from(tail.bytes(32)) else { return "short".into() };
    let tree_bytes = nodes.len() as u64;
    let root = (depth > 0).then(|| NodePtr::decode(root));
    let footer = Footer { min_reader: 1, depth, xid_from: Xid(0), xid: Xid(1), records, root, tree_bytes };
    let footer = match Footer::decode_unanchored(&footer.encode(), tree_bytes + FOOTER_BYTES as u64) {
        Ok(footer) => footer,
        Err(error) => return verdict(&error),
    };
    let tree = Tree::new(footer, Raw(nodes));
    for key in [&b""[..], b"key0005", b"key0040", b"\xff\xff"] {
        let _ = tree.get(key);
    }
    let (mut cursor, mut walked) = (tree.cursor(b""), 0);
    let end = loop {
        match cursor.advance() {
            Ok(true) => walked += 1,
            Ok(false) => break "end".to_owned(),
            Err(error) => break verdict(&error),
        }
        assert!(walked <= records, "a walk of more records than there are");
    };
    format!("depth {depth}: {end} after {}", (walked > 0) as u8)
}
