//! The journal against a list of bodies: restarts, damage, faults, power loss.

use super::*;
use crate::ids::Xid;
use crate::segment::header::HEADER_BYTES;
use crate::segment::sim::{Fault, SimDisk};
use crate::segment::{Disk, FailureKind};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::time::Duration;

pub(super) const SEGMENT_BYTES: u64 = 8192;

pub(super) fn identity() -> JournalIdentity {
    JournalIdentity { fs: Uuid::from_u128(7), epoch: Epoch(2) }
}

pub(super) fn options() -> JournalOptions {
    JournalOptions { segment_bytes: SEGMENT_BYTES, spares: 1 }
}

fn open(disk: &SimDisk, applied: u64) -> Result<Replay, JournalError> {
    Journal::open_on(Arc::new(disk.clone()), identity(), Xid(applied), options())
}

fn drain(replay: &mut Replay) -> Result<Vec<(u64, Vec<u8>)>, JournalError> {
    let mut records = Vec::new();
    while let Some((xid, body)) = replay.next()? {
        records.push((xid.0, body.to_vec()));
    }
    Ok(records)
}

/// Opens, replays everything, goes on behind the last record.
pub(super) fn reopen(disk: &SimDisk, applied: u64) -> (Journal, Vec<(u64, Vec<u8>)>) {
    let mut replay = open(disk, applied).unwrap();
    let records = drain(&mut replay).unwrap();
    let last = records.last().map_or(applied, |(xid, _)| *xid);
    (replay.finish(Xid(last)).unwrap(), records)
}

pub(super) fn body(xid: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| (xid as usize * 31 + i * 7) as u8).collect()
}

pub(super) fn fill(journal: &Journal, count: usize, len: usize) {
    for _ in 0..count {
        let next = journal.last().0 + 1;
        assert_eq!(journal.append(&body(next, len)).unwrap(), Xid(next));
    }
}

fn xids(records: &[(u64, Vec<u8>)]) -> Vec<u64> {
    records.iter().map(|(xid, _)| *xid).collect()
}

#[test]
fn records_come_back_from_a_host_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let mut replay = Journal::open(&path, identity(), Xid(0), options()).unwrap();
    assert!(replay.next().unwrap().is_none());
    let journal = replay.finish(Xid(0)).unwrap();
    fill(&journal, 40, 500);
    assert_eq!((journal.last(), journal.persisted()), (Xid(40), Xid(0)));
    assert_eq!(journal.flush().unwrap(), Xid(40));
    assert_eq!(journal.persisted(), Xid(40));
    journal.release(Xid(20)).unwrap();
    drop(journal);

    let mut replay = Journal::open(&path, identity(), Xid(20), options()).unwrap();
    let records = drain(&mut replay).unwrap();
    assert_eq!(xids(&records), (21..=40).collect::<Vec<_>>());
    assert!(records.iter().all(|(xid, bytes)| *bytes == body(*xid, 500)));
    assert_eq!(replay.finish(Xid(40)).unwrap().append(b"").unwrap(), Xid(41));
}

#[test]
fn a_release_recycles_old_segments_and_never_the_live_one() {
    let disk = SimDisk::default();
    let (journal, _) = reopen(&disk, 0);
    let mut seen = disk.names(".journal");
    let mut most = 0;
    for _ in 0..30 {
        fill(&journal, 20, 400);
        journal.flush().unwrap();
        journal.release(journal.last()).unwrap();
        assert_eq!(disk.names(".journal").len(), 1);
        for name in disk.names(".journal") {
            assert!(seen.last().is_none_or(|last| *last <= name), "numbers only rise");
            seen.push(name);
        }
        most = most.max(journal.bytes_on_disk());
    }
    // The live one, at most four kept ones and what was prepared meanwhile.
    assert!(most <= 7 * SEGMENT_BYTES, "{most}");
    assert_eq!(reopen(&disk, 600).1, vec![]);
}

#[test]
fn what_is_not_persisted_is_never_released() {
    let disk = SimDisk::default();
    let (journal, _) = reopen(&disk, 0);
    fill(&journal, 60, 400);
    journal.release(Xid(60)).unwrap();
    drop(journal);
    assert_eq!(xids(&reopen(&disk, 0).1), (1..=60).collect::<Vec<_>>());
}

#[test]
fn a_hole_behind_the_applied_state_is_refused() {
    let disk = SimDisk::default();
    let (journal, _) = reopen(&disk, 0);
    fill(&journal, 60, 400);
    journal.flush().unwrap();
    journal.release(Xid(50)).unwrap();
    drop(journal);
    let Err(JournalError::Gap { applied, first }) = open(&disk, 3) else { panic!("a gap was accepted") };
    assert!(applied == Xid(3) && first > Xid(4) && first <= Xid(51), "{first}");
    assert_eq!(xids(&reopen(&disk, 50).1), (51..=60).collect::<Vec<_>>());
}

#[test]
fn a_journal_may_begin_behind_a_base() {
    let disk = SimDisk::default();
    let (journal, records) = reopen(&disk, 1000);
    assert_eq!((records.len(), journal.append(b"x").unwrap()), (0, Xid(1001)));
    drop(journal);
    assert!(matches!(open(&disk, 10), Err(JournalError::Gap { .. })));
}

#[test]
fn another_filesystem_or_epoch_is_refused() {
    let disk = SimDisk::default();
    drop(reopen(&disk, 0));
    for other in [JournalIdentity { epoch: Epoch(3), ..identity() }, JournalIdentity { fs: Uuid::nil(), ..identity() }]
    {
        let refused = Journal::open_on(Arc::new(disk.clone()), other, Xid(0), options());
        assert!(matches!(refused, Err(JournalError::Foreign { epoch: Epoch(2), .. })));
    }
}

#[test]
fn a_later_version_is_refused_and_not_taken_for_an_empty_journal() {
    let disk = SimDisk::default();
    drop(reopen(&disk, 0));
    let name = disk.names(".journal").remove(0);
    disk.open(&name).unwrap().write_at(&2u32.to_le_bytes(), 8).unwrap();
    let error = open(&disk, 0).unwrap_err();
    assert!(matches!(error, JournalError::Header(_)) && error.kind() == FailureKind::Corrupt, "{error}");
}

#[test]
fn finish_voids_what_lies_behind_for_ever() {
    let disk = SimDisk::default();
    let (journal, _) = reopen(&disk, 0);
    fill(&journal, 50, 400);
    journal.flush().unwrap();
    drop(journal);
    let mut replay = open(&disk, 0).unwrap();
    drain(&mut replay).unwrap();
    let journal = replay.finish(Xid(30)).unwrap();
    drop(journal);
    let (journal, records) = reopen(&disk, 0);
    assert_eq!(xids(&records), (1..=30).collect::<Vec<_>>());
    journal.append(b"a new 31").unwrap();
    drop(journal);
    let (_, records) = reopen(&disk, 0);
    assert_eq!(records.last(), Some(&(31, b"a new 31".to_vec())));
}

#[test]
fn finish_takes_only_what_was_replayed() {
    let disk = SimDisk::default();
    let (journal, _) = reopen(&disk, 0);
    fill(&journal, 9, 10);
    drop(journal);
    for (applied, last) in [(5, 4), (5, 10), (0, 1)] {
        // Nothing is read in the last case.
        let mut replay = open(&disk, applied).unwrap();
        if applied > 0 {
            drain(&mut replay).unwrap();
        }
        let refused = replay.finish(Xid(last)).unwrap_err();
        assert_eq!(refused.kind(), FailureKind::Invalid, "{refused}");
    }
}

/// A record that is right in everything but the salt ends the log; with the salt it would be read.
#[test]
fn records_of_a_former_life_of_the_file_stay_dead() {
    for (flip, wanted) in [(0, 4), (1, 3)] {
        let disk = SimDisk::default();
        let (journal, _) = reopen(&disk, 0);
        fill(&journal, 3, 400);
        drop(journal);
        let name = disk.names(".journal").remove(0);
        let salt = u32::from_le_bytes(disk.bytes(&name)[12..16].try_into().unwrap());
        let mut frame = Vec::new();
        record::encode(salt ^ flip, Xid(4), b"from another life", &mut frame);
        disk.open(&name).unwrap().write_at(&frame, HEADER_BYTES + 3 * 416).unwrap();
        assert_eq!(reopen(&disk, 0).1.len(), wanted);
    }
}

#[test]
fn an_end_before_what_was_flushed_is_damage_and_not_a_torn_tail() {
    let disk = SimDisk::default();
    let (journal, _) = reopen(&disk, 0);
    fill(&journal, 6, 400);
    journal.flush().unwrap();
    fill(&journal, 6, 400);
    drop(journal);
    let first = disk.names(".journal").remove(0);
    disk.flip(&first, (HEADER_BYTES as usize + 416 * 3 + 100) * 8);
    let mut replay = open(&disk, 0).unwrap();
    let error = drain(&mut replay).unwrap_err();
    assert!(matches!(error, JournalError::Corrupt { bad: Xid(4), persisted: Xid(6) }), "{error}");
    // State that is beyond the damage does not need it.
    assert!(open(&disk, 4).unwrap().next().unwrap().is_none());
}

#[test]
fn a_record_larger_than_a_segment_is_refused() {
    let disk = SimDisk::default();
    let (journal, _) = reopen(&disk, 0);
    let max = (SEGMENT_BYTES - HEADER_BYTES) as usize - 16;
    assert_eq!(journal.append(&vec![1; max + 1]).unwrap_err().kind(), FailureKind::Invalid);
    journal.append(&vec![1; max]).unwrap();
    journal.append(&vec![2; max]).unwrap();
    drop(journal);
    assert_eq!(reopen(&disk, 0).1.len(), 2);
}

#[test]
fn sixteen_threads_share_their_flushes() {
    let disk = SimDisk::default();
    let (journal, _) = reopen(&disk, 0);
    disk.slow_syncs(Duration::from_millis(1));
    let before = disk.syncs();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let xid = journal.append(b"a record of some thread").unwrap();
                    assert!(journal.flush().unwrap() >= xid);
                    assert!(journal.persisted() >= xid);
                }
            });
        }
    });
    let syncs = disk.syncs() - before;
    assert!(syncs < 16 * 25 / 2, "{syncs} syncs for 400 flushes");
    let after = disk.lose_power(&mut StdRng::seed_from_u64(1));
    assert_eq!(reopen(&after, 0).1.len(), 400);
}

#[test]
fn a_failed_flush_is_final() {
    let disk = SimDisk::default();
    let (journal, _) = reopen(&disk, 0);
    fill(&journal, 3, 10);
    journal.flush().unwrap();
    fill(&journal, 1, 10);
    disk.fail_nth(Fault::Sync, 1, libc::EIO);
    for _ in 0..2 {
        assert_eq!(journal.flush().unwrap_err().kind(), FailureKind::Poisoned);
        assert_eq!(journal.append(b"more").unwrap_err().kind(), FailureKind::Poisoned);
    }
    assert_eq!(journal.persisted(), Xid(3));
}

/// Every write of the scenario fails once, in three ways: the failed append leaves no trace, the others are all there.
#[test]
fn the_nth_write_fails() {
    for fault in [Fault::WriteBefore, Fault::WriteTorn, Fault::WriteAfter] {
        let mut struck = 0;
        for nth in 1.. {
            let disk = SimDisk::default();
            let replay = open(&disk, 0).unwrap();
            let journal = replay.finish(Xid(0)).unwrap();
            disk.fail_nth(fault, nth, libc::ENOSPC);
            let mut model = Vec::new();
            let mut failures = 0;
            for round in 0..30 {
                let bytes = body(round, 700);
                let before = journal.last();
                match journal.append(&bytes) {
                    Ok(xid) => model.push((xid.0, bytes)),
                    Err(error) => {
                        failures += 1;
                        assert_eq!((error.kind(), journal.last()), (FailureKind::NoSpace, before));
                        let (_, records) = reopen(&disk.lose_nothing(), 0);
                        assert_eq!(records, model, "{fault:?} {nth}");
                    }
                }
            }
            journal.flush().unwrap();
            drop(journal);
            let after = disk.lose_power(&mut StdRng::seed_from_u64(nth));
            assert_eq!(reopen(&after, 0).1, model, "{fault:?} {nth}");
            if disk.disarm() {
                break;
            }
            struck += failures;
        }
        assert!(struck > 20, "{fault:?} struck {struck} times");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    /// A cut or a flipped bit in what was not flushed costs records from there on, nothing else.
    #[test]
    fn damage_leaves_a_prefix(
        lens in prop::collection::vec(0usize..900, 1..40),
        applied in 0u64..5,
        cut in prop::bool::ANY,
        place in 0.0f64..1.0,
    ) {
        let disk = SimDisk::default();
        let (journal, _) = reopen(&disk, 0);
        let bodies: Vec<_> = lens.iter().enumerate().map(|(i, len)| (i as u64 + 1, body(i as u64, *len))).collect();
        for (_, bytes) in &bodies {
            journal.append(bytes).unwrap();
        }
        drop(journal);
        let names = disk.names(".journal");
        let victim = &names[(place * names.len() as f64) as usize];
        let size = disk.bytes(victim).len() as f64;
        let at = ((place * 7919.0).fract() * size) as usize;
        if cut { disk.cut(victim, at) } else { disk.flip(victim, at * 8 + at % 8) }
        let applied = applied.min(bodies.len() as u64);
        let wanted = &bodies[applied as usize..];
        let (records, last) = match open(&disk, applied) {
            Ok(mut replay) => {
                let records = drain(&mut replay).unwrap();
                let last = records.last().map_or(applied, |(xid, _)| *xid);
                let journal = replay.finish(Xid(last)).unwrap();
                journal.append(b"next").unwrap();
                (records, last)
            }
            Err(JournalError::Header(_)) => {
                prop_assert!(at < 68, "only a header is that important");
                return Ok(());
            }
            // The first segment was cut to nothing.
            Err(error) => {
                prop_assert!(matches!(error, JournalError::Gap { .. }) && *victim == names[0], "{}", error);
                return Ok(());
            }
        };
        prop_assert!(wanted.starts_with(&records));
        let mut expected = records;
        expected.push((last + 1, b"next".to_vec()));
        prop_assert_eq!(reopen(&disk, applied).1, expected);
    }
}

/// What one power-loss round knows.
struct Run {
    rng: StdRng,
    disk: SimDisk,
    /// Bodies by xid, from 1.
    model: Vec<Vec<u8>>,
    applied: u64,
    persisted: u64,
    lost: usize,
}

impl Run {
    /// Works until something fails or it is enough.
    fn work(&mut self, journal: &Journal) -> Result<(), JournalError> {
        for _ in 0..self.rng.random_range(5..80) {
            match self.rng.random_range(0..10) {
                0 => self.persisted = journal.flush()?.0,
                1 => {
                    self.persisted = self.persisted.max(journal.persisted().0);
                    self.applied = self.rng.random_range(self.applied..=self.persisted);
                    journal.release(Xid(self.applied))?;
                }
                _ => {
                    let len = self.rng.random_range(0..1500);
                    let bytes: Vec<u8> = (0..len).map(|_| self.rng.random()).collect();
                    // If the append fails although it arrived, the record may be there: unacknowledged.
                    self.model.push(bytes.clone());
                    journal.append(&bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Starts again after a loss of power, in the middle of which power may be lost again.
    fn recover(&mut self) -> Option<Journal> {
        let mut replay = open(&self.disk, self.applied).ok()?;
        let records = drain(&mut replay).expect("what was flushed is undamaged");
        let end = records.last().map_or(self.applied, |(xid, _)| *xid);
        assert!(end >= self.persisted, "flushed up to {}, found up to {end}", self.persisted);
        assert_eq!(xids(&records), (self.applied + 1..=end).collect::<Vec<_>>());
        for (xid, bytes) in &records {
            assert!(Some(bytes) == self.model.get(*xid as usize - 1), "record {xid} is another one");
        }
        self.lost += self.model.len() - end as usize;
        let last = if self.rng.random_bool(0.3) { self.rng.random_range(self.persisted..=end) } else { end };
        let journal = replay.finish(Xid(last)).ok()?;
        self.model.truncate(last as usize);
        self.persisted = last;
        Some(journal)
    }
}

/// After any loss of power: a prefix of what was appended, with everything that was flushed (I1).
#[test]
fn power_loss_leaves_a_prefix_with_everything_flushed() {
    let rounds: u64 = std::env::var("CBFS_POWER_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(250);
    let (mut lost, mut lives) = (0, 0);
    for seed in 0..rounds {
        let mut run = Run {
            rng: StdRng::seed_from_u64(seed),
            disk: SimDisk::default(),
            model: Vec::new(),
            applied: 0,
            persisted: 0,
            lost: 0,
        };
        for _ in 0..4 {
            if run.rng.random_bool(0.5) {
                let nth = run.rng.random_range(1..60);
                run.disk.fail_nth(Fault::PowerOff, nth, libc::EIO);
            }
            if let Some(journal) = run.recover() {
                lives += 1;
                let _ends_somewhere = run.work(&journal);
                run.persisted = run.persisted.max(journal.persisted().0);
            }
            run.disk = run.disk.lose_power(&mut run.rng);
        }
        run.disk.disarm();
        assert!(run.recover().is_some(), "round {seed}: {:?}", open(&run.disk, run.applied).err());
        lost += run.lost;
    }
    assert!(lost > 0 && lives > rounds, "nothing was ever lost: the test is vacuous ({lives} lives)");
}
