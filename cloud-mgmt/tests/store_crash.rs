//! A directory store that dies in the middle of a conditional write.
#![cfg(feature = "failpoints")]

use bytes::Bytes;
use cloud_mgmt::store::{DirStore, ObjectStore, PutOutcome, StoreErrorKind, StoreOptions};

/// One test, because failpoints are the process's.
#[tokio::test]
async fn a_write_is_whole_or_not_there() {
    let root = tempfile::tempdir().unwrap();
    let store = DirStore::new(root.path(), StoreOptions::DAEMON);
    for (point, expected) in
        [("store-dir-before-link", PutOutcome::Created), ("store-dir-after-link", PutOutcome::Taken)]
    {
        let body = Bytes::from(vec![7; 100_000]);
        fail::cfg(point, "panic").unwrap();
        let died = store.put_if_absent(point, body.clone()).await.unwrap_err();
        fail::remove(point);
        assert_eq!(died.kind(), StoreErrorKind::Unavailable, "nobody knows whether it was applied");
        match store.get(point).await {
            Ok(there) => assert_eq!((expected, there), (PutOutcome::Taken, body.clone())),
            Err(error) => assert!(error.is_not_found() && expected == PutOutcome::Created, "{error}"),
        }
        assert_eq!(store.put_if_absent(point, body.clone()).await.unwrap(), expected);
        assert_eq!(store.get(point).await.unwrap(), body);
    }
    assert_eq!(store.list("").await.unwrap().len(), 2);
}
