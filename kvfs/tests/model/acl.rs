//! ACLs of the model: what acl(5) says, once more and by itself.

/// The entries that every ACL has, perhaps a mask, and then perhaps a user and a group by number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelAcl {
    owner: u32,
    user: Option<u32>,
    group: u32,
    named_group: Option<u32>,
    mask: Option<u32>,
    other: u32,
}

impl ModelAcl {
    /// The shape and the permissions are those of the bits of `seed`.
    pub(crate) fn drawn(seed: u32) -> Self {
        let field = |n: u32| seed >> (3 * n) & 7;
        let shape = seed >> 18 & 3;
        Self {
            owner: field(0),
            user: (shape > 1).then(|| field(1)),
            group: field(2),
            named_group: (shape > 2).then(|| field(3)),
            mask: (shape > 0).then(|| field(4)),
            other: field(5),
        }
    }

    /// The bytes of the attribute.
    pub(crate) fn value(&self) -> Vec<u8> {
        let entries = [
            (0x01, Some(self.owner), !0),
            (0x02, self.user, 7),
            (0x04, Some(self.group), !0),
            (0x08, self.named_group, 8),
            (0x10, self.mask, !0),
            (0x20, Some(self.other), !0),
        ];
        let mut bytes = vec![2, 0, 0, 0];
        for (tag, permissions, id) in entries {
            let Some(permissions) = permissions else { continue };
            bytes.extend([tag, 0, permissions as u8, 0]);
            bytes.extend(u32::to_le_bytes(id));
        }
        bytes
    }

    /// The permission bits of the mode that it gives.
    pub(crate) fn permissions(&self) -> u32 {
        self.owner << 6 | self.mask.unwrap_or(self.group) << 3 | self.other
    }

    /// Whether it is more than these bits.
    pub(crate) fn is_kept(&self) -> bool {
        self.mask.is_some()
    }

    /// chmod
    pub(crate) fn set_permissions(&mut self, mode: u32) {
        self.owner = mode >> 6 & 7;
        *self.mask.as_mut().unwrap_or(&mut self.group) = mode >> 3 & 7;
        self.other = mode & 7;
    }

    /// What something that is made with `mode` gets of a default ACL.
    pub(crate) fn inherited(mut self, mode: u32) -> Self {
        self.set_permissions(self.permissions() & mode);
        self
    }
}
