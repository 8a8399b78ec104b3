//! What the bucket says in JSON: ledger records by themselves and as a chain, the hint, the config.

use crate::fuzz::{Target, verdict};
use bytes::Bytes;
use cloud_mgmt::config::FsConfig;
use cloud_mgmt::ledger::{
    Appender, Decision, Entry, Ledger, LedgerErrorKind, LedgerRecord, MemoryIntents, Seq, SummaryEntry, SummaryFault,
    Writer,
};
use cloud_mgmt::names::FsName;
use cloud_mgmt::store::{MemoryStore, ObjectStore};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

const WORDS: &[&str] = &[
    "\"kind\":\"epoch\"",
    "\"kind\":\"snapshot\"",
    "\"kind\":\"condemn\"",
    "\"kind\":\"purge\"",
    "\"kind\":\"delete\"",
    "\"kind\":\"undelete\"",
    "\"kind\":\"later\"",
    "\"ino_from\":",
    "\"summary\":",
    "null",
    "[]",
    "{}",
    "-1",
    "1e9",
    "\\u0000",
    "b3:",
    "\n",
];

const SUMMARY_WORDS: &[&str] = &[
    "\"upto_seq\":",
    "\"state\":",
    "\"holder\":null",
    "\"snapshots\":",
    "\"packs\":",
    "\"condemned\":",
    "\"deletion\":",
    "\"authors\":",
    "null",
    "[]",
    "{}",
    "-1",
    "b3:",
];

pub const RECORD: Target = Target { name: "ledger-record", seeds: records, words: WORDS, parse: record };
pub const CHAIN: Target = Target { name: "ledger-chain", seeds: chains, words: WORDS, parse: chain };
pub const WRITTEN: Target = Target { name: "ledger-written", seeds: entries, words: WORDS, parse: written };
pub const SUMMARY: Target = Target { name: "ledger-summary", seeds: summaries, words: SUMMARY_WORDS, parse: summary };
pub const HINT: Target = Target { name: "hint", seeds: hints, words: WORDS, parse: hint };
pub const CONFIG: Target = Target { name: "config", seeds: configs, words: WORDS, parse: config };

/// The last record in the golden summary.
const SUMMED_UP: u64 = 11;

/// Records of a chain that are looked at.
const CHAIN_MAX: usize = 16;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

fn fs() -> FsName {
    "home-00000000-0000-0000-0000-0000000000f5".parse().expect("a name")
}

/// The golden ledger, a record of each kind.
fn records() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cloud-mgmt/tests/fixtures/ledger-1");
    let file = |seq: u64| std::fs::read(folder.join(format!("{seq:016x}.json"))).expect("a golden record");
    (1..=11).map(file).collect()
}

fn chains() -> Vec<Vec<u8>> {
    vec![records().join(&b'\n'), records()[..3].join(&b'\n')]
}

/// The place that the bytes give, so that this check does not hide the others.
fn record(bytes: &[u8]) -> String {
    let seq = serde_json::from_slice::<Value>(bytes).ok().and_then(|value| value["seq"].as_u64()).unwrap_or(1);
    let store = MemoryStore::new();
    let read = wait(async {
        store.put(&fs().ledger_object(seq), Bytes::copy_from_slice(bytes)).await.expect("stores");
        Ledger::new(Arc::new(store), fs()).read(Seq(seq)).await
    });
    match read {
        Ok(record) => {
            if record.entry != Entry::Unknown {
                let again = serde_json::to_vec(&record).expect("encodes");
                assert_eq!(serde_json::from_slice::<LedgerRecord>(&again).expect("its own encoding"), record);
            }
            record.entry.kind().to_owned()
        }
        Err(error) => {
            assert!(matches!(error.kind(), LedgerErrorKind::Corrupt | LedgerErrorKind::TooNew), "{error}");
            // What follows the object's name.
            verdict(&error.to_string().split_once(".json").map_or("", |(_, rest)| rest))
        }
    }
}

/// Lines, each a record; place and hash of the record before are made right. Readers take them or say which is bad, and
/// keep what they had.
fn chain(bytes: &[u8]) -> String {
    let store = Arc::new(MemoryStore::new());
    let mut prev_hash = "b3:".to_owned();
    let mut put = 0;
    for (line, seq) in bytes.split(|byte| *byte == b'\n').take(CHAIN_MAX).zip(1_u64..) {
        let body = match serde_json::from_slice::<Value>(line) {
            Ok(Value::Object(mut record)) => {
                record.insert("seq".into(), json!(seq));
                record.insert("prev_hash".into(), json!(prev_hash));
                serde_json::to_vec(&record).expect("encodes")
            }
            _ => line.to_vec(),
        };
        prev_hash = format!("b3:{}", blake3::hash(&body).to_hex());
        wait(store.put(&fs().ledger_object(seq), body.into())).expect("stores");
        put = seq;
    }
    let ledger = Ledger::new(store, fs());
    let read = wait(ledger.history());
    let known = ledger.known();
    match read {
        Ok(history) => {
            assert_eq!(history.tail_seq(), Seq(put));
            let _ = (history.retained(), history.unreferenced());
            format!("{} records", history.tail_seq())
        }
        Err(error) => {
            assert!(known.tail_seq() < Seq(put), "stopped behind the end");
            let rest = error.to_string();
            verdict(&rest.split_once(".json").map_or("", |(_, rest)| rest))
        }
    }
}

/// The golden ledger with a summary: its last record that is summed up, and the summary.
fn summarized() -> (Vec<u8>, Vec<u8>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cloud-mgmt/tests/fixtures/ledger-2");
    let file = |name: &str| std::fs::read(folder.join(name)).expect("a golden file");
    let mut names = std::fs::read_dir(&folder).expect("golden files").map(|entry| entry.expect("an entry").file_name());
    let name = names.find(|name| name.as_encoded_bytes().starts_with(b"ledger-summary-")).expect("a golden summary");
    (file(&format!("ledger-{SUMMED_UP:016x}.json")), file(name.to_str().expect("text")))
}

/// A zero byte, then the object as it is stored; another byte, then its JSON.
fn summaries() -> Vec<Vec<u8>> {
    let stored = summarized().1;
    let json = zstd::bulk::decompress(&stored, 1 << 20).expect("decompresses");
    let with = |first: u8, rest: &[u8]| [&[first], rest].concat();
    vec![with(0, &stored), with(b'J', &json)]
}

/// Under the right hash: it says what a ledger may say, or what is wrong with it.
fn summary(bytes: &[u8]) -> String {
    let Some((first, rest)) = bytes.split_first() else { return "nothing".into() };
    let stored = match first {
        0 => rest.to_vec(),
        _ => zstd::bulk::compress(rest, 1).expect("compresses"),
    };
    let object = fs().summary_object(SUMMED_UP, uuid_of(1));
    let hash = format!("b3:{}", blake3::hash(&stored).to_hex());
    let entry = SummaryEntry { upto_seq: Seq(SUMMED_UP), object, size: stored.len() as u64, hash };
    let store = MemoryStore::new();
    let read = wait(async {
        store.put(&fs().ledger_object(SUMMED_UP), summarized().0.into()).await.expect("stores");
        store.put(&entry.object, stored.into()).await.expect("stores");
        Ledger::new(Arc::new(store), fs()).summary(&entry).await
    });
    match read {
        Ok(history) => {
            assert_eq!(history.tail_seq(), Seq(SUMMED_UP));
            let _ = (history.retained(), history.unreferenced());
            format!("{} snapshots", history.snapshots().len())
        }
        Err(fault) => {
            assert!(matches!(fault, SummaryFault::Malformed { .. } | SummaryFault::Version { .. }), "{fault}");
            verdict(&fault)
        }
    }
}

fn entries() -> Vec<Vec<u8>> {
    let entry = |bytes: Vec<u8>| {
        let record: Value = serde_json::from_slice(&bytes).expect("JSON");
        let mut entry = record.as_object().expect("an object").clone();
        for common in ["format", "fs", "seq", "prev_hash", "op", "node", "incarnation", "time", "state"] {
            entry.remove(common);
        }
        let mut line = b"0".to_vec();
        line.extend(serde_json::to_vec(&entry).expect("encodes"));
        line
    };
    vec![records().into_iter().map(entry).collect::<Vec<_>>().join(&b'\n')]
}

/// Lines, each the digit of a writer and an entry that it wants to append. What a writer lets itself write, readers take.
fn written(bytes: &[u8]) -> String {
    let store = Arc::new(MemoryStore::new());
    let writer = |n: u128| {
        let id = uuid_of(n);
        let writer = Writer { node: id, incarnation: id, host: String::new() };
        Appender::new(Ledger::new(store.clone(), fs()), Arc::new(MemoryIntents::default()), writer)
    };
    let writers = [writer(1), writer(2), writer(3)];
    let (mut written, mut refused) = (0, 0);
    for line in bytes.split(|byte| *byte == b'\n').take(CHAIN_MAX) {
        let Some((first, entry)) = line.split_first() else { continue };
        let Ok(entry) = serde_json::from_slice::<Entry>(entry) else { continue };
        let writer = &writers[usize::from(*first) % writers.len()];
        let done = wait(writer.append(|_| Ok(Decision::Append(entry.clone()))));
        *(if done.is_ok() { &mut written } else { &mut refused }) += 1;
        let reader = Ledger::new(store.clone(), fs());
        let history = wait(reader.history()).expect("readers take what a writer wrote");
        if let Ok(applied) = done {
            assert_eq!(history.tail_seq(), applied.seq);
            assert_eq!(history.state(), &applied.record.state);
        }
    }
    format!("{written} written, {refused} refused")
}

fn uuid_of(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(n)
}

fn hints() -> Vec<Vec<u8>> {
    let hint = |seq: u64| json!({"seq": seq, "time": "2027-01-15T08:00:00Z"}).to_string().into_bytes();
    vec![hint(1), hint(3), hint(4), hint(u64::MAX)]
}

/// Nothing depends on the hint.
fn hint(bytes: &[u8]) -> String {
    let store = MemoryStore::new();
    let tail = wait(async {
        for (body, seq) in records().into_iter().take(3).zip(1..) {
            store.put(&fs().ledger_object(seq), body.into()).await.expect("stores");
        }
        store.put(&fs().hint_object(), Bytes::copy_from_slice(bytes)).await.expect("stores");
        Ledger::new(Arc::new(store), fs()).tail(Seq(0)).await
    });
    let tail = tail.expect("the tail, whatever the hint says").expect("there are records");
    assert_eq!(tail.record.seq, Seq(3));
    let hint = serde_json::from_slice::<Value>(bytes).ok().map(|value| value["seq"].is_u64());
    format!("{hint:?}")
}

fn configs() -> Vec<Vec<u8>> {
    let config = json!({
        "format": 1, "id": fs().id, "tag": "home", "created": "2027-01-15T08:00:00Z", "created_by": "0.1.0", "op": fs().id,
        "features": ["ro-x"], "probe": {"rounds": 8, "racers": 4, "checked": "2027-01-15T08:00:00Z"},
        "settings": {"proxy.max_bytes": "10GiB"},
    });
    vec![config.to_string().into_bytes(), json!({"format": 2}).to_string().into_bytes()]
}

fn config(bytes: &[u8]) -> String {
    match FsConfig::parse(&fs(), bytes) {
        Ok(config) => {
            let again = config.encode().expect("encodes");
            assert_eq!(FsConfig::parse(&fs(), &again).as_ref(), Ok(&config));
            "a config".into()
        }
        Err(error) => verdict(&error.to_string().split_once(".config").map_or("", |(_, rest)| rest)),
    }
}
