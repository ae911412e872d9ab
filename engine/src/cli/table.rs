//! Aligned columns of text for people: a frame-less table that reads the same on a terminal and in a file.

pub(crate) use alluvium_catalog::{counted, grouped, sized};

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
}
