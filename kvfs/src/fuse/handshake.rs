//! What is agreed with the kernel when the connection begins.

use crate::acl::AclSupport;
use fuser::{InitFlags, KernelConfig};
use std::io;

/// One request carries so much: what the kernel's page limit allows, and few enough transactions for large writes.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Read-ahead and writeback requests in flight.
const BACKGROUND_MAX: u16 = 64;

/// Each is taken if the kernel has it. `SETXATTR_EXT` stays away because fuser 0.18 panics on it.
const CAPABILITIES: [InitFlags; 9] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_ASYNC_DIO,
    // Without it every write(2) asks for security.capability first.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_NO_OPEN_SUPPORT,
    InitFlags::FUSE_HAS_RESEND,
];

/// The kernel decides by ACLs, and leaves the umask to us: a default ACL takes its place.
const ACL_CAPABILITIES: InitFlags = InitFlags::FUSE_POSIX_ACL.union(InitFlags::FUSE_DONT_MASK);

/// Asks for our set; answers with what this kernel does not offer.
pub(super) fn negotiate(config: &mut KernelConfig, acls: AclSupport) -> io::Result<InitFlags> {
    // To a kernel that does not know ACLs a mask is what the group may do.
    if acls == AclSupport::Enforced && config.add_capabilities(ACL_CAPABILITIES).is_err() {
        let what = "the filesystem has POSIX ACLs, and this kernel does not enforce them for FUSE";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    let mut missing = InitFlags::empty();
    for capability in CAPABILITIES {
        if config.add_capabilities(capability).is_err() {
            tracing::debug!(?capability, "not offered by this kernel");
            missing |= capability;
        }
    }
    let refused =
        [config.set_max_write(WRITE_BYTES_MAX).err(), config.set_max_background(BACKGROUND_MAX).err().map(u32::from)];
    for nearest in refused.into_iter().flatten() {
        tracing::warn!(nearest, "a limit of requests was refused");
    }
    Ok(missing)
}
