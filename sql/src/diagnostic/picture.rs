//! Pictures of errors: the lines of a file around a place, and a caret below it.
//!
//! A file may hold what a terminal obeys instead of showing. Such characters are written out, and the place moves along
//! with what stands before it, so that the caret stays below what is meant; line and column are those of the file.
//! Before it: [`Diagnostic`], which knows what is wrong. After it: miette, which draws.

use std::borrow::Cow;
use std::fmt;

use miette::{LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

use super::{Diagnostic, Position, TextSpan};
use crate::visible::{steers, visible, visible_lines};

/// What is drawn of one error.
#[derive(Debug)]
pub(super) struct Picture<'a> {
    code: &'static str,
    message: String,
    label: String,
    hint: Option<String>,
    file: String,
    /// The text of the file, without credentials.
    text: Cow<'a, str>,
    /// The place in `text`.
    span: TextSpan,
    /// The place in the file.
    position: Position,
}

impl<'a> Picture<'a> {
    /// Returns what is drawn of `diagnostic`.
    pub(super) fn new(diagnostic: &'a Diagnostic) -> Self {
        let shown = |text: &str| visible_lines(text).into_owned();
        let (text, span) = legible(diagnostic.source.shown(), diagnostic.span.clone());
        Self {
            code: diagnostic.code,
            message: shown(&diagnostic.message),
            label: shown(&diagnostic.label),
            hint: diagnostic.hint.as_deref().map(shown),
            file: visible(diagnostic.source.name()).into_owned(),
            text,
            span,
            position: diagnostic.position(),
        }
    }
}

impl fmt::Display for Picture<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Picture<'_> {}

impl miette::Diagnostic for Picture<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = (!self.label.is_empty()).then(|| self.label.clone());
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(label, self.span.clone()))))
    }
}

impl SourceCode for Picture<'_> {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let contents = self.text.read_span(span, lines_before, lines_after)?;
        // Asked without context, the place itself is meant: there miette counts bytes of what is drawn, we count
        // characters of the file.
        let (line, column) = match (lines_before, lines_after) {
            (0, 0) => (self.position.line - 1, self.position.column - 1),
            _ => (contents.line(), contents.column()),
        };
        Ok(Box::new(MietteSpanContents::new_named(
            self.file.clone(),
            contents.data(),
            *contents.span(),
            line,
            column,
            contents.line_count(),
        )))
    }
}

/// Returns `text` with what a terminal would obey written out, and where the place `span` is in that. Ends of lines
/// stay, and tabs, which miette draws as the spaces that it counts.
fn legible(text: &str, span: TextSpan) -> (Cow<'_, str>, TextSpan) {
    let is_written_out = |(at, next): (usize, char)| match next {
        '\n' | '\t' => false,
        '\r' => !text[at..].starts_with("\r\n"),
        next => steers(next),
    };
    if !text.char_indices().any(is_written_out) {
        return (Cow::Borrowed(text), span);
    }
    let mut legible = String::with_capacity(text.len() + 64);
    let (mut start, mut end) = (span.start, span.end);
    for (at, next) in text.char_indices() {
        if !is_written_out((at, next)) {
            legible.push(next);
            continue;
        }
        let before = legible.len();
        legible.extend(next.escape_default());
        let n_more = legible.len() - before - next.len_utf8();
        start += if at < span.start { n_more } else { 0 };
        end += if at < span.end { n_more } else { 0 };
    }
    (Cow::Owned(legible), start..end)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostic::{Diagnostics, SourceText, code};

    /// Draws an error at the word `wrong` of `text`, and holds the caret against it.
    fn check(text: &str, line: &str, place: &str) {
        let start = text.find("wrong").unwrap_or_default();
        let source = Arc::new(SourceText::new("a\u{7}.sql", text));
        let diagnostic = Diagnostic::new(code::UNKNOWN_COLUMN, &source, start..start + 5, "no '\u{1b}[2J'");
        let diagnostic = diagnostic.with_label("not '\u{9b}'").with_hint("leave '\u{202e}' out");
        let shown = Diagnostics::from(diagnostic).render(false);
        assert!(!shown.contains(|next: char| steers(next) && next != '\n'), "{shown:?}");
        let mut lines = shown.lines().skip_while(|line| !line.contains("wrong"));
        let (above, below) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        assert!(above.ends_with(line) && shown.contains(place), "{shown}");
        let column = |line: &str, sign: &str| line.split(sign).next().map(|before| before.chars().count());
        assert_eq!(column(above, "wrong"), column(below, "\u{2500}"), "{shown}");
        for written_out in [r"a\u{7}.sql", r"no '\u{1b}[2J'", r"not '\u{9b}'", r"leave '\u{202e}' out"] {
            assert!(shown.contains(written_out), "{shown}");
        }
    }

    #[test]
    fn a_file_does_not_steer_the_terminal_and_carets_stay_below_their_places() {
        check("SELECT '\u{1b}[2J', wrong", r"SELECT '\u{1b}[2J', wrong", ":1:16]");
        check("\u{9b}\u{202e}x\0, wrong\u{7}\u{7}", r"\u{9b}\u{202e}x\u{0}, wrong\u{7}\u{7}", ":1:7]");
        check("SELECT 1\r2,\r\n\twrong\rx\r\n", r"    wrong\rx", ":2:2]");
        check("SELECT\n  a,\twrong\u{85}", r"wrong\u{85}", ":2:6]");
    }

    #[test]
    fn a_character_that_is_written_out_is_underlined_whole() {
        let (text, span) = legible("a\u{1b}b\r\n", 1..2);
        assert_eq!((&*text, span), ("a\\u{1b}b\r\n", 1..7));
        let (text, span) = legible("\u{1b}\u{1b}", 2..2);
        assert_eq!((&*text, span), (r"\u{1b}\u{1b}", 12..12));
    }
}
