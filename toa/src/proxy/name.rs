//! File names for object names: readable, and reversible after a restart.

use super::ProxyError;

/// Length of a file name at most; `@` and a chunk number still fit.
const NAME_BYTES_MAX: usize = 240;

/// `object` with everything but letters, digits, `.`, `_` and `-` as `%XX`.
pub fn escape(object: &str) -> Result<String, ProxyError> {
    let mut name = String::with_capacity(object.len() + 8);
    for byte in object.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name == "." || name == ".." {
        return Err(ProxyError::BadName(object.to_owned()));
    }
    Ok(name)
}

/// The object of a file name; `None` if [`escape`] never makes such a name.
pub fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%' {
            let (digits, tail) = rest.split_first_chunk::<2>()?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(first);
        }
    }
    let object = String::from_utf8(bytes).ok()?;
    (escape(&object).ok()? == name).then_some(object)
}

/// Object and number of a chunk's file name.
pub fn unescape_chunk(name: &str) -> Option<(String, u32)> {
    let (object, number) = name.rsplit_once('@')?;
    let parsed = number.parse().ok().filter(|n: &u32| n.to_string() == number)?;
    Some((unescape(object)?, parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_foreign_ones_are_refused() {
        for object in ["fs-1/pack/00-x.tar.zst", "a%b", "é/..", "@1"] {
            assert_eq!(unescape(&escape(object).unwrap()).as_deref(), Some(object));
            let chunk = format!("{}@17", escape(object).unwrap());
            assert_eq!(unescape_chunk(&chunk), Some((object.to_owned(), 17)));
        }
        for bad in ["", ".", "..", &"x".repeat(241)] {
            assert!(escape(bad).is_err(), "{bad:?}");
        }
        for foreign in ["a/b", "a%2f", "a%", "%41", "a@1"] {
            assert_eq!(unescape(foreign), None, "{foreign:?}");
        }
        assert_eq!(unescape_chunk("a@01"), None);
    }
}
