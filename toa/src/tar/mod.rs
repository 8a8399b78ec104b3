//! Members of a tar as bytes: what packs and exports write.

mod acl;
mod header;
mod member;

pub(crate) use header::{BLOCK, device, encode, global, padding, unfinished};
pub use member::{Member, MemberError, MemberKind, Range};
