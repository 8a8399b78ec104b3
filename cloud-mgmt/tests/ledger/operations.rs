//! What each operation allows and refuses.

use crate::world::{Node, kinds, pack, run, snapshot};
use cloud_mgmt::ledger::{LedgerError, LedgerErrorKind, ListingEntry, Reign, Seq, SnapshotEntry};
use cloud_mgmt::store::MemoryStore;
use uuid::Uuid;

#[tokio::test]
async fn promotion_names_the_latest_epoch_and_its_holder() {
    let bucket = MemoryStore::new();
    let (old, new) = (Node::new(&bucket, 1).start(), Node::new(&bucket, 2).start());
    assert_eq!(old.promote(3).await.unwrap_err().kind(), LedgerErrorKind::EpochMismatch);
    old.claim_first_epoch().await.unwrap();
    new.promote(1).await.unwrap();
    let error = old.promote(1).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("epoch 1 is not the latest: epoch 2 was taken by node host-2 at 20"), "{text}");
    assert_eq!(error.hint().as_deref(), Some("cbfs promote home --epoch 2"));
    assert_eq!(old.claim_first_epoch().await.unwrap_err().kind(), LedgerErrorKind::EpochMismatch);
    let again = new.promote(1).await.unwrap();
    assert_eq!(again.seq, Seq(2), "the same node's second try is the first one's success");
}

#[tokio::test]
async fn a_deposed_master_publishes_nothing_and_is_told_by_whom() {
    let bucket = MemoryStore::new();
    let (old, new) = (Node::new(&bucket, 1).start(), Node::new(&bucket, 2).start());
    old.claim_first_epoch().await.unwrap();
    old.publish_snapshot(&snapshot(1, None, 1)).await.unwrap();
    new.promote(1).await.unwrap();
    let error = old.publish_snapshot(&snapshot(2, Some(1), 1)).await.unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::Deposed);
    assert!(error.to_string().contains("epoch 2 was taken by node host-2"), "{error}");
    let Reign::Deposed { by: Some(holder) } = old.check_reign().await.unwrap() else { panic!("not deposed") };
    assert_eq!((holder.epoch, holder.node), (2, Uuid::from_u128(2)));
    assert_eq!(old.publish_properties(&[].into()).await.unwrap_err().kind(), LedgerErrorKind::Deposed);
    assert_eq!(old.resume_epoch(1).await.unwrap_err().kind(), LedgerErrorKind::Deposed);
    // What is official already stays a success, also for the deposed.
    assert_eq!(old.publish_snapshot(&snapshot(1, None, 1)).await.unwrap().seq, Seq(2));
    let Reign::Mine { epoch: 2, newest: Some(base) } = new.check_reign().await.unwrap() else { panic!("not mine") };
    assert_eq!(base.snapshot.id, snapshot(1, None, 1).id);
    assert_eq!(kinds(&bucket).await, ["epoch", "snapshot", "epoch"]);
}

#[tokio::test]
async fn the_former_life_of_a_master_is_deposed_by_the_next() {
    let bucket = MemoryStore::new();
    let node = Node::new(&bucket, 1);
    let zombie = node.start();
    zombie.claim_first_epoch().await.unwrap();
    let restarted = node.start();
    assert!(matches!(restarted.check_reign().await.unwrap(), Reign::Deposed { .. }), "not active before it resumes");
    restarted.resume_epoch(1).await.unwrap();
    restarted.resume_epoch(1).await.unwrap();
    assert_eq!(kinds(&bucket).await, ["epoch", "epoch"]);
    assert_eq!(zombie.publish_snapshot(&snapshot(1, None, 1)).await.unwrap_err().kind(), LedgerErrorKind::Deposed);
    restarted.publish_snapshot(&snapshot(1, None, 1)).await.unwrap();
}

#[tokio::test]
async fn an_unexpected_parent_is_deposed() {
    let bucket = MemoryStore::new();
    let master = Node::new(&bucket, 1).start();
    master.claim_first_epoch().await.unwrap();
    master.publish_snapshot(&snapshot(1, None, 1)).await.unwrap();
    let error = master.publish_snapshot(&snapshot(2, None, 1)).await.unwrap_err();
    assert!(matches!(error, LedgerError::UnexpectedParent { .. }), "{error}");
    assert_eq!(error.kind(), LedgerErrorKind::Deposed);
}

#[tokio::test]
async fn a_snapshot_with_a_condemned_object_must_be_uploaded_again() {
    let bucket = MemoryStore::new();
    let (master, collector) = (Node::new(&bucket, 1).start(), Node::new(&bucket, 2).start());
    master.claim_first_epoch().await.unwrap();
    // The collector takes the upload that is not official yet for an orphan.
    collector.condemn(&[pack(1).object], "orphan").await.unwrap();
    let error = master.publish_snapshot(&snapshot(1, None, 1)).await.unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::Condemned);
    let mut again = snapshot(1, None, 1);
    again.packs_new = vec![pack(101)];
    master.publish_snapshot(&again).await.unwrap();
}

#[tokio::test]
async fn drops_pins_and_what_becomes_unreferenced() {
    let bucket = MemoryStore::new();
    let master = Node::new(&bucket, 1).start();
    master.claim_first_epoch().await.unwrap();
    let ids: Vec<_> = (1..=3).map(|id| snapshot(id, None, 1).id).collect();
    let mut second = snapshot(2, Some(1), 1);
    second.packs_dead = vec![pack(1).object];
    for snap in [snapshot(1, None, 1), second, snapshot(3, Some(2), 1)] {
        master.publish_snapshot(&snap).await.unwrap();
    }
    master.pin(ids[0], "year's end").await.unwrap();
    assert_eq!(master.drop_snapshot(ids[0]).await.unwrap_err().kind(), LedgerErrorKind::InUse);
    assert_eq!(master.drop_snapshot(ids[2]).await.unwrap_err().kind(), LedgerErrorKind::InUse);
    assert_eq!(master.drop_snapshot(Uuid::nil()).await.unwrap_err().kind(), LedgerErrorKind::NotFound);
    let in_use = master.condemn(&[pack(1).object], "test").await.unwrap_err();
    assert_eq!(in_use.kind(), LedgerErrorKind::InUse, "the first snapshot still uses it");
    master.unpin(ids[0]).await.unwrap();
    master.drop_snapshot(ids[0]).await.unwrap();
    // Pack 1 was used by the first snapshot alone, pack 2 by the second and the third.
    let history = master.ledger().history().await.unwrap();
    assert_eq!(history.unreferenced(), [run(1).object, pack(1).object]);
    master.drop_snapshot(ids[1]).await.unwrap();
    let history = master.ledger().history().await.unwrap();
    assert_eq!(history.unreferenced(), [run(1).object, run(2).object, pack(1).object]);
    assert!(history.retained().contains(pack(2).object.as_str()));
    let condemned = master.condemn(&history.unreferenced(), "dropped").await.unwrap()[0].seq;
    assert!(master.ledger().history().await.unwrap().unreferenced().is_empty());
    let purged = master.purge(condemned).await.unwrap();
    assert_eq!(master.purge(condemned).await.unwrap().seq, purged.seq);
    assert_eq!(master.purge(Seq(1)).await.unwrap_err().kind(), LedgerErrorKind::Invalid);
}

#[tokio::test]
async fn a_listing_lives_as_long_as_its_snapshot() {
    let bucket = MemoryStore::new();
    let master = Node::new(&bucket, 1).start();
    master.claim_first_epoch().await.unwrap();
    let listing = |id: u32| ListingEntry {
        object: crate::world::fs().listing_object(1, u64::from(id), Uuid::from_u128(u128::from(id))),
        size: 50,
        hash: "00".repeat(32),
    };
    let (first, second) = (snapshot(1, None, 1), snapshot(2, Some(1), 1));
    let (gone, kept) = (listing(1).object, listing(2).object);
    master.publish_snapshot(&SnapshotEntry { listing: Some(listing(1)), ..first.clone() }).await.unwrap();
    master.publish_snapshot(&SnapshotEntry { listing: Some(listing(2)), ..second }).await.unwrap();
    // One that nobody published yet can be taken for an orphan, and then not be used.
    master.condemn(&[listing(3).object], "orphan").await.unwrap();
    let late = SnapshotEntry { listing: Some(listing(3)), ..snapshot(3, Some(2), 1) };
    assert_eq!(master.publish_snapshot(&late).await.unwrap_err().kind(), LedgerErrorKind::Condemned);
    let in_use = master.condemn(std::slice::from_ref(&gone), "test").await.unwrap_err();
    assert_eq!(in_use.kind(), LedgerErrorKind::InUse);
    master.drop_snapshot(first.id).await.unwrap();
    let history = master.ledger().history().await.unwrap();
    assert!(history.retained().contains(kept.as_str()) && !history.retained().contains(gone.as_str()));
    assert!(history.unreferenced().contains(&gone) && !history.unreferenced().contains(&kept));
    let condemned = master.condemn(&history.unreferenced(), "dropped").await.unwrap()[0].seq;
    master.purge(condemned).await.unwrap();
    let history = master.ledger().history().await.unwrap();
    assert!(history.unreferenced().is_empty());
    master.delete("test").await.unwrap();
    let history = master.ledger().history().await.unwrap();
    assert!(!history.retained().contains(kept.as_str()), "of a deleted filesystem only the index stays");
}

#[tokio::test]
async fn only_packs_and_runs_of_the_filesystem_can_be_condemned() {
    let bucket = MemoryStore::new();
    let node = Node::new(&bucket, 1).start();
    for object in [crate::world::fs().ledger_object(1), crate::world::fs().config_object(), "x/pack/1".to_owned()] {
        let error = node.condemn(std::slice::from_ref(&object), "test").await.unwrap_err();
        assert_eq!(error.kind(), LedgerErrorKind::Invalid, "{object}");
    }
}

#[tokio::test]
async fn deletion_stops_the_master_and_comes_back_until_bytes_go() {
    let bucket = MemoryStore::new();
    let (master, admin) = (Node::new(&bucket, 1).start(), Node::new(&bucket, 2).start());
    master.claim_first_epoch().await.unwrap();
    master.publish_snapshot(&snapshot(1, None, 1)).await.unwrap();
    assert_eq!(admin.undelete().await.unwrap_err().kind(), LedgerErrorKind::Invalid);
    admin.delete("test").await.unwrap();
    admin.delete("test").await.unwrap();
    let error = master.publish_snapshot(&snapshot(2, Some(1), 1)).await.unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::Deleted);
    assert!(matches!(master.check_reign().await.unwrap(), Reign::Deleted(_)));
    assert_eq!(admin.promote(1).await.unwrap_err().kind(), LedgerErrorKind::Deleted);
    let kept = admin.condemn(&[run(1).object], "deleted").await.unwrap_err();
    assert_eq!(kept.kind(), LedgerErrorKind::InUse, "the last runs stay");
    let condemned = admin.condemn(&[pack(1).object], "deleted").await.unwrap()[0].seq;
    admin.undelete().await.unwrap();
    assert_eq!(admin.purge(condemned).await.unwrap_err().kind(), LedgerErrorKind::Invalid, "lifted");
    master.publish_snapshot(&snapshot(2, Some(1), 1)).await.unwrap();

    admin.delete("again").await.unwrap();
    let condemned = admin.condemn(&[pack(1).object], "deleted").await.unwrap()[0].seq;
    admin.purge(condemned).await.unwrap();
    assert_eq!(admin.undelete().await.unwrap_err().kind(), LedgerErrorKind::Gone);
}

#[tokio::test]
async fn many_condemned_names_take_several_records_and_none_twice() {
    let bucket = MemoryStore::new();
    let node = Node::new(&bucket, 1).start();
    let objects: Vec<_> = (0..2_500).map(|n| pack(n).object).collect();
    assert_eq!(node.condemn(&objects, "orphans").await.unwrap().len(), 3);
    node.condemn(&objects, "orphans").await.unwrap();
    assert_eq!(kinds(&bucket).await, ["condemn"; 3]);
}
