//! Which groups a caller is in: a request of FUSE names the first one alone.

use crate::fs::api::Caller;

/// Whether whoever sent a request is root or in `group`. Asked while the request waits, so that its process `pid` is still
/// there. What cannot be found out is no.
pub(super) fn is_root_or_in_group(caller: Caller, pid: u32, group: u32) -> bool {
    let further = || {
        let status = std::fs::read(format!("/proc/{pid}/status")).ok()?;
        further_groups(&String::from_utf8_lossy(&status), caller)
    };
    caller.uid == 0 || caller.gid == group || further().is_some_and(|groups| groups.contains(&group))
}

/// The further groups in a `/proc/<pid>/status`, if it is the caller's: of another process in its place nothing is believed.
fn further_groups(status: &str, caller: Caller) -> Option<Vec<u32>> {
    let numbers = |key: &str| -> Option<Vec<u32>> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().map(|number| number.parse().ok()).collect()
    };
    // The last of four is the one that filesystems see.
    let is_caller = numbers("Uid:")?.last() == Some(&caller.uid) && numbers("Gid:")?.last() == Some(&caller.gid);
    if is_caller { numbers("Groups:") } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\tGroups: 7\nPid:\t9\nUid:\t0\t0\t0\t1000\nGid:\t50\t50\t50\t60\nFDSize:\t64\nGroups:\t4 24 70 \n";

    #[test]
    fn further_groups_are_believed_of_the_caller_alone() {
        let caller = Caller { uid: 1000, gid: 60 };
        assert_eq!(further_groups(STATUS, caller), Some(vec![4, 24, 70]));
        assert_eq!(further_groups(STATUS, Caller { uid: 0, ..caller }), None, "somebody else");
        assert_eq!(further_groups(STATUS, Caller { gid: 50, ..caller }), None, "with another group");
        assert_eq!(further_groups("Uid:\t1000\nGid:\t60\n", caller), None, "cut off");
        assert_eq!(further_groups("Uid:\t1000\nGid:\t60\nGroups:\t\n", caller), Some(vec![]), "none");
    }

    #[test]
    fn who_cannot_be_found_is_in_no_further_group() {
        let caller = Caller { uid: 1000, gid: 60 };
        assert!(is_root_or_in_group(Caller { uid: 0, gid: 0 }, 0, 5));
        assert!(is_root_or_in_group(caller, 0, 60));
        assert!(!is_root_or_in_group(caller, 0, 61));
    }
}
