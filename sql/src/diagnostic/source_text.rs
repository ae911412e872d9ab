//! A SQL file as it was read, and the way from lines and columns to bytes and back.

use std::path::Path;
use std::{fmt, io};

use alluvium_catalog::Error;
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

use super::TextSpan;
use super::mask::masked;

/// What a file may begin with, to say that it is UTF-8. It is no part of the first line.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// A line and a column, both from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.line, self.column)
    }
}

/// The text of a SQL file and the name that errors call it by.
#[derive(PartialEq, Eq)]
pub struct SourceText {
    name: String,
    text: String,
    /// The text with asterisks for credentials: what errors show.
    shown: String,
    /// The byte at which each line begins.
    lines: Vec<usize>,
}

impl SourceText {
    /// Returns `text` under `name`, which is a file's path or says where the text came from.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let first = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len_utf8() } else { 0 };
        let lines = std::iter::once(first).chain(breaks).collect();
        Self { name: name.into(), shown: masked(&text), text, lines }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the text with asterisks for credentials. Bytes are those of [`Self::text`] all the same.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Returns what a tokenizer reads: the text without a byte order mark. Bytes are those of [`Self::text`] all the same.
    pub(crate) fn readable(&self) -> &str {
        self.text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.text)
    }

    /// Returns the line and column of a byte.
    pub fn position(&self, byte: usize) -> Position {
        let byte = self.clamp(byte..byte).start;
        let line = self.lines.partition_point(|start| *start <= byte).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..byte).map_or(0, |before| before.chars().count());
        Position { line, column: column + 1 }
    }

    /// Returns the bytes between two places as the tokenizer counts them (lines and characters, both from 1), or
    /// nothing for the empty span that stands for "unknown".
    pub(crate) fn range(&self, span: Span) -> Option<TextSpan> {
        let start = self.byte(span.start)?;
        let end = self.byte(span.end)?;
        Some(start..end.max(start))
    }

    /// Returns the byte of a place as the tokenizer counts it.
    pub(crate) fn byte(&self, location: Location) -> Option<usize> {
        let line = usize::try_from(location.line.checked_sub(1)?).ok()?;
        let column = usize::try_from(location.column.checked_sub(1)?).ok()?;
        let start = *self.lines.get(line)?;
        let end = self.lines.get(line + 1).copied().unwrap_or(self.text.len());
        let characters = self.text.get(start..end)?;
        Some(characters.char_indices().nth(column).map_or(end, |(at, _)| start + at))
    }

    /// Returns `span` within the text and at the edges of characters.
    pub(crate) fn clamp(&self, span: TextSpan) -> TextSpan {
        let floor = |byte: usize| {
            let mut at = byte.min(self.text.len());
            while !self.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = floor(span.start);
        start..floor(span.end).max(start)
    }
}

/// Returns the error that the file at `path` could not be read as text, with what to do about it.
pub fn unreadable(path: &Path, cause: io::Error) -> Error {
    let hint = match cause.kind() {
        io::ErrorKind::NotFound => {
            "is the name spelt right? paths count from the folder that the program was started in"
        }
        io::ErrorKind::InvalidData => "save the file as UTF-8",
        io::ErrorKind::IsADirectory => "name the files in the folder",
        io::ErrorKind::PermissionDenied => "let the user that runs the program read it",
        _ => "see whether it opens elsewhere; it is to be a file of text",
    };
    Error::invalid(format!("cannot read {}", path.display())).with_source(cause).with_hint(hint)
}

impl fmt::Debug for SourceText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SourceText").field("name", &self.name).field("text", &self.shown).finish()
    }
}
