//! The instance's own records: a small LMDB environment that is no layer.
//!
//! Rows are JSON under plain names, so that a person can read them with `mdb_dump`. Every write is durable on return
//! and all its rows change together.

use crate::error::{FsError, FsResult};
use crate::layer::sync_dir;
use crate::lmdb::{self, LocalEnv};
use heed::Database;
use heed::types::Bytes as Raw;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Directory of an environment that is being made; a leftover goes when it is made again.
const UNFINISHED: &str = "tmp";

/// Durable rows of the instance: snapshot jobs, ledger intents, what is published.
#[derive(Debug)]
pub struct NodeStore {
    path: PathBuf,
    env: LocalEnv,
    rows: Database<Raw, Raw>,
}

/// Changes of several rows that happen together.
#[derive(Debug, Default)]
pub struct NodeChanges {
    rows: Vec<(String, Option<Vec<u8>>)>,
}

impl NodeChanges {
    /// Writes a row.
    pub fn put<T: Serialize>(&mut self, key: &str, value: &T) -> FsResult<&mut Self> {
        let bytes = serde_json::to_vec(value).map_err(|error| FsError::io(format!("row {key}: {error}")))?;
        self.rows.push((key.to_owned(), Some(bytes)));
        Ok(self)
    }

    /// Removes a row.
    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.rows.push((key.to_owned(), None));
        self
    }
}

impl NodeStore {
    /// Opens or creates the environment in the directory `path`: complete and durable when it has its name.
    pub fn open(path: &Path) -> FsResult<Self> {
        if !path.is_dir() {
            let unfinished = path.with_extension(UNFINISHED);
            let os = |error: &io::Error| FsError::os(&unfinished.display().to_string(), error);
            match fs::remove_dir_all(&unfinished) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(os(&error)),
                _ => fs::create_dir_all(&unfinished).map_err(|e| os(&e))?,
            }
            drop(Self::fill(&unfinished)?);
            sync_dir(&unfinished)?;
            fs::rename(&unfinished, path).map_err(|e| os(&e))?;
            path.parent().map_or(Ok(()), sync_dir)?;
        }
        Self::fill(path)
    }

    fn fill(path: &Path) -> FsResult<Self> {
        let env = lmdb::open(path, 1)?;
        let fail = |error: heed::Error| lmdb::failed(path, &error);
        let mut txn = env.write_txn().map_err(fail)?;
        let rows = env.create_database::<Raw, Raw>(&mut txn, Some("rows")).map_err(fail)?;
        txn.commit().map_err(fail)?;
        Ok(Self { path: path.to_owned(), env, rows })
    }

    /// A row, if it is there.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> FsResult<Option<T>> {
        let txn = self.env.read_txn().map_err(|e| self.failed(&e))?;
        let found = self.rows.get(&txn, key.as_bytes()).map_err(|e| self.failed(&e))?;
        found.map(|bytes| self.decode(key.as_bytes(), bytes)).transpose()
    }

    /// All rows whose key starts with `prefix`, in key order.
    pub fn list<T: DeserializeOwned>(&self, prefix: &str) -> FsResult<Vec<(String, T)>> {
        let txn = self.env.read_txn().map_err(|e| self.failed(&e))?;
        let mut found = Vec::new();
        for row in self.rows.prefix_iter(&txn, prefix.as_bytes()).map_err(|e| self.failed(&e))? {
            let (key, value) = row.map_err(|e| self.failed(&e))?;
            found.push((String::from_utf8_lossy(key).into_owned(), self.decode(key, value)?));
        }
        Ok(found)
    }

    /// Changes rows together; durable on return.
    pub fn persist(&self, changes: &NodeChanges) -> FsResult<()> {
        let mut txn = self.env.write_txn().map_err(|e| self.failed(&e))?;
        for (key, value) in &changes.rows {
            match value {
                Some(bytes) => self.rows.put(&mut txn, key.as_bytes(), bytes).map_err(|e| self.failed(&e))?,
                None => self.rows.delete(&mut txn, key.as_bytes()).map(|_| ()).map_err(|e| self.failed(&e))?,
            }
        }
        txn.commit().map_err(|e| self.failed(&e))
    }

    /// Writes one row; durable on return.
    pub fn persist_row<T: Serialize>(&self, key: &str, value: &T) -> FsResult<()> {
        let mut changes = NodeChanges::default();
        changes.put(key, value)?;
        self.persist(&changes)
    }

    fn decode<T: DeserializeOwned>(&self, key: &[u8], bytes: &[u8]) -> FsResult<T> {
        serde_json::from_slice(bytes).map_err(|error| {
            let key = String::from_utf8_lossy(key).into_owned();
            FsError::corrupt(format!("{}: row {key}: {error}", self.path.display()))
        })
    }

    fn failed(&self, error: &heed::Error) -> FsError {
        lmdb::failed(&self.path, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_change_together_and_outlive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        {
            let node = NodeStore::open(dir.path()).unwrap();
            let mut changes = NodeChanges::default();
            changes.put("job/2", &"b").unwrap().put("job/1", &"a").unwrap().put("other", &1).unwrap();
            node.persist(&changes).unwrap();
            changes = NodeChanges::default();
            changes.remove("other");
            node.persist(&changes).unwrap();
        }
        let node = NodeStore::open(dir.path()).unwrap();
        let jobs: Vec<(String, String)> = node.list("job/").unwrap();
        assert_eq!(jobs, [("job/1".into(), "a".into()), ("job/2".into(), "b".into())]);
        assert_eq!(node.get::<u32>("other").unwrap(), None);
        assert!(node.get::<u32>("job/1").is_err(), "a row of another type is an error, not a default");
    }
}
