//! Nodes that want the same place at the same time.

use crate::world::{Node, fs, kinds, snapshot};
use cloud_mgmt::ledger::{Appender, Entry, Ledger, LedgerErrorKind, MemoryIntents, Seq, Writer};
use cloud_mgmt::store::{Conditions, DirStore, MemoryStore, ObjectStore, StoreOptions};
use futures::future::join_all;
use std::sync::Arc;
use uuid::Uuid;

fn rounds() -> u32 {
    std::env::var("CBFS_TEST_RACE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

fn process(store: Arc<dyn ObjectStore>, node: u128) -> Arc<Appender> {
    let writer = Writer { node: Uuid::from_u128(node), incarnation: Uuid::new_v4(), host: String::new() };
    Arc::new(Appender::new(Ledger::new(store, fs()), Arc::new(MemoryIntents::default()), writer))
}

/// Two processes promote, round after round; each round has one winner and the ledger one more record.
async fn race_promoters(stores: [Arc<dyn ObjectStore>; 2], rounds: u32) {
    let reader = Ledger::new(stores[0].clone(), fs());
    let mut processes: Vec<_> = stores.into_iter().zip(1..).map(|(store, node)| process(store, node)).collect();
    processes[0].claim_first_epoch().await.unwrap();
    for epoch in 1..=rounds {
        let racers = processes.iter().cloned().map(|racer| tokio::spawn(async move { racer.promote(epoch).await }));
        let results: Vec<_> = join_all(racers).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "round {epoch}: {results:?}");
        for lost in results.iter().filter_map(|result| result.as_ref().err()) {
            assert_eq!(lost.kind(), LedgerErrorKind::EpochMismatch);
        }
        // The other one is asked first in the next round.
        processes.reverse();
    }
    let tail = reader.history().await.unwrap().tail_seq();
    let records = reader.replay(Seq(1), tail).await.unwrap();
    assert_eq!(records.len() as u32, rounds + 1);
    for (n, record) in (1..).zip(records) {
        assert!(matches!(record.entry, Entry::Epoch { epoch, .. } if epoch == n), "{record:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_promoters_one_wins_each_round() {
    let bucket = MemoryStore::new();
    race_promoters([Arc::new(bucket.another_client()), Arc::new(bucket)], rounds()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_promoters_in_a_directory_one_wins_each_round() {
    let folder = tempfile::tempdir().unwrap();
    let store = || Arc::new(DirStore::new(folder.path(), StoreOptions::INTERACTIVE));
    race_promoters([store(), store()], rounds()).await;
}

/// What the probe is for: without the condition the same race has two winners.
#[tokio::test]
async fn a_store_that_ignores_the_condition_crowns_two() {
    let bucket = MemoryStore::new();
    bucket.set_conditions(Conditions::IgnoredEvery(1));
    let (a, b) = (process(Arc::new(bucket.another_client()), 1), process(Arc::new(bucket), 2));
    let (first, second) = tokio::join!(a.claim_first_epoch(), b.claim_first_epoch());
    assert_eq!(first.unwrap().seq, second.unwrap().seq);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_publication_and_a_promotion_never_both_win_the_same_place() {
    for round in 0..50 {
        let bucket = MemoryStore::new();
        let (master, standby) = (Node::new(&bucket, 1).start(), Node::new(&bucket, 2).start());
        master.claim_first_epoch().await.unwrap();
        let snap = snapshot(1, None, 1);
        let (published, promoted) = tokio::join!(master.publish_snapshot(&snap), standby.promote(1));
        promoted.unwrap();
        // The records verify (world::records), so a snapshot stands below the epoch that ends its reign, or nowhere.
        match published {
            Ok(_) => assert_eq!(kinds(&bucket).await, ["epoch", "snapshot", "epoch"], "round {round}"),
            Err(error) => {
                assert_eq!(error.kind(), LedgerErrorKind::Deposed, "round {round}");
                assert_eq!(kinds(&bucket).await, ["epoch", "epoch"], "round {round}");
            }
        }
    }
}

#[tokio::test]
async fn independent_appends_of_many_nodes_all_land() {
    let bucket = MemoryStore::new();
    let nodes: Vec<_> = (1..=8).map(|id| Node::new(&bucket, id).start()).collect();
    let appends = nodes.iter().zip(0..).map(|(node, n)| async move {
        node.condemn(&[crate::world::pack(n).object], "orphan").await.unwrap();
    });
    join_all(appends).await;
    assert_eq!(kinds(&bucket).await, ["condemn"; 8]);
}
