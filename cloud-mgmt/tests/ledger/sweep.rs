//! The n-th call of an operation fails, for n = 1 … until a run passes: one record per operation, whatever was lost.

use crate::world::{Node, is_snapshot, kinds, records, snapshot};
use cloud_mgmt::ledger::{Appender, Entry, LedgerError, LedgerErrorKind, LedgerRecord, Reign};
use cloud_mgmt::store::{FaultMoment, FaultPlan, MemoryStore};

/// What happens between the failure and the next try.
#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    SameProcess,
    Restart,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Claim,
    Promote,
    Resume,
    Publish,
    Drop,
    Delete,
}

impl Operation {
    const ALL: [Self; 6] = [Self::Claim, Self::Promote, Self::Resume, Self::Publish, Self::Drop, Self::Delete];

    /// Brings the bucket to where the operation starts.
    async fn prepare(self, node: &Node) -> Appender {
        let master = node.start();
        if self == Self::Claim {
            return master;
        }
        master.claim_first_epoch().await.unwrap();
        master.publish_snapshot(&snapshot(1, None, 1)).await.unwrap();
        master.publish_snapshot(&snapshot(2, Some(1), 1)).await.unwrap();
        if self == Self::Resume { node.start() } else { master }
    }

    async fn run(self, node: &Appender) -> Result<(), LedgerError> {
        match self {
            Self::Claim => node.claim_first_epoch().await,
            Self::Promote => node.promote(1).await,
            Self::Resume => node.resume_epoch(1).await,
            Self::Publish => node.publish_snapshot(&snapshot(3, Some(2), 1)).await,
            Self::Drop => match node.drop_snapshot(snapshot(1, None, 1).id).await {
                // An earlier try of ours, whose answer was lost, has done it.
                Err(error) if error.kind() == LedgerErrorKind::NotFound => return Ok(()),
                other => other,
            },
            Self::Delete => node.delete("test").await,
        }
        .map(|_| ())
    }

    fn is_mine(self, record: &LedgerRecord) -> bool {
        match (self, &record.entry) {
            (Self::Claim, Entry::Epoch { epoch, .. }) => *epoch == 1,
            (Self::Promote, Entry::Epoch { epoch, .. }) => *epoch == 2,
            (Self::Resume, Entry::Epoch { .. }) => record.seq.0 > 1,
            (Self::Publish, _) => is_snapshot(record, 3),
            (Self::Drop, Entry::Drop { .. }) | (Self::Delete, Entry::Delete { .. }) => true,
            _ => false,
        }
    }
}

/// One run with the `nth` call failing; whether there was an `nth` call.
async fn one_run(operation: Operation, nth: u64, moment: FaultMoment, after: After) -> bool {
    let bucket = MemoryStore::new();
    let node = Node::new(&bucket, 1);
    let mut process = operation.prepare(&node).await;
    let calls_before = node.store.calls();
    node.store.set_faults(FaultPlan::nth(nth, moment));
    let first = operation.run(&process).await;
    let hit = node.store.calls() - calls_before >= nth;
    node.store.set_faults(FaultPlan::none());
    let context = format!("{operation:?}, call {nth} {moment:?}, {after:?}: {first:?}");
    if first.is_err() {
        assert!(hit, "failed without a fault: {context}");
        if after == After::Restart {
            process = node.start();
            process.resolve().await.unwrap();
            if operation == Operation::Publish {
                process.resume_epoch(1).await.unwrap();
            }
        }
        operation.run(&process).await.unwrap_or_else(|e| panic!("{context}: then {e}"));
    }
    assert_eq!(node.intent().await, None, "{context}");
    let records = records(&bucket).await;
    let mut own = records.iter().filter(|record| operation.is_mine(record)).count();
    // A restarted master that finds its epoch taken by its former life renews its incarnation once.
    let renews = matches!(operation, Operation::Claim | Operation::Promote | Operation::Resume);
    if first.is_err() && after == After::Restart && renews && own == 2 {
        own -= 1;
    }
    assert_eq!(own, 1, "{context}: {:?}", kinds(&bucket).await);
    check_reign(operation, &process, &context).await;
    hit
}

async fn check_reign(operation: Operation, process: &Appender, context: &str) {
    match (operation, process.check_reign().await.unwrap()) {
        (Operation::Delete, Reign::Deleted(_)) => {}
        (Operation::Promote, Reign::Mine { epoch: 2, .. }) => {}
        (Operation::Claim | Operation::Resume | Operation::Publish, Reign::Mine { epoch: 1, .. }) => {}
        (Operation::Drop, _) => {}
        (_, reign) => panic!("{context}: {reign:?}"),
    }
}

#[tokio::test]
async fn each_lost_request_and_each_lost_answer() {
    for operation in Operation::ALL {
        for moment in [FaultMoment::Before, FaultMoment::AfterApply, FaultMoment::Torn] {
            for after in [After::SameProcess, After::Restart] {
                let mut nth = 1;
                while one_run(operation, nth, moment, after).await {
                    nth += 1;
                }
                assert!(nth > 2, "the sweep of {operation:?} is vacuous");
            }
        }
    }
}
