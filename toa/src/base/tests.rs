//! Objects under faults.

use super::test_store::{Fault, TestStore};
use super::*;
use crate::proxy::{CHUNK_BYTES, Proxy, ProxyOptions};
use crate::run::hash128;
use cloud_mgmt::store::StoreErrorKind;
use kvfs::base::BaseError;
use std::sync::Arc;
use tokio::runtime::Runtime;

pub(super) const MIB: u64 = CHUNK_BYTES;

pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) runtime: Runtime,
    pub(super) store: Arc<TestStore>,
    pub(super) objects: Arc<Objects>,
}

impl World {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self::with_store(max_bytes, TestStore::new())
    }

    pub(super) fn with_store(max_bytes: u64, store: TestStore) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        let store = Arc::new(store);
        let objects = Self::objects(&dir, max_bytes, &store, &runtime);
        Self { dir, runtime, store, objects }
    }

    /// No memory caches: every read goes to the proxy.
    pub(super) fn objects(
        dir: &tempfile::TempDir,
        max_bytes: u64,
        store: &Arc<TestStore>,
        runtime: &Runtime,
    ) -> Arc<Objects> {
        let proxy = Proxy::open(dir.path(), ProxyOptions { max_bytes }).unwrap();
        let options = ObjectsOptions {
            fetch_timeout_ms: 200,
            node_cache_bytes: 0,
            frame_cache_bytes: 0,
            recent_cache_bytes: 0,
            ..ObjectsOptions::default()
        };
        Objects::new(proxy, Arc::clone(store) as _, runtime.handle().clone(), options)
    }

    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) -> ObjectRef {
        let size = bytes.len() as u64;
        self.store.objects.lock().insert(name.to_owned(), bytes.into());
        ObjectRef { name: name.into(), size }
    }

    pub(super) fn requests(&self) -> usize {
        self.store.requests.lock().len()
    }

    pub(super) fn fail(&self, fault: Fault) {
        *self.store.fault.lock() = fault;
    }
}

pub(super) fn noise(len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn piece(object: &ObjectRef, bytes: &[u8], offset: u64, len: u32) -> Piece {
    let hash = hash128(&bytes[offset as usize..][..len as usize]);
    Piece { object: object.clone(), offset, len, hash }
}

/// Reads as kvfs does: ask, fetch what is missing, ask again.
pub(super) fn settle<T>(mut ask: impl FnMut() -> Result<T, BaseError>) -> Result<T, BaseError> {
    for _ in 0..1_000 {
        match ask() {
            Err(BaseError::NotResident(need)) => need.fetch()?,
            answer => return answer,
        }
    }
    panic!("fetching makes no progress");
}

#[test]
fn a_missing_piece_is_fetched_once_and_then_here() {
    let world = World::new(64 * MIB);
    let bytes = noise(5 * MIB + 17);
    let object = world.put("fs/pack/1", bytes.clone());
    let wanted = piece(&object, &bytes, 2 * MIB - 10, 300);
    assert!(matches!(world.objects.read(&wanted), Err(BaseError::NotResident(_))));
    assert_eq!(world.requests(), 0, "a read never waits for the network");
    let found = settle(|| world.objects.read(&wanted)).unwrap();
    assert_eq!(found, bytes[2 * MIB as usize - 10..][..300]);
    assert_eq!(world.store.requests.lock()[..], [("fs/pack/1".to_owned(), MIB..3 * MIB)]);
    assert_eq!(world.objects.read(&wanted).unwrap().len(), 300);
    let tail = piece(&object, &bytes, 5 * MIB + 1, 16);
    assert_eq!(settle(|| world.objects.read(&tail)).unwrap(), bytes[5 * MIB as usize + 1..]);
    let beyond = Piece { offset: 5 * MIB + 2, ..tail };
    assert!(matches!(world.objects.read(&beyond), Err(BaseError::Corrupt(_))));
}

#[test]
fn a_sequential_reader_gets_more_per_request() {
    let world = World::new(256 * MIB);
    let bytes = noise(40 * MIB);
    let object = world.put("fs/pack/1", bytes.clone());
    for n in 0..80 {
        let wanted = piece(&object, &bytes, n * MIB / 2, MIB as u32 / 2);
        settle(|| world.objects.read(&wanted)).unwrap();
    }
    let sizes: Vec<u64> = world.store.requests.lock().iter().map(|(_, r)| (r.end - r.start) / MIB).collect();
    assert_eq!(sizes, [1, 2, 4, 8, 8, 8, 8, 1]);
}

#[test]
fn wrong_bytes_are_fetched_again_and_never_served() {
    let world = World::new(64 * MIB);
    let bytes = noise(MIB);
    let object = world.put("fs/pack/1", bytes.clone());
    let wanted = piece(&object, &bytes, 100, 50);
    world.fail(Fault::Flip { n: 1, at: 120 });
    assert_eq!(settle(|| world.objects.read(&wanted)).unwrap(), bytes[100..150]);
    assert_eq!(world.requests(), 2);

    let other = World::new(64 * MIB);
    other.put("fs/pack/1", bytes.clone());
    other.fail(Fault::Flip { n: usize::MAX, at: 120 });
    let error = settle(|| other.objects.read(&wanted)).unwrap_err();
    assert!(
        matches!(&error, BaseError::Corrupt(text) if text.contains("fs/pack/1") && text.contains("100")),
        "{error}"
    );
    assert_eq!(other.requests(), 2);
    assert!(other.objects.read(&wanted).is_err(), "the wrong bytes are not kept as an answer");
}

#[test]
fn a_damaged_cache_heals_itself() {
    let world = World::new(64 * MIB);
    let bytes = noise(MIB);
    let object = world.put("fs/pack/1", bytes.clone());
    let wanted = piece(&object, &bytes, 100, 50);
    settle(|| world.objects.read(&wanted)).unwrap();
    for damage in [Some(vec![0; MIB as usize]), Some(vec![1; 7]), None] {
        let file = world.dir.path().join("chunk/fs%2Fpack%2F1@0");
        match damage {
            Some(wrong) => std::fs::write(&file, wrong).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        assert_eq!(settle(|| world.objects.read(&wanted)).unwrap(), bytes[100..150]);
    }
}

#[test]
fn a_store_that_is_away_is_unavailable_within_the_timeout() {
    let world = World::new(64 * MIB);
    let bytes = noise(MIB);
    let object = world.put("fs/pack/1", bytes.clone());
    let wanted = piece(&object, &bytes, 0, 50);
    world.fail(Fault::Hang);
    let error = settle(|| world.objects.read(&wanted)).unwrap_err();
    assert!(matches!(&error, BaseError::Unavailable(text) if text.contains("fs/pack/1")), "{error}");
    // One thread hangs in the request, the others wait for it: nobody longer than the timeout.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert!(matches!(world.objects.read_or_fetch(&wanted), Err(BaseError::Unavailable(_)))));
        }
    });
    world.fail(Fault::Refuse(StoreErrorKind::Unavailable));
    assert!(matches!(settle(|| world.objects.read(&wanted)), Err(BaseError::Unavailable(_))));
    world.fail(Fault::Refuse(StoreErrorKind::Denied));
    assert!(matches!(settle(|| world.objects.read(&wanted)), Err(BaseError::Unavailable(_))));
    world.fail(Fault::None);
    assert!(settle(|| world.objects.read(&wanted)).is_ok(), "nothing is remembered of the failure");
    world.store.objects.lock().clear();
    world.objects.proxy().forget("fs/pack/1", 0..MIB);
    assert!(matches!(settle(|| world.objects.read(&wanted)), Err(BaseError::Gone(_))));
}

#[test]
fn many_readers_of_one_piece_make_one_request() {
    let mut store = TestStore::new();
    store.latency = std::time::Duration::from_millis(50);
    let world = World::with_store(64 * MIB, store);
    let bytes = noise(MIB);
    let object = world.put("fs/pack/1", bytes.clone());
    std::thread::scope(|scope| {
        for n in 0..8 {
            let wanted = piece(&object, &bytes, n * 1_000, 900);
            let objects = &world.objects;
            scope.spawn(move || objects.read_or_fetch(&wanted).unwrap());
        }
    });
    assert_eq!(world.requests(), 1);
}

#[test]
fn a_proxy_full_of_staged_objects_still_lets_readers_on() {
    let world = World::new(MIB);
    let staged = world.objects.proxy().stage("fs/pack/9", MIB).unwrap();
    std::fs::write(staged.path(), noise(MIB)).unwrap();
    staged.commit().unwrap();
    let bytes = noise(2 * MIB);
    let object = world.put("fs/pack/1", bytes.clone());
    let wanted = piece(&object, &bytes, MIB - 5, 10);
    assert_eq!(world.objects.read_or_fetch(&wanted).unwrap(), bytes[MIB as usize - 5..][..10]);
    let options = ObjectsOptions::default();
    let store = Arc::clone(&world.store) as _;
    let remembers = Objects::new(Arc::clone(world.objects.proxy()), store, world.runtime.handle().clone(), options);
    assert_eq!(settle(|| remembers.read(&wanted)).unwrap().len(), 10);
    assert_eq!(world.objects.proxy().usage().cached, 0);
}
