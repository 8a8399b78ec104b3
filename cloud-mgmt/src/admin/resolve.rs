//! From what a user types to one filesystem.

use super::error::AdminError;
use super::list::{names, state_of};
use crate::names::FsName;
use crate::store::ObjectStore;
use std::sync::Arc;

/// Fewer hex digits do not count as the start of a UUID.
const UUID_PREFIX_MIN: usize = 4;

/// The filesystem that `text` names: TAG-UUID, TAG, UUID or the first hex digits of a UUID (at least 4), in this order. Of
/// several with one tag the only one that is not deleted is meant; else [`AdminError::Ambiguous`] lists them.
pub async fn resolve(store: &Arc<dyn ObjectStore>, text: &str) -> Result<FsName, AdminError> {
    let names = names(store).await?;
    let mut found = matching(&names, text);
    if found.len() > 1 {
        let live = only_live(store, &found).await?;
        if live.len() == 1 {
            found = live;
        }
    }
    match found.as_slice() {
        [name] => Ok(name.clone()),
        [] => Err(AdminError::NotFound { store: store.url().to_owned(), text: text.to_owned() }),
        _ => Err(AdminError::Ambiguous { store: store.url().to_owned(), text: text.to_owned(), candidates: found }),
    }
}

fn matching(names: &[FsName], text: &str) -> Vec<FsName> {
    if let Ok(whole) = text.parse::<FsName>() {
        return names.iter().filter(|name| **name == whole).cloned().collect();
    }
    let tagged: Vec<_> = names.iter().filter(|name| name.tag.to_string() == text).cloned().collect();
    let digits: String = text.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
    if !tagged.is_empty() || digits.len() < UUID_PREFIX_MIN {
        return tagged;
    }
    names.iter().filter(|name| name.id.simple().to_string().starts_with(&digits)).cloned().collect()
}

async fn only_live(store: &Arc<dyn ObjectStore>, found: &[FsName]) -> Result<Vec<FsName>, AdminError> {
    let mut live = Vec::new();
    for name in found {
        if state_of(store, name).await?.deleted_seq.is_none() {
            live.push(name.clone());
        }
    }
    Ok(live)
}
