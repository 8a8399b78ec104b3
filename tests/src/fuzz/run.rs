//! The runner: corpus first, then mutations.

use super::mutate::mutate;
use super::{Target, corpus};
use anyhow::{Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// No input takes that long, on whatever machine: one that does hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Memory that one input may take at once, bytes: the largest node or frame (16 MiB), decoded, with room around it.
const MEMORY_BYTES_MAX: usize = 64 << 20;
/// Inputs with verdicts of their own that are mutated further.
const POOL_MAX: usize = 2_000;

/// Tells how much memory is in use.
pub trait Meter {
    /// Bytes now.
    fn now(&self) -> usize;
    /// The most that there ever was, bytes.
    fn most(&self) -> usize;
}

/// For test programs that have another allocator.
#[derive(Clone, Copy, Debug)]
pub struct NoMeter;

impl Meter for NoMeter {
    fn now(&self) -> usize {
        0
    }

    fn most(&self) -> usize {
        0
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Runs a target: the corpus, its seeds, and `CBFS_FUZZ_RUNS` mutations (or for `CBFS_FUZZ_SECONDS`), from the seed
/// `CBFS_FUZZ_SEED`. An input that breaks a rule is written into the corpus, where it stays as a regression.
pub fn run(target: &Target, runs: u64, meter: &dyn Meter) -> Result<()> {
    run_in(&corpus::root().join(target.name), target, runs, meter)
}

/// The same with the corpus in `folder`.
pub fn run_in(folder: &Path, target: &Target, runs: u64, meter: &dyn Meter) -> Result<()> {
    let mut session = Session {
        folder,
        target,
        meter,
        watch: Watch::start(folder),
        pool: Vec::new(),
        seen: BTreeMap::new(),
        grow: std::env::var_os("CBFS_FUZZ_GROW").is_some(),
    };
    let kept = if session.grow { corpus::load(folder).unwrap_or_default() } else { corpus::load(folder)? };
    for input in kept.into_iter().chain((target.seeds)()) {
        session.try_one(input.clone())?;
        session.pool.push(input);
    }
    ensure!(!session.pool.is_empty(), "{} has nothing to begin with", target.name);
    let mut random = StdRng::seed_from_u64(number_from("CBFS_FUZZ_SEED").unwrap_or(1));
    let runs = number_from("CBFS_FUZZ_RUNS").unwrap_or(runs);
    let limit = number_from("CBFS_FUZZ_SECONDS").map(Duration::from_secs);
    let began = Instant::now();
    let mut done = 0;
    while limit.map_or(done < runs, |limit| began.elapsed() < limit) {
        let parent = random.random_range(0..session.pool.len());
        let input = mutate(&session.pool[parent], &session.pool, target.words, &mut random);
        session.try_one(input)?;
        done += 1;
    }
    session.watch.end();
    Ok(())
}

struct Session<'a> {
    folder: &'a Path,
    target: &'a Target,
    meter: &'a dyn Meter,
    watch: Watch,
    pool: Vec<Vec<u8>>,
    /// Verdicts, with the length of the shortest input that gave them.
    seen: BTreeMap<String, usize>,
    grow: bool,
}

impl Session<'_> {
    fn try_one(&mut self, input: Vec<u8>) -> Result<()> {
        self.watch.begins(&input);
        let (before, most) = (self.meter.now(), self.meter.most());
        let verdict = catch_unwind(AssertUnwindSafe(|| (self.target.parse)(&input)));
        let took = self.meter.most().saturating_sub(before);
        self.watch.ended();
        if self.meter.most() > most && took > MEMORY_BYTES_MAX {
            bail!("{}: {took} bytes of memory for {}", self.target.name, self.failed(&input)?);
        }
        let Ok(verdict) = verdict else {
            bail!("{}: a panic (above), kept as {}", self.target.name, self.failed(&input)?);
        };
        let shortest = self.seen.get(&verdict).copied();
        if shortest.is_none_or(|len| input.len() < len) {
            self.seen.insert(verdict.clone(), input.len());
            if self.grow {
                corpus::keep(self.folder, "way", verdict.as_bytes(), &input)?;
            }
            if self.pool.len() < POOL_MAX {
                self.pool.push(input);
            }
        }
        Ok(())
    }

    fn failed(&self, input: &[u8]) -> Result<String> {
        Ok(corpus::keep(self.folder, "failed", input, input)?.display().to_string())
    }
}

/// Ends the process when an input hangs, with the input in the corpus.
struct Watch {
    current: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    running: Option<(Instant, Vec<u8>)>,
    over: bool,
}

impl Watch {
    fn start(folder: &Path) -> Self {
        let folder = folder.to_owned();
        let current = Arc::new(Mutex::new(State::default()));
        let watched = Arc::clone(&current);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(200));
                let state = watched.lock().unwrap_or_else(PoisonError::into_inner);
                if state.over {
                    return;
                }
                if let Some((began, input)) = &state.running
                    && began.elapsed() > PATIENCE
                {
                    // Nothing else can end a loop.
                    let kept = corpus::keep(&folder, "hangs", input, input);
                    abort_with(&format!("an input hangs, kept as {kept:?}"));
                }
            }
        });
        Self { current }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn begins(&self, input: &[u8]) {
        self.set(|state| state.running = Some((Instant::now(), input.to_vec())));
    }

    fn ended(&self) {
        self.set(|state| state.running = None);
    }

    fn end(&self) {
        self.set(|state| state.over = true);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

fn abort_with(message: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{message}\n").as_bytes());
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const SEEDS: fn() -> Vec<Vec<u8>> = || vec![b"0000".to_vec()];
    static MOST: AtomicUsize = AtomicUsize::new(0);

    struct Fake;

    impl Meter for Fake {
        fn now(&self) -> usize {
            0
        }

        fn most(&self) -> usize {
            MOST.load(Ordering::Relaxed)
        }
    }

    /// What a mutation gets to only step by step: each right byte is a new verdict.
    fn deep(bytes: &[u8]) -> usize {
        bytes.iter().zip(b"bug!").take_while(|(a, b)| a == b).count()
    }

    fn panics(bytes: &[u8]) -> String {
        let depth = deep(bytes);
        assert!(depth < 4, "found");
        "x".repeat(depth)
    }

    fn takes_memory(bytes: &[u8]) -> String {
        let depth = deep(bytes);
        if depth == 4 {
            MOST.store(MEMORY_BYTES_MAX + 1, Ordering::Relaxed);
        }
        "x".repeat(depth)
    }

    /// The error, and the input that is kept.
    fn broken(parse: fn(&[u8]) -> String, meter: &dyn Meter) -> (String, Vec<Vec<u8>>) {
        let folder = tempfile::tempdir().unwrap();
        let target = Target { name: "test", seeds: SEEDS, words: &[], parse };
        let error = run_in(folder.path(), &target, 2_000_000, meter).unwrap_err();
        (error.to_string(), corpus::load(folder.path()).unwrap())
    }

    #[test]
    fn a_panic_deep_inside_is_found_and_kept() {
        let (error, kept) = broken(panics, &NoMeter);
        assert!(error.contains("a panic"), "{error}");
        assert!(kept.iter().all(|input| input.starts_with(b"bug!")) && kept.len() == 1, "{kept:?}");
    }

    #[test]
    fn memory_beyond_the_limit_is_found_and_kept() {
        let (error, kept) = broken(takes_memory, &Fake);
        assert!(error.contains("bytes of memory"), "{error}");
        assert!(kept.iter().all(|input| input.starts_with(b"bug!")) && kept.len() == 1, "{kept:?}");
    }

    #[test]
    fn a_target_without_corpus_is_refused() {
        let target = Target { name: "test", seeds: SEEDS, words: &[], parse: panics };
        assert!(run_in(Path::new("/nonexistent"), &target, 1, &NoMeter).is_err());
    }
}
