//! The benchmark itself, with as little work as makes sense: every step and every measurement runs, and says so.

use anyhow::{Context, Result, ensure};
use cbfs_tests::bench::juicefs_binary;
use cbfs_tests::process::{Outcome, processes_with, run, signal, wait_child, wait_until};
use cbfs_tests::serial::serial;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);
const STEPS: usize = 26;

/// What it printed, and its JSON.
fn bench(args: &[&str]) -> Result<(Outcome, Value)> {
    let place = tempfile::tempdir()?;
    let json = place.path().join("figures.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cbfs-bench"));
    command.args(args).arg("--dir").arg(place.path()).arg("--json").arg(&json);
    let outcome = run(&mut command, LIMIT)?;
    let text = fs::read_to_string(&json).with_context(|| format!("no figures\n{outcome}"))?;
    let left: Vec<_> = fs::read_dir(place.path())?.collect::<Result<_, _>>()?;
    ensure!(left.len() == 1, "something stayed behind: {left:?}\n{outcome}");
    Ok((outcome, serde_json::from_str(&text)?))
}

const TINY: [&str; 14] = [
    "--rounds",
    "1",
    "--files",
    "120",
    "--synced",
    "32",
    "--transactions",
    "5",
    "--large-mib",
    "2",
    "--random",
    "20",
    "--sources",
    "4",
];

fn small_tree() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").display().to_string()
}

/// The samples of all rows, each with its step and target.
fn samples(figures: &Value) -> Result<Vec<(String, String, Value)>> {
    let mut found = Vec::new();
    for row in figures["rows"].as_array().context("no rows")? {
        let step = row["step"].as_str().context("no step")?;
        for (target, samples) in row["samples"].as_object().context("no samples")? {
            for sample in samples.as_array().context("no list")? {
                found.push((step.to_owned(), target.clone(), sample.clone()));
            }
        }
    }
    Ok(found)
}

#[test]
fn every_step_runs_on_every_target() -> Result<()> {
    let _turn = serial()?;
    let tree = small_tree();
    let mut args = vec!["run", "--settle", "0", "--base", "300", "--tree", &tree];
    args.extend(TINY);
    let (outcome, figures) = bench(&args)?;
    let outcome = outcome.success()?;
    let all = samples(&figures)?;
    for target in ["host", "null", "cbfs", "base"] {
        let own: Vec<_> = all.iter().filter(|(_, of, _)| of == target).collect();
        ensure!(own.len() == STEPS, "{} steps on {target}\n{outcome}", own.len());
        ensure!(own.iter().all(|(_, _, sample)| sample["seconds"].as_f64().is_some_and(|s| s > 0.0)), "{own:?}");
        let has_cpu = own.iter().all(|(_, _, sample)| sample["cpu_seconds"].is_f64());
        ensure!(has_cpu == (target != "host"), "processor times of {target}: {own:?}");
    }
    let kept = tempfile::NamedTempFile::new()?;
    fs::write(kept.path(), figures.to_string())?;
    let mut show = Command::new(env!("CARGO_BIN_EXE_cbfs-bench"));
    let shown = run(show.arg("show").args([kept.path(), kept.path()]), LIMIT)?.success()?;
    ensure!(shown.stdout.contains("; 2 rounds"), "{shown}");
    for words in ["| create files of 4 KiB | ", "on a published base of 300 files", "| make -j2 | "] {
        ensure!(outcome.stdout.contains(words), "no {words:?}\n{outcome}");
    }
    Ok(())
}

/// A machine without the program measures without it.
#[test]
fn juicefs_takes_part_where_it_is_installed() -> Result<()> {
    if juicefs_binary()?.is_none() {
        return Ok(());
    }
    let _turn = serial()?;
    let mut args = vec!["run", "--settle", "0", "--steps", "create,stat-cold,sync-1"];
    args.extend(["--targets", "host,cbfs,juicefs,juicefs-writeback"]);
    args.extend(TINY);
    let (outcome, figures) = bench(&args)?;
    let outcome = outcome.success()?;
    ensure!(samples(&figures)?.len() == 3 * 4, "{outcome}");
    ensure!(outcome.stdout.contains("JuiceFS --writeback"), "{outcome}");
    Ok(())
}

#[test]
fn a_step_that_fails_is_named_and_the_others_go_on() -> Result<()> {
    let _turn = serial()?;
    // A tree that tar cannot unpack over itself: its member `tree` is a file where git wants a directory.
    let tree = tempfile::tempdir()?;
    fs::create_dir_all(tree.path().join(".git/refs"))?;
    fs::write(tree.path().join(".git/HEAD"), "nonsense")?;
    let text = tree.path().display().to_string();
    let mut args = vec!["run", "--settle", "0", "--targets", "host,cbfs", "--steps", "git-add,sqlite", "--tree", &text];
    args.extend(TINY);
    let (outcome, figures) = bench(&args)?;
    let outcome = outcome.expect_exit(1)?;
    let failures = figures["failures"].as_array().context("no failures")?;
    ensure!(failures.len() == 2 && failures.iter().all(|failure| failure["step"] == "git add"), "{outcome}");
    ensure!(outcome.stdout.contains("**failed**: git add on cbfs"), "{outcome}");
    let sqlite = samples(&figures)?.into_iter().filter(|(step, _, _)| step.starts_with("sqlite")).count();
    ensure!(sqlite == 2 * 2, "{outcome}");
    Ok(())
}

#[test]
fn one_that_is_ended_leaves_nothing_behind() -> Result<()> {
    let _turn = serial()?;
    let place = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_cbfs-bench"));
    command
        .args(["run", "--steps", "sync", "--synced", "100000000", "--targets", "host,cbfs,null", "--dir"])
        .arg(place.path());
    let mut child = command.stderr(Stdio::null()).spawn()?;
    let mounts = || -> Result<usize> {
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(table.lines().filter(|line| line.contains(&place.path().display().to_string())).count())
    };
    wait_until("two filesystems are mounted", LIMIT, || Ok(mounts()? == 2))?;
    signal(child.id(), Signal::TERM)?;
    let status = wait_child(&mut child, LIMIT)?.context("it goes on")?;
    ensure!(status.code() == Some(130), "{status}");
    ensure!(mounts()? == 0, "mounts stay behind");
    let processes = processes_with(place.path())?;
    ensure!(processes.is_empty(), "processes stay behind: {processes:?}");
    let left: Vec<_> = fs::read_dir(place.path())?.collect::<Result<_, _>>()?;
    ensure!(left.is_empty(), "files stay behind: {left:?}");
    Ok(())
}

/// Values and limit of a figure of `snapshot`.
fn figure(figures: &Value, step: &str, name: &str) -> Result<(Vec<f64>, Option<f64>)> {
    let all = figures["figures"].as_array().context("no figures")?;
    let found = all.iter().find(|figure| figure["step"] == step && figure["name"] == name);
    let found = found.with_context(|| format!("no figure {name:?} of {step}"))?;
    let values = found["values"].as_array().context("no values")?;
    let values = values.iter().map(|value| value.as_f64().context("no number")).collect::<Result<Vec<_>>>()?;
    ensure!(!values.is_empty() && values.iter().all(|value| value.is_finite()), "{name}: {values:?}");
    Ok((values, found["at_most"].as_f64()))
}

/// What the benchmark of snapshots must show: step, figure, and what is asked for. All of them are more than nothing.
const SNAPSHOT_FIGURES: [(&str, &str, Option<f64>); 21] = [
    ("first", "time, CBFS", None),
    ("first", "time, tar | zstd -3 | upload", None),
    ("first", "time / tar | zstd -3 | upload", Some(1.2)),
    ("first", "bytes / tar | zstd -3 | upload", Some(1.1)),
    ("incremental", "files that changed", None),
    ("incremental", "time / tar -g | zstd -3 | upload", Some(0.6)),
    ("incremental", "bytes / tar -g | zstd -3 | upload", Some(1.2)),
    ("slowdown", "untar beside a snapshot / alone", Some(1.3)),
    ("slowdown", "untar beside: share of its time with the snapshot", None),
    ("slowdown", "fsync beside a snapshot / alone", Some(1.3)),
    ("requests", "requests of a snapshot of one new file", Some(6.0)),
    ("requests", "of them PUT", None),
    ("memory", "memory before the first snapshot, 200 files", None),
    ("memory", "first snapshot, 200 files", None),
    ("memory", "first snapshot, bytes, 200 files", None),
    ("growth", "time, 5 changed of 200", None),
    ("growth", "bytes, 50 changed of 200", None),
    ("growth", "time, 50 / 5 changed", Some(10.0)),
    ("cut", "longest wait of an application, 200 files", Some(10.0)),
    ("cut", "until the request is answered, 200 files", None),
    ("cut", "longest wait in as long a time on null FUSE", None),
];

#[test]
fn the_benchmark_of_snapshots_has_every_figure() -> Result<()> {
    let _turn = serial()?;
    let tree = small_tree();
    let mut args = vec!["snapshot", "--settle", "0", "--tree", &tree, "--rounds", "1", "--cut-files", "200"];
    args.extend(["--cuts", "1", "--files", "200", "--changed", "5,50", "--small", "2", "--idle-seconds", "1"]);
    args.extend(["--fsync-seconds", "0.2"]);
    let (outcome, figures) = bench(&args)?;
    let outcome = outcome.success()?;
    for (step, name, limit) in SNAPSHOT_FIGURES {
        let (values, at_most) = figure(&figures, step, name)?;
        ensure!(values.iter().all(|value| *value > 0.0), "{step}: {name} is {values:?}\n{outcome}");
        ensure!(at_most == limit, "{name} may be {at_most:?} at most\n{outcome}");
    }
    // Pack, run and record are three requests at least, and one file needs no more than some dozens.
    let (requests, _) = figure(&figures, "requests", "requests of a snapshot of one new file")?;
    ensure!(requests.len() == 2 && requests.iter().all(|count| (3.0..50.0).contains(count)), "{outcome}");
    let (_, at_most) = figure(&figures, "memory", "memory above that, at most, 200 files")?;
    ensure!(at_most == Some(200.0), "{outcome}");
    let (_, at_most) = figure(&figures, "idle", "requests a minute of an idle filesystem")?;
    ensure!(at_most == Some(1.0), "{outcome}");
    // Where restic is installed it takes part, and where not, the reader is told.
    let with_restic =
        figure(&figures, "incremental", "time / restic backup").is_ok_and(|(_, limit)| limit == Some(0.1));
    ensure!(with_restic || outcome.stdout.contains("restic is not installed"), "{outcome}");
    Ok(())
}

#[test]
fn the_other_measurements_run() -> Result<()> {
    let _turn = serial()?;
    let (outcome, memory) = bench(&["memory", "--settle", "0", "--files", "200", "--minutes", "0.02"])?;
    let outcome = outcome.success()?;
    ensure!(memory["listed"].as_f64().is_some_and(|megabytes| megabytes > 1.0), "{outcome}");
    ensure!(memory["churn_operations"].as_u64().is_some_and(|count| count > 0), "{outcome}");

    let (outcome, pause) = bench(&["pause", "--settle", "0", "--seconds", "1.5", "--snapshot-every", "0.5"])?;
    let outcome = outcome.success()?;
    ensure!(pause["snapshots"].as_u64().is_some_and(|count| count > 0), "{outcome}");
    for operation in ["create + 4 KiB", "stat", "4 KiB write", "fsync"] {
        ensure!(pause["targets"]["cbfs"][operation]["p999"].as_f64().is_some_and(|ms| ms > 0.0), "{outcome}");
    }

    let (outcome, restart) =
        bench(&["restart", "--settle", "0", "--files", "200", "--journal-mib", "2", "--rounds", "1"])?;
    let outcome = outcome.success()?;
    let rounds = restart["rounds"].as_array().context("no rounds")?;
    ensure!(rounds.len() == 1 && rounds.iter().all(|r| r["answered_seconds"].as_f64() > Some(0.0)), "{outcome}");

    let (outcome, scale) = bench(&["scale", "--settle", "0", "--files", "50,200", "--samples", "20", "--cuts", "1"])?;
    let outcome = outcome.success()?;
    let sizes = scale["sizes"].as_array().context("no sizes")?;
    ensure!(sizes.len() == 2 && sizes.iter().all(|size| size["cut_ms"][0].as_f64() > Some(0.0)), "{outcome}");
    Ok(())
}
