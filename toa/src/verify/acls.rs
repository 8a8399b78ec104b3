//! ACLs by the rules of `docs/formats/config.md`: whether there may be any, and whether they agree with their inodes.

use kvfs::acl::{Acl, AclKind, AclSupport};
use kvfs::schema::{FileKind, InodeValue};

/// What is wrong with an attribute of `inode`, if it is an ACL. `support`: what the config says; `None` if there is no
/// config to ask.
pub(super) fn fault(support: Option<AclSupport>, inode: &InodeValue, name: &[u8], value: &[u8]) -> Option<String> {
    let kind = AclKind::of(name)?;
    let what = match support {
        Some(AclSupport::Absent) => Some("the config does not name the feature posix-acl".to_owned()),
        Some(AclSupport::Enforced) | None => contradiction(inode, kind, value),
    };
    what.map(|what| format!("it has {}, and {what}", name.escape_ascii()))
}

fn contradiction(inode: &InodeValue, kind: AclKind, value: &[u8]) -> Option<String> {
    let acl = match Acl::parse(value) {
        Ok(Some(acl)) => acl,
        Ok(None) => return Some("there are no entries in it".to_owned()),
        Err(_) => return Some(format!("its {} bytes are not a valid ACL", value.len())),
    };
    match kind {
        AclKind::Default if inode.kind == FileKind::Directory => None,
        AclKind::Default => Some("it is no directory".to_owned()),
        AclKind::Access if acl.mode(inode.mode) != inode.mode => {
            Some(format!("by it the mode is {:04o}, by the inode {:04o}", acl.mode(inode.mode), inode.mode))
        }
        AclKind::Access if !acl.exceeds_mode() => Some("it says no more than the mode".to_owned()),
        AclKind::Access => None,
    }
}
