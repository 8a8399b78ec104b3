//! The program as a user runs it, on directory stores and without a mount.

#![allow(clippy::unwrap_used)] // the helpers of tests may, too

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// A node and a place for stores.
struct Node {
    dir: TempDir,
}

/// What a command left.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn lines(&self) -> Vec<Value> {
        assert_eq!(self.code, 0, "{}", self.err);
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn only(&self) -> Value {
        let lines = self.lines();
        assert_eq!(lines.len(), 1, "{}", self.out);
        lines[0].clone()
    }

    /// The exit code, with the form of the message checked.
    fn refused(&self) -> i32 {
        assert_eq!(self.out, "");
        assert!(self.err.lines().any(|line| line.starts_with("error: ")), "{}", self.err);
        self.code
    }
}

impl Node {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> String {
        format!("file://{}/bucket", self.dir.path().display())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cbfs"));
        command.args(args).env_clear().env("HOME", self.dir.path());
        command.env("CBFS_STATE_DIR", self.dir.path().join("state"));
        command.env("CBFS_CONFIG_DIR", self.dir.path().join("config"));
        command.env("AWS_ACCESS_KEY_ID", "key-of-the-test").env("AWS_SECRET_ACCESS_KEY", "secret-of-the-test");
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args).output().unwrap())
    }
}

fn finish(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn fields(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_filesystem_is_created_listed_shown_and_deleted() {
    let node = Node::new();
    let fs = format!("{}#home", node.store());
    let created = node.run(&["create", &fs, "--set", "check_interval=7s", "--json"]).only();
    assert_eq!(created["tag"], "home");
    assert_eq!(created["settings"]["check_interval"], "7s");
    assert_eq!(node.run(&["create", &fs]).refused(), 4);

    let listed = node.run(&["list", &node.store(), "--json"]).only();
    assert_eq!((&listed["name"], &listed["epoch"], &listed["deleted"]), (&created["name"], &0.into(), &false.into()));
    let prefix = &created["id"].as_str().unwrap()[..8];
    let shown = node.run(&["show", &format!("{}#{prefix}", node.store()), "--json"]).only();
    assert_eq!((&shown["id"], &shown["snapshots"]), (&created["id"], &Value::Array(Vec::new())));

    assert_eq!(node.run(&["delete", &fs, "--dry-run", "--json"]).only()["dry_run"], true);
    assert_eq!(node.run(&["list", &node.store(), "--json"]).lines().len(), 1);
    assert_eq!(node.run(&["delete", &fs, "--json"]).only()["dry_run"], false);
    assert_eq!(node.run(&["list", &node.store(), "--json"]).lines().len(), 0);
    assert_eq!(node.run(&["list", &node.store(), "--deleted", "--json"]).only()["deleted"], true);
}

#[test]
fn an_export_wants_a_place_for_its_tar() {
    let node = Node::new();
    let fs = format!("{}#home", node.store());
    node.run(&["create", &fs, "--json"]).only();
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &format!("{} export '{fs}'", env!("CARGO_BIN_EXE_cbfs")), "/dev/null"]);
    terminal.env_clear().env("HOME", node.dir.path());
    let on_terminal = finish(terminal.output().unwrap());
    assert!(on_terminal.code == 2 && on_terminal.out.contains("hint: cbfs export"), "{}", on_terminal.out);
    assert_eq!(node.run(&["export", &fs, "--json"]).refused(), 2);
    let no_snapshot = node.run(&["export", &fs]);
    assert_eq!(no_snapshot.refused(), 3);
    assert!(no_snapshot.err.contains("hint: cbfs show"), "{}", no_snapshot.err);
    let nowhere = format!("{}/no/such/dir.tar", node.dir.path().display());
    assert_eq!(node.run(&["export", &fs, "--output", &nowhere]).refused(), 3);
    assert_eq!(node.run(&["export", &format!("{fs}2")]).refused(), 3);
}

#[test]
fn the_manual_names_every_field() {
    let node = Node::new();
    let fs = format!("{}#home", node.store());
    let manual = include_str!("../../docs/cli.md");
    for (command, args) in [
        ("create", vec!["create", &fs, "--json"]),
        ("list", vec!["list", &node.store(), "--json"]),
        ("show", vec!["show", &fs, "--json"]),
        ("delete", vec!["delete", &fs, "--json"]),
    ] {
        let result = node.run(&args).only();
        let line = manual.lines().find(|line| line.starts_with(&format!("| `{command}` |"))).unwrap();
        for field in fields(&result) {
            assert!(line.contains(&format!("`{field}`")), "docs/cli.md, {command}: {field} is missing");
        }
    }
}

#[test]
fn the_store_may_come_from_the_environment_or_the_file() {
    let node = Node::new();
    assert_eq!(node.run(&["create", "home"]).refused(), 2);
    std::fs::create_dir(node.dir.path().join("config")).unwrap();
    std::fs::write(node.dir.path().join("config/cbfs.toml"), format!("store = {:?}", node.store())).unwrap();
    node.run(&["create", "home", "--json"]).only();
    assert_eq!(node.run(&["show", "home", "--json"]).only()["tag"], "home");
    let elsewhere = format!("file://{}/elsewhere", node.dir.path().display());
    let shown = finish(node.command(&["show", "home"]).env("CBFS_STORE", elsewhere).output().unwrap());
    assert_eq!(shown.refused(), 3);
}

#[test]
fn bad_input_has_the_documented_exit_codes() {
    let node = Node::new();
    let (fs, other) = (format!("{}#home", node.store()), format!("{}#other", node.store()));
    node.run(&["create", &fs, "--json"]).only();
    let full = node.dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("file"), "").unwrap();
    let full = full.to_str().unwrap();
    let missing = format!("file://{}/missing", node.dir.path().display());
    for (code, args) in [
        (2, vec!["list", "ftp://x"]),
        (2, vec!["show", "s3://bucket-without-name"]),
        (2, vec!["create", &format!("{}#-bad-", node.store())]),
        (2, vec!["create", &format!("{fs}@snapshot")]),
        (2, vec!["mount", &fs, full]),
        (2, vec!["mount", &format!("{fs}@x"), "--create", "/none"]),
        (2, vec!["snapshot", "home", "--name", "latest"]),
        (3, vec!["list", &missing]),
        (3, vec!["show", &other]),
        (3, vec!["delete", &other]),
        (3, vec!["mount", &fs, "/none/at/all"]),
        (3, vec!["unmount", "/"]),
        (3, vec!["status", "home"]),
        (3, vec!["snapshot", "home"]),
        (3, vec!["snapshot", "list", "/"]),
        (3, vec!["promote", "home", "--epoch", "1"]),
        (13, vec!["mount", &fs, "/proc"]),
    ] {
        assert_eq!(node.run(&args).refused(), code, "{args:?}");
    }
}

#[test]
fn an_ambiguous_name_lists_its_candidates() {
    let node = Node::new();
    let bucket = node.dir.path().join("bucket");
    let fs = format!("{}#home", node.store());
    let first = node.run(&["create", &fs, "--json"]).only();
    let first = first["name"].as_str().unwrap();
    // As another node that created it at the same time would.
    let second = "home-00000000-0000-4000-8000-000000000007";
    let config = std::fs::read_to_string(bucket.join(format!("{first}.config"))).unwrap();
    let config = config.replace(&first["home-".len()..], &second["home-".len()..]);
    std::fs::write(bucket.join(format!("{second}.config")), config).unwrap();
    let refused = node.run(&["show", &fs]);
    assert_eq!(refused.refused(), 4);
    assert!(refused.err.contains(first) && refused.err.contains(second), "{}", refused.err);
    node.run(&["show", &format!("{}#{second}", node.store()), "--json"]).only();
}

#[test]
fn a_newer_or_broken_config_is_told_apart() {
    let node = Node::new();
    let fs = format!("{}#home", node.store());
    let name = node.run(&["create", &fs, "--json"]).only()["name"].as_str().unwrap().to_owned();
    let path = node.dir.path().join(format!("bucket/{name}.config"));
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replace("\"format\": 1", "\"format\": 2")).unwrap();
    assert_eq!(node.run(&["show", &fs]).refused(), 11);
    std::fs::write(&path, &config[..config.len() / 2]).unwrap();
    assert_eq!(node.run(&["show", &fs]).refused(), 10);
}

#[test]
fn a_dead_endpoint_is_unavailable_and_no_secret_is_shown() {
    let node = Node::new();
    let dead = "s3://bucket?endpoint=http://127.0.0.1:1";
    let dir = node.dir.path().join("mnt");
    std::fs::create_dir(&dir).unwrap();
    let fs = format!("{dead}#home");
    for args in [
        vec!["list", dead],
        vec!["create", &fs],
        vec!["show", &fs],
        vec!["delete", &fs],
        vec!["mount", &fs, dir.to_str().unwrap()],
        vec!["mount", "--create", "--foreground", &fs, dir.to_str().unwrap()],
    ] {
        let ran = finish(node.command(&args).env("CBFS_LOG", "trace").output().unwrap());
        assert_eq!(ran.refused(), 7, "{args:?}");
        assert!(!ran.err.contains("secret-of-the-test") && !ran.err.contains("key-of-the-test"), "{args:?}");
    }
    assert!(!Path::new(&node.dir.path().join("state/fs")).exists(), "nothing is left of a mount that never was");
}

#[test]
fn a_failed_background_mount_says_so_once() {
    let node = Node::new();
    let fs = format!("{}#home", node.store());
    let dir = node.dir.path().join("mnt");
    std::fs::create_dir(&dir).unwrap();
    std::fs::create_dir(node.dir.path().join("bucket")).unwrap();
    let ran = node.run(&["mount", &fs, dir.to_str().unwrap()]);
    assert_eq!(ran.refused(), 3);
    let errors = ran.err.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!((errors, ran.err.lines().count()), (1, 2), "{}", ran.err);
}

#[test]
fn generated_texts_are_there() {
    let node = Node::new();
    assert!(node.run(&["completions", "bash"]).out.contains("snapshot"));
    assert!(node.run(&["man"]).out.contains(".TH cbfs 1"));
    assert_eq!(node.run(&["status", "--json"]).lines().len(), 0);
    assert!(node.run(&["status", "--config"]).out.contains("proxy.max_bytes"));
}
