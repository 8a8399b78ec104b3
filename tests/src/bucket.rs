//! The bucket of a test: a directory or a real S3 server, with a way past the product to its objects.

use crate::proxy::{Proxy, Weather};
use crate::s3::S3Server;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;
use walkdir::WalkDir;

/// The kinds of store that every end-to-end test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// `file://`
    Directory,
    /// `s3://` on a SeaweedFS of the test's own.
    S3,
}

const BUCKET: &str = "cbfs-e2e";
const NO_WEATHER: &str = "nothing is between this bucket and its clients";

/// A bucket that goes away with the test.
#[derive(Debug)]
pub struct Bucket {
    place: Place,
    away: AtomicBool,
}

#[derive(Debug)]
enum Place {
    Directory { root: TempDir },
    S3 { server: Box<S3Server>, proxy: Option<Proxy> },
}

impl Bucket {
    /// An empty bucket.
    pub fn new(kind: StoreKind) -> Result<Self> {
        let place = match kind {
            StoreKind::Directory => {
                let root = tempfile::Builder::new().prefix("cbfs-bucket-").tempdir()?;
                fs::create_dir(root.path().join(BUCKET))?;
                Place::Directory { root }
            }
            StoreKind::S3 => {
                let server = server_with_bucket()?;
                let proxy = Some(Proxy::start(server.address())?);
                Place::S3 { server, proxy }
            }
        };
        Ok(Self { place, away: false.into() })
    }

    /// An empty bucket on a real S3 server with nothing in between, for measurements.
    pub fn direct() -> Result<Self> {
        Ok(Self { place: Place::S3 { server: server_with_bucket()?, proxy: None }, away: false.into() })
    }

    /// Its name on the server.
    pub fn name(&self) -> &'static str {
        BUCKET
    }

    /// The S3 server behind it, if it is one.
    pub fn server(&self) -> Option<&S3Server> {
        match &self.place {
            Place::Directory { .. } => None,
            Place::S3 { server, .. } => Some(server),
        }
    }

    /// Its address for `cbfs`.
    pub fn url(&self) -> String {
        self.url_of(BUCKET)
    }

    /// The address of another bucket beside it, which is not there.
    pub fn missing_url(&self) -> String {
        self.url_of("no-such-bucket")
    }

    fn url_of(&self, bucket: &str) -> String {
        match &self.place {
            Place::Directory { root } => format!("file://{}", root.path().join(bucket).display()),
            Place::S3 { server, proxy } => {
                let address = proxy.as_ref().map_or_else(|| server.address(), Proxy::address);
                format!("s3://{bucket}?endpoint=http://{address}&path-style=true")
            }
        }
    }

    /// What a client's environment needs.
    pub fn client_env(&self) -> Vec<(String, String)> {
        match self.place {
            Place::Directory { .. } => Vec::new(),
            Place::S3 { .. } => S3Server::client_env(),
        }
    }

    /// The network to the bucket, where there is one.
    pub fn proxy(&self) -> Option<&Proxy> {
        match &self.place {
            Place::Directory { .. } => None,
            Place::S3 { proxy, .. } => proxy.as_ref(),
        }
    }

    /// Makes the bucket unreachable: a network that does `weather`, or a directory that is not mounted.
    pub fn take_away(&self, weather: Weather) -> Result<()> {
        match &self.place {
            Place::Directory { root } => {
                if !self.away.swap(true, Ordering::SeqCst) {
                    fs::rename(root.path().join(BUCKET), root.path().join("away"))?;
                }
            }
            Place::S3 { proxy, .. } => proxy.as_ref().context(NO_WEATHER)?.set(weather),
        }
        Ok(())
    }

    /// The end of [`Self::take_away`].
    pub fn bring_back(&self) -> Result<()> {
        match &self.place {
            Place::Directory { root } => {
                if self.away.swap(false, Ordering::SeqCst) {
                    fs::rename(root.path().join("away"), root.path().join(BUCKET))?;
                }
            }
            Place::S3 { proxy, .. } => proxy.as_ref().context(NO_WEATHER)?.set(Weather::Fine),
        }
        Ok(())
    }

    /// Names and sizes of all objects, sorted; unfinished files of the directory store (below `.tmp`) are none.
    pub fn list(&self) -> Result<Vec<(String, u64)>> {
        match &self.place {
            Place::Directory { .. } => list_directory(&self.directory()?),
            Place::S3 { server, .. } => server.list(BUCKET),
        }
    }

    /// Names of objects of which parts were sent and that are neither complete nor given up. A directory has none.
    pub fn unfinished(&self) -> Result<Vec<String>> {
        match &self.place {
            Place::Directory { .. } => Ok(Vec::new()),
            Place::S3 { server, .. } => server.unfinished(BUCKET),
        }
    }

    /// Names of all objects that hold `part`, sorted.
    pub fn names_with(&self, part: &str) -> Result<Vec<String>> {
        Ok(self.list()?.into_iter().map(|(name, _)| name).filter(|name| name.contains(part)).collect())
    }

    /// Bytes of all objects that hold `part` in their name.
    pub fn bytes_with(&self, part: &str) -> Result<u64> {
        Ok(self.list()?.iter().filter(|(name, _)| name.contains(part)).map(|(_, size)| size).sum())
    }

    /// The bytes of an object.
    pub fn get(&self, name: &str) -> Result<Vec<u8>> {
        match &self.place {
            Place::Directory { .. } => {
                fs::read(self.directory()?.join(name)).with_context(|| format!("cannot read {name}"))
            }
            Place::S3 { server, .. } => server.get(BUCKET, name),
        }
    }

    /// Overwrites an object behind the product's back.
    pub fn put(&self, name: &str, body: Vec<u8>) -> Result<()> {
        match &self.place {
            Place::Directory { .. } => {
                let path = self.directory()?.join(name);
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::write(path, body).with_context(|| format!("cannot write {name}"))
            }
            Place::S3 { server, .. } => server.put(BUCKET, name, body),
        }
    }

    /// Turns every byte of `range` (of the object's length, in percent) around.
    pub fn corrupt(&self, name: &str, from_percent: usize, to_percent: usize) -> Result<()> {
        let mut body = self.get(name)?;
        let length = body.len();
        ensure!(length > 0, "{name} is empty");
        let (from, to) = (length * from_percent / 100, (length * to_percent / 100).max(1));
        for byte in &mut body[from.min(to - 1)..to] {
            *byte = !*byte;
        }
        self.put(name, body)
    }

    /// All ledger records of the only filesystem in the bucket, in order.
    pub fn ledger(&self) -> Result<Vec<Value>> {
        let names = self.names_with("/ledger/")?;
        names.iter().map(|name| Ok(serde_json::from_slice(&self.get(name)?)?)).collect()
    }

    /// I3: every object that a snapshot record names is there, with the size that it says. Returns how many were looked at.
    pub fn check_references(&self) -> Result<usize> {
        let objects = self.list()?;
        let mut seen = BTreeSet::new();
        for record in self.ledger()?.iter().filter(|record| record["kind"] == "snapshot") {
            let entry = &record["listing"];
            if entry.is_object() {
                let (name, size) = (entry["object"].as_str(), entry["size"].as_u64());
                let found =
                    objects.iter().find(|(object, bytes)| Some(object.as_str()) == name && Some(*bytes) == size);
                seen.insert(found.with_context(|| format!("the listing {entry} dangles"))?.0.clone());
            }
            for list in ["runs", "packs_new"] {
                let entries = record[list].as_array().with_context(|| format!("no {list} in {record}"))?;
                for entry in entries {
                    let (Some(name), Some(size)) = (entry["object"].as_str(), entry["size"].as_u64()) else {
                        bail!("an entry without name or size: {entry}");
                    };
                    let found = objects.iter().find(|(object, _)| object == name);
                    ensure!(found.is_some_and(|(_, bytes)| *bytes == size), "{name} ({size} bytes) dangles: {found:?}");
                    seen.insert(name.to_owned());
                }
            }
        }
        Ok(seen.len())
    }

    fn directory(&self) -> Result<PathBuf> {
        let Place::Directory { root } = &self.place else { bail!("not a directory store") };
        Ok(root.path().join(if self.away.load(Ordering::SeqCst) { "away" } else { BUCKET }))
    }
}

fn server_with_bucket() -> Result<Box<S3Server>> {
    let server = Box::new(S3Server::start()?);
    server.create_bucket(BUCKET)?;
    Ok(server)
}

fn list_directory(root: &Path) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for entry in WalkDir::new(root) {
        let entry = entry?;
        let name = entry.path().strip_prefix(root)?.to_str().context("a name that is not UTF-8")?.to_owned();
        if entry.file_type().is_file() && !name.starts_with(".tmp") {
            found.push((name, entry.metadata()?.len()));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket_with_a_snapshot(kind: StoreKind) -> Bucket {
        let bucket = Bucket::new(kind).unwrap();
        let record = serde_json::json!({
            "kind": "snapshot",
            "runs": [{ "object": "fs/idx/1.run", "size": 3 }],
            "packs_new": [{ "object": "fs/pack/1.tar.zst", "size": 4 }],
        });
        bucket.put("fs/ledger/1.json", record.to_string().into_bytes()).unwrap();
        bucket.put("fs/idx/1.run", b"run".to_vec()).unwrap();
        bucket
    }

    #[test]
    fn references_that_dangle_are_found() {
        for kind in [StoreKind::Directory, StoreKind::S3] {
            let bucket = bucket_with_a_snapshot(kind);
            assert!(bucket.check_references().is_err());
            bucket.put("fs/pack/1.tar.zst", b"pac".to_vec()).unwrap();
            assert!(bucket.check_references().is_err(), "a wrong size must be seen");
            bucket.put("fs/pack/1.tar.zst", b"pack".to_vec()).unwrap();
            assert_eq!(bucket.check_references().unwrap(), 2);
            bucket.corrupt("fs/pack/1.tar.zst", 50, 100).unwrap();
            assert_eq!(bucket.get("fs/pack/1.tar.zst").unwrap(), [b'p', b'a', !b'c', !b'k']);
            assert_eq!(bucket.bytes_with("/pack/").unwrap(), 4);
        }
    }

    #[test]
    fn a_directory_goes_away_and_comes_back() {
        let bucket = bucket_with_a_snapshot(StoreKind::Directory);
        let path = bucket.url().strip_prefix("file://").map(PathBuf::from).unwrap();
        bucket.take_away(Weather::Refuse).unwrap();
        assert!(!path.exists());
        bucket.bring_back().unwrap();
        assert_eq!(bucket.get("fs/idx/1.run").unwrap(), b"run");
    }
}
