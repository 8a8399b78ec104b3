//! A verification that is cut off goes on where it was, and reads nothing again.

use super::counting::Reading;
use super::deep;
use crate::node::{Bucket, Node};
use crate::tree;
use std::sync::Arc;
use toa::verify::{Problem, VerifyOptions};
use toa::{ErrorKind, SnapshotState};

fn snapshot(master: &Node, name: &str) {
    master.agent().request_snapshot(Some(name.into()), None).unwrap();
    assert_eq!(master.finished(name), SnapshotState::Complete);
}

#[test]
fn cut_off_anywhere_it_goes_on_and_reads_no_object_twice() {
    let reading = Arc::new(Reading::default());
    let bucket = Bucket::new(reading.store());
    // Packs of 2 MiB.
    let master = Node::master_with(&bucket, |setup| setup.options.proxy_max_bytes = 16 << 20);
    for round in 0..2 {
        for n in 0..5 {
            tree::write_file(master.fs().as_ref(), &format!("f{round}-{n}"), &tree::noise(round * 9 + n, 1_500_000));
        }
        snapshot(&master, &format!("s{round}"));
    }
    let sizes: Vec<(String, u64)> = bucket
        .objects("/pack/")
        .into_iter()
        .chain(bucket.objects("/idx/"))
        .chain(bucket.objects("/listing/"))
        .map(|object| (object.clone(), bucket.get(&object).len() as u64))
        .collect();
    assert!(sizes.len() > 6, "{sizes:?}");
    let bad = bucket.objects("/pack/").swap_remove(1);
    let mut bytes = bucket.get(&bad).to_vec();
    bytes[1000] ^= 1;
    bucket.put(&bad, bytes);
    let total: u64 = sizes.iter().map(|(_, size)| size).sum();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let options = VerifyOptions { resume: Some(state.clone()), ..deep() };
    let mut cut_in_packs = 0;
    for step in 0..12 {
        reading.reset(Some(total * step / 12));
        let (cut, _) = bucket.try_verify(&options);
        assert_eq!(cut.unwrap_err().kind(), ErrorKind::Unavailable, "after {step} of 12");
        let first: Vec<u64> = sizes.iter().map(|(object, _)| reading.bytes_of(object)).collect();
        reading.reset(None);
        let (report, told) = bucket.verify(&options);
        let mut left = 0;
        for ((object, size), first) in sizes.iter().zip(first) {
            let second = reading.bytes_of(object);
            // A damaged object is read twice in one go, to tell it from a damaged line.
            let whole = if *object == bad { 2 * size } else { *size };
            if first < whole {
                assert_eq!(second, whole, "{object} after {step} of 12");
                left += u64::from(first > 0);
            } else {
                assert_eq!(second, 0, "{object} after {step} of 12 was read again");
                cut_in_packs += u64::from(object.contains("/pack/"));
            }
        }
        assert!(left <= 1, "only the object at hand is begun again");
        let named: Vec<_> = told.damage().iter().map(|finding| finding.object.clone().unwrap()).collect();
        assert!(!named.is_empty() && named.iter().all(|object| *object == bad), "{told:?}");
        assert_eq!((report.packs_read, told.damage()[0].problem), (report.packs, Problem::WrongBytes));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "state and copies go with the end");
    }
    assert!(cut_in_packs > 10, "cut among the packs");
}

#[test]
fn it_stays_with_the_snapshots_that_it_began_with() {
    let reading = Arc::new(Reading::default());
    let bucket = Bucket::new(reading.store());
    let master = Node::master(&bucket);
    tree::write_file(master.fs().as_ref(), "f", &tree::noise(1, 300_000));
    snapshot(&master, "first");
    let dir = tempfile::tempdir().unwrap();
    let options = VerifyOptions { resume: Some(dir.path().join("state")), ..deep() };
    reading.reset(Some(10_000));
    bucket.try_verify(&options).0.unwrap_err();
    reading.reset(None);
    tree::write_file(master.fs().as_ref(), "g", &tree::noise(2, 300_000));
    snapshot(&master, "second");
    let (report, told) = bucket.verify(&options);
    assert_eq!((report.damage, report.snapshots, report.later_snapshots), (0, 1, 1), "{told:?}");
    let (report, _) = bucket.verify(&options);
    assert_eq!((report.snapshots, report.later_snapshots), (2, 0), "a new one looks at all");
}
