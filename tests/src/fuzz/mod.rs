//! Parsers against bytes that nobody wrote.
//!
//! A [`Target`] is a function that takes bytes. [`run`] feeds it the committed corpus (`tests/fuzz-corpus/<target>`), what the
//! encoders make, and mutations of both. Whatever the bytes are: no panic, no hang, no memory beyond the declared limits,
//! and what is decoded can be encoded again and means the same.
//!
//! A target tells a *verdict*: which way through the parser the bytes took. Bytes with a verdict that nothing had before
//! are mutated further, and kept in the corpus when `CBFS_FUZZ_GROW` is set: one input, the shortest, for each verdict.

pub mod corpus;
pub mod mutate;
mod run;
pub mod targets;

pub use run::{Meter, NoMeter, run};

/// A parser under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its folder in the corpus.
    pub name: &'static str,
    /// Bytes that an encoder made: where mutation begins.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the format, which mutations put in.
    pub words: &'static [&'static str],
    /// Parses and tells the verdict; panics when a rule is broken.
    pub parse: fn(&[u8]) -> String,
}

/// A verdict from a message: what varies with the input (numbers, quoted text) is left out.
pub fn verdict(message: &dyn std::fmt::Display) -> String {
    let mut verdict = String::new();
    let mut quoted = None;
    for c in message.to_string().chars() {
        match quoted {
            Some(mark) if c == mark => quoted = None,
            Some(_) => {}
            None if matches!(c, '"' | '`') => quoted = Some(c),
            None if c.is_ascii_digit() => {}
            None if c.is_ascii() && !c.is_control() => verdict.push(c),
            None => {}
        }
        if verdict.len() >= 32 {
            break;
        }
    }
    verdict
}
