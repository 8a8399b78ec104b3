//! A run that was written by the first version of format 1: every later version reads it.

use kvfs::Xid;
use std::path::PathBuf;
use toa::run::{RunError, RunSummary, RunWriter, Tree};

/// The ledger's hash of the committed file.
const ROOT: &str = "b4d70bceb8f8c8d1d1f4daee48d6746a";

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/run_fixtures/format-1.run")
}

/// Two levels, shared prefixes, an empty value, a tombstone-like short value, one value larger than a node.
fn records() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records: Vec<_> = (0..1_200_u64)
        .map(|n| {
            let key = [&(n / 9).to_be_bytes()[..], &[0x40], format!("name-{:05}", n * 7).as_bytes()].concat();
            let value = blake3::hash(&n.to_be_bytes()).as_bytes()[..(n % 33) as usize].to_vec();
            (key, value)
        })
        .collect();
    records.push((vec![0xff; 17], vec![0x5a; 40_000]));
    records
}

fn write(path: &std::path::Path) -> Result<RunSummary, RunError> {
    let mut writer = RunWriter::create(path, Xid(41), Xid(1_000_000_007))?;
    for (key, value) in records() {
        writer.push(&key, &value)?;
    }
    writer.finish()
}

#[test]
fn the_first_run_of_format_1_is_read_for_ever() {
    let root = u128::from_str_radix(ROOT, 16).unwrap().to_be_bytes();
    let tree = Tree::open_file(&fixture(), Some(&root)).unwrap();
    let footer = tree.footer();
    assert_eq!((footer.depth, footer.records, footer.xid_from, footer.xid), (2, 1_201, Xid(41), Xid(1_000_000_007)));
    let found = tree.cursor(&[]).map(|record| record.map(|(k, v)| (k.to_vec(), v.to_vec())));
    assert_eq!(found.collect::<Result<Vec<_>, _>>().unwrap(), records());
    for (key, value) in records() {
        assert_eq!(tree.get(&key).unwrap().unwrap(), value);
    }
}

/// The bytes may change with the zstd library; the shape may not without a new format.
#[test]
fn todays_writer_makes_the_same_tree() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.run");
    let summary = write(&path).unwrap();
    let new = Tree::open_file(&path, Some(&summary.root)).unwrap();
    let old = Tree::open_file(&fixture(), None).unwrap();
    let shape = |footer: &toa::run::Footer| (footer.depth, footer.records, footer.min_reader);
    assert_eq!(shape(new.footer()), shape(old.footer()));
    assert_eq!(new.footer().root.map(|root| root.raw_len), old.footer().root.map(|root| root.raw_len));
}
