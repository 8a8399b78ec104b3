//! `cbfs list`

use crate::bucket;
use crate::cli::ListArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, Table, or_dash, size};
use cloud_mgmt::admin::{self, DeletedFilter, FsSummary};
use serde::Serialize;
use uuid::Uuid;

#[derive(Serialize)]
struct Line {
    name: String,
    tag: String,
    id: Uuid,
    created: Option<jiff::Timestamp>,
    deleted: bool,
    epoch: u32,
    master: Option<Uuid>,
    snapshot: Option<Uuid>,
    snapshot_time: Option<jiff::Timestamp>,
    inodes: Option<u64>,
    bytes: Option<u64>,
    problem: Option<String>,
}

impl From<FsSummary> for Line {
    fn from(fs: FsSummary) -> Self {
        let newest = fs.newest.as_deref();
        Self {
            name: fs.name.to_string(),
            tag: fs.name.tag.to_string(),
            id: fs.name.id,
            created: fs.created,
            deleted: fs.is_deleted(),
            epoch: fs.state.epoch,
            master: fs.state.master,
            snapshot: newest.map(|s| s.id),
            snapshot_time: newest.map(|s| s.requested),
            inodes: newest.map(|s| s.inodes),
            bytes: newest.map(|s| s.bytes),
            problem: fs.problem,
        }
    }
}

pub(super) async fn run(context: &Context, args: ListArgs) -> Result<(), Failure> {
    let url = match &args.store {
        Some(store) => bucket::parse_store(store)?,
        None => bucket::default_store(&context.node_settings()?)
            .map_err(|failure| failure.with_hint("cbfs list s3://my-bucket"))?,
    };
    let store = bucket::connect(&url).await?;
    let deleted = if args.deleted { DeletedFilter::Show } else { DeletedFilter::Hide };
    let lines: Vec<_> = admin::list(&store, deleted).await?.into_iter().map(Line::from).collect();
    output::print_list(context.format, &lines, table)
}

fn table(lines: &[Line]) -> Table {
    let mut table = Table::new(&["NAME", "CREATED", "EPOCH", "LAST SNAPSHOT", "SIZE", "NOTE"]);
    for line in lines {
        let note = match (&line.problem, line.deleted) {
            (Some(problem), _) => problem.as_str(),
            (None, true) => "deleted",
            (None, false) => "",
        };
        table.row([
            line.name.clone(),
            or_dash(line.created.map(|time| time.strftime("%F").to_string())),
            line.epoch.to_string(),
            or_dash(line.snapshot_time.map(|time| time.strftime("%F %T").to_string())),
            or_dash(line.bytes.map(size)),
            note.to_owned(),
        ]);
    }
    table
}
