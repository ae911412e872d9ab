//! Finds the places in the file that errors of the planner mean.
//!
//! DataFusion tells the place of most errors about names and functions, and none of the others; those point at the
//! expression or query that was planned. Names that the planner did not place are looked for in the text, and so is
//! [what failed](value).

mod value;

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::{Column, Diagnostic as Told, SchemaError, Span as PlannerSpan, TableReference};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::ast::{Expr, Ident, Visit, Visitor};
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

pub(crate) use value::Met;

use super::plan::STREAM_TABLE;
use super::streamed::Offence;
use crate::diagnostic::{Diagnostic, SourceText, TextSpan, code};
use crate::session::failure::words::{advice, in_dialect, plain_words, unwrapped};
use crate::tables::HIDDEN_PREFIX;

/// What to do about what the planner refuses, where nothing better is known.
const PLAN_HINT: &str = "in alluvium sql, \\df lists the functions and \\d NAME the columns of a table";

/// A piece of a file that is being planned.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    /// The file.
    pub(crate) source: &'a Arc<SourceText>,
    /// Where the piece is.
    pub(crate) span: TextSpan,
}

impl Place<'_> {
    /// Returns an error about the whole piece.
    pub(super) fn error(&self, code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, self.source, self.span.clone(), message)
    }

    /// Returns an error at `ident`, which the piece holds.
    pub(super) fn error_at(&self, code: &'static str, ident: &Ident, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, self.source, self.of(ident), message)
    }

    /// Returns the error that `offence` is.
    pub(super) fn offence(&self, offence: Offence) -> Diagnostic {
        let span = self.source.range(offence.span).unwrap_or(self.span.clone());
        let diagnostic = Diagnostic::new(offence.code, self.source, span, offence.message);
        match offence.hint {
            Some(hint) => diagnostic.with_hint(hint),
            None => diagnostic,
        }
    }

    /// Returns the place of `ident`, or the whole piece where it has none.
    pub(super) fn of(&self, ident: &Ident) -> TextSpan {
        self.source.range(ident.span).unwrap_or(self.span.clone())
    }

    /// Returns where `column` is written in `planned`, or the whole piece where that is not known.
    pub(super) fn of_column(&self, column: &Column, planned: &impl Visit) -> TextSpan {
        let placed = column.spans.first().and_then(|span| self.range(span));
        placed.or_else(|| self.find(&column.name, planned)).unwrap_or(self.span.clone())
    }

    /// Returns the planner's errors about `planned`, which is the piece.
    pub(crate) fn planner_errors(&self, error: &DataFusionError, planned: &impl Visit) -> Vec<Diagnostic> {
        error.iter().map(|error| self.planner_error(error, planned)).collect()
    }

    fn planner_error(&self, error: &DataFusionError, planned: &impl Visit) -> Diagnostic {
        let told = error.diagnostic().and_then(|diagnostic| self.range(diagnostic.span?));
        if let DataFusionError::SchemaError(schema_error, _) = error.find_root() {
            return self.schema_error(schema_error, told.as_ref(), planned);
        }
        let said = match error.diagnostic() {
            Some(diagnostic) => diagnostic.message.clone(),
            None => plain_words(error),
        };
        let (message, hint) = split_hint(&said);
        let hint = hint
            .or_else(|| error.diagnostic().and_then(told_hint))
            .or_else(|| call_hint(&error.to_string()))
            .or_else(|| advice(&message))
            .unwrap_or_else(|| PLAN_HINT.to_owned());
        let span = told
            .or_else(|| self.of_failure(&message, Met::Planning, planned))
            .or_else(|| self.of_refusal(&message, planned))
            .unwrap_or(self.span.clone());
        Diagnostic::new(code::PLAN, self.source, span, message).with_hint(hint)
    }

    fn schema_error(&self, error: &SchemaError, told: Option<&TextSpan>, planned: &impl Visit) -> Diagnostic {
        let find = |column: &Column| told.cloned().unwrap_or_else(|| self.of_column(column, planned));
        match error {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let diagnostic = Diagnostic::new(code::UNKNOWN_COLUMN, self.source, find(field), String::new());
                not_found(diagnostic, field, valid_fields)
            }
            SchemaError::AmbiguousReference { field } => {
                let message = format!("column '{}' could be of several tables", field.name);
                Diagnostic::new(code::UNKNOWN_COLUMN, self.source, find(field), message).with_hint("write table.column")
            }
            SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                let span = self.find(name, planned).unwrap_or(self.span.clone());
                Diagnostic::new(code::DUPLICATE_COLUMN, self.source, span, format!("two columns are named '{name}'"))
                    .with_hint("give one another name with AS")
            }
        }
    }

    /// Returns the first place at which `name` is written as a column.
    fn find(&self, name: &str, planned: &impl Visit) -> Option<TextSpan> {
        struct Find<'a>(&'a str);
        impl Visitor for Find<'_> {
            type Break = Span;
            fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Span> {
                let ident = match expr {
                    Expr::Identifier(ident) => Some(ident),
                    Expr::CompoundIdentifier(idents) => idents.iter().find(|ident| ident.value == self.0),
                    _ => None,
                };
                match ident {
                    Some(ident) if ident.value == self.0 => ControlFlow::Break(ident.span),
                    _ => ControlFlow::Continue(()),
                }
            }
        }
        match planned.visit(&mut Find(name)) {
            ControlFlow::Break(span) => self.source.range(span),
            ControlFlow::Continue(()) => None,
        }
    }

    fn range(&self, span: PlannerSpan) -> Option<TextSpan> {
        let location = |at: datafusion::common::Location| Location { line: at.line, column: at.column };
        self.source.range(Span { start: location(span.start), end: location(span.end) })
    }
}

/// Says of a column that does not exist which part of its name is wrong.
fn not_found(mut diagnostic: Diagnostic, field: &Column, valid_fields: &[Column]) -> Diagnostic {
    let visible = || valid_fields.iter().filter(|column| !is_hidden(column));
    let tables: Vec<&str> =
        visible().filter_map(|column| column.relation.as_ref()).map(TableReference::table).collect();
    if let Some(table) = field.relation.as_ref().map(TableReference::table)
        && !tables.contains(&table)
    {
        let mut tables = tables;
        tables.dedup();
        diagnostic.message = format!("table '{table}' is not in this query");
        return diagnostic.with_hint("name the table in FROM or JOIN").with_nearest(table, tables);
    }
    if field.name.starts_with(HIDDEN_PREFIX) {
        diagnostic.message = format!("column '{}' not found", field.name);
        return diagnostic.with_hint("it is the program's own; a source column METADATA FROM 'offset' is yours");
    }
    let here = visible().filter(|column| field.relation.is_none() || column.relation == field.relation);
    diagnostic.message = format!("column '{}' not found", field.name);
    let otherwise = "name the table in FROM or JOIN that has it; DESCRIBE table lists the columns of one";
    diagnostic.with_nearest(&field.name, here.map(|column| column.name.as_str())).or_hint(otherwise)
}

/// Returns how a function is called that was given too many arguments or too few.
fn call_hint(said: &str) -> Option<String> {
    /// Some functions take a dozen lists of types; a few show how many arguments there are.
    const CALLS_MAX: usize = 3;
    let counts = [" arguments but received ", " does not support zero arguments"];
    if !counts.iter().any(|count| said.contains(count)) {
        return None;
    }
    let (_, listed) = said.split_once("Candidate functions:")?;
    let calls: Vec<&str> = listed.lines().map(str::trim).filter(|call| !call.is_empty()).take(CALLS_MAX).collect();
    (!calls.is_empty()).then(|| format!("it is called as {}", calls.join(" or ")))
}

fn is_hidden(column: &Column) -> bool {
    column.name.starts_with(HIDDEN_PREFIX)
        || column.relation.as_ref().is_some_and(|relation| relation.table() == STREAM_TABLE)
}

/// Returns the hint that the planner tells beside an error.
fn told_hint(told: &Told) -> Option<String> {
    if let Some(help) = told.helps.first() {
        return Some(unwrapped(&help.message));
    }
    let types: Vec<&str> = told.notes.iter().filter_map(|note| note.message.strip_prefix("has type ")).collect();
    if let [one, other] = types.as_slice() {
        return Some(in_dialect(&format!("one is {one}, the other {other}: CAST one of the two")));
    }
    told.notes.first().map(|note| unwrapped(&note.message))
}

/// Splits the planner's `Did you mean 'x'?` off.
fn split_hint(message: &str) -> (String, Option<String>) {
    let said = unwrapped(message);
    // The planner says the same thing again with all types spelled out.
    let lower = said.split(" (DataType:").next().and_then(|said| said.split(". No function matches").next());
    let lower = lower.unwrap_or_default().to_owned();
    match lower.split_once("Did you mean") {
        Some((said, hint)) => {
            let said = said.trim().trim_end_matches(['.', ',']).to_owned();
            let hint = hint.lines().next().unwrap_or_default();
            (said, Some(format!("did you mean{hint}")))
        }
        None => (lower, None),
    }
}
