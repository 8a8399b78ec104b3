//! Stores and the filesystems in them, as commands reach them.

use crate::address::FsAddress;
use crate::failure::{Failure, FailureKind};
use crate::settings::{Settings, keys};
use crate::state::StateDir;
use cloud_mgmt::admin::{self, AdminError};
use cloud_mgmt::config::{FsConfig, FsParameters, ProbeReport};
use cloud_mgmt::names::{FsName, Tag};
use cloud_mgmt::probe::probe_conditional_writes;
use cloud_mgmt::store::url::StoreUrl;
use cloud_mgmt::store::{ObjectStore, RequestCounter, StoreOptions};
use std::sync::Arc;

/// Rounds of the probe: enough for stores whose races go wrong now and then, few enough to wait for.
const PROBE_ROUNDS: u32 = 8;
/// Racers in each.
const PROBE_RACERS: u32 = 6;

/// An address whose store, if it has one, is well-formed and written in the one way that is stored and compared.
pub fn canonical(address: FsAddress) -> Result<FsAddress, Failure> {
    let store = address.store.as_deref().map(parse_store).transpose()?;
    Ok(FsAddress { store: store.map(|url| url.to_string()), ..address })
}

/// A store's address.
pub fn parse_store(text: &str) -> Result<StoreUrl, Failure> {
    Ok(text.parse::<StoreUrl>()?)
}

/// The store of an address: written in it, remembered by an instance on this node, or the setting.
pub fn store_of(address: &FsAddress, state: &StateDir, settings: &Settings) -> Result<StoreUrl, Failure> {
    if let Some(store) = &address.store {
        return parse_store(store);
    }
    if let Some(instance) = state.of_address(address)?.first() {
        return parse_store(&instance.local().store);
    }
    default_store(settings).map_err(|failure| failure.with_hint(format!("cbfs … STORE#{}", address.name)))
}

/// The setting `store`.
pub fn default_store(settings: &Settings) -> Result<StoreUrl, Failure> {
    match settings.text(keys::STORE) {
        Some(store) => parse_store(store),
        None => Err(Failure::invalid("no store is named, and neither CBFS_STORE nor the setting store is set")),
    }
}

/// A client whose calls end within the time that a person waits.
pub async fn connect(url: &StoreUrl) -> Result<Arc<dyn ObjectStore>, Failure> {
    Ok(url.connect(StoreOptions::INTERACTIVE).await?)
}

/// A client for what waits longer than a person does.
pub async fn connect_daemon(url: &StoreUrl, concurrency: usize) -> Result<Arc<dyn ObjectStore>, Failure> {
    Ok(connect_counted(url, concurrency).await?.0)
}

/// [`connect_daemon`], with the counter of what the client asks.
pub async fn connect_counted(
    url: &StoreUrl,
    concurrency: usize,
) -> Result<(Arc<dyn ObjectStore>, Arc<RequestCounter>), Failure> {
    Ok(url.connect_counted(StoreOptions { concurrency, ..StoreOptions::DAEMON }).await?)
}

/// Makes a filesystem: the directory of a directory store, the probe of the store's promise, the config.
pub async fn create(
    url: &StoreUrl,
    store: &Arc<dyn ObjectStore>,
    tag: &str,
    parameters: FsParameters,
) -> Result<FsConfig, Failure> {
    // A bad name must not cost a probe.
    let tag: Tag = tag.parse()?;
    if let Some(key) = parameters.settings.keys().find(|name| keys::find(name).is_some_and(|key| !key.may_be_shared()))
    {
        let what = format!("setting {key}: the bucket must not decide what runs on a node");
        return Err(Failure::invalid(what).with_hint("set it on the node: in cbfs.toml, or with mount --set"));
    }
    url.create_root().await?;
    // The probe has an answer to a lost answer; a person is told after the first one that the store is away.
    match store.head("ledger-hint").await {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        _ => {}
    }
    let probe: ProbeReport = probe_conditional_writes(&**store, "", PROBE_ROUNDS, PROBE_RACERS).await?;
    Ok(admin::create(store, &tag.to_string(), parameters, probe).await?)
}

/// Finds a filesystem by what a user wrote; `None` if the store has none of that name.
pub async fn find(store: &Arc<dyn ObjectStore>, text: &str) -> Result<Option<FsName>, Failure> {
    match admin::resolve(store, text).await {
        Ok(name) => Ok(Some(name)),
        Err(AdminError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Tells at once whether the store answers and still has the filesystem.
pub async fn check_reachable(url: &StoreUrl, name: &FsName) -> Result<(), Failure> {
    match connect(url).await?.head(&name.config_object()).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => {
            Err(Failure::new(FailureKind::NotFound, format!("{url} has no filesystem {name}")))
        }
        Err(error) => Err(error.into()),
    }
}
