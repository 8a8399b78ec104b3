use super::*;
use proptest::prelude::*;

const OWNER: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;

/// The bytes of these entries: tag, permissions, id.
fn bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

fn acl(entries: &[(u16, u16, u32)]) -> Acl {
    Acl::parse(&bytes(entries)).unwrap().unwrap()
}

#[test]
fn what_is_valid_is_what_the_kernel_takes() {
    let (own, grp, oth) = ((OWNER, 6, NO_ID), (GROUP_OBJ, 4, NO_ID), (OTHER, 0, NO_ID));
    let (usr, nam, msk) = ((USER, 7, 1000), (GROUP, 5, 50), (MASK, 7, NO_ID));
    let valid: [&[_]; 6] = [
        &[own, grp, oth],
        &[own, grp, msk, oth],
        &[own, usr, grp, msk, oth],
        &[own, grp, nam, msk, oth],
        &[own, usr, usr, grp, nam, nam, msk, oth],
        &[own, (USER, 0, 9), usr, grp, msk, oth],
    ];
    for entries in valid {
        let value = bytes(entries);
        assert_eq!(acl(entries).encode(), value, "{entries:?}");
    }
    let invalid: [&[_]; 14] = [
        &[own, grp],
        &[grp, oth],
        &[own, oth],
        &[own, own, grp, oth],
        &[own, grp, grp, oth],
        &[own, grp, oth, oth],
        &[own, grp, msk, msk, oth],
        &[grp, own, oth],
        &[own, oth, grp],
        &[usr, own, grp, msk, oth],
        &[own, usr, grp, oth],
        &[own, grp, nam, oth],
        &[own, grp, nam, oth, msk],
        &[own, (USER, 7, NO_ID), grp, msk, oth],
    ];
    for entries in invalid {
        assert!(matches!(Acl::parse(&bytes(entries)), Err(FsError::Invalid)), "{entries:?}");
    }
}

#[test]
fn bytes_that_are_no_acl_are_refused() {
    let good = bytes(&[(OWNER, 6, NO_ID), (GROUP_OBJ, 4, NO_ID), (OTHER, 0, NO_ID)]);
    assert_eq!(Acl::parse(&[]).unwrap(), None);
    assert_eq!(Acl::parse(&good[..4]).unwrap(), None, "no entries");
    for bad in [&good[..3], &good[..11], &[good.as_slice(), &[0]].concat()] {
        assert!(matches!(Acl::parse(bad), Err(FsError::Invalid)), "{bad:?}");
    }
    let other_version = [&3_u32.to_le_bytes()[..], &good[4..]].concat();
    assert!(matches!(Acl::parse(&other_version), Err(FsError::Invalid)));
    for odd in [(OWNER, 8, NO_ID), (3, 7, NO_ID)] {
        let value = bytes(&[odd, (GROUP_OBJ, 4, NO_ID), (OTHER, 0, NO_ID)]);
        assert!(matches!(Acl::parse(&value), Err(FsError::Invalid)), "{odd:?}");
    }
    // An id where none belongs means nothing, and does not come back.
    assert_eq!(acl(&[(OWNER, 6, 7), (GROUP_OBJ, 4, 7), (OTHER, 0, 7)]).encode(), good);
}

#[test]
fn no_acl_is_longer_than_the_kernel_takes() {
    let named = |count: u32| {
        let mut entries = vec![(OWNER, 6, NO_ID)];
        entries.extend((0..count).map(|id| (USER, 4, id)));
        entries.extend([(GROUP_OBJ, 4, NO_ID), (MASK, 4, NO_ID), (OTHER, 0, NO_ID)]);
        Acl::parse(&bytes(&entries))
    };
    assert_eq!(named(507).unwrap().unwrap().encode().len(), VALUE_BYTES_MAX - 4);
    assert!(matches!(named(508), Err(FsError::ValueTooLarge)));
}

#[test]
fn the_mode_is_owner_mask_and_other() {
    let plain = [(OWNER, 6, NO_ID), (GROUP_OBJ, 5, NO_ID), (OTHER, 1, NO_ID)];
    assert!(!acl(&plain).exceeds_mode());
    assert_eq!(acl(&plain).mode(0o7_000), 0o7_651);
    let masked = [(OWNER, 6, NO_ID), (GROUP_OBJ, 5, NO_ID), (MASK, 2, NO_ID), (OTHER, 1, NO_ID)];
    assert!(acl(&masked).exceeds_mode(), "a mask alone is more than a mode");
    assert_eq!(acl(&masked).mode(0o777), 0o621);
}

#[test]
fn chmod_sets_the_mask_and_leaves_the_group() {
    let full =
        [(OWNER, 7, NO_ID), (USER, 6, 5), (GROUP_OBJ, 5, NO_ID), (GROUP, 4, 6), (MASK, 7, NO_ID), (OTHER, 1, NO_ID)];
    let after =
        [(OWNER, 6, NO_ID), (USER, 6, 5), (GROUP_OBJ, 5, NO_ID), (GROUP, 4, 6), (MASK, 4, NO_ID), (OTHER, 0, NO_ID)];
    assert_eq!(acl(&full).chmod(0o4_640), acl(&after));
}

#[test]
fn what_is_inherited_is_what_both_the_mode_and_the_default_allow() {
    let default = [(OWNER, 7, NO_ID), (USER, 7, 5), (GROUP_OBJ, 5, NO_ID), (MASK, 6, NO_ID), (OTHER, 5, NO_ID)];
    let file = [(OWNER, 6, NO_ID), (USER, 7, 5), (GROUP_OBJ, 5, NO_ID), (MASK, 4, NO_ID), (OTHER, 4, NO_ID)];
    assert_eq!(acl(&default).inherit(0o646), acl(&file));
    assert_eq!(acl(&file).mode(0o2_777), 0o2_644);
    let plain = [(OWNER, 7, NO_ID), (GROUP_OBJ, 5, NO_ID), (OTHER, 0, NO_ID)];
    assert_eq!(acl(&plain).inherit(0o666).mode(0), 0o640, "without a mask the group's entry gives the bits");
}

/// Any valid ACL.
fn any_acl() -> impl Strategy<Value = Acl> {
    let named = |tag| proptest::collection::vec((Just(tag), 0..8_u16, 0..5_u32), 0..3);
    (0..8_u16, named(USER), 0..8_u16, named(GROUP), proptest::option::of(0..8_u16), 0..8_u16).prop_map(
        |(owner, users, group, groups, mask, other)| {
            let mask = mask.or((!users.is_empty() || !groups.is_empty()).then_some(7));
            let mut all = vec![(OWNER, owner, NO_ID)];
            all.extend(users);
            all.push((GROUP_OBJ, group, NO_ID));
            all.extend(groups);
            all.extend(mask.map(|bits| (MASK, bits, NO_ID)));
            all.push((OTHER, other, NO_ID));
            acl(&all)
        },
    )
}

proptest! {
    #[test]
    fn an_acl_and_its_mode_agree(acl in any_acl(), mode in 0_u32..0o10_000) {
        prop_assert_eq!(Acl::parse(&acl.encode()).unwrap().unwrap(), acl.clone());
        let changed = acl.chmod(mode);
        prop_assert_eq!(changed.mode(mode), mode, "after chmod the mode is what was asked for");
        prop_assert_eq!(changed.chmod(acl.mode(0)), acl.clone(), "and chmod undoes chmod");
        prop_assert_eq!(changed.exceeds_mode(), acl.exceeds_mode());
        let child = acl.inherit(mode);
        prop_assert_eq!(child.mode(mode), mode & (acl.mode(0) | !0o777));
        prop_assert_eq!(child.inherit(mode), child.clone());
    }

    #[test]
    fn no_bytes_panic(value in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(Some(acl)) = Acl::parse(&value) {
            prop_assert!(Acl::parse(&acl.encode()).unwrap().is_some());
        }
    }
}
