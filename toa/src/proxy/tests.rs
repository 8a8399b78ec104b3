//! The hard limit, pins, order of eviction, restarts.

use super::*;
use std::path::Path;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn open(dir: &Path, max_bytes: u64) -> Arc<Proxy> {
    Proxy::open(dir, ProxyOptions { max_bytes }).unwrap()
}

fn chunk(fill: u8) -> Vec<u8> {
    vec![fill; CHUNK_BYTES as usize]
}

fn stage(proxy: &Arc<Proxy>, object: &str, bytes: &[u8]) -> Result<(), ProxyError> {
    let staged = proxy.stage(object, bytes.len() as u64)?;
    std::fs::write(staged.path(), bytes).unwrap();
    staged.commit().map(drop)
}

fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    entries.map(|e| if e.path().is_dir() { disk_bytes(&e.path()) } else { e.metadata().unwrap().len() }).sum()
}

#[test]
fn the_least_recently_used_chunk_goes_first_and_the_limit_holds() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = open(dir.path(), 3 * MIB);
    for n in 0..3 {
        assert!(proxy.put_chunk("o", n, &chunk(n as u8)).unwrap());
    }
    assert_eq!(proxy.read("o", 0..10).unwrap(), [0; 10][..]);
    assert!(proxy.put_chunk("o", 3, &chunk(3)).unwrap());
    assert_eq!([0, 1, 2, 3].map(|n| proxy.has_chunk("o", n)), [true, false, true, true]);
    assert_eq!(disk_bytes(dir.path()), 3 * MIB);
    assert_eq!(proxy.read("o", 2 * MIB + 5..4 * MIB).unwrap().len() as u64, 2 * MIB - 5);
    assert!(proxy.read("o", MIB - 1..MIB + 1).is_none(), "half of it is not here");
}

#[test]
fn staged_objects_push_the_cache_out_and_are_never_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = open(dir.path(), 3 * MIB);
    assert!(proxy.put_chunk("in", 0, &chunk(1)).unwrap());
    stage(&proxy, "fs/pack/1", &chunk(9).repeat(2)).unwrap();
    assert!(proxy.has_chunk("in", 0));
    stage(&proxy, "fs/pack/2", &chunk(8)).unwrap();
    assert!(!proxy.has_chunk("in", 0));
    assert!(!proxy.put_chunk("in", 0, &chunk(1)).unwrap(), "no room beside what is pinned");
    assert_eq!(stage(&proxy, "fs/pack/3", b"x").unwrap_err().kind(), ProxyErrorKind::NoSpace);
    assert_eq!(
        proxy.staged().iter().map(|(o, n)| (&**o, *n)).collect::<Vec<_>>(),
        [("fs/pack/1", 2 * MIB), ("fs/pack/2", MIB)]
    );
    proxy.uploaded("fs/pack/1").unwrap();
    assert_eq!(proxy.read("fs/pack/1", 0..4).unwrap(), [9; 4][..]);
    stage(&proxy, "fs/pack/3", b"x").unwrap();
    assert!(proxy.read("fs/pack/1", 0..4).is_none(), "uploaded, so it was evictable");
    assert!(disk_bytes(dir.path()) <= 3 * MIB);
    proxy.uploaded("fs/pack/1").unwrap();
}

#[test]
fn a_staged_file_grows_only_within_the_limit_and_leaves_nothing_when_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = open(dir.path(), 2 * MIB);
    let mut staged = proxy.stage("a", 100).unwrap();
    staged.ensure_room(MIB).unwrap();
    assert_eq!(proxy.usage().reserved, MIB);
    assert_eq!(staged.ensure_room(2 * MIB + 1).unwrap_err().kind(), ProxyErrorKind::NoSpace);
    std::fs::write(staged.path(), b"half").unwrap();
    drop(staged);
    assert_eq!((proxy.usage().reserved, disk_bytes(dir.path())), (0, 0));

    let greedy = proxy.stage("b", 1).unwrap();
    std::fs::write(greedy.path(), chunk(1).repeat(3)).unwrap();
    assert_eq!(greedy.commit().unwrap_err().kind(), ProxyErrorKind::NoSpace);
    assert_eq!((proxy.usage().reserved, disk_bytes(dir.path())), (0, 0));
}

#[test]
fn a_restart_finds_everything_again_and_removes_leftovers() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = open(dir.path(), 10 * MIB);
    stage(&proxy, "fs/pack/1", b"out").unwrap();
    stage(&proxy, "fs/idx/1", b"run").unwrap();
    proxy.uploaded("fs/idx/1").unwrap();
    assert!(proxy.keep("fs/idx/1").unwrap());
    assert!(proxy.put_chunk("fs/pack/0", 7, b"tail").unwrap());
    drop(proxy);
    std::fs::write(dir.path().join("tmp/17"), b"half").unwrap();
    std::fs::write(dir.path().join("chunk/not a chunk"), b"?").unwrap();

    let proxy = open(dir.path(), 10 * MIB);
    assert_eq!(disk_bytes(dir.path()), 10);
    assert_eq!(proxy.usage(), Usage { pinned: 6, cached: 4, reserved: 0, max: 10 * MIB });
    assert_eq!(std::fs::read(proxy.staged_path("fs/pack/1").unwrap()).unwrap(), b"out");
    assert_eq!(proxy.read("fs/pack/0", 7 * MIB..7 * MIB + 4).unwrap(), b"tail"[..]);
    drop(proxy);

    let proxy = open(dir.path(), 6);
    assert_eq!(proxy.usage().cached, 0, "a lowered limit evicts");
    proxy.keep_only(&[]).unwrap();
    assert_eq!(proxy.usage(), Usage { pinned: 3, cached: 3, reserved: 0, max: 6 });
}

#[test]
fn wrong_bytes_are_forgotten_except_the_only_copy() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = open(dir.path(), 10 * MIB);
    stage(&proxy, "s", b"staged").unwrap();
    stage(&proxy, "w", b"whole").unwrap();
    stage(&proxy, "k", b"kept").unwrap();
    proxy.uploaded("w").unwrap();
    proxy.uploaded("k").unwrap();
    assert!(proxy.keep("k").unwrap());
    assert!(proxy.put_chunk("c", 0, b"chunk").unwrap());
    for object in ["s", "w", "k", "c"] {
        proxy.forget(object, 0..3);
    }
    assert_eq!(["s", "w", "k", "c"].map(|o| proxy.read(o, 0..3).is_some()), [true, false, false, false]);
    assert_eq!(proxy.usage(), Usage { pinned: 6, cached: 0, reserved: 0, max: 10 * MIB });
    assert!(!proxy.keep("k").unwrap());
}

#[test]
fn a_file_that_vanished_counts_as_missing() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = open(dir.path(), 10 * MIB);
    assert!(proxy.put_chunk("c", 0, b"chunk").unwrap());
    std::fs::remove_file(dir.path().join("chunk/c@0")).unwrap();
    assert!(proxy.read("c", 0..5).is_none());
    assert!(proxy.put_chunk("c", 0, b"again").unwrap());
    assert_eq!(proxy.read("c", 0..5).unwrap(), b"again"[..]);
}

#[test]
fn the_byte_cache_forgets_the_oldest() {
    let mut cache = ByteLru::new(10);
    cache.put("a", 1, 4);
    cache.put("b", 2, 4);
    assert_eq!(cache.get(&"a"), Some(1));
    cache.put("c", 3, 4);
    assert_eq!((cache.get(&"a"), cache.get(&"b"), cache.get(&"c"), cache.bytes()), (Some(1), None, Some(3), 8));
    cache.put("d", 4, 11);
    assert_eq!((cache.get(&"d"), cache.bytes()), (None, 8));
}

/// Every object's bytes follow from its name and place, so that a reader can tell wrong ones.
fn expected(object: usize, offset: u64) -> u8 {
    (object as u64 * 31 + offset / 1_000) as u8
}

fn body(object: usize, from: u64, len: u64) -> Vec<u8> {
    (from..from + len).map(|at| expected(object, at)).collect()
}

#[test]
fn many_threads_never_exceed_the_limit_nor_read_foreign_bytes() {
    use rand::{Rng, SeedableRng};
    const MAX: u64 = 600_000;
    let steps: usize = std::env::var("CBFS_TEST_PROXY_STEPS").map_or(400, |steps| steps.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let proxy = open(dir.path(), MAX);
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut random = rand::rngs::StdRng::seed_from_u64(thread as u64);
                for step in 0..steps {
                    let (object, len) = (random.random_range(0..12_usize), random.random_range(1..90_000_u64));
                    let name = format!("o/{object}");
                    match random.random_range(0..8) {
                        0 | 1 => drop(proxy.put_chunk(&name, 0, &body(object, 0, len)).unwrap()),
                        2 => proxy.forget(&name, 0..1),
                        3 => {
                            // Staged under a name of its own: two writers of one object are refused elsewhere.
                            let name = format!("staged/{thread}/{step}");
                            match stage(proxy, &name, &body(thread, 0, len)) {
                                Ok(()) => {
                                    assert_eq!(proxy.read(&name, 0..len).unwrap(), body(thread, 0, len));
                                    proxy.uploaded(&name).unwrap();
                                }
                                Err(error) => assert_eq!(error.kind(), ProxyErrorKind::NoSpace),
                            }
                        }
                        _ => {
                            if let Some(bytes) = proxy.read(&name, len / 2..len) {
                                assert_eq!(bytes, body(object, len / 2, len - len / 2));
                            }
                        }
                    }
                    let usage = proxy.usage();
                    assert!(usage.pinned + usage.cached + usage.reserved <= MAX, "{usage:?}");
                }
            });
        }
    });
    let usage = proxy.usage();
    assert_eq!((usage.pinned, usage.reserved, usage.cached), (0, 0, disk_bytes(dir.path())));
    drop(proxy);
    assert_eq!(open(dir.path(), MAX).usage(), usage);
}
