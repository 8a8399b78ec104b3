//! Random histories: whatever the rules allow, by nodes that come, go and depose each other.

use crate::world::{Node, fs, pack, snapshot};
use cloud_mgmt::ledger::{Appender, History, ListingEntry};
use cloud_mgmt::store::MemoryStore;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::num::NonZeroU64;
use std::sync::Arc;
use uuid::Uuid;

const NODES: usize = 3;

pub struct Random {
    pub bucket: MemoryStore,
    nodes: Vec<Node>,
    running: Vec<Appender>,
    random: StdRng,
    every: NonZeroU64,
    snapshots: u32,
}

fn summarizing(node: &Node, every: NonZeroU64) -> Appender {
    node.start().summarizing_every(every)
}

impl Random {
    /// Node 0 is master of epoch 1; a summary after `every` records.
    pub async fn new(seed: u64, every: u64) -> Self {
        let (bucket, every) = (MemoryStore::new(), NonZeroU64::new(every).unwrap());
        let nodes: Vec<_> = (0..NODES).map(|n| Node::new(&bucket, n as u128 + 1)).collect();
        let running: Vec<_> = nodes.iter().map(|node| summarizing(node, every)).collect();
        running[0].claim_first_epoch().await.unwrap();
        Self { bucket, nodes, running, random: StdRng::seed_from_u64(seed), every, snapshots: 0 }
    }

    /// At least so many records.
    pub async fn grow(&mut self, records: u64) -> Arc<History> {
        loop {
            let history = self.running[0].ledger().history().await.unwrap();
            if history.tail_seq().0 >= records {
                return history;
            }
            self.step(&history).await;
        }
    }

    fn any<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        (!items.is_empty()).then(|| items[self.random.random_range(0..items.len())].clone())
    }

    /// Some operation of some node; what the rules refuse does not matter.
    async fn step(&mut self, history: &History) {
        let holder = history.holder().map_or(0, |holder| holder.node.as_u128() as usize - 1);
        let by = self.random.random_range(0..NODES);
        let ids: Vec<Uuid> = history.snapshots().iter().map(|published| published.snapshot.id).collect();
        let id = self.any(&ids).unwrap_or_default();
        let condemned: Vec<_> = history.condemned().keys().copied().collect();
        let epoch = history.state().epoch;
        let what = if history.deletion().is_some() {
            self.random.random_range(22..30)
        } else {
            self.random.random_range(0..26)
        };
        let _ = match what {
            0..10 => self.publish(holder, history).await,
            10 => self.running[by].promote(epoch).await.map(drop),
            11 => {
                self.running[holder] = summarizing(&self.nodes[holder], self.every);
                self.running[holder].resume_epoch(epoch).await.map(drop)
            }
            12..15 => self.running[by].drop_snapshot(id).await.map(drop),
            15..17 => self.running[by].pin(id, "kept").await.map(drop),
            17..19 => self.running[by].unpin(id).await.map(drop),
            19..21 => {
                let values = [("key".to_owned(), self.random.random_range(0..100).to_string())].into();
                self.running[holder].publish_properties(&values).await.map(drop)
            }
            21 => self.running[by].delete("test").await.map(drop),
            22 => self.running[by].condemn(&history.unreferenced(), "unused").await.map(drop),
            23 => {
                let orphan = pack(self.random.random_range(1_000..1_100)).object;
                self.running[by].condemn(&[orphan], "orphan").await.map(drop)
            }
            24..26 => match self.any(&condemned) {
                Some(seq) => self.running[by].purge(seq).await.map(drop),
                None => Ok(()),
            },
            _ => self.running[by].undelete().await.map(drop),
        };
        if history.deletion().is_some_and(|deletion| {
            history.condemned().range(deletion.seq..).any(|(_, condemnation)| condemnation.purged.is_some())
        }) {
            // Nothing else can follow for ever.
            let orphan = pack(self.random.random_range(2_000..9_000)).object;
            let _ = self.running[by].condemn(&[orphan], "deleted").await;
        }
    }

    async fn publish(&mut self, master: usize, history: &History) -> Result<(), cloud_mgmt::ledger::LedgerError> {
        self.snapshots += 1;
        let n = self.snapshots;
        let parent = history.newest_snapshot().map(|newest| newest.snapshot.id.as_u128() as u32);
        let mut entry = snapshot(n, parent, history.state().epoch);
        let live = history.packs().filter(|(_, _, dead)| dead.is_none());
        let mut live: Vec<_> = live.map(|(object, ..)| object.to_owned()).collect();
        live.sort_unstable();
        live.retain(|_| self.random.random_bool(0.3));
        entry.packs_dead = live;
        if self.random.random_bool(0.3) {
            entry.name = Some(format!("n{n}"));
            let object = fs().listing_object(1, u64::from(n), Uuid::from_u128(u128::from(n)));
            entry.listing = Some(ListingEntry { object, size: 50, hash: "00".repeat(32) });
        }
        self.running[master].publish_snapshot(&entry).await.map(drop)
    }
}
