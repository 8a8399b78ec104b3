//! `cbfs create`

use crate::address::FsAddress;
use crate::bucket;
use crate::cli::CreateArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use cloud_mgmt::config::{FsParameters, POSIX_ACL, ProbeReport};
use serde::Serialize;
use std::collections::BTreeMap;
use uuid::Uuid;

#[derive(Serialize)]
struct Created {
    name: String,
    tag: String,
    id: Uuid,
    store: String,
    created: jiff::Timestamp,
    features: Vec<String>,
    probe: ProbeReport,
    settings: BTreeMap<String, String>,
}

pub(super) async fn run(context: &Context, args: CreateArgs) -> Result<(), Failure> {
    let address = bucket::canonical(FsAddress::parse(&args.fs)?.without_snapshot()?)?;
    let url = match &address.store {
        Some(store) => bucket::parse_store(store)?,
        None => bucket::default_store(&context.node_settings()?)
            .map_err(|failure| failure.with_hint(format!("cbfs create STORE#{}", address.name)))?,
    };
    let store = bucket::connect(&url).await?;
    let features = args.acl.then(|| POSIX_ACL.to_owned()).into_iter().collect();
    let parameters = FsParameters { features, settings: args.set.into_iter().collect() };
    let config = bucket::create(&url, &store, &address.name, parameters).await?;
    let created = Created {
        name: format!("{}-{}", config.tag, config.id),
        tag: config.tag,
        id: config.id,
        store: url.to_string(),
        created: config.created,
        features: config.features,
        probe: config.probe,
        settings: config.settings,
    };
    let text = format!("created {} in {}", created.name, created.store);
    output::print(context.format, &created, &text)
}
