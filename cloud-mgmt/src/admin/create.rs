//! Making a filesystem: one conditional PUT.

use super::error::AdminError;
use super::list::{names, state_of};
use crate::config::{CONFIG_FORMAT, FsConfig, FsParameters, ProbeReport};
use crate::names::{FsName, Tag};
use crate::store::{ObjectStore, PutOutcome, StoreError, StoreErrorKind};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How often the identical bytes are sent within one call.
const SENDS_MAX: u32 = 4;
/// Pause before they are sent again, milliseconds, times the number of sends so far.
const RESEND_PAUSE_MS: u64 = 20;

/// Makes a filesystem in a store that has passed `probe`. [`AdminError::Exists`] if one that is not deleted has the tag;
/// that look is a courtesy: of two that race both succeed, and are told apart by their UUIDs. On return the config is
/// durable in the bucket.
pub async fn create(
    store: &Arc<dyn ObjectStore>,
    tag: &str,
    parameters: FsParameters,
    probe: ProbeReport,
) -> Result<FsConfig, AdminError> {
    let tag: Tag = tag.parse()?;
    let mut candidates = Vec::new();
    for name in names(store).await?.into_iter().filter(|name| name.tag == tag) {
        if state_of(store, &name).await?.deleted_seq.is_none() {
            candidates.push(name);
        }
    }
    if !candidates.is_empty() {
        return Err(AdminError::Exists { store: store.url().to_owned(), tag: tag.to_string(), candidates });
    }
    create_config(store, tag, parameters, probe).await
}

/// The same, whoever else has the tag: the new one is then addressed by its UUID.
pub async fn create_another(
    store: &Arc<dyn ObjectStore>,
    tag: &str,
    parameters: FsParameters,
    probe: ProbeReport,
) -> Result<FsConfig, AdminError> {
    create_config(store, tag.parse()?, parameters, probe).await
}

async fn create_config(
    store: &Arc<dyn ObjectStore>,
    tag: Tag,
    parameters: FsParameters,
    probe: ProbeReport,
) -> Result<FsConfig, AdminError> {
    let name = FsName { tag, id: Uuid::new_v4() };
    let config = FsConfig {
        format: CONFIG_FORMAT,
        id: name.id,
        tag: name.tag.to_string(),
        created: jiff::Timestamp::now(),
        created_by: concat!("cbfs ", env!("CARGO_PKG_VERSION")).to_owned(),
        op: Uuid::new_v4(),
        features: parameters.features,
        probe,
        settings: parameters.settings,
    };
    publish(store, &name, &config).await?;
    Ok(config)
}

/// Sends the identical bytes until they are known to be there, or the tries are used up.
async fn publish(store: &Arc<dyn ObjectStore>, name: &FsName, config: &FsConfig) -> Result<(), AdminError> {
    let object = name.config_object();
    let bytes = bytes::Bytes::from(config.encode()?);
    let unknown = |cause| AdminError::CreateUnknown { name: name.clone(), cause };
    let mut cause = StoreError::new(StoreErrorKind::Unavailable, "put", &object, "not sent");
    for sends in 1..=SENDS_MAX {
        let answer = store.put_if_absent(&object, bytes.clone()).await;
        if matches!(answer, Ok(PutOutcome::Created)) {
            return Ok(());
        }
        match store.get(&object).await {
            Ok(found) if FsConfig::parse(name, &found)?.op == config.op => return Ok(()),
            Ok(_) => {
                let candidates = vec![name.clone()];
                return Err(AdminError::Exists { store: store.url().into(), tag: config.tag.clone(), candidates });
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(unknown(error)),
        }
        cause = match answer {
            Err(error) => error,
            Ok(_) => StoreError::new(StoreErrorKind::Unavailable, "put", &object, "taken, and yet not there"),
        };
        if !matches!(cause.kind(), StoreErrorKind::Unavailable | StoreErrorKind::Corrupt) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(RESEND_PAUSE_MS * u64::from(sends))).await;
    }
    Err(unknown(cause))
}
