//! Errors in SQL text: each points at its place in its file and says what to do.
//!
//! A [`Diagnostic`] is one error, [`Diagnostics`] all that one reading of a file found. They show themselves three
//! ways: as a picture with carets for people, as JSON for editors, and as one line each for logs and
//! [`alluvium_catalog::Error`]. Nothing here decides what is an error.

pub mod code;
mod mask;
mod picture;
mod source_text;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme};
use serde_json::json;

pub(crate) use mask::is_credential;
pub(crate) use source_text::BYTE_ORDER_MARK;
pub use source_text::{Position, SourceText, unreadable};

use crate::visible::visible_lines;
use picture::Picture;

/// A place in a text: the half-open range of its bytes.
pub type TextSpan = Range<usize>;

/// The widest line of a rendered error: terminals have 80 columns or more, files are read in any width.
const WIDTH: usize = 100;

/// The most names that a hint lists: more are read by nobody.
const NAMES_MAX: usize = 8;

/// One error at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its code, one of [`code`].
    pub code: &'static str,
    /// What is wrong: lowercase, no full stop.
    pub message: String,
    /// Where.
    pub span: TextSpan,
    /// What stands below the place; may be empty.
    pub label: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The text that `span` counts in.
    pub source: Arc<SourceText>,
}

impl Diagnostic {
    /// Returns an error without label and hint.
    pub fn new(code: &'static str, source: &Arc<SourceText>, span: TextSpan, message: impl Into<String>) -> Self {
        let source = Arc::clone(source);
        Self { code, message: message.into(), span: source.clamp(span), label: String::new(), hint: None, source }
    }

    /// Adds what stands below the place.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what to do about it where nothing is said yet.
    #[must_use]
    pub(crate) fn or_hint(self, hint: &str) -> Self {
        if self.hint.is_some() { self } else { self.with_hint(hint) }
    }

    /// Adds the name nearest to `written` among `valid` as the hint, or the valid names: all if there are few, and where
    /// nothing else is said the first of many. Without any the hint stays what it was.
    #[must_use]
    pub fn with_nearest<'a>(self, written: &str, valid: impl IntoIterator<Item = &'a str>) -> Self {
        let valid: Vec<&str> = valid.into_iter().collect();
        match nearest(written, valid.iter().copied()) {
            Some(hint) => self.with_hint(hint),
            None if self.hint.is_none() && !valid.is_empty() => {
                let (shown, more) = valid.split_at(NAMES_MAX.min(valid.len()));
                self.with_hint(format!("there are: {}, and {} more", shown.join(", "), more.len()))
            }
            None => self,
        }
    }

    /// Returns the line and column at which the place begins.
    pub fn position(&self) -> Position {
        self.source.position(self.span.start)
    }

    /// Returns the error as editors read it.
    pub fn to_json(&self) -> serde_json::Value {
        let (start, end) = (self.position(), self.source.position(self.span.end));
        json!({
            "code": self.code,
            "severity": "error",
            "message": self.message,
            "label": self.label,
            "hint": self.hint,
            "file": self.source.name(),
            "line": start.line,
            "column": start.column,
            "end_line": end.line,
            "end_column": end.column,
            "bytes": { "start": self.span.start, "end": self.span.end },
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// All errors that one reading found, in the order of their files and places; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Returns the errors as pictures with carets, one below the other; with terminal colours if `coloured`. Nothing else
    /// steers the terminal, whatever stands in files and messages.
    pub fn render(&self, coloured: bool) -> String {
        let theme = if coloured { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(WIDTH).with_links(false);
        let mut rendered = String::new();
        for diagnostic in &self.0 {
            // Writing into a String does not fail; a picture that cannot be drawn leaves the line.
            if handler.render_report(&mut rendered, &Picture::new(diagnostic)).is_err() {
                rendered.push_str(&visible_lines(&line(diagnostic)));
                rendered.push('\n');
            }
        }
        rendered
    }

    /// Returns the errors as a JSON array for editors.
    pub fn to_json(&self) -> serde_json::Value {
        self.0.iter().map(Diagnostic::to_json).collect()
    }

    /// Puts the errors into the order of their files and places, without repetitions.
    pub(crate) fn sorted(mut self) -> Self {
        self.0.sort_by(|left, right| {
            (left.source.name(), left.span.start, left.code).cmp(&(right.source.name(), right.span.start, right.code))
        });
        self.0.dedup();
        self
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(line).collect();
        formatter.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostics> for alluvium_catalog::Error {
    /// The message has a line `file:line:column: message` for each error; the diagnostics, with their places, are the source.
    fn from(diagnostics: Diagnostics) -> Self {
        let error = Self::invalid(diagnostics.to_string());
        let error = match diagnostics.0.as_slice() {
            [Diagnostic { hint: Some(hint), .. }] => error.with_hint(hint.clone()),
            _ => error,
        };
        error.with_source(diagnostics)
    }
}

impl From<Diagnostic> for alluvium_catalog::Error {
    fn from(diagnostic: Diagnostic) -> Self {
        Diagnostics::from(diagnostic).into()
    }
}

fn line(diagnostic: &Diagnostic) -> String {
    format!("{}:{}: {}", diagnostic.source.name(), diagnostic.position(), diagnostic.message)
}

/// Returns `did you mean '..'?` for a valid name that is near, or the list of valid names if that is short.
pub(crate) fn nearest<'a>(written: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let valid: Vec<&str> = valid.into_iter().collect();
    match alluvium_catalog::nearest(written, valid.iter().copied()) {
        Some(name) => Some(format!("did you mean '{name}'?")),
        None if !valid.is_empty() && valid.len() <= NAMES_MAX => Some(format!("there are: {}", valid.join(", "))),
        None => None,
    }
}

#[cfg(test)]
mod tests;
