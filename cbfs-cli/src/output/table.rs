//! Columns for people.

use std::fmt;

/// Rows under a header; columns as wide as they must be.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With that header.
    pub fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|title| (*title).to_owned()).collect()] }
    }

    /// Without a header: names and values.
    pub fn of_values() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // A line break or an escape sequence in a name must not look like another row.
        let plain = |cell: String| cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        self.rows.push(cells.into_iter().map(plain).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |n: usize| self.rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max();
        let widths: Vec<_> = (0..columns).map(|n| width(n).unwrap_or(0)).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_do_not_pass() {
        let mut table = Table::new(&["NAME", "X"]);
        table.row(["a".to_owned(), "long value".to_owned()]);
        table.row(["longer é".to_owned(), "b\n\u{1b}[2J".to_owned()]);
        assert_eq!(table.to_string(), "NAME      X\na         long value\nlonger é  b??[2J\n");
    }
}
