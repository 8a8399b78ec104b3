//! Single situations that random rounds meet too rarely.

use crate::instance::{Bases, Instance};
use crate::powerfs::{Calls, Effect, Fault, Loss, PowerFs};
use anyhow::{Context, Result, bail, ensure};
use kvfs::data::DataOptions;
use kvfs::engine::EngineOptions;
use kvfs::fs::{Caller, FileSystem, NewNode};
use kvfs::journal::JournalOptions;
use kvfs::op::{AttributeChange, Privileges};
use kvfs::schema::{BlobRef, FileKind, Place};
use kvfs::{FsError, Ino};
use std::fs;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread;
use std::time::Duration;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
/// More than a journal record carries: these bytes go to a data segment at once.
const STORED_BYTES: usize = 40_000;
/// What an LMDB environment writes to is out of order: checkpoints fail, everything else works.
const NO_LMDB: &str = "layers/";

fn options() -> EngineOptions {
    EngineOptions {
        checkpoint_interval: Duration::from_secs(3600),
        journal: JournalOptions { segment_bytes: 32 << 10, spares: 0 },
        data: DataOptions { segment_bytes: 128 << 10, spares: 0, ..DataOptions::default() },
        ballast_bytes: 0,
        ..EngineOptions::default()
    }
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

struct Scene {
    power: PowerFs,
    bases: Bases,
    options: EngineOptions,
}

impl Scene {
    fn new() -> Result<Self> {
        Ok(Self { power: PowerFs::mount()?, bases: Bases::default(), options: options() })
    }

    fn open(&self) -> Result<Instance> {
        Ok(Instance::try_open(&self.power.life(), &self.bases, self.options)?)
    }

    fn fail_lmdb(&self) {
        let (calls, times) = (Calls::Any, u64::MAX);
        let fault = Fault { calls, nth: 1, times, errno: libc::EIO, effect: Effect::Nothing };
        self.power.plan_below(NO_LMDB, fault);
    }
}

fn make(instance: &Instance, name: &str) -> Result<Ino> {
    let node = NewNode { kind: FileKind::Regular, mode: 0o644, umask: 0, rdev: 0, target: b"" };
    Ok(instance.fs.make(CALLER, Ino::ROOT, name.as_bytes(), &node)?.ino)
}

fn write(instance: &Instance, ino: Ino, bytes: &[u8]) -> Result<()> {
    instance.fs.write(ino, 0, bytes, Privileges::Keep)?;
    Ok(())
}

fn read(instance: &Instance, ino: Ino) -> Result<Vec<u8>> {
    Ok(instance.fs.read(ino, 0, u32::MAX)?.to_vec())
}

/// The blob that the first extent of a file lies in.
fn blob_of(instance: &Instance, ino: Ino) -> Result<BlobRef> {
    let window = instance.engine.stack().load().view().window(ino, 0)?;
    match window.extents.first().map(|extent| &extent.place) {
        Some(Place::Segment { blob, .. }) => Ok(*blob),
        other => bail!("not in a segment: {other:?}"),
    }
}

/// Bytes stay readable for whoever took the list of tiers before they were replaced, and are recycled after that.
pub fn an_old_reader_keeps_its_bytes() -> Result<()> {
    let scene = Scene::new()?;
    let instance = scene.open()?;
    let (old, new) = (pattern(1, STORED_BYTES), pattern(2, STORED_BYTES));
    let file = make(&instance, "file")?;
    write(&instance, file, &old)?;
    instance.engine.checkpoint()?;
    let blob = blob_of(&instance, file)?;
    let reader = instance.engine.stack().load();
    for _ in 0..9 {
        write(&instance, file, &new)?;
        write(&instance, file, &new)?;
        instance.engine.checkpoint()?;
    }
    ensure!(instance.engine.data().read_all(&blob)? == old, "the old reader sees other bytes");
    drop(reader);
    write(&instance, file, &new)?;
    instance.engine.checkpoint()?;
    write(&instance, file, &new)?;
    instance.engine.checkpoint()?;
    ensure!(instance.engine.data().read_all(&blob).is_err(), "vacuous: the segment was never recycled");
    ensure!(read(&instance, file)? == new);
    instance.kill();
    Ok(())
}

/// A checkpoint whose transaction fails has moved bytes to segments that no tier names yet. They are there when it is
/// tried again, although the checkpointer looks for segments to recycle meanwhile; and they are moved once.
pub fn a_checkpoint_that_is_tried_again_keeps_what_it_moved() -> Result<()> {
    let scene = Scene::new()?;
    let instance = scene.open()?;
    let victim = make(&instance, "victim")?;
    write(&instance, victim, &pattern(0, 3 * STORED_BYTES))?;
    instance.engine.checkpoint()?;
    // Segments that wait for this reader make the checkpointer look at all of them again and again.
    let reader = instance.engine.stack().load();
    for round in 0..4 {
        write(&instance, victim, &pattern(round, 3 * STORED_BYTES))?;
        instance.engine.checkpoint()?;
    }
    let files: Vec<(Ino, Vec<u8>)> = (0..40)
        .map(|index| Ok((make(&instance, &format!("small {index}"))?, pattern(100 + index, 12_000))))
        .collect::<Result<_>>()?;
    // Behind an fsync small writes travel in the journal, and the checkpoint has to move them.
    instance.engine.sync()?;
    for (ino, bytes) in &files {
        write(&instance, *ino, bytes)?;
    }
    let before = instance.engine.data().used_bytes();
    scene.fail_lmdb();
    ensure!(instance.engine.checkpoint().is_err(), "vacuous: the checkpoint did not fail");
    let moved = instance.engine.data().used_bytes();
    ensure!(moved >= before + 40 * 12_000, "vacuous: nothing was moved");
    for _ in 0..3 {
        ensure!(instance.engine.checkpoint().is_err());
        // The checkpointer takes a nap of 100 ms between two looks.
        thread::sleep(Duration::from_millis(250));
    }
    ensure!(instance.engine.data().used_bytes() == moved, "moved again with every attempt");
    drop(reader);
    thread::sleep(Duration::from_millis(250));
    // New segments would overwrite what was recycled.
    for round in 0..8 {
        let ino = make(&instance, &format!("more {round}"))?;
        write(&instance, ino, &pattern(200 + round, 3 * STORED_BYTES))?;
    }
    ensure!(scene.power.heal() > 0);
    instance.engine.checkpoint().context("with the fault gone")?;
    for (index, (ino, bytes)) in files.iter().enumerate() {
        let found = read(&instance, *ino).with_context(|| format!("file {index}"))?;
        ensure!(&found == bytes, "file {index} has other bytes");
    }
    instance.engine.close()?;
    instance.kill();
    let instance = scene.open()?;
    for (ino, bytes) in &files {
        ensure!(&read(&instance, *ino)? == bytes, "after a restart");
    }
    instance.kill();
    Ok(())
}

/// A full store says so, keeps what it acknowledged, and takes more when something was removed.
pub fn a_full_store_refuses_and_recovers() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.options.data.max_bytes = Some(1 << 20);
    let instance = scene.open()?;
    let mut kept: Vec<(Ino, Vec<u8>)> = Vec::new();
    let mut refused = 0;
    for index in 0..60 {
        let ino = make(&instance, &format!("file {index}"))?;
        let bytes = pattern(index, if index % 2 == 0 { STORED_BYTES } else { 9000 });
        match instance.fs.write(ino, 0, &bytes, Privileges::Keep) {
            Ok(_) => kept.push((ino, bytes)),
            Err(FsError::NoSpace) => refused += 1,
            Err(error) => bail!("another error than ENOSPC: {error}"),
        }
    }
    ensure!(refused > 0 && kept.len() > 10, "vacuous: {refused} refused, {} kept", kept.len());
    ensure!(instance.engine.data().used_bytes() <= 1 << 20, "beyond the limit");
    instance.engine.checkpoint()?;
    let check = |instance: &Instance| -> Result<()> {
        kept.iter().try_for_each(|(ino, bytes)| {
            ensure!(&read(instance, *ino)? == bytes, "inode {ino} has other bytes");
            Ok(())
        })
    };
    check(&instance)?;
    instance.kill();
    let instance = scene.open()?;
    check(&instance)?;
    for index in 0..60 {
        let name = format!("file {index}");
        let found = instance.fs.lookup(Ino::ROOT, name.as_bytes())?;
        instance.fs.unlink(Ino::ROOT, name.as_bytes())?;
        instance.fs.forgotten(found.ino);
    }
    instance.engine.checkpoint()?;
    // The segment that is written now is the only one that may stay.
    let again = make(&instance, "again")?;
    write(&instance, again, &pattern(7, 6 * STORED_BYTES)).context("with everything removed")?;
    instance.kill();
    Ok(())
}

/// A bit that flips in what was flushed is damage, and refuses the start; the torn end of what was not is an end.
pub fn damage_is_not_taken_for_the_end() -> Result<()> {
    let scene = Scene::new()?;
    let instance = scene.open()?;
    for index in 0..40 {
        let ino = make(&instance, &format!("file {index}"))?;
        write(&instance, ino, &pattern(index, 3000))?;
        instance.fs.sync(ino)?;
    }
    instance.kill();
    let mut segments: Vec<_> = fs::read_dir(scene.power.life().join("journal"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "journal"))
        .collect();
    segments.sort();
    ensure!(segments.len() >= 3, "vacuous: only {} segments", segments.len());
    let middle = segments.get(segments.len() / 2).context("no segment")?;
    let file = fs::OpenOptions::new().read(true).write(true).open(middle)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, 9000)?;
    file.write_all_at(&[byte[0] ^ 4], 9000)?;
    match scene.open() {
        Ok(_) => bail!("a damaged journal was taken for a shorter one"),
        Err(error) => ensure!(format!("{error:#}").contains("record"), "the error does not say where: {error:#}"),
    }
    // Whole again, it opens, and nothing is missing.
    file.write_all_at(&byte, 9000)?;
    let instance = scene.open()?;
    for index in 0..40 {
        let found = instance.fs.lookup(Ino::ROOT, format!("file {index}").as_bytes())?;
        ensure!(read(&instance, found.ino)? == pattern(index, 3000), "file {index}");
    }
    instance.kill();
    Ok(())
}

/// After a failed flush the page cache may let go of what never reached the disk: what is read then is an error, also if it is
/// a part of a blob, and never other bytes.
pub fn a_part_that_the_disk_lost_is_an_error() -> Result<()> {
    let scene = Scene::new()?;
    let instance = scene.open()?;
    let file = make(&instance, "file")?;
    instance.fs.sync(file)?;
    write(&instance, file, &pattern(1, STORED_BYTES))?;
    // Of the blob only its head is left in the file.
    let change = AttributeChange { size: Some(30_000), ..AttributeChange::default() };
    instance.fs.set_attributes(file, &change, Privileges::Keep)?;
    ensure!(read(&instance, file)? == pattern(1, STORED_BYTES)[..30_000]);
    let fault = Fault { calls: Calls::Sync, nth: 1, times: 1, errno: libc::EIO, effect: Effect::Nothing };
    scene.power.plan_below("data/", fault);
    ensure!(instance.fs.sync(file).is_err() && scene.power.heal() == 1, "vacuous: no flush failed");
    ensure!(instance.fs.write(file, 0, b"more", Privileges::Keep).is_err(), "it takes more");
    for entry in fs::read_dir(scene.power.life().join("data"))? {
        let segment = fs::File::open(entry?.path())?;
        rustix::fs::fadvise(&segment, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    match read(&instance, file) {
        Err(_) => {}
        Ok(_) => bail!("bytes were read that the disk does not have"),
    }
    instance.kill();
    Ok(())
}

/// Layers that cannot be removed stay whole, with what they name, and in order.
pub fn a_layer_that_cannot_be_removed_stays_whole() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.options.published_kept = 0;
    let instance = scene.open()?;
    let file = make(&instance, "file")?;
    for round in 0..6_u64 {
        write(&instance, file, &pattern(round, 3 * STORED_BYTES))?;
        let id = uuid::Uuid::from_u128(u128::from(round) + 1);
        instance.engine.take_snapshot(Instance::request(id), &std::collections::BTreeSet::new())?;
        instance.engine.checkpoint()?;
        let base = instance.collect(id, &scene.bases)?.context("not sealed")?;
        if round == 2 {
            // Only the first removal fails: the later ones must not leave a hole.
            let fault = Fault { calls: Calls::Name, nth: 1, times: 1, errno: libc::EIO, effect: Effect::Nothing };
            scene.power.plan_below(NO_LMDB, fault);
        }
        instance.publish(base, &scene.bases)?;
    }
    ensure!(scene.power.heal() > 0, "vacuous: nothing failed");
    let expected = pattern(5, 3 * STORED_BYTES);
    ensure!(read(&instance, file)? == expected);
    instance.kill();
    scene.options.published_kept = 8;
    let instance = scene.open().context("after a removal that failed")?;
    ensure!(read(&instance, file)? == expected, "after a restart");
    instance.kill();
    Ok(())
}

/// What this filesystem makes of syncs and of their absence.
pub fn the_ground_keeps_what_is_synced_and_nothing_else() -> Result<()> {
    let (mut lost_bytes, mut lost_names, mut torn) = (0, 0, 0);
    for seed in 0..60 {
        let power = PowerFs::mount()?;
        let dir = power.life();
        let open = |name: &str| fs::OpenOptions::new().write(true).create(true).truncate(true).open(dir.join(name));
        let (kept, loose) = (open("kept")?, open("loose")?);
        kept.write_all_at(&[1; 8192], 0)?;
        kept.sync_data()?;
        kept.write_all_at(&[2; 8192], 0)?;
        loose.write_all_at(&[3; 8192], 0)?;
        fs::File::open(&dir)?.sync_all()?;
        let late = open("late")?;
        late.write_all_at(b"late", 0)?;
        late.sync_all()?;
        let synced = fs::OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(dir.join("kept"))?;
        synced.write_all_at(&[4; 512], 4096)?;
        power.cut_now(&Loss::from_seed(seed));
        ensure!(fs::read(dir.join("kept"))?.len() == 8192, "the old life goes on");
        let (after, whole) = (fs::read(power.life().join("kept"))?, |byte: u8| vec![byte; 8192]);
        ensure!(after.len() == 8192 && after[4096..4608] == [4; 512], "O_DSYNC writes are durable");
        // The sync of the later write took the earlier ones to the same file along.
        ensure!(after[..4096] == whole(2)[..4096] && after[4608..] == whole(2)[4608..]);
        let there = fs::read(power.life().join("loose")).context("a name that was synced")?;
        lost_bytes += usize::from(there != whole(3));
        torn += usize::from(there.contains(&3) && there != whole(3));
        match fs::read(power.life().join("late")) {
            Ok(bytes) => ensure!(bytes == b"late", "bytes that were synced"),
            Err(_) => lost_names += 1,
        }
    }
    ensure!(lost_bytes > 10 && lost_names > 10 && torn > 5, "{lost_bytes} files, {lost_names} names, {torn} torn");
    Ok(())
}

/// See the test of that name.
#[cfg(feature = "failpoints")]
pub fn a_write_in_the_middle_of_a_flush_may_be_lost_and_is_no_damage() -> Result<()> {
    use std::sync::atomic::{AtomicU64, Ordering};
    let mut lost = 0;
    for seed in 0..40 {
        let scene = Scene::new()?;
        let instance = scene.open()?;
        let (early, late) = (make(&instance, "early")?, make(&instance, "late")?);
        let (fs, calls) = (instance.fs.clone(), AtomicU64::new(0));
        fail::cfg_callback("data.flushed", move || {
            if calls.fetch_add(1, Ordering::SeqCst) == 0 {
                // Failing it would show in the end.
                let _ = fs.write(late, 0, &pattern(1, STORED_BYTES), Privileges::Keep);
            }
        })
        .map_err(anyhow::Error::msg)?;
        write(&instance, early, &pattern(2, STORED_BYTES))?;
        instance.fs.sync(early)?;
        fail::remove("data.flushed");
        ensure!(read(&instance, late)? == pattern(1, STORED_BYTES), "vacuous: nothing came in between");
        // Enough for a new segment of the journal.
        for round in 0..4 {
            let ino = make(&instance, &format!("more {round}"))?;
            write(&instance, ino, &pattern(round, 15_000))?;
        }
        scene.power.cut_now(&Loss::from_seed(seed));
        instance.kill();
        let instance = scene.open().with_context(|| format!("seed {seed}"))?;
        ensure!(read(&instance, early)? == pattern(2, STORED_BYTES), "what was fsynced");
        lost += usize::from(read(&instance, late)? != pattern(1, STORED_BYTES));
        instance.kill();
    }
    ensure!(lost > 5, "vacuous: the write in the middle was lost {lost} times");
    Ok(())
}
