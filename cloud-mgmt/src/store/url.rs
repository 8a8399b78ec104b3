//! Addresses of stores: `s3://bucket[/prefix][?…]` or `file:///dir`.

use super::dir::DirStore;
use super::s3::S3Store;
use super::{Counted, ObjectStore, RequestCounter, StoreError, StoreErrorKind, StoreOptions};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use url::Url;

/// An address as it should look, for messages.
const EXAMPLE_S3: &str = "s3://my-bucket/backups?endpoint=https://s3.example.org&region=eu-central-1";
/// The other one.
const EXAMPLE_DIR: &str = "file:///srv/cbfs";
/// Bytes of a path that would end it or be read as an escape.
const PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#').add(b'"').add(b'<').add(b'>').add(b'`');
/// Bytes of a query value that would end it.
const QUERY: &AsciiSet = &PATH.add(b'&').add(b'+').add(b'=').add(b'\'');

/// Where a store is. Holds no credentials: they come from the environment or the AWS profile alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StoreUrl {
    /// A bucket of an S3 server.
    S3(S3Address),
    /// A directory used as a bucket; the path is absolute.
    Directory(PathBuf),
}

/// How requests name the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addressing {
    /// `https://endpoint/bucket/key`
    Path,
    /// `https://bucket.endpoint/key`
    VirtualHost,
}

/// A bucket, perhaps a folder in it, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct S3Address {
    /// The bucket.
    pub bucket: String,
    /// Components joined by `/`, without one at either end; empty for the whole bucket.
    pub prefix: String,
    /// `http(s)://host[:port][/path]`; `None` means what the environment or the profile says, AWS at last.
    pub endpoint: Option<String>,
    /// The region; `None` means what the environment or the profile says.
    pub region: Option<String>,
    /// `None` means by path with an endpoint, by host without.
    pub addressing: Option<Addressing>,
}

impl StoreUrl {
    /// A client of that store. Sends nothing: a store that is away or missing shows at the first call.
    pub async fn connect(&self, options: StoreOptions) -> Result<Arc<dyn ObjectStore>, StoreError> {
        Ok(self.connect_counted(options).await?.0)
    }

    /// [`Self::connect`], with the counter of what the client asks.
    pub async fn connect_counted(
        &self,
        options: StoreOptions,
    ) -> Result<(Arc<dyn ObjectStore>, Arc<RequestCounter>), StoreError> {
        match self {
            Self::S3(address) => {
                let store = S3Store::connect(address, options).await?;
                let counter = Arc::clone(store.counter());
                Ok((Arc::new(store), counter))
            }
            Self::Directory(path) => {
                let counter = Arc::new(RequestCounter::default());
                let store = Counted::new(Arc::new(DirStore::new(path, options)), Arc::clone(&counter));
                Ok((Arc::new(store), counter))
            }
        }
    }

    /// Makes the directory of a directory store, with its parents, durably; one that is there is fine. A bucket of an S3
    /// server is never made: that is its owner's business.
    pub async fn create_root(&self) -> Result<(), StoreError> {
        match self {
            Self::S3(_) => Ok(()),
            Self::Directory(path) => DirStore::new(path, StoreOptions::INTERACTIVE).create_root().await,
        }
    }
}

/// A malformed address. Whatever could be a password in it is left out of the message.
fn invalid(text: &str, detail: impl fmt::Display) -> StoreError {
    let shown = match text.rsplit_once('@') {
        None => text.to_owned(),
        Some((_, rest)) => format!("…@{rest}"),
    };
    let detail = format!("{detail} (example: {EXAMPLE_S3} or {EXAMPLE_DIR})");
    StoreError::new(StoreErrorKind::Invalid, "store address", shown, detail)
}

impl FromStr for StoreUrl {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        if text.contains('#') {
            return Err(invalid(text, "a store address has no '#'; write %23 for one in a path"));
        }
        match text.split_once("://") {
            Some(("s3", rest)) => parse_s3(text, rest).map(Self::S3),
            Some(("file", rest)) => parse_directory(text, rest).map(Self::Directory),
            Some((scheme, _)) => Err(invalid(text, format_args!("unknown scheme {scheme:?}, use s3 or file"))),
            None if text.starts_with('/') => Err(invalid(text, format_args!("a directory is written file://{text}"))),
            None => Err(invalid(text, "it must start with s3:// or file:///")),
        }
    }
}

fn parse_directory(text: &str, rest: &str) -> Result<PathBuf, StoreError> {
    if rest.contains('?') {
        return Err(invalid(text, "a file address takes no '?' parameters; write %3F for one in a path"));
    }
    let path = PathBuf::from(OsString::from_vec(percent_decode_str(rest).collect()));
    if !path.is_absolute() {
        return Err(invalid(text, "the path must be absolute, with three slashes after file:"));
    }
    if path.as_os_str().as_bytes().contains(&0) || path.components().any(|c| c == Component::ParentDir) {
        return Err(invalid(text, "the path must not contain '..' or NUL"));
    }
    Ok(path.components().collect())
}

fn parse_s3(text: &str, rest: &str) -> Result<S3Address, StoreError> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.contains('@') {
        return Err(invalid(text, "credentials do not belong in an address: set AWS_ACCESS_KEY_ID or a profile"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !(3..=63).contains(&bucket.len())
        || !bucket.chars().all(plain)
        || !bucket.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Err(invalid(text, format_args!("{bucket:?} is not a bucket name: 3 to 63 letters, digits, '.', '-'")));
    }
    let prefix = percent_decode_str(prefix.strip_suffix('/').unwrap_or(prefix))
        .decode_utf8()
        .map_err(|_| invalid(text, "the prefix is not UTF-8"))?;
    let bad = |component: &str| matches!(component, "" | "." | "..") || component.contains('\0');
    if !prefix.is_empty() && prefix.split('/').any(bad) {
        return Err(invalid(text, "the prefix must not contain '//', '.' or '..' components"));
    }
    let address = S3Address {
        bucket: bucket.to_owned(),
        prefix: prefix.into_owned(),
        endpoint: None,
        region: None,
        addressing: None,
    };
    url::form_urlencoded::parse(query.as_bytes())
        .try_fold(address, |address, (key, value)| with_parameter(text, address, (&key, &value)))
}

fn with_parameter(text: &str, mut address: S3Address, (key, value): (&str, &str)) -> Result<S3Address, StoreError> {
    let repeated = match key {
        "endpoint" => address.endpoint.replace(parse_endpoint(text, value)?).is_some(),
        "region" if value.is_empty() || !value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') => {
            return Err(invalid(text, format_args!("{value:?} is not a region")));
        }
        "region" => address.region.replace(value.to_owned()).is_some(),
        "path-style" => {
            let addressing = match value {
                "true" => Addressing::Path,
                "false" => Addressing::VirtualHost,
                _ => return Err(invalid(text, format_args!("path-style is true or false, not {value:?}"))),
            };
            address.addressing.replace(addressing).is_some()
        }
        _ => {
            let detail = format!("unknown parameter {key:?}; there are endpoint, region and path-style");
            return Err(invalid(text, detail));
        }
    };
    if repeated { Err(invalid(text, format_args!("{key:?} is given twice"))) } else { Ok(address) }
}

fn parse_endpoint(text: &str, value: &str) -> Result<String, StoreError> {
    let url = Url::parse(value)
        .map_err(|e| invalid(text, format_args!("the endpoint {value:?} is not a URL like https://host:port: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(invalid(text, format_args!("the endpoint {value:?} must start with http:// or https://")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(text, "credentials do not belong in an endpoint: set AWS_ACCESS_KEY_ID or a profile"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid(text, "the endpoint must not have a query of its own"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3(address) => address.fmt(f),
            Self::Directory(path) => write!(f, "file://{}", encoded_path(path)),
        }
    }
}

fn encoded_path(path: &Path) -> String {
    match path.to_str() {
        Some(text) => utf8_percent_encode(text, PATH).to_string(),
        None => percent_encoding::percent_encode(path.as_os_str().as_bytes(), PATH).to_string(),
    }
}

impl fmt::Display for S3Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", utf8_percent_encode(&self.prefix, PATH))?;
        }
        let addressing = self.addressing.map(|addressing| match addressing {
            Addressing::Path => "true",
            Addressing::VirtualHost => "false",
        });
        let parameters =
            [("endpoint", self.endpoint.as_deref()), ("region", self.region.as_deref()), ("path-style", addressing)];
        let given = parameters.into_iter().filter_map(|(key, value)| value.map(|value| (key, value)));
        for (n, (key, value)) in given.enumerate() {
            let mark = if n == 0 { '?' } else { '&' };
            write!(f, "{mark}{key}={}", utf8_percent_encode(value, QUERY))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> StoreUrl {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn addresses_mean_what_they_say() {
        let StoreUrl::S3(plain) = parse("s3://my-bucket") else { panic!("not S3") };
        assert_eq!((plain.bucket.as_str(), plain.prefix.as_str()), ("my-bucket", ""));
        assert_eq!((plain.endpoint, plain.region, plain.addressing), (None, None, None));
        let full = "s3://b-1/x/y/?endpoint=http://127.0.0.1:8333/&region=eu-west-1&path-style=false";
        let StoreUrl::S3(full) = parse(full) else { panic!("not S3") };
        assert_eq!(full.prefix, "x/y");
        assert_eq!(full.endpoint.as_deref(), Some("http://127.0.0.1:8333"));
        assert_eq!(full.addressing, Some(Addressing::VirtualHost));
        assert_eq!(parse("file:///srv/a%20b/"), StoreUrl::Directory("/srv/a b".into()));
    }

    #[test]
    fn a_bad_address_says_what_is_wrong() {
        for (bad, why) in [
            ("", "must start with"),
            ("/srv/x", "file:///srv/x"),
            ("gs://bucket", "unknown scheme"),
            ("file://srv/x", "absolute"),
            ("file:///srv/../x", "'..'"),
            ("file:///x?region=a", "takes no"),
            ("s3://", "not a bucket name"),
            ("s3://ab", "not a bucket name"),
            ("s3://bucket/a//b", "'//'"),
            ("s3://bucket#home", "'#'"),
            ("s3://bucket?endpoint=127.0.0.1:80", "endpoint"),
            ("s3://bucket?endpoint=ftp://x", "http://"),
            ("s3://bucket?path-style=yes", "true or false"),
            ("s3://bucket?zone=a", "unknown parameter"),
            ("s3://bucket?region=a&region=b", "twice"),
        ] {
            let refused = bad.parse::<StoreUrl>().expect_err(bad);
            assert_eq!(refused.kind(), StoreErrorKind::Invalid);
            let message = refused.to_string();
            assert!(message.contains(why) && message.contains("example"), "{bad}: {message}");
        }
    }

    #[test]
    fn a_password_is_never_repeated() {
        for bad in ["s3://KEY:hunter2@bucket", "s3://bucket?endpoint=http://u:hunter2@host"] {
            let refused = bad.parse::<StoreUrl>().expect_err(bad);
            assert!(!refused.to_string().contains("hunter2"), "{refused}");
            assert!(refused.to_string().contains("credentials do not belong"), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_to_the_same(
            prefix in prop::collection::vec("[a-zA-Z0-9 %?#&=+é._-]{0,6}x", 0..3),
            port in prop::option::of(1000u16..),
            region in prop::option::of("[a-z]{2}-[0-9]"),
            addressing in prop::option::of(prop_oneof![Just(Addressing::Path), Just(Addressing::VirtualHost)]),
        ) {
            let address = S3Address {
                bucket: "some.bucket-1".to_owned(),
                prefix: prefix.join("/"),
                endpoint: port.map(|port| format!("http://127.0.0.1:{port}")),
                region,
                addressing,
            };
            let url = StoreUrl::S3(address);
            prop_assert_eq!(url.to_string().parse::<StoreUrl>().unwrap(), url);
            let directory = StoreUrl::Directory(format!("/{}", prefix.join("/")).into());
            prop_assert_eq!(directory.to_string().parse::<StoreUrl>().unwrap(), directory);
        }

        #[test]
        fn no_text_panics(text in "(s3|file)?(://)?.{0,40}") {
            let _ = text.parse::<StoreUrl>();
        }
    }
}
