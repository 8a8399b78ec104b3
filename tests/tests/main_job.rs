//! The main job: create, mount, unpack a real tree, snapshot, mount it elsewhere, change a little, snapshot again, and
//! get everything back with plain tar.

use anyhow::{Context, Result, ensure};
use cbfs_tests::bucket::{Bucket, StoreKind};
use cbfs_tests::manifest::{Compare, Kind, Manifest};
use cbfs_tests::nasty;
use cbfs_tests::on_both_stores;
use cbfs_tests::process::{run, run_ok, run_with_input};
use cbfs_tests::scenario::{Mount, Scenario, check_read_only, noise, unpack};
use cbfs_tests::serial::serial;
use cbfs_tests::source::{SourceTree, source_tree};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

on_both_stores!(a_tree_goes_through_the_bucket);

fn a_tree_goes_through_the_bucket(kind: StoreKind) -> Result<()> {
    let source = source_tree()?;
    let _turn = serial()?;
    let scenario = Scenario::new(kind, "job")?;
    let master = Mount::new(&scenario.bucket, &scenario.address, &[])?;
    let top = master.mounted.dir();

    let first_tree = fill(top, &source)?;
    let first = scenario.snapshot(&master.node, "first")?;
    ensure!(first.state == "complete" && first.uploaded > 0, "{first:?}");
    let first_bytes = scenario.bucket.bytes_with("/pack/")? + scenario.bucket.bytes_with("/idx/")?;
    let first_packs = packs_of(&scenario.bucket)?;
    slave_shows(&scenario, "first", &first_tree).context("first snapshot")?;

    let second_tree = change_a_little(top)?;
    let second = scenario.snapshot(&master.node, "second")?;
    ensure!(second.state == "complete", "{second:?}");
    let all_bytes = scenario.bucket.bytes_with("/pack/")? + scenario.bucket.bytes_with("/idx/")?;
    let second_bytes = all_bytes - first_bytes;
    ensure!(second_bytes * 20 < first_bytes, "{second_bytes} bytes for a change of 1 % of {first_bytes}");
    ensure!(second.uploaded * 20 < first.uploaded, "{second:?} after {first:?}");
    ensure!(scenario.bucket.check_references()? > 0, "nothing is referenced");

    slave_shows(&scenario, "latest", &second_tree).context("second snapshot as the latest")?;
    slave_shows(&scenario, &first.id, &first_tree).context("first snapshot after the second")?;
    export_restores(&scenario, &second_tree).context("export")?;
    plain_tar_restores(&scenario.bucket, &first_packs, &first_tree).context("plain tar")?;
    master.unmount()
}

/// Unpacks the source tree and the nasty set; what is there then, compared with the host's copy on the way.
fn fill(top: &Path, source: &SourceTree) -> Result<Manifest> {
    unpack(&source.tar, top)?;
    let set = top.join("nasty");
    fs::create_dir(&set)?;
    nasty::build(&set)?;
    nasty::check_refusals(&set)?;
    let host = tempfile::tempdir()?;
    nasty::build(host.path())?;

    let all = Manifest::scan(top)?;
    ensure!(all.files() >= source.files, "only {} files", all.files());
    Manifest::scan(&source.dir)?.must_equal(&all.below("tree"), Compare::AnyHoles).context("unpacked tree")?;
    let now_differs = |entries: Manifest| clear_times(entries);
    let (expected, found) = (now_differs(Manifest::scan(host.path())?), now_differs(all.below("nasty")));
    expected.must_equal(&found, Compare::AnyHoles).context("nasty set")?;
    let sparse = &all.entries.get(&b"nasty/sparse"[..]).context("no sparse file")?.kind;
    let Kind::File { size, data, .. } = sparse else { anyhow::bail!("not a file: {sparse:?}") };
    let held: u64 = data.iter().map(|(start, end)| end - start).sum();
    ensure!(*size == nasty::SPARSE_BYTES && held < 16 << 20, "{size} bytes, {held} of them data");
    Ok(all)
}

/// The two nasty sets were made one after the other: only times that were set on purpose are the same.
fn clear_times(mut manifest: Manifest) -> Manifest {
    for (path, entry) in &mut manifest.entries {
        if !path.starts_with(b"times") {
            entry.mtime = (0, 0);
        }
    }
    // The root's own mode is the host's matter.
    manifest.without(|path, _| path.is_empty())
}

fn slave_shows(scenario: &Scenario, snapshot: &str, expected: &Manifest) -> Result<()> {
    let slave = Mount::new(&scenario.bucket, &scenario.at(snapshot), &[])?;
    let found = Manifest::scan(slave.mounted.dir())?;
    expected.must_equal(&found, Compare::Exact)?;
    check_read_only(&slave.mounted.path("tree/fs"))?;
    slave.unmount()
}

/// Changes 1 % of the files, renames a directory, deletes a few files.
fn change_a_little(top: &Path) -> Result<Manifest> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in walkdir::WalkDir::new(top.join("tree")).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() {
            files.push(entry.into_path());
        }
    }
    for (index, path) in files.iter().enumerate().step_by(100) {
        match index / 100 % 3 {
            0 => fs::write(path, format!("new content {index}\n"))?,
            1 => append(path, b"one more line\n")?,
            _ => overwrite_start(path)?,
        }
    }
    for path in files.iter().skip(50).step_by(1000) {
        fs::remove_file(path)?;
    }
    fs::rename(top.join("tree/include"), top.join("tree/fs/renamed include"))?;
    fs::rename(top.join("nasty/links"), top.join("moved links"))?;
    Manifest::scan(top)
}

fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    fs::File::options().append(true).open(path)?.write_all(bytes)?;
    Ok(())
}

fn overwrite_start(path: &Path) -> Result<()> {
    use std::os::unix::fs::FileExt;
    fs::File::options().write(true).open(path)?.write_all_at(b"// changed", 0)?;
    Ok(())
}

fn packs_of(bucket: &Bucket) -> Result<Vec<String>> {
    let names = bucket.names_with("/pack/")?;
    ensure!(names.iter().all(|name| name.ends_with(".tar.zst")) && !names.is_empty(), "{names:?}");
    Ok(names)
}

/// The script of `docs/formats/listing.md` as it stands there, after everything that tar alone cannot restore.
#[test]
fn a_listing_restores_any_snapshot_without_cbfs() -> Result<()> {
    let _turn = serial()?;
    let scenario = Scenario::new(StoreKind::Directory, "listed")?;
    let master = Mount::new(&scenario.bucket, &scenario.address, &["--set", "snapshot.listing=on"])?;
    let top = master.mounted.dir();
    let set = top.join("nasty");
    fs::create_dir(&set)?;
    nasty::build(&set)?;
    for index in 0..300 {
        fs::write(top.join(format!("file {index}")), noise(index, 50 * index))?;
    }
    fs::write(top.join("large"), noise(1, 70 << 20))?;
    scenario.snapshot(&master.node, "first")?;
    let first = Manifest::scan(top)?;
    for index in (0..300).step_by(7) {
        fs::remove_file(top.join(format!("file {index}")))?;
    }
    fs::rename(&set, top.join("moved"))?;
    append(&top.join("moved/links/one"), b"more")?;
    overwrite_start(&top.join("large"))?;
    fs::copy(top.join("large"), top.join("shared"))?;
    fs::File::options().write(true).open(top.join("shared"))?.set_len(3_333_333)?;
    scenario.snapshot(&master.node, "second")?;
    let second = Manifest::scan(top)?;
    ensure!(scenario.bucket.check_references()? > 4, "nothing is referenced");
    master.unmount()?;

    let place = tempfile::tempdir()?;
    let packs = place.path().join("packs");
    fs::create_dir(&packs)?;
    for name in packs_of(&scenario.bucket)? {
        fs::write(packs.join(name.rsplit('/').next().context("no name")?), scenario.bucket.get(&name)?)?;
    }
    let manual = include_str!("../../docs/formats/listing.md");
    let script = manual.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).context("no script")?;
    ensure!(script.lines().filter(|line| !line.trim().is_empty()).count() <= 40, "the script is too long");
    let listings = scenario.bucket.names_with("/listing/")?;
    ensure!(listings.len() == 2, "{listings:?}");
    for (at, (name, expected)) in listings.iter().zip([first, second]).enumerate() {
        let (listing, out) = (place.path().join(format!("{at}.zst")), place.path().join(format!("out {at}")));
        fs::write(&listing, scenario.bucket.get(name)?)?;
        let mut python = Command::new("python3");
        python.args(["-c", script]).args([&listing, &packs, &out]);
        run(&mut python, Duration::from_secs(300))?.success()?;
        expected.must_equal(&Manifest::scan(&out)?, Compare::AnyHoles).context(name.clone())?;
    }
    Ok(())
}

/// `cbfs export | tar -x`, on a machine that has nothing but the bucket: what a slave shows, with everything that tar knows.
fn export_restores(scenario: &Scenario, expected: &Manifest) -> Result<()> {
    let node = scenario.node()?;
    let out = tempfile::tempdir()?;
    let mut export = node.spawn(&["export", &scenario.address])?;
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "-", "-C"]).arg(out.path());
    tar.stdin(export.stdout.take().context("no pipe")?);
    run_with_input(&mut tar, Duration::from_secs(600))?.success()?;
    let told = export.wait_with_output()?;
    let said = String::from_utf8(told.stderr)?;
    ensure!(told.status.success() && said == "skipped nasty/special/socket: a tar holds no sockets\n", "{said}");
    let keepable = |manifest: Manifest| manifest.without(|_, entry| entry.kind == Kind::Socket);
    let found = Manifest::scan(out.path())?;
    keepable(expected.clone()).must_equal(&found, Compare::AnyHoles)?;
    let Some(Kind::File { data, .. }) = found.entries.get(&b"nasty/sparse"[..]).map(|entry| &entry.kind) else {
        anyhow::bail!("no sparse file")
    };
    let held: u64 = data.iter().map(|(start, end)| end - start).sum();
    ensure!(held < 1 << 20, "a file of {} bytes takes {held}", nasty::SPARSE_BYTES);

    let file = out.path().join("latest.tar");
    let name = file.to_str().context("not UTF-8")?;
    let told = node.cbfs_long(&["export", &scenario.at("latest"), "--output", name, "--json"])?.success()?;
    ensure!(told.number("bytes")? == fs::metadata(&file)?.len() && told.number("skipped")? == 1, "{told}");
    ensure!(told.number("members")? as usize == found.entries.len(), "{told}");
    Ok(())
}

/// `cat pack/*.tar.zst | zstd -dc | tar -xi`, with nothing of CBFS.
fn plain_tar_restores(bucket: &Bucket, packs: &[String], expected: &Manifest) -> Result<()> {
    let place = tempfile::tempdir()?;
    let (pack_dir, out) = (place.path().join("pack"), place.path().join("out"));
    fs::create_dir(&pack_dir)?;
    fs::create_dir(&out)?;
    for name in packs {
        let base = name.rsplit('/').next().context("no name")?;
        fs::write(pack_dir.join(base), bucket.get(name)?)?;
    }
    let script = "cat \"$0\"/*.tar.zst | zstd -dc | tar -xpi --numeric-owner -C \"$1\"";
    let (from, to) = (pack_dir.to_str().context("not UTF-8")?, out.to_str().context("not UTF-8")?);
    run_ok("bash", &["-euo", "pipefail", "-c", script, from, to], Duration::from_secs(600))?;
    // What a tar cannot hold: sockets. The root is not a member.
    let keepable = |manifest: Manifest| manifest.without(|path, entry| path.is_empty() || entry.kind == Kind::Socket);
    keepable(expected.clone()).must_equal(&keepable(Manifest::scan(&out)?), Compare::Archive)
}
