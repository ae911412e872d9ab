//! Layouts of one line a row that need not know the other rows: CSV, TSV, Markdown.

use std::io::{self, Write};

use alluvium_catalog::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::cells::{FOR_PEOPLE, FOR_PROGRAMS, is_right_aligned, rows};
use super::{Layout, unwritable};
use crate::visible::visible;

/// CSV or TSV: a header, then values between delimiters.
pub(super) struct Delimited {
    names: Option<Vec<String>>,
    delimiter: char,
    escape: fn(Option<&str>) -> String,
}

impl Delimited {
    /// Returns the layout of RFC 4180 with `\n` at the end of a line.
    pub(super) fn csv(schema: &SchemaRef) -> Self {
        Self { names: Some(names(schema)), delimiter: ',', escape: csv_cell }
    }

    /// Returns the layout that Postgres' COPY and ClickHouse's TabSeparated share.
    pub(super) fn tsv(schema: &SchemaRef) -> Self {
        Self { names: Some(names(schema)), delimiter: '\t', escape: tsv_cell }
    }

    fn line<'a>(&self, cells: impl Iterator<Item = Option<&'a str>>, out: &mut dyn Write) -> io::Result<()> {
        for (i, cell) in cells.enumerate() {
            if i > 0 {
                write!(out, "{}", self.delimiter)?;
            }
            out.write_all((self.escape)(cell).as_bytes())?;
        }
        out.write_all(b"\n")
    }

    fn header(&mut self, out: &mut dyn Write) -> Result<()> {
        let Some(names) = self.names.take() else { return Ok(()) };
        self.line(names.iter().map(|name| Some(name.as_str())), out).map_err(unwritable)
    }
}

impl Layout for Delimited {
    fn write(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
        self.header(out)?;
        for row in rows(batch, &FOR_PROGRAMS)? {
            self.line(row.iter().map(Option::as_deref), out).map_err(unwritable)?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        self.header(out)
    }
}

/// A table of GitHub's Markdown.
pub(super) struct Markdown {
    /// The two lines above the rows until they are written.
    header: Option<String>,
}

impl Markdown {
    /// Returns the layout of rows of `schema`.
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let mut header = String::from("|");
        let mut rule = String::from("|");
        for field in schema.fields() {
            header.push_str(&format!(" {} |", markdown_cell(field.name())));
            rule.push_str(if is_right_aligned(field.data_type()) { " ---: |" } else { " --- |" });
        }
        Self { header: Some(format!("{header}\n{rule}\n")) }
    }

    fn line(row: &[Option<String>]) -> String {
        let mut line = String::from("|");
        for cell in row {
            line.push_str(&format!(" {} |", markdown_cell(cell.as_deref().unwrap_or("NULL"))));
        }
        line.push('\n');
        line
    }
}

impl Layout for Markdown {
    fn write(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
        self.finish(out)?;
        for row in rows(batch, &FOR_PEOPLE)? {
            out.write_all(Self::line(&row).as_bytes()).map_err(unwritable)?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        let header = self.header.take().unwrap_or_default();
        out.write_all(header.as_bytes()).map_err(unwritable)
    }
}

fn names(schema: &SchemaRef) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

fn csv_cell(cell: Option<&str>) -> String {
    match cell {
        None => String::new(),
        Some("") => "\"\"".to_owned(),
        Some(text) if text.contains([',', '"', '\n', '\r']) => format!("\"{}\"", text.replace('"', "\"\"")),
        Some(text) => text.to_owned(),
    }
}

fn tsv_cell(cell: Option<&str>) -> String {
    let Some(text) = cell else { return "\\N".to_owned() };
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

fn markdown_cell(text: &str) -> String {
    // A backslash of the text would else go with the sign behind it, and before a bar make one cell two.
    let escaped = |line: &str| visible(line).replace('\\', "\\\\").replace('|', "\\|");
    let lines: Vec<_> = text.lines().map(escaped).collect();
    lines.join("<br>")
}
