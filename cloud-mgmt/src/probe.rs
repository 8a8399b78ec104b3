//! Whether a store keeps its word about conditional writes.
//!
//! One request after the other tells little: some servers pass that and crown several winners as soon as two writers
//! race. So writers race here, with bodies that tell whose they are.

use crate::config::ProbeReport;
use crate::store::{ObjectStore, PutOutcome, StoreError, StoreErrorKind};
use bytes::Bytes;
use futures::future::join_all;
use uuid::Uuid;

/// Times that a round is repeated because the store gave no clean answer, over the whole probe.
const UNCLEAN_ROUNDS_MAX: u32 = 5;

/// Why a store is not used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProbeError {
    /// Two nodes could both believe that they are the master.
    #[error("{store} does not keep its word about conditional writes (If-None-Match): {detail}")]
    Lies {
        /// URL of the store.
        store: String,
        /// What it did.
        detail: String,
    },
    /// It could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Races `racers` conditional writes in each of `rounds` rounds (at least one round of two racers), on objects
/// `<prefix>probe-<uuid>/<n>` that are deleted afterwards.
pub async fn probe_conditional_writes(
    store: &dyn ObjectStore,
    prefix: &str,
    rounds: u32,
    racers: u32,
) -> Result<ProbeReport, ProbeError> {
    let probe = Probe {
        store,
        folder: format!("{prefix}probe-{}", Uuid::new_v4().simple()),
        rounds: rounds.max(1),
        racers: racers.max(2),
    };
    let outcome = probe.run().await;
    probe.remove_all().await;
    outcome
}

struct Probe<'a> {
    store: &'a dyn ObjectStore,
    folder: String,
    rounds: u32,
    racers: u32,
}

/// What a round has shown.
enum Round {
    Right,
    /// A racer got no clean answer: nothing can be said.
    Unclean(StoreError),
}

impl Probe<'_> {
    async fn run(&self) -> Result<ProbeReport, ProbeError> {
        self.one_after_the_other().await?;
        let (mut begun, mut right, mut unclean) = (0, 0, 0);
        while right < self.rounds {
            // Side by side: some stores let a loser wait a second, and a person waits for the answer.
            let wave = begun..begun + (self.rounds - right);
            begun = wave.end;
            for round in join_all(wave.map(|round| self.race(round))).await {
                match round? {
                    Round::Right => right += 1,
                    Round::Unclean(error) if unclean >= UNCLEAN_ROUNDS_MAX => return Err(error.into()),
                    Round::Unclean(_) => unclean += 1,
                }
            }
        }
        Ok(ProbeReport { rounds: self.rounds, racers: self.racers, checked: jiff::Timestamp::now() })
    }

    fn lies(&self, detail: impl Into<String>) -> ProbeError {
        ProbeError::Lies { store: self.store.url().to_owned(), detail: detail.into() }
    }

    async fn one_after_the_other(&self) -> Result<(), ProbeError> {
        let name = format!("{}/sequence", self.folder);
        match self.store.get(&name).await {
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(self.lies("it returns an object that was never written")),
        }
        // Whoever gets no clean answer here has no race to run.
        if self.store.put_if_absent(&name, Bytes::from_static(b"first")).await? == PutOutcome::Taken {
            return Err(self.lies("it says that a free name is taken"));
        }
        if self.store.put_if_absent(&name, Bytes::from_static(b"second")).await? == PutOutcome::Created {
            return Err(self.lies("it overwrote an object that was there"));
        }
        if self.store.get(&name).await? != "first" {
            return Err(self.lies("it refused a write and applied it all the same"));
        }
        Ok(())
    }

    async fn race(&self, round: u32) -> Result<Round, ProbeError> {
        let name = format!("{}/{round:06}", self.folder);
        let body = |racer: u32| Bytes::from(format!("{}/{round}/{racer}", self.folder));
        let racing = (0..self.racers).map(|racer| self.store.put_if_absent(&name, body(racer)));
        let outcomes = join_all(racing).await;
        let winners: Vec<_> = (0..).zip(&outcomes).filter(|(_, o)| matches!(o, Ok(PutOutcome::Created))).collect();
        if winners.len() > 1 {
            let detail = format!("{} of {} racing writers were told that they won", winners.len(), self.racers);
            return Err(self.lies(detail));
        }
        if let Some((winner, _)) = winners.first() {
            return match self.store.get(&name).await {
                Ok(there) if there == body(*winner) => Ok(Round::Right),
                Ok(_) => Err(self.lies("one writer was told that it won a race, the object has other bytes")),
                Err(error) if error.is_not_found() => Err(self.lies("the object of the winner is not there")),
                Err(error) => Ok(Round::Unclean(error)),
            };
        }
        // Nobody was told that they won: right only if somebody was told nothing.
        match outcomes.into_iter().find_map(Result::err) {
            Some(error) if error.kind() == StoreErrorKind::Unavailable => Ok(Round::Unclean(error)),
            Some(error) => Err(error.into()),
            None => Err(self.lies(format!("all of {} racing writers were told that they lost", self.racers))),
        }
    }

    /// Best effort: a few small objects that are left do no harm.
    async fn remove_all(&self) {
        let names = match self.store.list(&format!("{}/", self.folder)).await {
            Ok(found) => found.into_iter().map(|meta| meta.name).collect(),
            Err(error) => {
                tracing::warn!(%error, "the objects of the probe are left in the store");
                Vec::new()
            }
        };
        for name in names {
            if let Err(error) = self.store.delete(&name).await {
                tracing::warn!(%error, "an object of the probe is left in the store");
            }
        }
    }
}
