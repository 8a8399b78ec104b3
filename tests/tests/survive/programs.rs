//! Many kills at random moments under programs at work.

use crate::workers::WORKERS;
use crate::{Kept, LIMIT};
use anyhow::{Context, Result, ensure};
use cbfs_tests::paths::count_from_env;
use cbfs_tests::process::wait_until;
use cbfs_tests::serial::serial;
use rand::Rng;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// `CBFS_KILL_ROUNDS` says how often.
#[test]
fn programs_see_nothing_of_twenty_kills() -> Result<()> {
    let _turn = serial()?;
    let kills = count_from_env("CBFS_KILL_ROUNDS", 20)?;
    let kept = Kept::new("kills")?;
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = WORKERS
        .into_iter()
        .map(|(name, work)| {
            let (dir, stop) = (kept.mount.path(name), stop.clone());
            let thread = thread::spawn(move || -> Result<usize> {
                fs::create_dir(&dir)?;
                let done = work(&dir, &stop);
                // One that fails ends the test, not the patience of everybody.
                if done.is_err() {
                    stop.store(true, Ordering::Release);
                }
                done
            });
            (name, thread)
        })
        .collect();
    let mut killed = 0;
    while killed < kills && !stop.load(Ordering::Acquire) {
        thread::sleep(Duration::from_millis(rand::rng().random_range(50..1500)));
        kept.mount.kill_daemon()?;
        killed += 1;
    }
    // The last one serves before anybody is asked to stop.
    wait_until("the last daemon serves", LIMIT, || Ok(fs::metadata(kept.mount.dir()).is_ok()))?;
    stop.store(true, Ordering::Release);
    wait_until("all programs have ended", 2 * LIMIT, || Ok(workers.iter().all(|(_, thread)| thread.is_finished())))?;
    let mut failures = Vec::new();
    for (name, thread) in workers {
        match thread.join().map_err(|_| anyhow::anyhow!("{name} panicked"))? {
            Ok(done) => println!("{name}: {done}"),
            Err(error) => failures.push(format!("{name}: {error:?}")),
        }
    }
    ensure!(failures.is_empty(), "after {killed} kills\n{}\n{}", failures.join("\n"), kept.mount.log()?);
    let restarts = kept.status("restarts")?.as_u64().context("no number")?;
    ensure!(restarts == kills as u64, "{restarts} restarts after {kills} kills: somebody else ended a daemon");
    ensure!(kept.status("restart_reason")?.as_str().is_some_and(|why| why.contains("SIGKILL")), "why is not said");
    // What was unlinked and is closed takes no room: the next mount would purge it, this one has to, too.
    check_after_remount(kept)
}

fn check_after_remount(kept: Kept) -> Result<()> {
    let Kept { mount, node, scenario } = kept;
    let before = cbfs_tests::manifest::Manifest::scan(mount.dir())?;
    mount.unmount(&node)?;
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    let after = cbfs_tests::manifest::Manifest::scan(mount.dir())?;
    before.must_equal(&after, cbfs_tests::manifest::Compare::Exact)?;
    Kept { mount, node, scenario }.end()
}
