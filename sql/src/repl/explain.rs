//! Shows errors: with the text and a caret where the place is known or can be found, with the chain of causes elsewhere.
//!
//! The planner knows some places, and [`places`](crate::compile::places) finds others in the text. What is wrong with a
//! statement as a whole is shown at the table that it is about, or else at the statement's first line.

use std::error::Error as StdError;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use alluvium_catalog::{Error, ErrorKind};
use datafusion::error::DataFusionError;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{ObjectName, Spanned, visit_relations};

use super::backend::Written;
use crate::compile::places::Place;
use crate::diagnostic::{Diagnostic, Diagnostics, SourceText, code};
use crate::parser::parse_file;
use crate::statement::Statement;

/// Returns what a reader of the screen should see of `error`.
pub(super) fn explain(error: &Error, written: Option<&Written>, is_coloured: bool) -> String {
    if let Some(written) = written {
        if let Some(diagnostics) = written_diagnostics(error, written) {
            return diagnostics.render(is_coloured);
        }
        if let Some(diagnostics) = found_diagnostics(error, written) {
            return diagnostics.render(is_coloured);
        }
    }
    let mut text = format!("error: {}\n", error.chain());
    if let Some(hint) = error.hint() {
        text.push_str(&format!("  hint: {hint}\n"));
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

/// Returns what is wrong with a statement that could be read, at the places that the planner knows or that are found.
fn found_diagnostics(error: &Error, written: &Written) -> Option<Diagnostics> {
    if error.kind() != ErrorKind::Invalid {
        return None;
    }
    let text = Arc::new(SourceText::new(written.source.name(), written.text()));
    let statement = parse_file(&text).ok()?.pop()?.value;
    let place = Place { source: &text, span: first_line(written.text()) };
    let planned = causes(error).find_map(|cause| cause.downcast_ref::<DataFusionError>());
    let found = match (planned, sql_of(&statement)) {
        (Some(cause), Some(sql)) => place.planner_errors(cause, sql),
        _ => {
            let message = error.chain();
            let span = table_in(&statement, &message).and_then(|name| text.range(name.span()));
            vec![Diagnostic::new(code::PLAN, &text, span.unwrap_or(place.span), message)]
        }
    };
    let hinted = found.into_iter().map(|diagnostic| match error.hint() {
        Some(hint) => diagnostic.with_hint(hint),
        None => diagnostic,
    });
    Some(Diagnostics(hinted.map(|diagnostic| moved(&diagnostic, written)).collect()))
}

/// Returns the table of the statement that a message names.
fn table_in(statement: &Statement, message: &str) -> Option<ObjectName> {
    let is_named = |name: &ObjectName| {
        let parts: Vec<&str> =
            name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.as_str()).collect();
        message.contains(&parts.join("."))
    };
    if let Statement::DescribeHistory(describe) = statement {
        return Some(describe.table.clone()).filter(is_named);
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

    use super::*;

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
        let error = Error::invalid("cannot plan").with_source(cause);
        insta::assert_snapshot!(explain(&error, Some(&second_statement()), false));
    }

    #[test]
    fn an_error_without_place_shows_its_causes_and_hint() {
        let error = Error::unavailable("cannot open s3://lake/t")
            .with_source(std::io::Error::other("connection refused"))
            .with_hint("is the service up?");
        let text = explain(&error, Some(&second_statement()), false);
        assert_eq!(text, "error: cannot open s3://lake/t: connection refused\n  hint: is the service up?\n");
    }
}
