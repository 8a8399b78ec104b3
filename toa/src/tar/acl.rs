//! POSIX ACLs: from the kernel's extended attribute to the text that tar keeps.
//!
//! The bytes are those of `linux/posix_acl_xattr.h`: a version, then one entry of tag, permissions and id for each line.
//! The text is the short form that acl_from_text(3), GNU tar, star and libarchive read, with ids as numbers.

/// The only version there is.
const VERSION: u32 = 2;
/// Bytes of an entry.
const ENTRY: usize = 8;

/// The pax keyword of an attribute that holds an ACL; `None` for every other attribute.
pub(super) fn keyword(attribute: &[u8]) -> Option<&'static [u8]> {
    match attribute {
        b"system.posix_acl_access" => Some(b"SCHILY.acl.access"),
        b"system.posix_acl_default" => Some(b"SCHILY.acl.default"),
        _ => None,
    }
}

/// The ACL as text; `None` if the bytes are not one, and are better kept as they are.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || entries.is_empty() || entries.len() % ENTRY != 0 {
        return None;
    }
    let lines: Option<Vec<String>> = entries.chunks_exact(ENTRY).map(line).collect();
    Some(lines?.join(","))
}

fn line(entry: &[u8]) -> Option<String> {
    let (tag, rest) = entry.split_first_chunk::<2>()?;
    let (bits, id) = rest.split_first_chunk::<2>()?;
    let id = u32::from_le_bytes(id.try_into().ok()?);
    let who = match u16::from_le_bytes(*tag) {
        0x01 => "user:".to_owned(),
        0x02 => format!("user:{id}"),
        0x04 => "group:".to_owned(),
        0x08 => format!("group:{id}"),
        0x10 => "mask:".to_owned(),
        0x20 => "other:".to_owned(),
        _ => return None,
    };
    let bits = u16::from_le_bytes(*bits);
    let flag = |bit, letter| if bits & bit != 0 { letter } else { '-' };
    (bits <= 7).then(|| format!("{who}:{}{}{}", flag(4, 'r'), flag(2, 'w'), flag(1, 'x')))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The attribute of these entries: tag, permissions, id.
    pub fn attribute(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
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
