//! The shape of object names that every back end can hold.
//!
//! Components of 1 to 255 bytes joined by single `/`, no `.` or `..`, no NUL, not below the reserved `.tmp`: what a
//! directory can hold and what no S3 server is known to normalise away.

use super::{StoreError, StoreErrorKind};

/// Where the directory back end writes before it links; no object may live below it.
pub(super) const TEMPORARY: &str = ".tmp";
/// The longest key of S3.
const NAME_BYTES_MAX: usize = 900;
/// The longest file name of a directory.
const COMPONENT_BYTES_MAX: usize = 255;

/// Refuses (kind Invalid) a name that some back end could not hold.
pub(super) fn check_name(operation: &'static str, name: &str) -> Result<(), StoreError> {
    let fault = if name.is_empty() {
        Some("an object name must not be empty".to_owned())
    } else {
        fault_of_length(name).or_else(|| name.split('/').find_map(fault_of_component)).or_else(|| fault_of_start(name))
    };
    refuse(operation, name, fault)
}

/// Refuses (kind Invalid) a listing prefix that no name can start with; its last component may be partial or empty.
pub(super) fn check_prefix(operation: &'static str, prefix: &str) -> Result<(), StoreError> {
    let fault = match prefix.rsplit_once('/') {
        None => None,
        Some((whole, _)) => whole.split('/').find_map(fault_of_component).or_else(|| fault_of_start(whole)),
    };
    let nul = || prefix.contains('\0').then(|| "an object name must not contain NUL".to_owned());
    refuse(operation, prefix, fault_of_length(prefix).or(fault).or_else(nul))
}

/// Refuses a prefix of [`super::ObjectStore::list_here`] that is neither empty nor ends with `/`.
pub(super) fn check_folder(operation: &'static str, prefix: &str) -> Result<(), StoreError> {
    let fault = (!prefix.is_empty() && !prefix.ends_with('/')).then(|| "the prefix must end with '/'".to_owned());
    refuse(operation, prefix, fault).and_then(|()| check_prefix(operation, prefix))
}

fn refuse(operation: &'static str, name: &str, fault: Option<String>) -> Result<(), StoreError> {
    fault.map_or(Ok(()), |detail| Err(StoreError::new(StoreErrorKind::Invalid, operation, name, detail)))
}

fn fault_of_length(name: &str) -> Option<String> {
    (name.len() > NAME_BYTES_MAX).then(|| format!("an object name has at most {NAME_BYTES_MAX} bytes"))
}

fn fault_of_start(name: &str) -> Option<String> {
    (name.split('/').next() == Some(TEMPORARY)).then(|| format!("names below {TEMPORARY:?} are reserved"))
}

fn fault_of_component(component: &str) -> Option<String> {
    match component {
        "" => Some("an object name must not start or end with '/' or contain '//'".to_owned()),
        "." | ".." => Some(format!("an object name must not contain the component {component:?}")),
        _ if component.contains('\0') => Some("an object name must not contain NUL".to_owned()),
        _ if component.len() > COMPONENT_BYTES_MAX => {
            Some(format!("a component of an object name has at most {COMPONENT_BYTES_MAX} bytes"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_some_store_cannot_hold_are_refused() {
        let long = "x".repeat(256);
        for bad in ["", "/a", "a/", "a//b", "a/../b", ".", "a\0b", ".tmp", ".tmp/x", &long, &"y/".repeat(600)] {
            let refused = check_name("get", bad).unwrap_err();
            assert_eq!(refused.kind(), StoreErrorKind::Invalid, "{bad:?}");
        }
        for good in ["a", "a/b.c", "a/.tmp", "..a", "é/ü", "home-1/ledger/0000000000000001.json"] {
            check_name("get", good).unwrap();
        }
    }

    #[test]
    fn a_prefix_may_end_anywhere_but_not_escape() {
        for good in ["", "a", "a/", "a/b", "."] {
            check_prefix("list", good).unwrap();
        }
        for bad in ["/", "a//", "../", "a/../", ".tmp/", "\0"] {
            assert!(check_prefix("list", bad).is_err(), "{bad:?}");
        }
        assert!(check_folder("list", "a").is_err());
        check_folder("list", "a/").unwrap();
    }
}
