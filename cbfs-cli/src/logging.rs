//! Logs: to stderr, for people or a journal, never with credentials in them.

use std::io::{self, Write};
use std::sync::Arc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How much is said unless `CBFS_LOG` says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Commands: what a person must know.
    Command,
    /// Daemons: the life of the mount.
    Daemon,
}

/// Starts logging, once per process.
pub fn start(verbosity: Verbosity) {
    let default = match verbosity {
        Verbosity::Command => "error",
        Verbosity::Daemon => "warn,aws_config::imds=error,cbfs=info,toa=info,kvfs=info,cloud_mgmt=info",
    };
    let filter = EnvFilter::try_from_env("CBFS_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let writer = ScrubbingWriter { secrets: Arc::new(secrets_of_environment()) };
    let started = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false).try_init();
    if started.is_err() {
        tracing::debug!("logging was started already");
    }
}

/// Values that must not be shown.
fn secrets_of_environment() -> Vec<String> {
    let names =
        ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_CONTAINER_AUTHORIZATION_TOKEN"];
    names.iter().filter_map(|name| std::env::var(name).ok()).filter(|value| value.len() >= 4).collect()
}

/// `text` without the credentials of the environment and without `user:password@` in URLs.
pub fn scrub(text: &str) -> String {
    scrub_with(text, &secrets_of_environment())
}

fn scrub_with(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        text = text.replace(secret.as_str(), "[redacted]");
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((head, tail)) = rest.split_once("://") {
        out.push_str(head);
        out.push_str("://");
        let authority = tail.find(['/', '?', '#', '&', ' ', '"', '\n']).unwrap_or(tail.len());
        let (authority, after) = tail.split_at(authority);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str("[redacted]@");
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[derive(Clone)]
struct ScrubbingWriter {
    secrets: Arc<Vec<String>>,
}

impl<'a> MakeWriter<'a> for ScrubbingWriter {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { secrets: Arc::clone(&self.secrets) }
    }
}

/// One event; the formatter writes it whole.
struct Line {
    secrets: Arc<Vec<String>>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        io::stderr().lock().write_all(scrub_with(&text, &self.secrets).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_pass() {
        let secrets = vec!["s3cr3t".to_owned()];
        assert_eq!(scrub_with("key=s3cr3t, again s3cr3t.", &secrets), "key=[redacted], again [redacted].");
        assert_eq!(
            scrub_with("get s3://b?endpoint=http://joe:pw@host:1/x and http://h/a@b", &secrets),
            "get s3://b?endpoint=http://[redacted]@host:1/x and http://h/a@b"
        );
        assert_eq!(scrub_with("nothing here", &secrets), "nothing here");
    }
}
