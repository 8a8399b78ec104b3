//! Results on stdout, for people or as JSON lines; failures on stderr.

mod table;

pub use table::Table;

use crate::failure::{Failure, FailureKind};
use crate::logging::scrub;
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, Write};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    JsonLines,
}

/// Prints one result: as JSON, or as `text` says it.
pub fn print(format: Format, value: &impl Serialize, text: &dyn Display) -> Result<(), Failure> {
    match format {
        Format::Text => print_text(text),
        Format::JsonLines => print_line(value),
    }
}

/// Prints a list: one JSON line each, or the table.
pub fn print_list<T: Serialize>(format: Format, values: &[T], table: impl Fn(&[T]) -> Table) -> Result<(), Failure> {
    match format {
        Format::Text => print_text(&table(values)),
        Format::JsonLines => values.iter().try_for_each(print_line),
    }
}

/// Prints text that ends in a newline of its own, or none if it is empty.
pub fn print_text(text: &dyn Display) -> Result<(), Failure> {
    let text = text.to_string();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    write_all(&mut io::stdout().lock(), &format!("{text}{end}"))
}

fn print_line(value: &impl Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(value)
        .map_err(|error| Failure::new(FailureKind::Bug, format!("encode the result: {error}")))?;
    write_all(&mut io::stdout().lock(), &format!("{line}\n"))
}

fn write_all(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `cbfs list | head -1` is not a failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::from_io(&error, "write", std::path::Path::new("stdout")))
        }
        _ => Ok(()),
    }
}

/// `error: …` and `hint: …`, one line each.
pub fn print_failure(failure: &Failure) {
    let one_line = |text: &str| scrub(text).replace('\n', " ");
    let mut text = format!("error: {}\n", one_line(&failure.message));
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("hint: {}\n", one_line(hint)));
    }
    // Nobody is left to be told where stderr is gone.
    drop(io::stderr().lock().write_all(text.as_bytes()));
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

/// What may be missing.
pub fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
