//! Tables for people: aligned columns, cut to the screen, or one line a column where they do not fit.

use std::borrow::Cow;
use std::io::Write;
use std::mem;

use alluvium_catalog::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Row, presets};

use super::cells::{FOR_PEOPLE, is_right_aligned, rows};
use super::{Expanded, Layout, RenderOptions, unwritable};
use crate::visible::{visible, visible_lines};

/// The rows that are held to find the widths of columns. A longer table is written in parts of this size, each with its
/// header, so that `\rows all` on a huge result needs no more memory than this.
const PART_ROWS: usize = 10_000;

/// The text that is held to the same end: rows of long texts make shorter parts.
const PART_BYTES: usize = 16 << 20;

/// The characters that a line of a cell has at most where no screen cuts it; a longer cell goes on below. All other
/// cells of the column are padded to the longest line, and one long text would else make megabytes of spaces.
const LINE_CHARS_MAX: usize = 1_000;

/// A column that gets fewer characters than this, though it has more, is better read expanded.
const COLUMN_WIDTH_MIN: usize = 8;

/// A character that [`visible`] lets through into no cell: so a long text is cut at the column's edge, not at a word.
const NOT_IN_CELLS: char = '\0';

/// A table that is laid out when its rows are known.
pub(super) struct Table {
    names: Vec<String>,
    right: Vec<bool>,
    /// Whether these are query plans, whose lines make a drawing that must not be cut.
    is_plan: bool,
    expanded: Expanded,
    width: Option<u16>,
    held: Vec<Vec<String>>,
    held_bytes: usize,
    n_written: usize,
}

impl Table {
    /// Returns the layout of rows of `schema`.
    pub(super) fn new(schema: &SchemaRef, options: RenderOptions) -> Self {
        let names: Vec<String> = schema.fields().iter().map(|field| visible(field.name()).into_owned()).collect();
        let right = schema.fields().iter().map(|field| is_right_aligned(field.data_type())).collect();
        let is_plan = names == ["plan_type", "plan"];
        let RenderOptions { expanded, width, .. } = options;
        Self { names, right, is_plan, expanded, width, held: vec![], held_bytes: 0, n_written: 0 }
    }

    fn write_part(&mut self, out: &mut dyn Write) -> Result<()> {
        let part = mem::take(&mut self.held);
        self.held_bytes = 0;
        let text = if self.is_expanded(&part) { self.expanded(&part) } else { self.boxed(&part) };
        self.n_written += part.len();
        out.write_all(text.as_bytes()).map_err(unwritable)
    }

    fn is_expanded(&self, part: &[Vec<String>]) -> bool {
        let Some(width) = self.width else { return self.expanded == Expanded::On };
        match self.expanded {
            Expanded::On => true,
            Expanded::Off => false,
            Expanded::Auto => {
                let natural = self.table(part).column_max_content_widths();
                let needed: usize = natural.iter().map(|width| usize::from(*width).min(COLUMN_WIDTH_MIN) + 3).sum();
                !self.is_plan && !part.is_empty() && needed + 1 > usize::from(width)
            }
        }
    }

    fn boxed(&self, part: &[Vec<String>]) -> String {
        let mut table = self.table(part);
        match self.width {
            Some(width) if !self.is_plan => {
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            }
            _ => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        format!("{table}\n")
    }

    fn table(&self, part: &[Vec<String>]) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_truncation_indicator("\u{2026}");
        table.set_delimiter(NOT_IN_CELLS);
        table.set_header(self.row(self.names.iter().cloned()));
        for cells in part {
            let mut row = self.row(cells.iter().map(|cell| self.fitted(cell).into_owned()));
            // On a screen a row is one line.
            if !self.is_plan && self.width.is_some() {
                row.max_height(1);
            }
            table.add_row(row);
        }
        table
    }

    fn row(&self, cells: impl Iterator<Item = String>) -> Row {
        let cell = |(text, right): (String, &bool)| {
            Cell::new_owned(text).set_alignment(if *right { CellAlignment::Right } else { CellAlignment::Left })
        };
        Row::from(cells.zip(&self.right).map(cell).collect::<Vec<_>>())
    }

    /// Returns what is laid out of a cell: no more than a screen is wide, or all of it in lines.
    fn fitted<'a>(&self, cell: &'a str) -> Cow<'a, str> {
        match self.width {
            _ if self.is_plan => Cow::Borrowed(cell),
            Some(width) => cut(cell, usize::from(width)),
            None => folded(cell),
        }
    }

    fn expanded(&self, part: &[Vec<String>]) -> String {
        let widest = self.names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (i, cells) in part.iter().enumerate() {
            let title = format!("-[ row {} ]", self.n_written + i + 1);
            text.push_str(&format!("{title:-<40}\n"));
            for (name, cell) in self.names.iter().zip(cells) {
                text.push_str(format!("{name:<widest$} | {cell}").trim_end());
                text.push('\n');
            }
        }
        text
    }
}

impl Layout for Table {
    fn write(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
        let is_plan = self.is_plan;
        let shown = |cell: Option<String>| match cell {
            None => "NULL".to_owned(),
            Some(text) if is_plan => visible_lines(text.trim_end()).into_owned(),
            Some(text) => visible(&text).into_owned(),
        };
        for row in rows(batch, &FOR_PEOPLE)? {
            let cells: Vec<String> = row.into_iter().map(shown).collect();
            self.held_bytes += cells.iter().map(String::len).sum::<usize>();
            self.held.push(cells);
            if self.held.len() == PART_ROWS || self.held_bytes >= PART_BYTES {
                self.write_part(out)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        let is_done = self.held.is_empty() && self.n_written > 0;
        if is_done || self.names.is_empty() {
            return Ok(());
        }
        self.write_part(out)
    }
}

/// Returns the first `n_chars` characters of `text`, and a sign where more follow. The layout cuts these to its column;
/// a text of megabytes it would take apart to the end, line by line, to show one.
fn cut(text: &str, n_chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(n_chars) {
        Some((end, _)) => Cow::Owned(format!("{}\u{2026}", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Returns `text` in lines of at most [`LINE_CHARS_MAX`] characters.
fn folded(text: &str) -> Cow<'_, str> {
    if text.len() <= LINE_CHARS_MAX {
        return Cow::Borrowed(text);
    }
    let mut folded = String::with_capacity(text.len() + text.len() / LINE_CHARS_MAX);
    for (i, next) in text.chars().enumerate() {
        if i > 0 && i.is_multiple_of(LINE_CHARS_MAX) {
            folded.push('\n');
        }
        folded.push(next);
    }
    Cow::Owned(folded)
}
