//! Aligned columns of text for people: a frame-less table that reads the same on a terminal and in a file.

use super::console::{Role, Style};

/// What stands between two columns.
const GAP: &str = "  ";

/// Rows of text below headings.
#[derive(Debug, Clone)]
pub(crate) struct TextTable {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// Returns a table without rows. A heading that begins with `>` has its column aligned to the right.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; control characters in it are shown as spaces, so that stored text cannot drive a terminal.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let tame = |cell: String| cell.replace(char::is_control, " ");
        self.rows.push(cells.into_iter().map(tame).collect());
    }

    /// Returns the table as lines, each indented by `indent`.
    pub(crate) fn render(&self, indent: &str, style: Style) -> String {
        let widths: Vec<usize> = (0..self.headings.len()).map(|column| self.width(column)).collect();
        let headings: Vec<String> =
            self.headings.iter().map(|heading| heading.trim_start_matches('>').to_owned()).collect();
        let heading = style.paint(Role::Faint, &self.line(&headings, &widths));
        let mut text = format!("{indent}{heading}\n");
        for row in &self.rows {
            text.push_str(indent);
            text.push_str(&self.line(row, &widths));
            text.push('\n');
        }
        text
    }

    fn width(&self, column: usize) -> usize {
        let heading = self.headings.get(column).map_or(0, |heading| heading.trim_start_matches('>').len());
        let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heading]).max().unwrap_or(0)
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let aligned = cells.iter().zip(widths).zip(&self.headings).map(|((cell, width), heading)| {
            if heading.starts_with('>') { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        aligned.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    }
}

/// Returns a count with thin groups of three: `1,234,567`.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns `1 file` or `1,234 files`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

/// Returns bytes with a binary unit: `12.3 MiB`.
pub(crate) fn sized(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let unit_word = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{bytes} B") } else { format!("{amount:.1} {unit_word}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_control_characters_are_tamed() {
        let mut table = TextTable::new(&["name", ">rows"]);
        table.row(["orders".to_owned(), grouped(1_234_567)]);
        table.row(["a\u{1b}[2J".to_owned(), "5".to_owned()]);
        let expected = "  name         rows\n  orders  1,234,567\n  a [2J           5\n";
        assert_eq!(table.render("  ", Style::default()), expected);
    }

    #[test]
    fn numbers_read_easily() {
        for (count, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(count), expected);
        }
        assert_eq!((counted(1, "file"), counted(0, "file")), ("1 file".into(), "0 files".into()));
        assert_eq!((sized(0), sized(1023), sized(1536)), ("0 B".into(), "1023 B".into(), "1.5 KiB".into()));
    }
}
