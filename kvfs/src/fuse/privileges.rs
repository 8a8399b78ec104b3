//! What a request leaves of suid and sgid.

use super::groups;
use crate::acl::{AclKind, AclSupport};
use crate::error::{FsError, FsResult};
use crate::fs::api::{Attributes, Caller, FileSystem, Sgid};
use crate::ids::Ino;
use crate::op::Privileges;
use fuser::Request;

const SGID: u32 = 0o2000;

/// The kernel leaves suid and sgid to us (`HANDLE_KILLPRIV_V2`); root keeps them, as with `CAP_FSETID`.
pub(super) fn privileges_of(request: &Request) -> Privileges {
    if request.uid() == 0 { Privileges::Keep } else { Privileges::Drop }
}

/// Whether `caller` owns the file or may write it, so that taking suid and sgid away is in their hands anyway. Groups
/// beyond the first are not known here: a file that its group may write counts.
pub(super) fn may_take_privileges(caller: Caller, shown: &Attributes) -> bool {
    caller.uid == 0 || caller.uid == shown.uid || shown.mode & 0o022 != 0
}

/// What an ACL by `caller` leaves of sgid. The kernel knows, but says so only in an extension of the request that fuser 0.18
/// does not receive.
pub(super) fn sgid_after_acl(
    fs: &dyn FileSystem,
    (node, kind): (Ino, AclKind),
    caller: (Caller, u32),
) -> FsResult<Sgid> {
    match (fs.acls(), kind) {
        (AclSupport::Absent, _) => return Err(FsError::Unsupported),
        (_, AclKind::Default) => return Ok(Sgid::Keep),
        (_, AclKind::Access) => {}
    }
    let (caller, pid) = caller;
    let shown = fs.attributes(node)?;
    let may_keep = shown.mode & SGID == 0 || groups::is_root_or_in_group(caller, pid, shown.gid);
    Ok(if may_keep { Sgid::Keep } else { Sgid::Drop })
}
