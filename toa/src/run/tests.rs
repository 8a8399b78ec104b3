//! Round trips of small trees and every kind of damage.

use super::node::{NodeBuilder, RAW_BYTES_MAX};
use super::*;
use kvfs::Xid;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

fn write(records: &Records) -> (tempfile::TempDir, PathBuf, RunSummary) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.run");
    let mut writer = RunWriter::create(&path, Xid(3), Xid(9)).unwrap();
    for (key, value) in records {
        writer.push(key, value).unwrap();
    }
    let summary = writer.finish().unwrap();
    assert_eq!(summary.size, std::fs::metadata(&path).unwrap().len());
    assert_eq!((summary.xid_from, summary.xid, summary.records), (Xid(3), Xid(9), records.len() as u64));
    (dir, path, summary)
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn scan(tree: &Tree<FileNodes>, from: &[u8]) -> Result<Pairs, RunError> {
    let (mut cursor, mut found) = (tree.cursor(from), Vec::new());
    while cursor.advance()? {
        found.push((cursor.key().to_vec(), cursor.value().to_vec()));
    }
    assert!(!cursor.advance()?, "the end stays the end");
    Ok(found)
}

fn numbered(count: u64, value_bytes: usize) -> Records {
    let value = |n: u64| blake3::hash(&n.to_le_bytes()).as_bytes().repeat(value_bytes.div_ceil(32));
    (0..count).map(|n| ([&(n / 7).to_be_bytes()[..], &n.to_be_bytes()[..]].concat(), value(n))).collect()
}

#[test]
fn a_run_of_three_levels_answers_every_key() {
    let records = numbered(60_000, 96);
    let (_dir, path, summary) = write(&records);
    let tree = Tree::open_file(&path, Some(&summary.root)).unwrap();
    assert!(tree.footer().depth >= 3, "too small to test inner nodes: depth {}", tree.footer().depth);
    for (key, value) in records.iter().step_by(97) {
        assert_eq!(tree.get(key).unwrap().as_deref(), Some(value.as_slice()));
        let between = [key.as_slice(), &[0]].concat();
        assert_eq!(tree.get(&between).unwrap(), None);
        let expected: Vec<_> = records.range(between.clone()..).take(3).map(|(k, _)| k.clone()).collect();
        let mut cursor = tree.cursor(&between);
        for expected in expected {
            assert!(cursor.advance().unwrap());
            assert_eq!(cursor.key(), expected);
        }
    }
    assert!(scan(&tree, &[]).unwrap().into_iter().eq(records));
}

#[test]
fn an_empty_run_is_a_run() {
    let (_dir, path, summary) = write(&Records::new());
    assert_eq!(summary.size, FOOTER_BYTES as u64);
    let tree = Tree::open_file(&path, Some(&summary.root)).unwrap();
    assert_eq!(tree.get(b"x").unwrap(), None);
    assert!(scan(&tree, &[]).unwrap().is_empty());
}

#[test]
fn unordered_and_oversized_records_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = RunWriter::create(&dir.path().join("x"), Xid(0), Xid(1)).unwrap();
    writer.push(b"b", b"").unwrap();
    for key in [&b"b"[..], b"a", b""] {
        assert_eq!(writer.push(key, b"").unwrap_err().kind(), RunErrorKind::Invalid);
    }
    assert_eq!(writer.push(&[b'c'; 1025], b"").unwrap_err().kind(), RunErrorKind::Invalid);
    assert_eq!(writer.push(b"c", &vec![0; (15 << 20) + 1]).unwrap_err().kind(), RunErrorKind::Invalid);
    writer.push(b"c", b"").unwrap();
    assert_eq!(writer.finish().unwrap().records, 2);
}

#[test]
fn a_value_larger_than_a_node_gets_its_own() {
    let records: Records =
        [(b"a".to_vec(), vec![1]), (b"b".to_vec(), vec![7; 1 << 20]), (b"c".to_vec(), vec![2])].into();
    let (_dir, path, summary) = write(&records);
    let tree = Tree::open_file(&path, Some(&summary.root)).unwrap();
    assert!(scan(&tree, &[]).unwrap().into_iter().eq(records));
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    let records = numbered(400, 64);
    let (_dir, path, summary) = write(&records);
    let sound = std::fs::read(&path).unwrap();
    let footer = sound.len() - FOOTER_BYTES;
    for at in (0..footer).step_by(5).chain(footer..sound.len()) {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        let answer = Tree::open_file(&path, Some(&summary.root)).and_then(|tree| scan(&tree, &[]));
        assert_eq!(answer.unwrap_err().kind(), RunErrorKind::Corrupt, "byte {at} of {}", sound.len());
    }
}

#[test]
fn a_truncated_or_foreign_file_is_no_run() {
    let (_dir, path, summary) = write(&numbered(50, 32));
    let sound = std::fs::read(&path).unwrap();
    for len in [0, 1, FOOTER_BYTES - 1, FOOTER_BYTES, sound.len() - 1] {
        std::fs::write(&path, &sound[..len]).unwrap();
        assert_eq!(Tree::open_file(&path, None).unwrap_err().kind(), RunErrorKind::Corrupt, "{len} bytes");
    }
    let (_other, other, _) = write(&numbered(51, 32));
    assert!(Tree::open_file(&other, None).is_ok());
    assert_eq!(Tree::open_file(&other, Some(&summary.root)).unwrap_err().kind(), RunErrorKind::Corrupt);
}

#[test]
fn a_newer_format_says_so() {
    let footer =
        Footer { min_reader: 2, depth: 0, xid_from: Xid(0), xid: Xid(0), records: 0, root: None, tree_bytes: 0 };
    let error = Footer::decode_unanchored(&footer.encode(), FOOTER_BYTES as u64).unwrap_err();
    assert_eq!(error.kind(), RunErrorKind::TooNew);
}

#[test]
fn a_pointer_that_asks_for_too_much_is_refused_before_it_is_allocated() {
    let stored = zstd::bulk::compress(&[0; 64], 3).unwrap();
    for raw_len in [63, 65, RAW_BYTES_MAX as u32 + 1, u32::MAX] {
        let pointer = NodePtr { offset: 0, stored_len: stored.len() as u32, raw_len, hash: hash128(&stored) };
        assert_eq!(Node::decode(&stored, &pointer, 0).unwrap_err().kind(), RunErrorKind::Corrupt, "{raw_len}");
    }
}

fn records() -> impl Strategy<Value = Records> {
    let key = prop_oneof![prop::collection::vec(0..3_u8, 0..12), prop::collection::vec(any::<u8>(), 0..40)];
    let value = prop_oneof![prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..3_000)];
    prop::collection::btree_map(key, value, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_pushed_comes_back(records in records(), probes in prop::collection::vec(prop::collection::vec(0..3_u8, 0..12), 0..40)) {
        let (_dir, path, summary) = write(&records);
        let tree = Tree::open_file(&path, Some(&summary.root)).unwrap();
        for (key, value) in &records {
            let found = tree.get(key).unwrap();
            prop_assert_eq!(found.as_deref(), Some(value.as_slice()));
        }
        for probe in &probes {
            let found = tree.get(probe).unwrap();
            prop_assert_eq!(found.as_deref(), records.get(probe).map(Vec::as_slice));
            let expected: Vec<_> = records.range(probe.clone()..).map(|(k, v)| (k.clone(), v.clone())).collect();
            prop_assert_eq!(scan(&tree, probe).unwrap(), expected);
        }
    }

    /// Without hashes in the way: whatever the bytes, decoding answers, and what it accepts can be walked.
    #[test]
    fn forged_nodes_never_panic(records in records(), level in 0..3_u8, at in any::<prop::sample::Index>(), with in any::<u8>(), cut in 0..9_usize) {
        let mut builder = NodeBuilder::new(level);
        for (key, value) in &records {
            builder.push(key, value);
        }
        let mut raw = builder.finish();
        let place = at.index(raw.len());
        raw[place] = with;
        raw.truncate(raw.len() - cut.min(raw.len()));
        if let Ok(node) = Node::from_raw(raw, level) {
            let (mut cursor, mut seen, mut last) = (node::NodeCursor::default(), 0, None::<Vec<u8>>);
            let mut more = cursor.seek(&node, &[]);
            while more {
                prop_assert!(last.as_deref().is_none_or(|last| last < cursor.key()));
                prop_assert_eq!(node.find(cursor.key()), Some(cursor.value(&node)));
                last = Some(cursor.key().to_vec());
                seen += 1;
                more = cursor.advance(&node);
            }
            prop_assert_eq!(seen, node.count());
        }
    }

    #[test]
    fn garbage_is_no_node(raw in prop::collection::vec(any::<u8>(), 0..200), level in 0..3_u8) {
        if let Ok(node) = Node::from_raw(raw, level) {
            prop_assert!(node.count() > 0);
        }
    }
}
