//! A new instance, all or nothing.

use super::{EngineIdentity, IDENTITY_ROW, InstanceDirs};
use crate::base::Base;
use crate::error::{FsError, FsResult};
use crate::ids::Ino;
use crate::layer::{self, LayerMeta};
use crate::node::NodeStore;
use crate::request::DoneRequests;
use std::fs;
use std::io;

/// Whether the instance was made completely, and whose it is.
pub fn identity_of(node: &NodeStore) -> FsResult<Option<EngineIdentity>> {
    node.get(IDENTITY_ROW)
}

/// Makes the local files of an instance that starts on `base`. The row in the node store comes last: until it is there,
/// nothing was made, and leftovers of an earlier attempt are removed.
pub fn create_instance(
    dirs: &InstanceDirs,
    node: &NodeStore,
    identity: EngineIdentity,
    base: &dyn Base,
) -> FsResult<()> {
    if node.get::<EngineIdentity>(IDENTITY_ROW)?.is_some() {
        return Err(FsError::Exists);
    }
    for dir in [dirs.layers(), dirs.journal(), dirs.data()] {
        let os = |error: &io::Error| FsError::os(&dir.display().to_string(), error);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(os(&error)),
            _ => fs::create_dir_all(&dir).map_err(|e| os(&e))?,
        }
    }
    layer::sync_dir(dirs.root())?;
    let first = Ino::first_of(identity.epoch).max(base.ino_end());
    let is_new = base.xid().0 == 0;
    let meta = LayerMeta {
        number: 0,
        xid_from: base.xid(),
        applied: base.xid(),
        // A new filesystem has nothing below, not even its root.
        ino_floor: if is_new { Ino(0) } else { first },
        ino_end: first,
        totals: base.totals(),
        hiding: false,
        requests: DoneRequests::default(),
        sealed: None,
    };
    drop(layer::create(&dirs.layers(), &meta)?);
    node.persist_row(IDENTITY_ROW, &identity)
}
