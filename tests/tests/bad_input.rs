//! Bad input: each kind with its exit code, a message that says what, and nothing lost.

use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::StoreKind;
use cbfs_tests::node::{ANSWER_LIMIT, Node};
use cbfs_tests::on_both_stores;
use cbfs_tests::process::{Outcome, signal, wait_child, wait_until};
use cbfs_tests::proxy::Weather;
use cbfs_tests::scenario::{Mount, Scenario, noise, write_durable};
use rustix::io::Errno;
use rustix::process::Signal;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

on_both_stores!(
    addresses_and_names,
    an_ambiguous_name_lists_the_candidates,
    credentials_and_buckets,
    mount_points,
    a_second_daemon_is_refused,
    a_corrupt_ledger_record_is_refused,
    a_corrupt_run_gives_no_wrong_bytes,
    a_corrupt_pack_gives_no_wrong_bytes,
    a_newer_config_is_refused,
    an_export_is_whole_or_refused,
    verify_tells_of_damage_and_goes_on_after_a_kill,
);

const INVALID: i32 = 2;
const NOT_FOUND: i32 = 3;
const AMBIGUOUS: i32 = 4;
const DENIED: i32 = 6;
const UNAVAILABLE: i32 = 7;
const CORRUPT: i32 = 10;
const UNSUPPORTED: i32 = 11;
const BUSY: i32 = 13;

fn addresses_and_names(kind: StoreKind) -> Result<()> {
    let scenario = Scenario::new(kind, "twin")?;
    let node = scenario.node()?;
    let store = scenario.bucket.url();
    for bad in ["ftp://host/dir", "s3://", "file://relative", "s3:/bucket", "not a url"] {
        node.cbfs(&["list", bad])?.refused(INVALID, &[bad])?;
    }
    for bad in ["", "-dash", "a b", "a/b"] {
        node.cbfs(&["create", &format!("{store}#{bad}")])?.refused(INVALID, &[])?;
    }
    node.cbfs(&["no-such-command"])?.expect_exit(INVALID)?;
    node.cbfs(&["show", &format!("{store}#unknown")])?.refused(NOT_FOUND, &["unknown"])?;
    let dir = node.mount_point("mnt")?;
    let dir = dir.to_str().context("not UTF-8")?;
    node.cbfs(&["mount", &format!("{store}#unknown"), dir])?.refused(NOT_FOUND, &["unknown"])?;
    node.cbfs(&["mount", &scenario.at("unknown"), dir])?.refused(NOT_FOUND, &["unknown"])?;
    node.cbfs(&["unmount", dir])?.refused(NOT_FOUND, &[dir])?;
    node.cbfs(&["snapshot", "create", &scenario.address])?.refused(NOT_FOUND, &[])?;

    Ok(())
}

/// Two nodes that create at once can both get the same tag; then the tag alone says too little.
fn an_ambiguous_name_lists_the_candidates(kind: StoreKind) -> Result<()> {
    let scenario = Scenario::new(kind, "twin")?;
    let node = scenario.node()?;
    let config = scenario.bucket.names_with(".config")?.pop().context("no config")?;
    let first = config.strip_suffix(".config").context("no config")?.to_owned();
    node.cbfs_long(&["create", &scenario.address])?.refused(AMBIGUOUS, &[&first])?;

    let other = "0badcafe-0000-4000-8000-000000000001";
    let mut copy: serde_json::Value = serde_json::from_slice(&scenario.bucket.get(&config)?)?;
    copy["id"] = other.into();
    let second = format!("twin-{other}");
    scenario.bucket.put(&format!("{second}.config"), copy.to_string().into_bytes())?;
    node.cbfs(&["show", &scenario.address])?.refused(AMBIGUOUS, &[&first, &second])?;
    let dir = node.mount_point("mnt")?;
    let dir = dir.to_str().context("not UTF-8")?;
    node.cbfs(&["mount", &scenario.address, dir])?.refused(AMBIGUOUS, &[&first, &second])?;
    for name in [first.as_str(), &second, "0badcafe"] {
        node.cbfs(&["show", &format!("{}#{name}", scenario.bucket.url())])?.success()?;
    }
    Ok(())
}

fn credentials_and_buckets(kind: StoreKind) -> Result<()> {
    let scenario = Scenario::new(kind, "denied")?;
    let mut node = scenario.node()?;
    let missing = scenario.bucket.missing_url();
    node.cbfs(&["list", &missing])?.refused(NOT_FOUND, &["no-such-bucket"])?;
    node.cbfs(&["show", &format!("{missing}#denied")])?.refused(NOT_FOUND, &["no-such-bucket"])?;
    if kind == StoreKind::S3 {
        let secret = "a-secret-that-must-not-be-shown";
        node.set_env("AWS_SECRET_ACCESS_KEY", secret);
        let needs_store: [&[&str]; 3] =
            [&["list", &scenario.bucket.url()], &["show", &scenario.address], &["create", &scenario.address]];
        for args in needs_store {
            let outcome = node.cbfs(args)?.refused(DENIED, &[])?;
            ensure!(outcome.stderr.contains("hint: ") && !outcome.stderr.contains(secret), "{outcome}");
        }
        node.remove_env("AWS_ACCESS_KEY_ID");
        node.remove_env("AWS_SECRET_ACCESS_KEY");
        node.cbfs(&["list", &scenario.bucket.url()])?.refused(DENIED, &[])?;
    }
    Ok(())
}

fn mount_points(kind: StoreKind) -> Result<()> {
    let scenario = Scenario::new(kind, "points")?;
    let node = scenario.node()?;
    let used = node.mount_point("used")?;
    fs::write(used.join("precious"), "not to be hidden")?;
    let used_text = used.to_str().context("not UTF-8")?;
    node.cbfs(&["mount", &scenario.address, used_text])?.refused(INVALID, &["not empty"])?;
    ensure!(fs::read(used.join("precious"))? == b"not to be hidden", "hidden");
    let file = used.join("precious");
    let file_text = file.to_str().context("not UTF-8")?;
    node.cbfs(&["mount", &scenario.address, file_text])?.refused(INVALID, &["directory"])?;
    let missing = used.join("missing");
    let missing_text = missing.to_str().context("not UTF-8")?;
    node.cbfs(&["mount", &scenario.address, missing_text])?.refused(NOT_FOUND, &[missing_text])?;

    let mount = node.mount(&scenario.address, "mnt", &[])?;
    // Another filesystem, so that nothing but the mount point is in the way.
    let other = scenario.node()?;
    let second = format!("{}#other", scenario.bucket.url());
    other.cbfs_long(&["create", &second])?.success()?;
    let taken = mount.dir().to_str().context("not UTF-8")?;
    other.cbfs(&["mount", &second, taken])?.refused(BUSY, &[taken])?;
    write_durable(&mount.path("file"), b"unharmed")?;
    mount.unmount(&node)
}

fn a_second_daemon_is_refused(kind: StoreKind) -> Result<()> {
    let scenario = Scenario::new(kind, "second")?;
    let node = scenario.node()?;
    let mount = node.mount(&scenario.address, "mnt", &[])?;
    write_durable(&mount.path("file"), b"content")?;
    let elsewhere = node.mount_point("elsewhere")?;
    let elsewhere = elsewhere.to_str().context("not UTF-8")?;
    let pid = mount.pid()?.to_string();
    for options in [&["--foreground"][..], &[]] {
        let args = [&["mount", &scenario.address, elsewhere], options].concat();
        node.cbfs(&args)?.refused(BUSY, &[&pid])?;
    }
    ensure!(fs::read(mount.path("file"))? == b"content", "the first daemon suffers");
    write_durable(&mount.path("more"), b"content")?;
    mount.unmount(&node)
}

/// Names and contents.
type Files = Vec<(String, Vec<u8>)>;

/// A filesystem with one snapshot of incompressible files, so that a pack is mostly their bytes.
fn with_snapshot(kind: StoreKind) -> Result<(Scenario, Files)> {
    let scenario = Scenario::new(kind, "corrupt")?;
    let master = Mount::new(&scenario.bucket, &scenario.address, &[])?;
    let mut files = Vec::new();
    for index in 0..200 {
        let content = noise(index, 20_000);
        let name = format!("file {index}");
        fs::write(master.mounted.path(&name), &content)?;
        files.push((name, content));
    }
    scenario.snapshot(&master.node, "base")?;
    master.unmount()?;
    Ok((scenario, files))
}

/// Reads everything: right bytes or EIO. How many files could not be read.
fn right_or_eio(dir: &Path, files: &[(String, Vec<u8>)]) -> Result<usize> {
    let mut failed = 0;
    for (name, content) in files {
        match fs::read(dir.join(name)) {
            Ok(found) => ensure!(&found == content, "{name}: wrong bytes were served"),
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => failed += 1,
            Err(error) => return Err(error).with_context(|| format!("{name}: not EIO")),
        }
    }
    Ok(failed)
}

fn mount_latest(scenario: &Scenario, node: &Node) -> Result<Outcome> {
    let dir = node.mount_point("mnt")?;
    node.cbfs(&["mount", &scenario.at("latest"), dir.to_str().context("not UTF-8")?])
}

fn a_corrupt_ledger_record_is_refused(kind: StoreKind) -> Result<()> {
    let (scenario, _) = with_snapshot(kind)?;
    let records = scenario.bucket.names_with("/ledger/")?;
    let last = records.last().context("no ledger")?;
    let whole = scenario.bucket.get(last)?;
    let text = String::from_utf8(whole.clone())?;
    let other_epoch = text.replacen("\"epoch\":1", "\"epoch\":9", 1);
    ensure!(other_epoch != text, "nothing to change in {text}");
    for (what, body) in [
        ("half of it", whole[..whole.len() / 2].to_vec()),
        ("nothing", Vec::new()),
        ("a lie", other_epoch.into_bytes()),
    ] {
        scenario.bucket.put(last, body)?;
        let object = last.rsplit('/').next().context("no name")?;
        mount_latest(&scenario, &scenario.node()?)?.refused(CORRUPT, &[object]).context(what)?;
    }
    scenario.bucket.put(last, whole)?;
    Mount::new(&scenario.bucket, &scenario.at("latest"), &[])?.unmount()
}

fn a_corrupt_run_gives_no_wrong_bytes(kind: StoreKind) -> Result<()> {
    let (scenario, files) = with_snapshot(kind)?;
    let runs = scenario.bucket.names_with("/idx/")?;
    let run = runs.last().context("no index run")?;
    let whole = scenario.bucket.get(run)?;
    for (from, to) in [(0, 20), (20, 60), (60, 90), (90, 100), (0, 100)] {
        scenario.bucket.corrupt(run, from, to)?;
        let node = scenario.node()?;
        let outcome = mount_latest(&scenario, &node)?;
        if outcome.code == Some(0) {
            let failed = right_or_eio(&node.mount_point("mnt")?, &files)?;
            ensure!(failed > 0, "a run that is broken from {from} % to {to} % does not matter");
        } else {
            outcome.refused(CORRUPT, &[])?;
        }
        scenario.bucket.put(run, whole.clone())?;
    }
    let slave = Mount::new(&scenario.bucket, &scenario.at("latest"), &[])?;
    ensure!(right_or_eio(slave.mounted.dir(), &files)? == 0, "the whole run is back");
    slave.unmount()
}

fn a_corrupt_pack_gives_no_wrong_bytes(kind: StoreKind) -> Result<()> {
    let (scenario, files) = with_snapshot(kind)?;
    let packs = scenario.bucket.names_with("/pack/")?;
    let pack = packs.last().context("no pack")?;
    let whole = scenario.bucket.get(pack)?;
    scenario.bucket.corrupt(pack, 40, 60)?;
    let slave = Mount::new(&scenario.bucket, &scenario.at("latest"), &[])?;
    let failed = right_or_eio(slave.mounted.dir(), &files)?;
    ensure!(failed > 0 && failed < files.len(), "{failed} of {} files failed", files.len());
    // What is whole again is served again, also after an error.
    scenario.bucket.put(pack, whole)?;
    ensure!(right_or_eio(slave.mounted.dir(), &files)? == 0, "the whole pack is back");
    slave.unmount()
}

fn an_export_is_whole_or_refused(kind: StoreKind) -> Result<()> {
    let (scenario, _) = with_snapshot(kind)?;
    let mut node = scenario.node()?;
    // Whatever it needs on the local disk must be gone with it.
    let scratch = node.mount_point("scratch")?;
    node.set_env("TMPDIR", scratch.to_str().context("not UTF-8")?);
    let folder = node.mount_point("out")?;
    let file = folder.join("latest.tar");
    let (folder_text, text) = (folder.to_str().context("not UTF-8")?, file.to_str().context("not UTF-8")?);
    let latest = scenario.at("latest");
    node.cbfs(&["export", &scenario.at("unknown"), "--output", text])?.refused(NOT_FOUND, &["unknown"])?;
    node.cbfs(&["export", &latest, "--output", folder_text])?.refused(INVALID, &["directory"])?;
    for part in ["/pack/", "/idx/"] {
        let names = scenario.bucket.names_with(part)?;
        let name = names.last().context("nothing to damage")?;
        let whole = scenario.bucket.get(name)?;
        scenario.bucket.corrupt(name, 0, 98)?;
        fs::write(&file, "older")?;
        let outcome = node.cbfs(&["export", &latest, "--output", text])?.refused(CORRUPT, &[name])?;
        ensure!(part == "/idx/" || outcome.stderr.contains("error: file "), "names no path: {outcome}");
        ensure!(fs::read(&file)? == b"older" && fs::read_dir(&folder)?.count() == 1, "half a tar is left");
        scenario.bucket.put(name, whole)?;
    }
    node.cbfs(&["export", &latest, "--output", text])?.success()?;
    ensure!(fs::metadata(&file)?.len() > 200 * 20_000, "not the whole");

    // A reader that has enough; and one that reads no further while somebody ends the export.
    for end in [End::HangUp, End::Terminate] {
        let mut export = node.spawn(&["export", &latest])?;
        let mut pipe = export.stdout.take().context("no pipe")?;
        pipe.read_exact(&mut [0; 100])?;
        match end {
            End::HangUp => drop(pipe),
            End::Terminate => signal(export.id(), Signal::TERM)?,
        }
        let status = wait_child(&mut export, ANSWER_LIMIT)?.context("it does not end")?;
        let mut said = String::new();
        export.stderr.take().context("no pipe")?.read_to_string(&mut said)?;
        ensure!(status.code() == Some(end as i32) && said.is_empty(), "{status}: {said}");
    }
    ensure!(fs::read_dir(&scratch)?.count() == 0, "something is left in {}", scratch.display());
    Ok(())
}

/// How an export ends early, with the exit code.
#[derive(Clone, Copy)]
enum End {
    HangUp = 128 + 13,
    Terminate = 128 + 15,
}

fn a_newer_config_is_refused(kind: StoreKind) -> Result<()> {
    let (scenario, _) = with_snapshot(kind)?;
    let configs = scenario.bucket.names_with(".config")?;
    let name = configs.first().context("no config")?;
    let mut config: serde_json::Value = serde_json::from_slice(&scenario.bucket.get(name)?)?;
    let whole = scenario.bucket.get(name)?;
    config["format"] = 99.into();
    scenario.bucket.put(name, config.to_string().into_bytes())?;
    mount_latest(&scenario, &scenario.node()?)?.refused(UNSUPPORTED, &["99"])?;
    config["format"] = 1.into();
    config["features"] = serde_json::json!(["from-the-future"]);
    scenario.bucket.put(name, config.to_string().into_bytes())?;
    mount_latest(&scenario, &scenario.node()?)?.refused(UNSUPPORTED, &["from-the-future"])?;
    scenario.bucket.put(name, b"{ not json".to_vec())?;
    mount_latest(&scenario, &scenario.node()?)?.refused(CORRUPT, &[])?;
    scenario.bucket.put(name, whole)?;
    Mount::new(&scenario.bucket, &scenario.at("latest"), &[])?.unmount()
}

fn verify_tells_of_damage_and_goes_on_after_a_kill(kind: StoreKind) -> Result<()> {
    let scenario = Scenario::new(kind, "checked")?;
    // Packs of 2 MiB.
    let master = Mount::new(&scenario.bucket, &scenario.address, &["--set", "proxy.max_bytes=16MiB"])?;
    for index in 0..40 {
        fs::write(master.mounted.path(&format!("file {index}")), noise(index, 300_000))?;
    }
    scenario.snapshot(&master.node, "base")?;
    let node = scenario.node()?;
    let verify = |options: &[&str]| node.cbfs_long(&[&["verify", &scenario.address, "--json"], options].concat());
    // Beside a master that has it mounted.
    let sound = verify(&["--deep"])?.success()?;
    let packs = scenario.bucket.names_with("/pack/")?;
    ensure!(sound.number("packs_read")? == packs.len() as u64 && packs.len() > 3, "{sound}");
    ensure!(sound.number("inodes")? == 41 && sound.number("names")? == 40 && sound.number("notes")? == 0, "{sound}");
    master.unmount()?;

    let pack = packs.get(1).context("one pack only")?;
    let whole = scenario.bucket.get(pack)?;
    scenario.bucket.corrupt(pack, 40, 41)?;
    verify(&[])?.success().context("the structure is sound")?;
    let told = verify(&["--deep"])?.refused(CORRUPT, &["is damaged"])?;
    ensure!(told.stdout.contains(pack) && told.stdout.contains("\"path\":\"/file "), "{told}");
    let told = node.cbfs_long(&["verify", &scenario.at("base"), "--deep"])?.refused(CORRUPT, &["hint: "])?;
    ensure!(
        told.stdout.contains(&format!("DAMAGE (wrong-bytes) {pack}")) && told.stdout.contains("hits: base"),
        "{told}"
    );
    scenario.bucket.put(pack, whole)?;
    node.cbfs(&["verify", &scenario.at("no such")])?.refused(NOT_FOUND, &["no such"])?;
    if kind == StoreKind::Directory {
        return Ok(());
    }

    // The network is slow, so that there is a middle to be killed in.
    let state = node.state_dir().join("verify");
    let state_text = state.to_str().context("not UTF-8")?;
    let args = ["verify", &scenario.address, "--json", "--deep", "--resume", state_text];
    scenario.bucket.take_away(Weather::Slow(Duration::from_millis(30)))?;
    let mut child = node.spawn(&args)?;
    let lines = || -> Result<usize> { Ok(fs::read_to_string(&state).map_or(0, |text| text.lines().count())) };
    let reached = wait_until("two packs are done", Duration::from_secs(60), || Ok(lines()? >= 3));
    child.kill()?;
    child.wait()?;
    reached?;
    let done = lines()? as u64 - 1;
    ensure!(done < packs.len() as u64, "the kill came too late: {done} packs");
    scenario.bucket.take_away(Weather::Refuse)?;
    node.cbfs(&args)?.refused(UNAVAILABLE, &[])?;
    scenario.bucket.bring_back()?;
    let rest = node.cbfs_long(&args)?.success()?;
    ensure!(rest.number("packs_read")? == packs.len() as u64, "{rest}");
    let read_whole = sound.number("bytes_read")?;
    ensure!(rest.number("bytes_read")? < read_whole * (packs.len() as u64 - done + 1) / packs.len() as u64, "{rest}");
    ensure!(!state.exists() && !state.with_extension("d").exists(), "the state goes when it is complete");
    Ok(())
}
