//! A directory used as a bucket.
//!
//! Objects are files below the root. A conditional write is link(2) of a finished, fsynced file, which one of any number
//! of racing writers wins, on every POSIX file system that has hard links. The work itself is in [`tree`], blocking; here
//! it is moved off the async threads and given its time limits.

mod tree;

use super::object_name::{check_folder, check_name, check_prefix};
use super::{ObjectMeta, ObjectStore, PutOutcome, StoreError, StoreErrorKind, StoreOptions, StoreUrl};
use async_trait::async_trait;
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use tree::Tree;

/// A directory used as a bucket. The root must be there at the first call (kind NoBucket otherwise), see
/// [`DirStore::create_root`].
#[derive(Clone, Debug)]
pub struct DirStore {
    url: String,
    tree: Tree,
    timeout: Duration,
}

/// What is being done on what: the parts of an error that do not depend on what went wrong.
#[derive(Clone, Copy, Debug)]
struct Subject<'a> {
    operation: &'static str,
    name: &'a str,
}

impl DirStore {
    /// A client of the directory `root`. Touches nothing.
    pub fn new(root: &Path, options: StoreOptions) -> Self {
        Self {
            url: StoreUrl::Directory(root.to_owned()).to_string(),
            tree: Tree::new(root),
            timeout: Duration::from_millis(options.operation_timeout_ms),
        }
    }

    /// Makes the root with its parents, durably; one that is there is fine.
    pub async fn create_root(&self) -> Result<(), StoreError> {
        self.run(Subject { operation: "create", name: "" }, Tree::create_root).await
    }

    /// Runs blocking work within the time limit. Work that exceeds it goes on unseen: it may or may not be applied.
    async fn run<T, F>(&self, subject: Subject<'_>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tree) -> io::Result<T> + Send + 'static,
    {
        match tokio::time::timeout(self.timeout, self.run_unlimited(subject, work)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.timed_out(subject)),
        }
    }

    /// Like [`DirStore::run`] for work that reports its progress to a caller who keeps the time.
    async fn run_unlimited<T, F>(&self, subject: Subject<'_>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tree) -> io::Result<T> + Send + 'static,
    {
        let tree = self.tree.clone();
        // The root is looked for on the blocking thread, too: it may be on a server that is away.
        let job = tokio::task::spawn_blocking(move || work(&tree).map_err(|error| (error, tree.root_is_there())));
        match job.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err((error, root_is_there))) => Err(self.error(subject, &error, root_is_there)),
            Err(stopped) => Err(self.unavailable(subject, stopped)),
        }
    }

    fn error(&self, subject: Subject<'_>, error: &io::Error, root_is_there: RootIsThere) -> StoreError {
        let kind = kind_of(error);
        let (kind, detail) = match (kind, root_is_there) {
            (StoreErrorKind::NotFound, RootIsThere::No) => {
                // The store itself is what is missing, whatever was asked of it.
                let detail = "the directory does not exist";
                return StoreError::new(StoreErrorKind::NoBucket, subject.operation, &self.url, detail);
            }
            (StoreErrorKind::NotFound, RootIsThere::Yes) => (kind, "no such object".to_owned()),
            _ => (kind, format!("{error} (in {})", self.url)),
        };
        StoreError::new(kind, subject.operation, subject.name, detail)
    }

    fn unavailable(&self, subject: Subject<'_>, detail: impl std::fmt::Display) -> StoreError {
        let detail = format!("{detail} (in {})", self.url);
        StoreError::new(StoreErrorKind::Unavailable, subject.operation, subject.name, detail)
    }

    fn timed_out(&self, subject: Subject<'_>) -> StoreError {
        self.unavailable(subject, format_args!("no answer within {} ms", self.timeout.as_millis()))
    }
}

/// Whether the root was there when the work failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RootIsThere {
    Yes,
    No,
}

fn kind_of(error: &io::Error) -> StoreErrorKind {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => StoreErrorKind::NotFound,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreErrorKind::Denied,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreErrorKind::NoSpace,
        ErrorKind::Unsupported => StoreErrorKind::Unsupported,
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData => StoreErrorKind::Corrupt,
        ErrorKind::InvalidInput
        | ErrorKind::InvalidFilename
        | ErrorKind::IsADirectory
        | ErrorKind::NotADirectory
        | ErrorKind::FileTooLarge => StoreErrorKind::Invalid,
        _ => StoreErrorKind::Unavailable,
    }
}

#[async_trait]
impl ObjectStore for DirStore {
    fn url(&self) -> &str {
        &self.url
    }

    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        check_name("put", name)?;
        let owned = name.to_owned();
        self.run(Subject { operation: "put", name }, move |tree| tree.persist_if_absent(&owned, &body)).await
    }

    async fn put_file(
        &self,
        name: &str,
        file: &Path,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), StoreError> {
        check_name("upload", name)?;
        let subject = Subject { operation: "upload", name };
        let local = std::fs::File::open(file).map_err(|e| {
            let detail = format!("local file {}: {e}", file.display());
            StoreError::new(StoreErrorKind::Invalid, subject.operation, name, detail)
        })?;
        let (sent, mut received) = tokio::sync::mpsc::channel(16);
        let owned = name.to_owned();
        let copy = self.run_unlimited(subject, move |tree| tree.persist_file(&owned, local, &sent));
        tokio::pin!(copy);
        let mut listening = true;
        loop {
            let quiet = tokio::time::sleep(self.timeout);
            tokio::select! {
                done = &mut copy => {
                    while let Ok(bytes) = received.try_recv() {
                        progress(bytes);
                    }
                    return done;
                }
                bytes = received.recv(), if listening => match bytes {
                    Some(bytes) => progress(bytes),
                    None => listening = false,
                },
                // Dropping the receiver stops the copy at its next report.
                () = quiet => return Err(self.timed_out(subject)),
            }
        }
    }

    async fn put(&self, name: &str, body: Bytes) -> Result<(), StoreError> {
        check_name("put", name)?;
        let owned = name.to_owned();
        self.run(Subject { operation: "put", name }, move |tree| tree.persist_over(&owned, &body)).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        check_name("get", name)?;
        let owned = name.to_owned();
        self.run(Subject { operation: "get", name }, move |tree| tree.read(&owned)).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        check_name("get", name)?;
        let owned = name.to_owned();
        self.run(Subject { operation: "get", name }, move |tree| tree.read_range(&owned, range)).await
    }

    async fn head(&self, name: &str) -> Result<ObjectMeta, StoreError> {
        check_name("head", name)?;
        let owned = name.to_owned();
        self.run(Subject { operation: "head", name }, move |tree| tree.head(&owned)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        check_prefix("list", prefix)?;
        let owned = prefix.to_owned();
        self.run(Subject { operation: "list", name: prefix }, move |tree| tree.list(&owned)).await
    }

    async fn list_here(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        check_folder("list", prefix)?;
        let owned = prefix.to_owned();
        self.run(Subject { operation: "list", name: prefix }, move |tree| tree.list_here(&owned)).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        check_name("delete", name)?;
        let owned = name.to_owned();
        self.run(Subject { operation: "delete", name }, move |tree| tree.remove(&owned)).await
    }

    async fn abort_uploads(
        &self,
        prefix: &str,
        _abandoned: &(dyn for<'n> Fn(&'n str) -> bool + Send + Sync),
    ) -> Result<u64, StoreError> {
        check_prefix("abort uploads of", prefix)?;
        // A file is written in one piece.
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn errnos_say_what_the_caller_can_do() {
        for (errno, kind) in [
            (Errno::NOSPC, StoreErrorKind::NoSpace),
            (Errno::DQUOT, StoreErrorKind::NoSpace),
            (Errno::ACCESS, StoreErrorKind::Denied),
            (Errno::PERM, StoreErrorKind::Denied),
            (Errno::ROFS, StoreErrorKind::Denied),
            (Errno::NOENT, StoreErrorKind::NotFound),
            (Errno::NAMETOOLONG, StoreErrorKind::Invalid),
            (Errno::IO, StoreErrorKind::Unavailable),
            (Errno::STALE, StoreErrorKind::Unavailable),
        ] {
            assert_eq!(kind_of(&errno.into()), kind, "{errno:?}");
        }
    }

    #[tokio::test]
    async fn work_that_does_not_end_is_given_up() {
        let options = StoreOptions { operation_timeout_ms: 20, ..StoreOptions::DAEMON };
        let store = DirStore::new(Path::new("/"), options);
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let subject = Subject { operation: "get", name: "x" };
        let slow = store.run(subject, move |_| blocked.recv().map_err(io::Error::other)).await;
        assert_eq!(slow.unwrap_err().kind(), StoreErrorKind::Unavailable);
        drop(release);
    }
}
