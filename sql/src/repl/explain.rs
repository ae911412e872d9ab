//! Shows errors: those of a statement with its text and a caret, those of commands and files with the chain of causes.
//!
//! The planner knows some places, and [`places`](crate::compile::places) finds others in the text, those of values among
//! them that a running statement met. What is wrong with a statement as a whole is shown at the table that it is about, or
//! else at the statement's first line. So every error of a statement names a line and a column, and says what to do.

use std::error::Error as StdError;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use alluvium_catalog::{Error, ErrorKind};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{ObjectName, Spanned, visit_relations};

use super::backend::Written;
use crate::compile::places::{Met, Place};
use crate::diagnostic::{Diagnostic, Diagnostics, SourceText, code};
use crate::parser::parse_file;
use crate::session::failure::{ANSWERING, Cause, OF_QUERY};
use crate::statement::Statement;
use crate::visible::visible_lines;

/// Returns what a reader of the screen should see of `error`.
pub(super) fn explain(error: &Error, written: Option<&Written>, is_coloured: bool) -> String {
    // The statement did all it could where its rows find no place to go.
    if let Some(written) = written.filter(|_| error.kind() != ErrorKind::Closed) {
        let diagnostics = written_diagnostics(error, written).unwrap_or_else(|| found_diagnostics(error, written));
        return diagnostics.render(is_coloured);
    }
    let mut text = format!("error: {}\n", visible_lines(&error.chain()));
    if let Some(hint) = error.hint() {
        text.push_str(&format!("  hint: {}\n", visible_lines(hint)));
    }
    text
}

/// Says that a command follows a statement before it has ended, at the statement's end.
pub(super) fn broken_off(written: &Written) -> Error {
    let end = written.span.end.saturating_sub(1)..written.span.end;
    let message = "a command follows before the statement has ended, which was not run";
    let diagnostic = Diagnostic::new(code::SYNTAX, &written.source, end, message);
    diagnostic.with_hint("end the statement with ';'").into()
}

/// Returns the parser's and compiler's own errors, at their places in the whole text.
fn written_diagnostics(error: &Error, written: &Written) -> Option<Diagnostics> {
    let found = causes(error).find_map(|cause| cause.downcast_ref::<Diagnostics>())?;
    Some(Diagnostics(found.0.iter().map(|diagnostic| moved(diagnostic, written)).collect()))
}

/// A session that was given only the statement counts from its beginning.
fn moved(diagnostic: &Diagnostic, written: &Written) -> Diagnostic {
    let mut moved = diagnostic.clone();
    if diagnostic.source.text() == written.text() {
        let by = written.span.start;
        moved.source = Arc::clone(&written.source);
        moved.span = diagnostic.span.start + by..diagnostic.span.end + by;
    }
    moved
}

/// Returns what is wrong with a statement, at the places that the planner knows or that are found.
fn found_diagnostics(error: &Error, written: &Written) -> Diagnostics {
    let text = Arc::new(SourceText::new(written.source.name(), written.text()));
    let statement = parse_file(&text).ok().and_then(|mut statements| statements.pop()).map(|spanned| spanned.value);
    let sql = statement.as_ref().and_then(sql_of);
    let cause = causes(error).find_map(|cause| cause.downcast_ref::<Cause>());
    let place = Place { source: &text, span: first_line(written.text()) };
    let found = match (cause, sql) {
        (Some(cause), Some(sql)) if error.kind() == ErrorKind::Invalid && !cause.is_exhaustion() => {
            place.planner_errors(cause.error(), sql)
        }
        _ => {
            // That a query was planned or run says nothing to whoever wrote it; what else was tried does.
            let said = cause.filter(|_| OF_QUERY.contains(&error.message()));
            let message = said.map_or_else(|| error.chain(), |cause| cause.said().to_owned());
            let met = if error.message() == ANSWERING { Met::Running } else { Met::Planning };
            let of_value = || place.of_failure(&message, met, sql.filter(|_| cause.is_some())?);
            let of_table = || text.range(table_in(statement.as_ref()?, &message)?.span());
            let span = of_value().or_else(of_table).unwrap_or(place.span.clone());
            vec![Diagnostic::new(code_of(error, cause), &text, span, message)]
        }
    };
    let hinted = found.into_iter().map(|diagnostic| match error.hint() {
        Some(hint) => diagnostic.with_hint(hint),
        None => diagnostic.or_hint(otherwise(error.kind())),
    });
    Diagnostics(hinted.map(|diagnostic| moved(&diagnostic, written)).collect())
}

fn code_of(error: &Error, cause: Option<&Cause>) -> &'static str {
    match error.kind() {
        ErrorKind::Invalid if cause.is_some_and(Cause::is_exhaustion) => code::EXHAUSTED,
        ErrorKind::Invalid => code::PLAN,
        ErrorKind::Data => code::BAD_VALUE,
        ErrorKind::Internal => code::DEFECT,
        _ => code::UNAVAILABLE,
    }
}

/// Returns what to do about an error of a statement of which nobody said anything better.
fn otherwise(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid => "\\d lists what can be queried, \\d NAME its columns, and \\df the functions",
        ErrorKind::Data => "narrow the query down with WHERE or LIMIT to the rows that cannot be read",
        ErrorKind::Internal => "the statement is not to blame: please report it with this message",
        _ => "run the statement again; when that does not help, look after the service that it names",
    }
}

/// Tells whether `text` has `word` other than as a part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let goes_on = |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
    text.match_indices(word).any(|(at, found)| {
        !goes_on(text[..at].chars().next_back()) && !goes_on(text[at + found.len()..].chars().next())
    })
}

/// Returns the table of the statement that a message names.
fn table_in(statement: &Statement, message: &str) -> Option<ObjectName> {
    let is_named = |name: &ObjectName| {
        let parts: Vec<&str> =
            name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.as_str()).collect();
        has_word(message, &parts.join("."))
    };
    let table = match statement {
        Statement::DescribeHistory(describe) => Some(&describe.table),
        Statement::Optimize(optimize) => Some(&optimize.table.value),
        Statement::Vacuum(vacuum) => Some(&vacuum.table.value),
        _ => None,
    };
    if let Some(table) = table {
        return Some(table.clone()).filter(is_named);
    }
    let found = visit_relations(sql_of(statement)?, |name| {
        if is_named(name) { ControlFlow::Break(name.clone()) } else { ControlFlow::Continue(()) }
    });
    found.break_value()
}

fn sql_of(statement: &Statement) -> Option<&datafusion::sql::sqlparser::ast::Statement> {
    fn inner(statement: &DfStatement) -> Option<&datafusion::sql::sqlparser::ast::Statement> {
        match statement {
            DfStatement::Statement(statement) => Some(statement.as_ref()),
            DfStatement::Explain(explain) => inner(&explain.statement),
            _ => None,
        }
    }
    match statement {
        Statement::Sql(statement) => inner(statement),
        _ => None,
    }
}

fn first_line(text: &str) -> Range<usize> {
    0..text.find('\n').map_or(text, |end| &text[..end]).trim_end().len()
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(Some(error as &(dyn StdError + 'static)), |cause| (*cause).source())
}

#[cfg(test)]
mod tests {
    use datafusion::common::{Diagnostic as PlanDiagnostic, Location as PlanLocation, Span as PlanSpan};
    use datafusion::error::DataFusionError;

    use super::*;
    use crate::session::failure::from_datafusion;

    fn second_statement() -> Written {
        let text = "SELECT 1;\n\nSELECT wrng\nFROM t;";
        Written { source: Arc::new(SourceText::new("orders.sql", text)), span: 11..text.len() - 1 }
    }

    #[test]
    fn a_place_in_the_statement_is_shown_at_its_place_in_the_file() {
        let written = second_statement();
        let statement = Arc::new(SourceText::new("orders.sql", written.text()));
        let diagnostic = Diagnostic::new(code::UNKNOWN_COLUMN, &statement, 7..11, "there is no column 'wrng'");
        let error = Error::invalid("x").with_source(Diagnostics::from(diagnostic.with_hint("did you mean 'wrong'?")));
        insta::assert_snapshot!(explain(&error, Some(&written), false));
    }

    #[test]
    fn a_place_that_the_planner_knows_is_shown() {
        let place = PlanSpan::new(PlanLocation { line: 1, column: 8 }, PlanLocation { line: 1, column: 12 });
        let planned = PlanDiagnostic::new_error("column 'wrng' not found", Some(place));
        let cause = DataFusionError::Plan("column 'wrng' not found".to_owned()).with_diagnostic(planned);
        let error = from_datafusion("cannot plan", cause);
        insta::assert_snapshot!(explain(&error, Some(&second_statement()), false));
    }

    fn refused() -> Error {
        Error::unavailable("cannot open s3://lake/t")
            .with_source(std::io::Error::other("connection refused"))
            .with_hint("is the service up?")
    }

    #[test]
    fn an_error_of_a_command_shows_its_causes_and_hint() {
        let text = explain(&refused(), None, false);
        assert_eq!(text, "error: cannot open s3://lake/t: connection refused\n  hint: is the service up?\n");
    }

    #[test]
    fn an_error_of_a_statement_names_its_line_whoever_is_to_blame() {
        for (error, place) in [
            // It names the table.
            (refused(), "4:6"),
            (Error::internal("no such state"), "3:1"),
            (Error::data("bad bytes"), "3:1"),
            (Error::conflict("again"), "3:1"),
        ] {
            let text = explain(&error, Some(&second_statement()), false);
            assert!(text.contains(&format!("[orders.sql:{place}]")) && text.contains("help: "), "{text}");
            assert!(text.contains(error.message()), "{text}");
        }
    }

    #[test]
    fn values_in_messages_do_not_steer_the_terminal() {
        let error = Error::data("cannot cast 'a\u{1b}]52;c;x\u{7}' to BIGINT").with_hint("leave \u{9b}2J out");
        for written in [None, Some(second_statement())] {
            let text = explain(&error, written.as_ref(), false);
            assert!(!text.contains(|next: char| next.is_control() && next != '\n'), "{text:?}");
            assert!(text.contains(r"a\u{1b}]52"), "{text}");
        }
    }

    #[test]
    fn rows_that_find_no_place_to_go_are_no_error_of_the_statement() {
        let text = explain(&Error::closed("cannot write the result"), Some(&second_statement()), false);
        assert_eq!(text, "error: cannot write the result\n");
    }
}
