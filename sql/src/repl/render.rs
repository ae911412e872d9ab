//! Writes rows as text: tables for people, CSV, TSV and JSON for programs, Markdown for reports.
//!
//! It comes after the session and before whatever the caller gave to write to; it runs nothing and prints nothing by
//! itself. Formats for programs stream: a batch is written and forgotten. A table on the screen keeps at most
//! [`RenderOptions::rows_max`] rows, and one without that limit is written in parts.

mod cells;
mod json;
mod lines;
mod table;
mod times;

use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::time::Duration;

use alluvium_catalog::{Error, Result, grouped, nearest};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

/// What rows are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns in a box.
    Table,
    /// RFC 4180; NULL is nothing, an empty text is `""`.
    Csv,
    /// Tabs between values; NULL is `\N`; tab, newline and backslash are escaped.
    Tsv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// A table of GitHub's Markdown.
    Markdown,
}

impl Format {
    const ALL: [(&'static str, Self); 6] = [
        ("table", Self::Table),
        ("csv", Self::Csv),
        ("tsv", Self::Tsv),
        ("json", Self::Json),
        ("ndjson", Self::Ndjson),
        ("markdown", Self::Markdown),
    ];

    /// Returns the names of all formats.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().map(|(name, _)| *name)
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let name = match text.to_ascii_lowercase().as_str() {
            "jsonl" | "jsonlines" | "nd-json" => "ndjson".to_owned(),
            "md" => "markdown".to_owned(),
            other => other.to_owned(),
        };
        if let Some((_, format)) = Self::ALL.iter().find(|(known, _)| *known == name) {
            return Ok(*format);
        }
        let choices = Self::names().collect::<Vec<_>>().join(", ");
        Err(Error::invalid(format!("'{text}' is not a format")).with_hint(match nearest(&name, Self::names()) {
            Some(near) => format!("did you mean '{near}'? formats are {choices}"),
            None => format!("formats are {choices}"),
        }))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, format)| format == self).map_or("table", |(name, _)| name);
        formatter.write_str(name)
    }
}

/// Whether a table is written with one line a column instead of one line a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expanded {
    /// Never.
    Off,
    /// Always.
    On,
    /// When the columns do not fit beside each other.
    Auto,
}

impl FromStr for Expanded {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            _ => {
                let error = Error::invalid(format!("'{text}' is none of 'on', 'off' and 'auto'"));
                Err(error.with_hint("write one of them, or none to turn it over"))
            }
        }
    }
}

/// How rows are written.
#[derive(Debug, Clone, Copy)]
pub struct RenderOptions {
    /// The format.
    pub format: Format,
    /// Tables only: whether they are turned by a quarter.
    pub expanded: Expanded,
    /// Tables only: the most rows shown; the others are only counted. `None` shows all.
    pub rows_max: Option<usize>,
    /// Tables only: the columns of the screen that lines are cut to. `None` cuts nothing.
    pub width: Option<u16>,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self { format: Format::Table, expanded: Expanded::Off, rows_max: None, width: None }
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rendered {
    /// Rows written.
    pub shown: usize,
    /// Rows seen.
    pub total: usize,
    /// Whether there were more rows than were worth counting.
    pub is_cut: bool,
}

impl Rendered {
    /// Returns what the reader must know about rows that were left out, if some were.
    pub fn note(&self) -> Option<String> {
        (self.shown < self.total).then(|| {
            let or_more = if self.is_cut { "more than " } else { "" };
            format!("{} of {or_more}{} rows; \\rows all", grouped(self.shown as u64), grouped(self.total as u64))
        })
    }
}

/// Whether a [`Renderer`] has use for more rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Appetite {
    /// More rows would be shown or counted.
    More,
    /// The query may stop.
    Enough,
}

/// One layout: takes the rows in order, holds at most what it needs for the layout.
trait Layout: Send {
    fn write(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()>;
    fn finish(&mut self, out: &mut dyn Write) -> Result<()>;
}

/// Writes the rows of one result.
pub struct Renderer {
    layout: Box<dyn Layout>,
    rows_max: Option<usize>,
    rendered: Rendered,
}

impl Renderer {
    /// The rows that are counted beyond those shown before the query is stopped: enough to tell a big result from a
    /// huge one, few enough not to scan a lake for a number.
    const COUNTED_MAX: usize = 1_000_000;

    /// Returns a renderer of rows of `schema`.
    pub fn new(schema: &SchemaRef, options: RenderOptions) -> Self {
        let layout: Box<dyn Layout> = match options.format {
            Format::Table => Box::new(table::Table::new(schema, options)),
            Format::Csv => Box::new(lines::Delimited::csv(schema)),
            Format::Tsv => Box::new(lines::Delimited::tsv(schema)),
            Format::Markdown => Box::new(lines::Markdown::new(schema)),
            Format::Json => Box::new(json::Json::array()),
            Format::Ndjson => Box::new(json::Json::lines()),
        };
        let rows_max = if options.format == Format::Table { options.rows_max } else { None };
        Self { layout, rows_max, rendered: Rendered { shown: 0, total: 0, is_cut: false } }
    }

    /// Writes `batch` as far as it is to be shown.
    ///
    /// # Errors
    /// `Closed` when `out` fails, `Data` when a value cannot be shown.
    pub fn write(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<Appetite> {
        let n_rows = batch.num_rows();
        let room = self.rows_max.map_or(n_rows, |rows_max| rows_max.saturating_sub(self.rendered.shown));
        let n_shown = room.min(n_rows);
        if n_shown > 0 {
            self.layout.write(&batch.slice(0, n_shown), out)?;
        }
        self.rendered.shown += n_shown;
        self.rendered.total += n_rows;
        if self.rendered.total - self.rendered.shown < Self::COUNTED_MAX {
            return Ok(Appetite::More);
        }
        self.rendered.is_cut = true;
        Ok(Appetite::Enough)
    }

    /// Writes what is still held, and the end.
    ///
    /// # Errors
    /// `Closed` when `out` fails.
    pub fn finish(mut self, out: &mut dyn Write) -> Result<Rendered> {
        self.layout.finish(out)?;
        out.flush().map_err(unwritable)?;
        Ok(self.rendered)
    }
}

impl fmt::Debug for Renderer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Renderer").field("rendered", &self.rendered).finish_non_exhaustive()
    }
}

/// Returns a time as people say it.
pub(super) fn took(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.2} s", time.as_secs_f64()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// Says that rows cannot be written, and keeps why: a pipe that was closed is nobody's error.
pub(super) fn unwritable(source: std::io::Error) -> Error {
    Error::closed("cannot write the result").with_source(source)
}

#[cfg(test)]
mod tests;
