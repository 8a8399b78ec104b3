//! Nodes: agents on state directories of their own, and the bucket that they share.

use cloud_mgmt::config::{CONFIG_FORMAT, FsConfig, ProbeReport};
use cloud_mgmt::ledger::{History, Ledger};
use cloud_mgmt::names::FsName;
use cloud_mgmt::store::ObjectStore;
use kvfs::engine::InstanceDirs;
use kvfs::fs::FileSystem;
use kvfs::node::{NodeChanges, NodeStore};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use toa::export::{ExportError, ExportSetup, ExportSummary, ExportWatch};
use toa::snapshot::{Event, JobRows};
use toa::{Agent, AgentError, AgentOptions, AgentSetup, Listing, SnapshotSelector, SnapshotState};
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Nothing takes that long; a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bucket {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) name: FsName,
    pub(crate) runtime: Arc<Runtime>,
}

impl Bucket {
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Self {
        let name = FsName { tag: "home".parse().unwrap(), id: Uuid::new_v4() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let bucket = Self { store, name, runtime: Arc::new(runtime.unwrap()) };
        bucket.put(&bucket.name.config_object(), bucket.config().encode().unwrap());
        bucket
    }

    fn config(&self) -> FsConfig {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let probe = ProbeReport { rounds: 0, racers: 0, checked: now };
        FsConfig {
            format: CONFIG_FORMAT,
            id: self.name.id,
            tag: self.name.tag.to_string(),
            created: now,
            created_by: "test".into(),
            op: Uuid::nil(),
            features: Vec::new(),
            probe,
            settings: std::collections::BTreeMap::new(),
        }
    }

    fn setup(&self, dir: PathBuf, node: Uuid) -> AgentSetup {
        AgentSetup {
            store: Arc::clone(&self.store),
            name: self.name.clone(),
            config: self.config(),
            instance_dir: dir,
            host: format!("host-{node}"),
            options: AgentOptions {
                check_interval: Duration::from_millis(50),
                proxy_max_bytes: 1 << 30,
                kvs_max_bytes: None,
                journal_max_bytes: 1 << 30,
                fetch_timeout: Duration::from_secs(5),
                upload_concurrency: 2,
                snapshot_interval: None,
                failure: toa::FailurePolicy::default(),
                listing: Listing::On,
                run_part_bytes: toa::collect::RUN_PART_BYTES,
                summary_every_records: cloud_mgmt::ledger::SUMMARY_EVERY_RECORDS,
                evacuation_bytes_min: toa::EVACUATION_BYTES_MIN,
            },
            alerts: Arc::new(toa::LogOnly),
            runtime: self.runtime.handle().clone(),
            opening: kvfs::engine::Opening::Fresh,
        }
    }

    pub(crate) fn history(&self) -> Arc<History> {
        let ledger = Ledger::new(Arc::clone(&self.store), self.name.clone());
        self.runtime.block_on(ledger.history()).unwrap()
    }

    /// Exports a snapshot: what came out, and what it says of it.
    pub(crate) fn export(&self, snapshot: SnapshotSelector) -> (Vec<u8>, Result<ExportSummary, ExportError>, Heard) {
        let (mut out, mut heard) = (Vec::new(), Heard::default());
        let written = self.export_into(snapshot, &mut out, &mut heard);
        (out, written, heard)
    }

    /// Exports the newest snapshot to an output; `stop`: how long somebody wants it.
    pub(crate) fn export_to(&self, out: &mut dyn Write, stop: Stop) -> Result<ExportSummary, ExportError> {
        self.export_into(SnapshotSelector::Latest, out, &mut Heard { stop, ..Heard::default() })
    }

    fn export_into(
        &self,
        snapshot: SnapshotSelector,
        out: &mut dyn Write,
        heard: &mut Heard,
    ) -> Result<ExportSummary, ExportError> {
        let scratch = tempfile::tempdir().unwrap();
        let config = self.setup(scratch.path().to_owned(), Uuid::nil()).config;
        let setup = ExportSetup {
            store: Arc::clone(&self.store),
            name: self.name.clone(),
            config,
            snapshot,
            scratch: scratch.path().to_owned(),
            fetch_timeout: Duration::from_secs(5),
            runtime: self.runtime.handle().clone(),
        };
        toa::export::open(setup)?.write(out, heard)
    }

    /// The bucket itself.
    pub(crate) fn block_on<T>(&self, run: impl AsyncFnOnce(&dyn ObjectStore) -> T) -> T {
        self.runtime.block_on(run(self.store.as_ref()))
    }

    /// I3: whatever a live snapshot names is there, with its size.
    pub(crate) fn check_references(&self) {
        let mut checked = 0;
        for published in self.history().snapshots() {
            let entry = &published.snapshot;
            let packs = entry.packs_new.iter().map(|p| (&p.object, p.size));
            let listing = entry.listing.iter().map(|l| (&l.object, l.size));
            let runs = entry.runs.iter().map(|r| (&r.object, r.size));
            for (object, size) in runs.chain(packs).chain(listing) {
                assert_eq!(self.runtime.block_on(self.store.head(object)).unwrap().size, size, "{object}");
                checked += 1;
            }
        }
        assert!(checked > 0, "nothing was checked");
        self.check_sound();
    }

    /// What a collector of garbage will do some day: everything that no snapshot uses by the ledger goes.
    pub(crate) fn delete_unused(&self) {
        let history = self.history();
        let retained = history.retained();
        for prefix in [self.name.pack_prefix(), self.name.run_prefix()] {
            for object in self.runtime.block_on(self.store.list(&prefix)).unwrap() {
                if !retained.contains(object.name.as_str()) {
                    self.runtime.block_on(self.store.delete(&object.name)).unwrap();
                }
            }
        }
    }
}

/// Whether an export is wanted to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stop {
    /// When that has been asked so often.
    After(u32),
    #[default]
    Never,
}

/// What an export tells while it runs.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) bytes: u64,
    pub(crate) skipped: Vec<Vec<u8>>,
    pub(crate) stop: Stop,
    asked: std::cell::Cell<u32>,
}

impl ExportWatch for Heard {
    fn done(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    fn skipped(&mut self, path: &[u8]) {
        self.skipped.push(path.to_vec());
    }

    fn is_stopping(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        matches!(self.stop, Stop::After(asked) if asked < self.asked.get())
    }
}

pub(crate) struct Node {
    dir: Option<TempDir>,
    setup: AgentSetup,
    agent: Option<Arc<Agent>>,
    runtime: Arc<Runtime>,
}

impl Node {
    fn open(
        bucket: &Bucket,
        open: impl FnOnce(&Runtime, AgentSetup) -> Result<Arc<Agent>, AgentError>,
    ) -> Result<Node, AgentError> {
        let dir = tempfile::tempdir().unwrap();
        let setup = bucket.setup(dir.path().to_owned(), Uuid::new_v4());
        let agent = open(&bucket.runtime, setup.clone())?;
        Ok(Node { dir: Some(dir), setup, agent: Some(agent), runtime: Arc::clone(&bucket.runtime) })
    }

    pub(crate) fn try_master(bucket: &Bucket) -> Result<Node, AgentError> {
        Self::open(bucket, |runtime, setup| runtime.block_on(Agent::open_master(setup)))
    }

    pub(crate) fn try_slave(bucket: &Bucket, snapshot: SnapshotSelector) -> Result<Node, AgentError> {
        Self::open(bucket, |runtime, setup| runtime.block_on(Agent::open_slave(setup, snapshot)))
    }

    /// A master that differs.
    pub(crate) fn master_with(bucket: &Bucket, differs: impl FnOnce(&mut AgentSetup)) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let mut setup = bucket.setup(dir.path().to_owned(), Uuid::new_v4());
        differs(&mut setup);
        let agent = Some(bucket.runtime.block_on(Agent::open_master(setup.clone())).unwrap());
        Node { dir: Some(dir), setup, agent, runtime: Arc::clone(&bucket.runtime) }
    }

    /// Its own directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    pub(crate) fn master(bucket: &Bucket) -> Node {
        Self::try_master(bucket).unwrap()
    }

    pub(crate) fn slave(bucket: &Bucket, snapshot: SnapshotSelector) -> Node {
        Self::try_slave(bucket, snapshot).unwrap()
    }

    pub(crate) fn agent(&self) -> &Arc<Agent> {
        self.agent.as_ref().unwrap()
    }

    pub(crate) fn fs(&self) -> Arc<dyn FileSystem> {
        self.agent().file_system()
    }

    pub(crate) fn promote(&self, epoch: u32) -> Result<u32, AgentError> {
        self.runtime.block_on(self.agent().promote(epoch))
    }

    /// Closed and opened again, as a master.
    pub(crate) fn restarted(self) -> Node {
        self.closed().started()
    }

    /// As if this node had never read its journal: no request has become a job.
    pub(crate) fn with_lost_place(self) -> Node {
        let closed = self.closed();
        let rows = Arc::new(NodeStore::open(&InstanceDirs::new(&closed.setup.instance_dir).node()).unwrap());
        let mut changes = NodeChanges::default();
        rows.persist(changes.remove("consumer/toa")).unwrap();
        let jobs = JobRows::new(rows);
        for job in jobs.open().unwrap() {
            jobs.forget(&job).unwrap();
        }
        drop(jobs);
        closed.started()
    }

    /// As [`Node::with_lost_place`], but the place is the journal's beginning, and there it is damaged.
    pub(crate) fn with_damaged_journal(self) -> Node {
        let closed = self.closed();
        let dirs = InstanceDirs::new(&closed.setup.instance_dir);
        let rows = Arc::new(NodeStore::open(&dirs.node()).unwrap());
        rows.persist_row("consumer/toa", &kvfs::engine::Consumer { next: kvfs::Xid(1), gap: None }).unwrap();
        let jobs = JobRows::new(rows);
        for job in jobs.open().unwrap() {
            jobs.forget(&job).unwrap();
        }
        drop(jobs);
        let segments = std::fs::read_dir(dirs.journal()).unwrap().map(|entry| entry.unwrap().path());
        let has_records = |path: &PathBuf| std::fs::metadata(path).unwrap().len() > 4096 + 64;
        let segments = segments.filter(|path| path.extension().is_some_and(|ext| ext == "journal"));
        let first = segments.filter(has_records).min().unwrap();
        let mut bytes = std::fs::read(&first).unwrap();
        // In the body of the first record, behind the header's page and the frame.
        bytes[4096 + 17] ^= 1;
        std::fs::write(&first, bytes).unwrap();
        closed.started()
    }

    /// Restarted, whether it could close or not: its disk may have failed.
    pub(crate) fn restarted_after_failure(mut self) -> Node {
        let agent = self.agent.take().unwrap();
        let _ = self.runtime.block_on(agent.close());
        drop(agent);
        Node { dir: self.dir.take(), setup: self.setup.clone(), agent: None, runtime: Arc::clone(&self.runtime) }
            .started()
    }

    fn closed(mut self) -> Node {
        let agent = self.agent.take().unwrap();
        self.runtime.block_on(agent.close()).unwrap();
        Node { dir: self.dir.take(), setup: self.setup.clone(), agent: None, runtime: Arc::clone(&self.runtime) }
    }

    /// Opens a node that is not running, as a master.
    pub(crate) fn started(mut self) -> Node {
        let setup = AgentSetup { host: "again".into(), ..self.setup.clone() };
        let agent = Some(self.runtime.block_on(Agent::open_master(setup)).unwrap());
        Node { dir: self.dir.take(), setup: self.setup.clone(), agent, runtime: Arc::clone(&self.runtime) }
    }

    /// Restarted, and what a backup of its disk from in between would be: the same node, not running. Nothing was packed
    /// when it was made.
    pub(crate) fn backed_up(self) -> (Node, Node) {
        let closed = self.closed();
        let dir = tempfile::tempdir().unwrap();
        copy_tree(&closed.setup.instance_dir, dir.path());
        let rows = Arc::new(NodeStore::open(&InstanceDirs::new(dir.path()).node()).unwrap());
        let jobs = JobRows::new(rows);
        for mut job in jobs.open().unwrap() {
            if matches!(job.state, SnapshotState::Staged | SnapshotState::Uploading) {
                job.step(Event::Spoiled).unwrap();
                jobs.persist(&job).unwrap();
            }
        }
        drop(jobs);
        let setup = AgentSetup { instance_dir: dir.path().to_owned(), ..closed.setup.clone() };
        let backup = Node { dir: Some(dir), setup, agent: None, runtime: Arc::clone(&closed.runtime) };
        (closed.started(), backup)
    }

    pub(crate) fn until(&self, done: impl Fn(&Agent) -> bool) {
        let began = Instant::now();
        while !done(self.agent()) {
            assert!(began.elapsed() < PATIENCE, "still waiting: {:?}", self.agent().status());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end of a snapshot.
    pub(crate) fn finished(&self, name: &str) -> SnapshotState {
        self.until(|agent| agent.snapshot(name).unwrap().state.is_final());
        let status = self.agent().snapshot(name).unwrap();
        assert_eq!(status.problem, None, "{status:?}");
        status.state
    }
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            let _ = self.runtime.block_on(agent.close());
        }
    }
}
