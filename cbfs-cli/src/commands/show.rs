//! `cbfs show`

use crate::address::FsAddress;
use crate::bucket;
use crate::cli::ShowArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, Table, or_dash, size};
use cloud_mgmt::admin::{self, FsOverview};
use cloud_mgmt::ledger::SnapshotEntry;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

#[derive(Serialize)]
struct Shown {
    name: String,
    tag: String,
    id: Uuid,
    store: String,
    created: jiff::Timestamp,
    created_by: String,
    format: u32,
    features: Vec<String>,
    settings: BTreeMap<String, String>,
    properties: BTreeMap<String, String>,
    epoch: u32,
    master: Option<Uuid>,
    master_host: Option<String>,
    master_since: Option<jiff::Timestamp>,
    deleted: Option<jiff::Timestamp>,
    ledger_seq: u64,
    snapshots: Vec<Snapshot>,
}

#[derive(Serialize)]
struct Snapshot {
    id: Uuid,
    name: Option<String>,
    kind: String,
    epoch: u32,
    xid: u64,
    requested: jiff::Timestamp,
    inodes: u64,
    bytes: u64,
    uploaded: u64,
}

impl From<&SnapshotEntry> for Snapshot {
    fn from(entry: &SnapshotEntry) -> Self {
        Self {
            id: entry.id,
            name: entry.name.clone(),
            kind: entry.snapshot_kind.clone(),
            epoch: entry.epoch,
            xid: entry.xid,
            requested: entry.requested,
            inodes: entry.inodes,
            bytes: entry.bytes,
            uploaded: entry.uploaded,
        }
    }
}

impl Shown {
    fn new(fs: FsOverview, store: String) -> Self {
        Self {
            name: fs.name.to_string(),
            tag: fs.name.tag.to_string(),
            id: fs.name.id,
            store,
            created: fs.config.created,
            created_by: fs.config.created_by,
            format: fs.config.format,
            features: fs.config.features,
            settings: fs.config.settings,
            properties: fs.properties,
            epoch: fs.state.epoch,
            master: fs.state.master,
            master_host: fs.holder.as_ref().map(|holder| holder.host.clone()),
            master_since: fs.holder.as_ref().map(|holder| holder.since),
            deleted: fs.deletion.map(|deletion| deletion.time),
            ledger_seq: fs.tail.0,
            snapshots: fs.snapshots.iter().map(|published| Snapshot::from(&*published.snapshot)).collect(),
        }
    }
}

pub(super) async fn run(context: &Context, args: ShowArgs) -> Result<(), Failure> {
    let address = bucket::canonical(FsAddress::parse(&args.fs)?.without_snapshot()?)?;
    let url = bucket::store_of(&address, &context.state, &context.node_settings()?)?;
    let store = bucket::connect(&url).await?;
    let name = admin::resolve(&store, &address.name).await?;
    let shown = Shown::new(admin::show(&store, &name).await?, url.to_string());
    output::print(context.format, &shown, &shown)
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut facts = Table::of_values();
        let mut fact = |name: &str, value: String| facts.row([name.to_owned(), value]);
        fact("name", self.name.clone());
        fact("store", self.store.clone());
        fact("created", format!("{:.0} by {}", self.created, self.created_by));
        if let Some(time) = self.deleted {
            fact("deleted", format!("{time:.0}"));
        }
        match (self.master, &self.master_host, self.master_since) {
            (Some(node), Some(host), Some(since)) => {
                fact("epoch", format!("{} since {since:.0}, master {host} ({node})", self.epoch));
            }
            _ => fact("epoch", format!("{}, nobody has mounted it to write", self.epoch)),
        }
        for feature in &self.features {
            fact("feature", feature.clone());
        }
        for (key, value) in &self.settings {
            fact("setting", format!("{key} = {value}"));
        }
        for (key, value) in &self.properties {
            fact("property", format!("{key} = {value}"));
        }
        writeln!(f, "{facts}")?;
        let mut snapshots = Table::new(&["SNAPSHOT", "NAME", "TAKEN", "EPOCH", "FILES", "SIZE", "UPLOADED"]);
        for snapshot in &self.snapshots {
            snapshots.row([
                snapshot.id.to_string(),
                or_dash(snapshot.name.clone()),
                snapshot.requested.strftime("%F %T").to_string(),
                snapshot.epoch.to_string(),
                snapshot.inodes.to_string(),
                size(snapshot.bytes),
                size(snapshot.uploaded),
            ]);
        }
        write!(f, "{snapshots}")
    }
}
