//! POSIX ACLs: from the kernel's extended attribute to the text that tar keeps.
//!
//! The text is the short form that acl_from_text(3), GNU tar, star and libarchive read, with ids as numbers.

use kvfs::acl::{self, AclEntry, AclKind, Who};

/// The pax keyword of an attribute that holds an ACL; `None` for every other attribute.
pub(super) fn keyword(attribute: &[u8]) -> Option<&'static [u8]> {
    AclKind::of(attribute).map(|kind| match kind {
        AclKind::Access => &b"SCHILY.acl.access"[..],
        AclKind::Default => b"SCHILY.acl.default",
    })
}

/// The ACL as text; `None` if the bytes are not one, and are better kept as they are.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let entries = acl::entries(value).filter(|entries| !entries.is_empty())?;
    Some(entries.into_iter().map(line).collect::<Vec<_>>().join(","))
}

fn line(entry: AclEntry) -> String {
    let who = match entry.who {
        Who::Owner => "user:".to_owned(),
        Who::User(id) => format!("user:{id}"),
        Who::OwningGroup => "group:".to_owned(),
        Who::Group(id) => format!("group:{id}"),
        Who::Mask => "mask:".to_owned(),
        Who::Other => "other:".to_owned(),
    };
    let flag = |bit, letter| if entry.permissions & bit != 0 { letter } else { '-' };
    format!("{who}:{}{}{}", flag(4, 'r'), flag(2, 'w'), flag(1, 'x'))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The attribute of these entries: tag, permissions, id.
    pub fn attribute(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, bits, id) in entries {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&bits.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn an_acl_is_written_as_acl_from_text_reads_it() {
        let none = u32::MAX;
        let entries =
            [(1, 7, none), (2, 6, 1000), (2, 0, 4_000_000_000), (4, 5, none), (8, 4, 50), (16, 7, none), (32, 1, none)];
        assert_eq!(
            text(&attribute(&entries)).unwrap(),
            "user::rwx,user:1000:rw-,user:4000000000:---,group::r-x,group:50:r--,mask::rwx,other::--x"
        );
    }

    #[test]
    fn what_is_no_acl_is_left_alone() {
        let good = attribute(&[(1, 7, 0)]);
        assert!(text(&good).is_some());
        for bad in [&[][..], &good[..3], &good[..4], &good[..11], &[good.clone(), vec![0]].concat()] {
            assert_eq!(text(bad), None, "{bad:?}");
        }
        assert_eq!(text(&attribute(&[(3, 7, 0)])), None, "an unknown tag");
        assert_eq!(text(&attribute(&[(1, 8, 0)])), None, "unknown permissions");
        assert_eq!(text(&[&3_u32.to_le_bytes()[..], &good[4..]].concat()), None, "another version");
        assert_eq!(keyword(b"user.posix_acl_access"), None);
    }
}
