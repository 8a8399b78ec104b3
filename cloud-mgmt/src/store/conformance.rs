//! What every store must do, as one suite.
//!
//! Run it against any [`ObjectStore`], also a foreign one that is being considered: it works below a fresh name and
//! removes what it made. The race of conditional writes is [`crate::probe`].

use super::{ObjectStore, PutOutcome, StoreErrorKind};
use bytes::Bytes;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

/// Larger than what is sent in one piece, and no multiple of a part.
const LARGE_BYTES: usize = (17 << 20) + 12_345;

/// Runs the suite; the error says what the store did wrong.
pub async fn check(store: Arc<dyn ObjectStore>) -> Result<(), String> {
    let suite = Suite { folder: format!("conformance-{}", Uuid::new_v4().simple()), store };
    let outcome = suite.run().await;
    let removed = suite.remove_all().await;
    outcome.and(removed)
}

struct Suite {
    folder: String,
    store: Arc<dyn ObjectStore>,
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Bytes that differ at every offset of a part.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

impl Suite {
    async fn run(&self) -> Result<(), String> {
        self.missing_objects().await?;
        self.conditional_writes().await?;
        self.overwrites().await?;
        self.ranges().await?;
        self.listings().await?;
        self.files().await?;
        self.names().await
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.folder)
    }

    async fn put(&self, rest: &str, body: &'static [u8]) -> Result<(), String> {
        self.store.put(&self.name(rest), Bytes::from_static(body)).await.map_err(said)
    }

    async fn missing_objects(&self) -> Result<(), String> {
        let name = self.name("missing/object");
        let errors = [
            self.store.get(&name).await.err(),
            self.store.get_range(&name, 0..1).await.err(),
            self.store.get_range(&name, 0..0).await.err(),
            self.store.head(&name).await.err(),
        ];
        for error in errors {
            let kind = error.as_ref().map(super::StoreError::kind);
            ensure(kind == Some(StoreErrorKind::NotFound), || format!("a missing object is {error:?}, not NotFound"))?;
        }
        self.store.delete(&name).await.map_err(said)?;
        let listed = self.store.list(&self.name("missing/")).await.map_err(said)?;
        ensure(listed.is_empty(), || format!("nothing was written and {listed:?} listed"))
    }

    async fn conditional_writes(&self) -> Result<(), String> {
        let name = self.name("once/a");
        for (body, expected) in
            [("first", PutOutcome::Created), ("second", PutOutcome::Taken), ("first", PutOutcome::Taken)]
        {
            let outcome = self.store.put_if_absent(&name, Bytes::from(body)).await.map_err(said)?;
            ensure(outcome == expected, || format!("put_if_absent of {body:?} answered {outcome:?}"))?;
        }
        let there = self.store.get(&name).await.map_err(said)?;
        ensure(there == "first", || format!("a write-once object changed to {there:?}"))?;
        self.store.delete(&name).await.map_err(said)?;
        let again = self.store.put_if_absent(&name, Bytes::from("third")).await.map_err(said)?;
        ensure(again == PutOutcome::Created, || "a deleted name stayed taken".to_owned())
    }

    async fn overwrites(&self) -> Result<(), String> {
        for body in [b"one".as_slice(), b"", b"three"] {
            self.put("over", body).await?;
            let there = self.store.get(&self.name("over")).await.map_err(said)?;
            ensure(there == body, || format!("wrote {body:?}, read {there:?}"))?;
        }
        let meta = self.store.head(&self.name("over")).await.map_err(said)?;
        ensure(meta.size == 5 && meta.name == self.name("over"), || format!("head says {meta:?} of 5 bytes"))
    }

    async fn ranges(&self) -> Result<(), String> {
        let name = self.name("ranges");
        self.put("ranges", b"0123456789").await?;
        for (range, expected) in [(0..10, "0123456789"), (3..7, "3456"), (9..10, "9"), (4..4, ""), (10..10, "")] {
            let got = self.store.get_range(&name, range.clone()).await.map_err(said)?;
            ensure(got == expected, || format!("bytes {range:?} are {got:?}"))?;
        }
        for range in [0..11, 10..11, 11..11, 50..60] {
            let kind = self.store.get_range(&name, range.clone()).await.map_err(|e| e.kind());
            ensure(kind == Err(StoreErrorKind::Corrupt), || format!("bytes {range:?} of 10 are {kind:?}"))?;
        }
        Ok(())
    }

    async fn listings(&self) -> Result<(), String> {
        // An order that servers get wrong which list folder by folder: "a-b" is before "a/1".
        let names = ["list/a-b", "list/a/1", "list/a/2", "list/a0", "list/b/c/d", "list/é ü+%41"];
        for name in names {
            self.put(name, b"x").await?;
        }
        for (prefix, expected) in [
            ("list/", names.as_slice()),
            ("list/a", &names[..4]),
            ("list/a/", &names[1..3]),
            ("list/b/c", &names[4..5]),
            ("list/nothing", &[]),
        ] {
            let listed = self.store.list(&self.name(prefix)).await.map_err(said)?;
            let found: Vec<_> = listed.iter().map(|meta| meta.name.clone()).collect();
            let wanted: Vec<_> = expected.iter().map(|rest| self.name(rest)).collect();
            ensure(found == wanted, || format!("list of {prefix:?} is {found:?}, not {wanted:?}"))?;
            ensure(listed.iter().all(|meta| meta.size == 1), || format!("wrong sizes in {listed:?}"))?;
        }
        let here = self.store.list_here(&self.name("list/")).await.map_err(said)?;
        let here: Vec<_> = here.into_iter().map(|meta| meta.name).collect();
        let wanted = [self.name(names[0]), self.name(names[3]), self.name(names[5])];
        ensure(here == wanted, || format!("list_here is {here:?}, not {wanted:?}"))
    }

    async fn files(&self) -> Result<(), String> {
        let local = std::env::temp_dir().join(format!("{}.upload", self.folder));
        let mut outcome = Ok(());
        for length in [0, 1000, LARGE_BYTES] {
            let body = pattern(length);
            let written = std::fs::File::create(&local).and_then(|mut file| file.write_all(&body));
            outcome = match written {
                Ok(()) => self.file(&local, &body).await,
                Err(e) => Err(format!("{}: {e}", local.display())),
            };
            if outcome.is_err() {
                break;
            }
        }
        std::fs::remove_file(&local).map_err(said)?;
        outcome
    }

    async fn file(&self, local: &std::path::Path, body: &[u8]) -> Result<(), String> {
        let length = body.len();
        let name = self.name(&format!("file/{length}"));
        for _again in 0..2 {
            let most = AtomicU64::new(0);
            let progress = |bytes| {
                most.fetch_max(bytes, Ordering::Relaxed);
            };
            self.store.put_file(&name, local, &progress).await.map_err(said)?;
            let most = most.into_inner();
            ensure(most <= length as u64, || format!("progress {most} of {length} bytes"))?;
        }
        let there = self.store.get(&name).await.map_err(said)?;
        ensure(there == body, || format!("a file of {length} bytes came back different"))?;
        for range in [length / 3..length - length / 3, length / 1000..length] {
            let got = self.store.get_range(&name, range.start as u64..range.end as u64).await.map_err(said)?;
            ensure(got == body[range], || format!("a range of a file of {length} bytes is wrong"))?;
        }
        Ok(())
    }

    async fn names(&self) -> Result<(), String> {
        for bad in ["", "/x", "x/", "a//b", "a/../b", ".tmp/x", "a\0b"] {
            let outcome = self.store.put_if_absent(bad, Bytes::new()).await.map_err(|e| e.kind());
            ensure(outcome == Err(StoreErrorKind::Invalid), || format!("the name {bad:?}: {outcome:?}"))?;
        }
        Ok(())
    }

    async fn remove_all(&self) -> Result<(), String> {
        let folder = format!("{}/", self.folder);
        for meta in self.store.list(&folder).await.map_err(said)? {
            self.store.delete(&meta.name).await.map_err(said)?;
        }
        let left = self.store.list(&folder).await.map_err(said)?;
        ensure(left.is_empty(), || format!("deleted objects are still listed: {left:?}"))
    }
}
