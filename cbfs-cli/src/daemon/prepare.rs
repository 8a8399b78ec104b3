//! From a plan to an instance: the one on this node, or a new one with the config from the bucket.

use super::plan::{Absent, MountPlan};
use crate::address::FsAddress;
use crate::bucket;
use crate::context::Context;
use crate::failure::Failure;
use crate::state::{Instance, Purpose};
use cloud_mgmt::admin;
use cloud_mgmt::config::{AccessMode, FsConfig, FsParameters};
use cloud_mgmt::names::FsName;

/// Finds or makes the instance. Asks the store only if this node does not know the filesystem for that purpose yet.
pub(super) async fn instance(context: &Context, plan: &MountPlan) -> Result<Instance, Failure> {
    if let Some(instance) = context.state.for_purpose(&plan.address, &plan.purpose)? {
        return Ok(instance);
    }
    let url = bucket::store_of(&plan.address, &context.state, &context.node_settings()?)?;
    let store = bucket::connect(&url).await?;
    if plan.absent == Absent::Create {
        url.create_root().await?;
    }
    let (name, config) = match (bucket::find(&store, &wanted(context, &plan.address)?).await?, plan.absent) {
        (Some(name), _) => (name.clone(), admin::read_config(&store, &name).await?),
        (None, Absent::Create) => {
            named(bucket::create(&url, &store, &plan.address.name, FsParameters::default()).await?)?
        }
        (None, Absent::Refuse) => {
            return Err(Failure::not_found(format!("{url} has no filesystem {}", plan.address.name))
                .with_hint(format!("cbfs list {url} shows what there is; --create makes it")));
        }
    };
    let mode = match plan.purpose {
        Purpose::Write => AccessMode::ReadWrite,
        Purpose::Show(_) => AccessMode::ReadOnly,
    };
    config.check_features(mode)?;
    context.state.create_instance(&name, &url.to_string(), &plan.purpose, &config)
}

/// The name to look for: the whole one where this node has another instance of the filesystem.
fn wanted(context: &Context, address: &FsAddress) -> Result<String, Failure> {
    let known = context.state.of_address(address)?;
    Ok(known.first().map_or_else(|| address.name.clone(), |instance| instance.name().to_string()))
}

fn named(config: FsConfig) -> Result<(FsName, FsConfig), Failure> {
    Ok((FsName { tag: config.tag.parse()?, id: config.id }, config))
}
