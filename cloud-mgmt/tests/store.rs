//! The back ends against the suite that every store must pass, and in races.
//!
//! `CBFS_TEST_S3` names a store (`s3://bucket?endpoint=…`) to run the suite on a real server, with credentials from the
//! environment; `CBFS_TEST_ROUNDS` makes the races longer.

use bytes::Bytes;
use cloud_mgmt::probe::{ProbeError, probe_conditional_writes};
use cloud_mgmt::store::{
    Conditions, Counted, DirStore, FaultMoment, FaultPlan, MemoryStore, ObjectStore, PutOutcome, RequestCounter,
    Requests, StoreErrorKind, StoreOptions, StoreUrl, conformance,
};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

const OPTIONS: StoreOptions = StoreOptions::DAEMON;

fn rounds(default: u32) -> u32 {
    std::env::var("CBFS_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn dir(root: &Path) -> DirStore {
    DirStore::new(root, OPTIONS)
}

/// Everything below a directory but the directories.
fn files_below(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn a_directory_passes_the_suite_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    conformance::check(Arc::new(dir(root.path()))).await.unwrap();
    assert_eq!(files_below(root.path()), Vec::<String>::new());
    let folders: Vec<_> = std::fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(folders, [".tmp"], "empty folders are removed, too");
}

#[tokio::test]
async fn a_counted_store_is_the_same_store_and_each_call_is_one_request() {
    let root = tempfile::tempdir().unwrap();
    let store = Counted::new(Arc::new(dir(root.path())), Arc::default());
    conformance::check(Arc::new(store)).await.unwrap();

    let counter = Arc::new(RequestCounter::default());
    let store = Counted::new(Arc::new(dir(root.path())), Arc::clone(&counter));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"1234567").unwrap();
    store.put("a", Bytes::from_static(b"12345")).await.unwrap();
    assert_eq!(store.put_if_absent("a", Bytes::from_static(b"1")).await.unwrap(), PutOutcome::Taken);
    store.put_file("b", file.path(), &|_| {}).await.unwrap();
    store.get("a").await.unwrap();
    store.get_range("b", 2..4).await.unwrap();
    store.get("none").await.unwrap_err();
    store.head("a").await.unwrap();
    store.list("").await.unwrap();
    store.list_here("").await.unwrap();
    store.delete("a").await.unwrap();
    assert_eq!(store.abort_uploads("", &|_| true).await.unwrap(), 0);
    let expected = Requests {
        get: 3,
        put: 3,
        head: 1,
        list: 2,
        delete: 1,
        bytes_sent: 13,
        bytes_received: 7,
        ..Requests::default()
    };
    assert_eq!(counter.sums(), expected);
    assert_eq!(expected.total(), 10);
}

#[tokio::test]
async fn memory_passes_the_suite_and_leaves_nothing() {
    let store = Arc::new(MemoryStore::new());
    conformance::check(store.clone()).await.unwrap();
    assert!(store.list("").await.unwrap().is_empty());
}

#[tokio::test]
async fn the_suite_notices_bad_stores() {
    let liar = MemoryStore::new();
    liar.set_conditions(Conditions::IgnoredEvery(2));
    assert!(conformance::check(Arc::new(liar)).await.unwrap_err().contains("put_if_absent"));
    for nth in 1..=40 {
        let store = MemoryStore::new();
        store.set_faults(FaultPlan::nth(nth, FaultMoment::Before));
        let outcome = conformance::check(Arc::new(store)).await;
        assert!(outcome.is_err(), "call {nth} failed and the suite did not care");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_s3_server_passes_the_suite() {
    let Ok(address) = std::env::var("CBFS_TEST_S3") else {
        eprintln!("SKIPPED: set CBFS_TEST_S3=s3://bucket?endpoint=… to run the suite on a real server");
        return;
    };
    let (place, query) = address
        .split_once('?')
        .map_or((address.as_str(), String::new()), |(place, query)| (place, format!("?{query}")));
    let connect = async |url: String| url.parse::<StoreUrl>().unwrap().connect(OPTIONS).await.unwrap();
    let store = connect(address.clone()).await;
    conformance::check(Arc::clone(&store)).await.unwrap();
    let report = probe_conditional_writes(&*store, "test-", rounds(20), 8).await.unwrap();
    assert_eq!(report.racers, 8);
    let below = connect(format!("{}/some/folder{query}", place.trim_end_matches('/'))).await;
    conformance::check(below).await.unwrap();
    let missing = connect(format!("s3://no-such-bucket-here{query}")).await;
    let kinds = [
        missing.get("x").await.map(drop).map_err(|e| e.kind()),
        missing.head("x").await.map(drop).map_err(|e| e.kind()),
        missing.list("").await.map(drop).map_err(|e| e.kind()),
    ];
    assert_eq!(kinds, [Err(StoreErrorKind::NoBucket); 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_race_on_a_directory_has_one_winner() {
    let root = tempfile::tempdir().unwrap();
    let report = probe_conditional_writes(&dir(root.path()), "", rounds(200), 8).await.unwrap();
    assert_eq!((report.rounds, report.racers), (rounds(200), 8));
    assert_eq!(files_below(root.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_and_deleters_of_one_folder_do_not_disturb_each_other() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(dir(root.path()));
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..40 {
                    let name = format!("folder/sub/{worker}-{n}");
                    let outcome = store.put_if_absent(&name, Bytes::from(name.clone())).await.unwrap();
                    assert_eq!(outcome, PutOutcome::Created);
                    assert_eq!(store.get(&name).await.unwrap(), name);
                    store.delete(&name).await.unwrap();
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test]
async fn the_probe_passes_an_honest_memory_and_removes_its_objects() {
    let store = MemoryStore::new();
    let report = probe_conditional_writes(&store, "p/", 20, 8).await.unwrap();
    assert_eq!((report.rounds, report.racers), (20, 8));
    assert!(store.list("").await.unwrap().is_empty());
}

#[tokio::test]
async fn the_probe_catches_liars() {
    // The first passes any probe without a race; the others slip now and then.
    let slips = [2, 7, 50].map(Conditions::IgnoredEvery);
    for conditions in [Conditions::CheckThenAct].into_iter().chain(slips) {
        let store = MemoryStore::new();
        store.set_conditions(conditions);
        let caught = probe_conditional_writes(&store, "", 20, 8).await;
        assert!(matches!(caught, Err(ProbeError::Lies { .. })), "{conditions:?}: {caught:?}");
        assert!(store.list("").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_probe_bears_a_lost_answer_and_names_a_store_that_is_away() {
    for moment in [FaultMoment::Before, FaultMoment::AfterApply, FaultMoment::Torn] {
        for nth in 5..40 {
            let store = MemoryStore::new();
            store.set_faults(FaultPlan::nth(nth, moment));
            probe_conditional_writes(&store, "", 5, 4).await.unwrap_or_else(|e| panic!("{nth} {moment:?}: {e}"));
        }
    }
    let store = MemoryStore::new();
    store.offline();
    let away = probe_conditional_writes(&store, "", 1, 2).await.unwrap_err();
    assert!(matches!(away, ProbeError::Store(e) if e.kind() == StoreErrorKind::Unavailable));
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_no_bucket() {
    let parent = tempfile::tempdir().unwrap();
    let url = StoreUrl::Directory(parent.path().join("a/b"));
    let store = url.connect(OPTIONS).await.unwrap();
    let kinds = [
        store.get("x").await.map(drop).map_err(|e| e.kind()),
        store.head("x").await.map(drop).map_err(|e| e.kind()),
        store.list("").await.map(drop).map_err(|e| e.kind()),
        store.list_here("x/").await.map(drop).map_err(|e| e.kind()),
        store.delete("x").await.map_err(|e| e.kind()),
        store.put("x", Bytes::new()).await.map_err(|e| e.kind()),
        store.put_if_absent("x/y", Bytes::new()).await.map(drop).map_err(|e| e.kind()),
    ];
    assert_eq!(kinds, [Err(StoreErrorKind::NoBucket); 7]);
    assert!(!parent.path().join("a").exists(), "nothing may make it by the way");
    url.create_root().await.unwrap();
    url.create_root().await.unwrap();
    store.put("x", Bytes::from_static(b"1")).await.unwrap();
    assert_eq!(store.get("x").await.unwrap(), "1");
}

#[tokio::test]
async fn what_others_left_in_the_directory_is_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(secret.path(), root.path().join("link")).unwrap();
    std::fs::create_dir_all(root.path().join("folder/empty")).unwrap();
    std::fs::create_dir(root.path().join(".tmp")).unwrap();
    std::fs::write(root.path().join(".tmp/leftover"), "x").unwrap();
    let store = dir(root.path());
    for name in ["link", "folder", "link/x"] {
        assert_eq!(store.get(name).await.unwrap_err().kind(), StoreErrorKind::NotFound, "{name}");
        assert_eq!(store.head(name).await.unwrap_err().kind(), StoreErrorKind::NotFound, "{name}");
    }
    assert!(store.list("").await.unwrap().is_empty());
    assert!(store.list_here("").await.unwrap().is_empty());
    store.delete("folder").await.unwrap();
    assert!(root.path().join("folder/empty").exists());
}

#[tokio::test]
async fn temporary_files_of_dead_processes_go_away_and_fresh_ones_stay() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join(".tmp")).unwrap();
    for (name, age_s) in [("old", 2 * 24 * 3600), ("fresh", 60)] {
        let file = std::fs::File::create(root.path().join(".tmp").join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(age_s)).unwrap();
    }
    dir(root.path()).put("x", Bytes::new()).await.unwrap();
    assert!(!root.path().join(".tmp/old").exists());
    assert!(root.path().join(".tmp/fresh").exists(), "it may be another writer's");
}

#[tokio::test]
async fn the_same_file_again_is_fine_and_another_is_not() {
    let root = tempfile::tempdir().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "pack").unwrap();
    let store = dir(root.path());
    store.put_file("p", file.path(), &|_| {}).await.unwrap();
    store.put_file("p", file.path(), &|_| {}).await.unwrap();
    std::fs::write(file.path(), "other pack").unwrap();
    let refused = store.put_file("p", file.path(), &|_| {}).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Corrupt, "{refused}");
    assert_eq!(store.get("p").await.unwrap(), "pack");
    let missing = store.put_file("q", Path::new("/nonexistent"), &|_| {}).await.unwrap_err();
    assert_eq!(missing.kind(), StoreErrorKind::Invalid);
}

#[tokio::test]
async fn a_directory_that_may_not_be_written_is_denied() {
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(root.path().join("try"), "").is_ok() {
        eprintln!("SKIPPED: permissions do not bind this user");
        return;
    }
    let denied = dir(root.path()).put_if_absent("x", Bytes::new()).await.unwrap_err();
    assert_eq!(denied.kind(), StoreErrorKind::Denied, "{denied}");
}
