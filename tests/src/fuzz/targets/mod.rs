//! The parsers of the libraries, one function of bytes each. Those of the program are in `cbfs-cli/src/fuzz.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken rule ends the input, and the runner says which

mod disk;
mod ledger;
mod local;
mod names;
mod pack;
mod run;
mod schema;

use super::Target;

/// All of them.
pub const ALL: [Target; 18] = [
    schema::KEY,
    schema::VALUE,
    schema::OPERATION,
    run::FOOTER,
    run::NODE,
    run::RUN,
    pack::FRAME,
    ledger::RECORD,
    ledger::CHAIN,
    ledger::WRITTEN,
    ledger::SUMMARY,
    ledger::HINT,
    ledger::CONFIG,
    names::OBJECT,
    names::PROXY,
    names::STORE_URL,
    local::JOURNAL,
    local::DATA,
];

/// Reads an input piece by piece; behind its end there are zeros.
struct Pieces<'a>(&'a [u8]);

impl<'a> Pieces<'a> {
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (now, later) = self.0.split_at(len.min(self.0.len()));
        self.0 = later;
        now
    }

    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn number(&mut self, width: usize) -> u64 {
        let mut wide = [0; 8];
        for (to, from) in wide.iter_mut().zip(self.bytes(width)) {
            *to = *from;
        }
        u64::from_le_bytes(wide)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
