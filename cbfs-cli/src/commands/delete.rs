//! `cbfs delete`

use crate::address::FsAddress;
use crate::bucket;
use crate::cli::DeleteArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, size};
use cloud_mgmt::admin::{self, DeleteMode};
use serde::Serialize;

#[derive(Serialize)]
struct Deleted {
    name: String,
    dry_run: bool,
    objects: u64,
    bytes: u64,
    kept: Vec<String>,
}

pub(super) async fn run(context: &Context, args: DeleteArgs) -> Result<(), Failure> {
    let address = bucket::canonical(FsAddress::parse(&args.fs)?.without_snapshot()?)?;
    let url = bucket::store_of(&address, &context.state, &context.node_settings()?)?;
    let store = bucket::connect(&url).await?;
    let name = admin::resolve(&store, &address.name).await?;
    let mode = if args.dry_run { DeleteMode::DryRun } else { DeleteMode::Really };
    let report = admin::delete(&store, &name, mode).await?;
    let deleted = Deleted {
        name: report.name.to_string(),
        dry_run: args.dry_run,
        objects: report.objects,
        bytes: report.bytes,
        kept: report.kept,
    };
    let verb = if args.dry_run { "would delete" } else { "deleted" };
    let text = format!(
        "{verb} {}: {} objects, {}, go when garbage is collected",
        deleted.name,
        deleted.objects,
        size(deleted.bytes)
    );
    output::print(context.format, &deleted, &text)
}
