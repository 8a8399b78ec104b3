//! The commands on a bucket.

// Tests may; clippy knows it of test functions alone, not of their helpers.
#![allow(clippy::unwrap_used)]

use cloud_mgmt::admin::{
    AdminError, DeleteMode, DeletedFilter, create, create_another, delete, list, read_config, resolve, show, undelete,
};
use cloud_mgmt::config::{CONFIG_FORMAT, FsConfig, FsParameters, POSIX_ACL, ProbeReport};
use cloud_mgmt::ledger::{
    Appender, Ledger, LedgerErrorKind, MemoryIntents, PackEntry, RunEntry, SnapshotEntry, Writer,
};
use cloud_mgmt::names::FsName;
use cloud_mgmt::store::ObjectStore;
use cloud_mgmt::store::{FaultMoment, FaultPlan, MemoryStore};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

fn probe() -> ProbeReport {
    ProbeReport { rounds: 3, racers: 8, checked: Timestamp::UNIX_EPOCH }
}

fn name_of(config: &FsConfig) -> FsName {
    FsName { tag: config.tag.parse().unwrap(), id: config.id }
}

fn client(bucket: &MemoryStore) -> Arc<dyn ObjectStore> {
    Arc::new(bucket.another_client())
}

async fn made(store: &Arc<dyn ObjectStore>, tag: &str) -> FsName {
    name_of(&create_another(store, tag, FsParameters::default(), probe()).await.unwrap())
}

/// A master that has uploaded and published one snapshot with a pack and a run.
async fn published(store: &Arc<dyn ObjectStore>, name: &FsName) -> Appender {
    let ledger = Ledger::new(store.clone(), name.clone());
    let master = Appender::new(ledger, Arc::new(MemoryIntents::default()), Writer::ephemeral());
    master.claim_first_epoch().await.unwrap();
    master.publish_snapshot(&uploaded(store, name, 1, None).await).await.unwrap();
    master
}

async fn uploaded(store: &Arc<dyn ObjectStore>, name: &FsName, n: u64, parent: Option<Uuid>) -> SnapshotEntry {
    let (run, pack) = (name.run_object(1, n, Uuid::nil(), 0), name.pack_object(1, n, Uuid::nil(), 0));
    store.put(&run, vec![0; 10].into()).await.unwrap();
    store.put(&pack, vec![0; 100].into()).await.unwrap();
    SnapshotEntry {
        id: Uuid::new_v4(),
        name: None,
        snapshot_kind: "user".into(),
        key: None,
        epoch: 1,
        parent,
        xid_from: n - 1,
        xid: n,
        requested: Timestamp::UNIX_EPOCH,
        ino_end: 2,
        pack_end: n + 1,
        inodes: 1,
        bytes: 1,
        uploaded: 110,
        runs: vec![RunEntry {
            object: run,
            size: 10,
            root: String::new(),
            xid_from: n - 1,
            xid: n,
            records: 1,
            ino_from: None,
        }],
        packs_new: vec![PackEntry { number: n, object: pack, size: 100, hash: String::new() }],
        packs_dead: vec![],
        runs_dead: vec![],
        features: vec![],
        listing: None,
    }
}

#[tokio::test]
async fn a_filesystem_is_created_listed_and_shown() {
    let bucket = MemoryStore::new();
    let store = client(&bucket);
    assert!(list(&store, DeletedFilter::Show).await.unwrap().is_empty());
    let settings = BTreeMap::from([("snapshot.interval".to_owned(), "1h".to_owned())]);
    let features = vec![POSIX_ACL.to_owned()];
    let parameters = FsParameters { features: features.clone(), settings: settings.clone() };
    let config = create(&store, "home", parameters, probe()).await.unwrap();
    let name = name_of(&config);
    assert_eq!((config.format, &config.settings, &config.features), (CONFIG_FORMAT, &settings, &features));
    assert!(config.has_acls());
    assert_eq!(read_config(&store, &name).await.unwrap(), config);
    published(&store, &name).await;
    let listed = list(&store, DeletedFilter::Hide).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].name, listed[0].tail.0, &listed[0].problem), (&name, 2, &None));
    assert_eq!(listed[0].newest.as_ref().unwrap().uploaded, 110);
    let overview = show(&store, &name).await.unwrap();
    assert_eq!((overview.config, overview.snapshots.len(), overview.state.epoch), (config, 1, 1));
    assert_eq!(overview.holder.unwrap().epoch, 1);
}

#[tokio::test]
async fn a_tag_is_created_once_and_after_its_deletion_again() {
    let bucket = MemoryStore::new();
    let store = client(&bucket);
    let first = name_of(&create(&store, "home", FsParameters::default(), probe()).await.unwrap());
    let error = create(&store, "home", FsParameters::default(), probe()).await.unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::Exists);
    assert!(error.to_string().contains(&first.to_string()), "{error}");
    delete(&store, &first, DeleteMode::Really).await.unwrap();
    let second = name_of(&create(&store, "home", FsParameters::default(), probe()).await.unwrap());
    assert_eq!(resolve(&store, "home").await.unwrap(), second, "the one that is not deleted is meant");
    assert_eq!(
        create(&store, "no/good", FsParameters::default(), probe()).await.unwrap_err().kind(),
        LedgerErrorKind::Invalid
    );
}

#[tokio::test]
async fn create_with_each_lost_request_and_each_lost_answer() {
    for moment in [FaultMoment::Before, FaultMoment::AfterApply, FaultMoment::Torn] {
        for nth in 1.. {
            let bucket = MemoryStore::new();
            let faulty = Arc::new(bucket.another_client());
            faulty.set_faults(FaultPlan::nth(nth, moment));
            let store: Arc<dyn ObjectStore> = faulty.clone();
            let result = create(&store, "home", FsParameters::default(), probe()).await;
            let there = list(&client(&bucket), DeletedFilter::Show).await.unwrap();
            match &result {
                Ok(config) => assert_eq!(there.iter().map(|fs| &fs.name).collect::<Vec<_>>(), [&name_of(config)]),
                // One lost call of the search for the tag: nothing was begun.
                Err(error) => {
                    assert!(matches!(error, AdminError::Store(_)), "call {nth} {moment:?}: {error}");
                    assert!(there.is_empty());
                }
            }
            if faulty.calls() < nth {
                assert!(nth > 2, "the sweep is vacuous");
                break;
            }
        }
    }
}

#[tokio::test]
async fn create_without_an_answer_says_that_it_does_not_know() {
    let bucket = MemoryStore::new();
    let faulty = Arc::new(bucket.another_client());
    faulty.offline();
    let store: Arc<dyn ObjectStore> = faulty;
    let error = create_another(&store, "home", FsParameters::default(), probe()).await.unwrap_err();
    assert!(matches!(error, AdminError::CreateUnknown { .. }), "{error}");
    assert_eq!(error.kind(), LedgerErrorKind::Unavailable);
}

#[tokio::test]
async fn names_resolve_by_tag_uuid_and_prefix() {
    let bucket = MemoryStore::new();
    let store = client(&bucket);
    let (home, work) = (made(&store, "home").await, made(&store, "work").await);
    let hex = home.id.simple().to_string();
    for text in ["home".to_owned(), home.to_string(), home.id.to_string(), hex.clone(), hex[..12].to_uppercase()] {
        assert_eq!(resolve(&store, &text).await.unwrap(), home, "{text}");
    }
    for text in ["nothing", &hex[..3], "", &FsName { id: work.id, ..home.clone() }.to_string()] {
        assert_eq!(resolve(&store, text).await.unwrap_err().kind(), LedgerErrorKind::NotFound, "{text}");
    }
    let other = made(&store, "home").await;
    let error = resolve(&store, "home").await.unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::Ambiguous);
    assert!([&home, &other].iter().all(|name| error.to_string().contains(&name.to_string())), "{error}");
    assert_eq!(resolve(&store, "work").await.unwrap(), work);
}

#[tokio::test]
async fn a_config_of_a_newer_version_is_listed_with_its_problem() {
    let bucket = MemoryStore::new();
    let store = client(&bucket);
    let (good, newer) = (made(&store, "good").await, made(&store, "newer").await);
    store.put(&newer.config_object(), bytes::Bytes::from_static(b"{\"format\":9}")).await.unwrap();
    let listed = list(&store, DeletedFilter::Hide).await.unwrap();
    assert_eq!(listed.iter().map(|fs| &fs.name).collect::<Vec<_>>(), [&good, &newer]);
    assert!(listed[1].problem.as_ref().unwrap().contains("format 9"));
    assert_eq!(show(&store, &newer).await.unwrap_err().kind(), LedgerErrorKind::TooNew);
}

#[tokio::test]
async fn deletion_condemns_all_but_the_record_of_existence_and_comes_back() {
    let bucket = MemoryStore::new();
    let store = client(&bucket);
    let name = made(&store, "home").await;
    let master = published(&store, &name).await;
    let parent = show(&store, &name).await.unwrap().snapshots[0].snapshot.id;
    let second = uploaded(&store, &name, 2, Some(parent)).await;
    master.publish_snapshot(&second).await.unwrap();
    let orphan = name.pack_object(1, 9, Uuid::from_u128(9), 0);
    store.put(&orphan, vec![0; 1_000].into()).await.unwrap();

    let before = bucket.list("").await.unwrap();
    let dry = delete(&store, &name, DeleteMode::DryRun).await.unwrap();
    assert_eq!(bucket.list("").await.unwrap(), before, "a dry run changes nothing");
    assert_eq!((dry.objects, dry.bytes), (4, 1_210));
    assert_eq!(dry.kept, [second.runs[0].object.clone()]);
    let done = delete(&store, &name, DeleteMode::Really).await.unwrap();
    assert_eq!(done, dry);
    assert_eq!(delete(&store, &name, DeleteMode::Really).await.unwrap(), done, "again");

    let overview = show(&store, &name).await.unwrap();
    let condemned: Vec<_> = overview.condemned.values().flat_map(|condemnation| &condemnation.objects).collect();
    assert_eq!(condemned.len(), 4);
    assert!(condemned.contains(&&orphan) && !condemned.contains(&&second.runs[0].object));
    assert!(list(&store, DeletedFilter::Hide).await.unwrap().is_empty());
    assert!(list(&store, DeletedFilter::Show).await.unwrap()[0].is_deleted());
    assert_eq!(resolve(&store, "home").await.unwrap(), name, "a deleted filesystem has its name");

    undelete(&store, &name).await.unwrap();
    let overview = show(&store, &name).await.unwrap();
    assert!(overview.deletion.is_none() && overview.condemned.is_empty());
    assert_eq!(overview.snapshots.len(), 2);
    let third = uploaded(&store, &name, 3, Some(second.id)).await;
    master.publish_snapshot(&third).await.unwrap();
}

#[tokio::test]
async fn delete_with_each_lost_request_and_each_lost_answer() {
    for moment in [FaultMoment::Before, FaultMoment::AfterApply, FaultMoment::Torn] {
        for nth in 1.. {
            let bucket = MemoryStore::new();
            let name = made(&client(&bucket), "home").await;
            published(&client(&bucket), &name).await;
            let faulty = Arc::new(bucket.another_client());
            faulty.set_faults(FaultPlan::nth(nth, moment));
            let store: Arc<dyn ObjectStore> = faulty.clone();
            if delete(&store, &name, DeleteMode::Really).await.is_err() {
                delete(&store, &name, DeleteMode::Really).await.unwrap();
            }
            let overview = show(&client(&bucket), &name).await.unwrap();
            assert!(overview.deletion.is_some());
            let condemned = overview.condemned.values().map(|condemnation| condemnation.objects.len());
            assert_eq!(condemned.sum::<usize>(), 1, "call {nth} {moment:?}: the pack, once");
            if faulty.calls() < nth {
                assert!(nth > 5, "the sweep is vacuous");
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let bucket = MemoryStore::new();
    let store = client(&bucket);
    let name = FsName { tag: "home".parse().unwrap(), id: Uuid::nil() };
    assert_eq!(show(&store, &name).await.unwrap_err().kind(), LedgerErrorKind::NotFound);
    assert_eq!(delete(&store, &name, DeleteMode::Really).await.unwrap_err().kind(), LedgerErrorKind::NotFound);
    assert_eq!(undelete(&store, &name).await.unwrap_err().kind(), LedgerErrorKind::NotFound);
    assert!(bucket.list("").await.unwrap().is_empty());
}
