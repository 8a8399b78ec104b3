//! The parsers of the program against bytes that nobody wrote; see `cbfs_tests::fuzz` for how.

use crate::address::Target as Address;
use crate::control::api::{DaemonStatus, Promotion, PromotionRequest, SettingList, SnapshotList, SnapshotRequest};
use crate::holder::protocol::{Welcome, Word};
use crate::mounts;
use crate::settings::{Settings, Sources};
use cbfs_tests::fuzz::{NoMeter, Target, run, verdict};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// Mutations of each target in CI.
const RUNS: u64 = 3_000;

const TARGETS: [Target; 5] = [
    Target {
        name: "cli-address",
        seeds: addresses,
        words: &["#", "@", "://", "/", "latest", "\u{e9}"],
        parse: address,
    },
    Target { name: "cli-settings", seeds: settings_files, words: SETTINGS, parse: settings },
    Target { name: "cli-control", seeds: bodies, words: JSON, parse: control },
    Target { name: "cli-holder", seeds: packets, words: JSON, parse: holder },
    Target {
        name: "cli-mounts",
        seeds: mount_tables,
        words: &["\\040", "\\", " - ", "\n", "cbfs:"],
        parse: mount_table,
    },
];

const JSON: &[&str] =
    &["null", "[]", "{}", "\"\"", "-1", "1e999", "\\u0000", "\"state\":\"failed\"", "\"new\":1,", "true"];
const SETTINGS: &[&str] = &[
    "[proxy]",
    "[store]",
    "max_bytes = ",
    "\"10GiB\"",
    "\"99999999EiB\"",
    "\"1s\"",
    "\"9999999999y\"",
    "= 1\n",
    "[[x]]",
    "0x",
    "\"\"\"",
];

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn addresses() -> Vec<Vec<u8>> {
    texts(&["home", "file:///srv/b#home@latest", "s3://b/p?endpoint=http://u@h:1&region=r#home-1@x@2", "/mnt/home"])
}

/// What is understood is shown in a form that is understood the same.
fn address(bytes: &[u8]) -> String {
    match Address::parse(&String::from_utf8_lossy(bytes)) {
        Ok(Address::Named(address)) => {
            assert_eq!(Address::parse(&address.to_string()).unwrap(), Address::Named(address.clone()));
            format!("{} {}", address.store.is_some(), address.snapshot.is_some())
        }
        Ok(Address::Path(_)) => "path".into(),
        Err(failure) => verdict(&failure.message.rsplit(": ").next().unwrap_or_default()),
    }
}

fn settings_files() -> Vec<Vec<u8>> {
    texts(&[
        "[proxy]\nmax_bytes = \"10GiB\"\n[fetch]\ntimeout = \"30s\"\n",
        "store = \"file:///srv\"\n",
        "[upload]\nconcurrency = 4\n",
    ])
}

/// As the only file of a node.
fn settings(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cbfs.toml"), bytes).unwrap();
    let sources = Sources { config_dir: folder.path(), environment: &BTreeMap::new(), flags: &[] };
    match Settings::of_node(&sources) {
        Ok(settings) => {
            settings.limits().expect("checked values can be used");
            settings.restart().expect("checked values can be used");
            "settings".into()
        }
        Err(failure) => format!("{:?}", REFUSALS.iter().find(|why| failure.message.contains(**why))),
    }
}

/// What the messages about settings have in common that do not repeat the input.
const REFUSALS: [&str; 7] = [
    "TOML parse error",
    "must be a text",
    "there is no setting",
    "this must be a duration",
    "this must be a size",
    "this must be a number",
    "this must be on or off",
];

fn bodies() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"name":"before"}"#,
        r#"{"epoch":3}"#,
        r#"{"name":"home-1","previous_epoch":1,"epoch":2}"#,
        r#"{"settings":[{"key":"store","value":null,"source":"default"}]}"#,
        r#"{"snapshots":[{"id":"00000000-0000-0000-0000-000000000001","name":null,"state":"complete","requested":"2027-01-15T08:00:00Z","xid":9,"epoch":1,"bytes_total":0,"bytes_done":0,"uploaded":5,"attempts":1,"problem":null,"kind":"user","cancelling":false,"cancelled":{"reason":"superseded","by":"00000000-0000-0000-0000-000000000002"},"xid_from":null,"objects_total":2,"objects_done":1,"rate":7,"eta":null,"failing_since":null,"failure":"transient"}]}"#,
        r#"{"version":"0.1.0","pid":7,"filesystems":[{"name":"home-1","store":"file:///b","role":"master","selector":null,"mount_point":"/m","instance":"/i","running":true,"pid":7,"version":"0.1.0","access":"read-write","epoch":1,"confirmed":true,"snapshot":null,"xid":1,"persisted_xid":1,"store_reachable":true,"problem":null,"queued":0,"holder":3,"unheld":null,"restarts":0,"restarted":null,"restart_reason":null}]}"#,
    ])
}

/// What is read is written in a form that is read the same.
fn again<T: DeserializeOwned + Serialize + Debug>(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return false };
    let written = serde_json::to_vec(&value).unwrap();
    let read: T = serde_json::from_slice(&written).unwrap();
    assert_eq!(format!("{read:?}"), format!("{value:?}"));
    true
}

fn control(bytes: &[u8]) -> String {
    let requests = [again::<SnapshotRequest>(bytes), again::<PromotionRequest>(bytes)];
    let answers = [
        again::<DaemonStatus>(bytes),
        again::<SnapshotList>(bytes),
        again::<SettingList>(bytes),
        again::<Promotion>(bytes),
    ];
    let error = serde_json::from_slice::<DaemonStatus>(bytes).map_err(|error| error.classify()).err();
    format!("{requests:?} {answers:?} {error:?}")
}

fn packets() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"version":1,"holder":7,"life":3,"restarts":{"count":3,"last":null,"reason":null},"kept":"text"}"#,
        r#"{"keep":{"text":"kept"}}"#,
        r#""let-go""#,
        r#"{"serving":{"log":"/var/log/x"}}"#,
        r#"{"handing-over":{"reason":"upgrade"}}"#,
    ])
}

fn holder(bytes: &[u8]) -> String {
    let error = serde_json::from_slice::<Word>(bytes).map_err(|error| error.classify()).err();
    format!("{} {} {error:?}", again::<Welcome>(bytes), again::<Word>(bytes))
}

fn mount_tables() -> Vec<Vec<u8>> {
    texts(&[
        "36 35 98:0 / /mnt/a\\040b rw,noatime shared:1 - fuse.cbfs cbfs:home-1 rw\n22 1 0:1 / / rw - ext4 /dev/a rw\n",
    ])
}

fn mount_table(bytes: &[u8]) -> String {
    let lines = mounts::parse(bytes);
    let ours = lines.iter().filter(|line| line.filesystem().is_some()).count();
    let _ = mounts::covering(&lines, "/mnt/a b/c".as_ref());
    format!("{} {}", lines.len().min(3), ours.min(2))
}

/// Else mutations would begin at the wrong place.
#[test]
fn each_body_of_the_control_api_is_read() {
    let read: Vec<_> = bodies().iter().map(|body| control(body)).collect();
    let reads = |nth: usize| read.iter().any(|verdict| flag(verdict, nth));
    assert!((0..6).all(reads), "{read:?}");
}

/// The n-th yes or no of a verdict.
fn flag(verdict: &str, nth: usize) -> bool {
    verdict.split([',', ' ', '[', ']']).filter(|word| matches!(*word, "true" | "false")).nth(nth) == Some("true")
}

#[test]
fn no_parser_of_the_program_panics_or_hangs() {
    let failed: Vec<_> = TARGETS.iter().filter_map(|target| run(target, RUNS, &NoMeter).err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
