//! Small changes that are durable one by one.

use super::program::output_of;
use super::{SMALL_BYTES, noise, timed};
use crate::bench::workload::Workload;
use anyhow::{Context, Result, anyhow};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Python has SQLite built in, which saves this project from building one. It measures by itself, so that its own start
/// does not count.
const SQLITE: &str = r#"
import sqlite3, sys, time
path, mode, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
connection = sqlite3.connect(path, isolation_level=None)
answer = connection.execute("PRAGMA journal_mode = " + mode).fetchone()[0]
if answer != mode:
    sys.exit("the journal mode is " + answer + ", not " + mode)
connection.execute("PRAGMA synchronous = FULL")
connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, body BLOB)")
body = bytes(range(200))
start = time.perf_counter()
for number in range(count):
    connection.execute("INSERT INTO item VALUES (?, ?)", (number, body))
print(time.perf_counter() - start)
if connection.execute("SELECT count(*) FROM item").fetchone()[0] != count:
    sys.exit("rows are missing")
"#;

fn directory(place: &Path, threads: usize, thread: usize) -> PathBuf {
    place.join(format!("by-{threads}-{thread}"))
}

pub(super) fn directories<const THREADS: usize>(place: &Path, _: &Workload) -> Result<()> {
    for thread in 0..THREADS {
        fs::create_dir(directory(place, THREADS, thread))?;
    }
    Ok(())
}

/// Each thread has a directory of its own.
pub(super) fn create<const THREADS: usize>(place: &Path, workload: &Workload) -> Result<Duration> {
    let block = noise(SMALL_BYTES);
    let share = |thread: usize| -> Result<()> {
        let dir = directory(place, THREADS, thread);
        for number in (thread..workload.synced).step_by(THREADS) {
            let mut file = File::create_new(dir.join(format!("f{number}")))?;
            file.write_all(&block)?;
            file.sync_all().context("fsync")?;
        }
        Ok(())
    };
    timed(|| {
        thread::scope(|scope| {
            let all: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || share(thread))).collect();
            all.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?)
        })
    })
}

pub(super) fn rollback(place: &Path, workload: &Workload) -> Result<Duration> {
    transactions(place, workload, "delete")
}

pub(super) fn write_ahead(place: &Path, workload: &Workload) -> Result<Duration> {
    transactions(place, workload, "wal")
}

/// Inserts that are a transaction each.
fn transactions(place: &Path, workload: &Workload, mode: &str) -> Result<Duration> {
    let mut command = Command::new("python3");
    command.args(["-c", SQLITE]).arg(place.join(mode)).arg(mode).arg(workload.transactions.to_string());
    let (_, output) = output_of(&mut command)?;
    let seconds: f64 = output.trim().parse().with_context(|| format!("no number of seconds: {output:?}"))?;
    Ok(Duration::from_secs_f64(seconds))
}
