//! The state of a verification that can be interrupted: which objects were read, and what was found in them.
//!
//! A file of JSON lines: what is being verified, then one line for each object that is done, appended and flushed before
//! the next object is begun. A last line that was cut off counts as not written.

use super::error::VerifyError;
use super::finding::Finding;
use crate::agent::SnapshotSelector;
use cloud_mgmt::names::FsName;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The format of the file.
const FORMAT: u32 = 1;
/// How every state file starts.
const HEAD_START: &[u8] = b"{\"format\":";

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    format: u32,
    fs: String,
    /// The snapshot that was asked for; `None`: all.
    wanted: Option<String>,
    /// The snapshots that are looked at: those of the beginning, whatever is published later.
    snapshots: Vec<Uuid>,
}

/// A line for an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    object: String,
    /// The newest snapshot that uses it.
    snapshot: Option<Uuid>,
    verdict: Verdict,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Finding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Sound,
    Damaged,
}

/// An open state file. Held under a lock.
#[derive(Debug)]
pub(super) struct Progressed {
    path: PathBuf,
    file: File,
    /// What an interrupted verification found in each object that it had read.
    done: HashMap<String, Vec<Finding>>,
    snapshots: Option<Vec<Uuid>>,
}

impl Progressed {
    /// Opens the file, or makes it. Nothing but a state file of `fs`, begun for the same snapshots, is touched.
    pub fn open(path: &Path, fs: &FsName, wanted: Option<&SnapshotSelector>) -> Result<Self, VerifyError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(VerifyError::state("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(VerifyError::state("lock", path)(error)),
            Err(TryLockError::WouldBlock) => {
                return Err(VerifyError::state("lock", path)(io::ErrorKind::WouldBlock.into()));
            }
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(VerifyError::state("read", path))?;
        let mut state = Self { path: path.to_owned(), file, done: HashMap::new(), snapshots: None };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut lines =
            bytes.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        match lines.next() {
            Some(head) => state.head(head, fs, wanted)?,
            None if bytes.starts_with(HEAD_START) || HEAD_START.starts_with(&bytes) => {}
            None => return Err(state.foreign("is not the state of a verification")),
        }
        for line in lines {
            let line: Line =
                serde_json::from_slice(line).map_err(|error| state.foreign(format!("has a broken line: {error}")))?;
            state.done.insert(line.object, line.findings);
        }
        state.file.set_len(whole as u64).map_err(VerifyError::state("write", path))?;
        state.file.seek(SeekFrom::End(0)).map_err(VerifyError::state("write", path))?;
        Ok(state)
    }

    fn head(&mut self, line: &[u8], fs: &FsName, wanted: Option<&SnapshotSelector>) -> Result<(), VerifyError> {
        let head: Head =
            serde_json::from_slice(line).map_err(|_| self.foreign("is not the state of a verification"))?;
        if head.format != FORMAT {
            return Err(self.foreign(format!("has format {}, this version reads {FORMAT}", head.format)));
        }
        if head.fs != fs.to_string() {
            return Err(self.foreign(format!("is the state of a verification of {}", head.fs)));
        }
        if head.wanted != wanted.map(text_of) {
            let of = head.wanted.map_or_else(|| "all snapshots".to_owned(), |wanted| format!("snapshot {wanted:?}"));
            return Err(self.foreign(format!("is the state of a verification of {of}")));
        }
        self.snapshots = Some(head.snapshots);
        Ok(())
    }

    fn foreign(&self, what: impl Into<String>) -> VerifyError {
        VerifyError::ForeignState { path: self.path.clone(), what: what.into() }
    }

    /// The snapshots that an interrupted verification looked at.
    pub fn snapshots(&self) -> Option<&[Uuid]> {
        self.snapshots.as_deref()
    }

    /// Begins, unless an interrupted verification goes on.
    pub fn begin(
        &mut self,
        fs: &FsName,
        wanted: Option<&SnapshotSelector>,
        snapshots: Vec<Uuid>,
    ) -> Result<(), VerifyError> {
        if self.snapshots.is_some() {
            return Ok(());
        }
        let wanted = wanted.map(text_of);
        self.append(&Head { format: FORMAT, fs: fs.to_string(), wanted, snapshots: snapshots.clone() })?;
        self.snapshots = Some(snapshots);
        Ok(())
    }

    /// What was found in an object that was read before; `None` if it was not.
    pub fn found(&self, object: &str) -> Option<&[Finding]> {
        self.done.get(object).map(Vec::as_slice)
    }

    /// An object is done. Durable when this returns.
    pub fn done(&mut self, object: &str, snapshot: Option<Uuid>, findings: Vec<Finding>) -> Result<(), VerifyError> {
        let verdict = if findings.is_empty() { Verdict::Sound } else { Verdict::Damaged };
        self.append(&Line { object: object.to_owned(), snapshot, verdict, findings })
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), VerifyError> {
        let failed = |error| VerifyError::state("write", &self.path)(error);
        let mut bytes = serde_json::to_vec(line).map_err(|error| failed(error.into()))?;
        bytes.push(b'\n');
        self.file.write_all(&bytes).and_then(|()| self.file.sync_data()).map_err(failed)
    }

    /// The folder beside it, for what would have to be fetched again.
    pub fn folder(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".d");
        name.into()
    }

    /// The verification is complete: there is nothing to go on with.
    pub fn remove(self) -> Result<(), VerifyError> {
        fs::remove_file(&self.path).map_err(VerifyError::state("remove", &self.path))
    }
}

fn text_of(selector: &SnapshotSelector) -> String {
    match selector {
        SnapshotSelector::Latest => "latest".to_owned(),
        SnapshotSelector::Named(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::verify::finding::Problem;

    fn fs_name(tag: &str) -> FsName {
        FsName { tag: tag.parse().unwrap(), id: Uuid::from_u128(5) }
    }

    #[test]
    fn what_was_done_is_there_again_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let finding = Finding::new(Problem::WrongBytes, Some("b"), "x");
        let mut state = Progressed::open(&path, &fs_name("home"), None).unwrap();
        assert_eq!(state.snapshots(), None);
        state.begin(&fs_name("home"), None, vec![Uuid::from_u128(1)]).unwrap();
        state.done("a", None, Vec::new()).unwrap();
        state.done("b", Some(Uuid::from_u128(1)), vec![finding.clone()]).unwrap();
        drop(state);
        let whole = fs::read(&path).unwrap();
        for end in 0..=whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let mut state = Progressed::open(&path, &fs_name("home"), None).unwrap();
            let lines = whole[..end].split(|byte| *byte == b'\n').count() - 1;
            assert_eq!(state.snapshots().is_some(), lines > 0, "cut at {end}");
            assert_eq!(state.found("a").is_some(), lines > 1);
            assert_eq!(state.found("b"), (lines > 2).then_some(&[finding.clone()][..]));
            state.begin(&fs_name("home"), None, vec![Uuid::from_u128(1)]).unwrap();
            state.done("c", None, Vec::new()).unwrap();
            drop(state);
            let state = Progressed::open(&path, &fs_name("home"), None).unwrap();
            assert_eq!((state.found("a").is_some(), state.found("c")), (lines > 1, Some(&[][..])));
        }
    }

    #[test]
    fn foreign_files_are_refused_and_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        for content in [
            "my thesis",
            "my\nthesis\n",
            "{\"format\":2,\"fs\":\"x\",\"wanted\":null,\"snapshots\":[]}\n",
            "{\"a\":1}\n",
        ] {
            fs::write(&path, content).unwrap();
            let error = Progressed::open(&path, &fs_name("home"), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{content}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        fs::remove_file(&path).unwrap();
        let mut state = Progressed::open(&path, &fs_name("home"), None).unwrap();
        state.begin(&fs_name("home"), None, Vec::new()).unwrap();
        let busy = Progressed::open(&path, &fs_name("home"), None).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Busy);
        drop(state);
        let other = Progressed::open(&path, &fs_name("other"), None).unwrap_err();
        assert!(other.to_string().contains("of home-"), "{other}");
        let latest = Progressed::open(&path, &fs_name("home"), Some(&SnapshotSelector::Latest)).unwrap_err();
        assert!(latest.to_string().contains("of all snapshots"), "{latest}");
    }
}
