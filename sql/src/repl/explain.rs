//! Shows errors: with the text and a caret where the place is known, with the chain of causes and the hint elsewhere.

use std::error::Error as StdError;
use std::sync::Arc;

use alluvium_catalog::Error;
use datafusion::common::Diagnostic as PlanDiagnostic;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

use super::backend::Written;
use crate::diagnostic::{Diagnostic, Diagnostics, SourceText, code};

/// Returns what a reader of the screen should see of `error`.
pub(super) fn explain(error: &Error, written: Option<&Written>, is_coloured: bool) -> String {
    if let Some(written) = written {
        if let Some(diagnostics) = written_diagnostics(error, written) {
            return diagnostics.render(is_coloured);
        }
        if let Some(diagnostic) = planned_diagnostic(error, written) {
            return Diagnostics::from(diagnostic).render(is_coloured);
        }
    }
    let mut text = format!("error: {}\n", error.chain());
    if let Some(hint) = error.hint() {
        text.push_str(&format!("  hint: {hint}\n"));
    }
    text
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

/// Returns what DataFusion's planner says, if it knows where.
fn planned_diagnostic(error: &Error, written: &Written) -> Option<Diagnostic> {
    let cause = causes(error).find_map(|cause| cause.downcast_ref::<DataFusionError>())?;
    let planned: &PlanDiagnostic = cause.diagnostic()?;
    let place = planned.span?;
    let place =
        Span::new(Location::new(place.start.line, place.start.column), Location::new(place.end.line, place.end.column));
    let statement = Arc::new(SourceText::new(written.source.name(), written.text()));
    let diagnostic = Diagnostic::new(code::PLAN, &statement, statement.range(place)?, planned.message.clone());
    let help = planned.helps.iter().map(|help| help.message.as_str());
    let notes = planned.notes.iter().map(|note| note.message.as_str());
    let hint: Vec<&str> = error.hint().into_iter().chain(help).chain(notes).collect();
    let diagnostic = if hint.is_empty() { diagnostic } else { diagnostic.with_hint(hint.join("; ")) };
    Some(moved(&diagnostic, written))
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(Some(error as &(dyn StdError + 'static)), |cause| (*cause).source())
}

#[cfg(test)]
mod tests {
    use datafusion::common::{Location as PlanLocation, Span as PlanSpan};

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
