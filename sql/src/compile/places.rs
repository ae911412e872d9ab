//! Finds the places in the file that errors of the planner mean.
//!
//! DataFusion tells the place of most errors about names and functions, and none of the others; those point at the
//! expression or query that was planned. Names that the planner did not place are looked for in the text.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::{Column, SchemaError, Span as PlannerSpan, TableReference};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Ident, Spanned, Value, ValueWithSpan, Visit, Visitor};
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

use super::plan::STREAM_TABLE;
use super::streamed::Offence;
use crate::diagnostic::{Diagnostic, SourceText, TextSpan, code};

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

    /// Returns the first place of a literal that is `text`, apart from quotes.
    pub(super) fn of_literal(&self, text: &str, planned: &impl Visit) -> Option<TextSpan> {
        self.first_literal(planned, |value| match value {
            Value::SingleQuotedString(written) | Value::Number(written, _) => written == text,
            _ => false,
        })
    }

    /// Returns the first place of a string that `message` quotes.
    pub(super) fn of_literal_in(&self, message: &str, planned: &impl Visit) -> Option<TextSpan> {
        self.first_literal(planned, |value| match value {
            Value::SingleQuotedString(written) => message.contains(&format!("'{written}'")),
            _ => false,
        })
    }

    /// Returns the first place at which a literal zero divides.
    pub(super) fn of_division_by_zero(&self, planned: &impl Visit) -> Option<TextSpan> {
        struct Find;
        impl Visitor for Find {
            type Break = Span;
            fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Span> {
                match expr {
                    Expr::BinaryOp { op: BinaryOperator::Divide | BinaryOperator::Modulo, right, .. }
                        if is_zero(right) =>
                    {
                        ControlFlow::Break(expr.span())
                    }
                    _ => ControlFlow::Continue(()),
                }
            }
        }
        planned.visit(&mut Find).break_value().and_then(|span| self.source.range(span))
    }

    fn first_literal(&self, planned: &impl Visit, is_meant: impl Fn(&Value) -> bool) -> Option<TextSpan> {
        struct Find<F>(F);
        impl<F: Fn(&Value) -> bool> Visitor for Find<F> {
            type Break = Span;
            fn pre_visit_value(&mut self, literal: &ValueWithSpan) -> ControlFlow<Span> {
                if (self.0)(&literal.value) { ControlFlow::Break(literal.span) } else { ControlFlow::Continue(()) }
            }
        }
        planned.visit(&mut Find(is_meant)).break_value().and_then(|span| self.source.range(span))
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
            None => root_message(error),
        };
        let (message, mut hint) = split_hint(&said);
        if let Some(diagnostic) = error.diagnostic() {
            let notes = diagnostic.notes.iter().map(|note| &note.message);
            hint = hint.or_else(|| {
                diagnostic.helps.iter().map(|help| &help.message).chain(notes).next().map(|said| first_part(said))
            });
        }
        hint = hint.or_else(|| call_hint(&said));
        let called = || self.find_call(function_name(&message)?, planned);
        let span = told.or_else(called).unwrap_or(self.span.clone());
        let diagnostic = Diagnostic::new(code::PLAN, self.source, span, message);
        match hint {
            Some(hint) => diagnostic.with_hint(hint),
            None => diagnostic,
        }
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

    /// Returns the first place at which a function of this name is called.
    fn find_call(&self, name: &str, planned: &impl Visit) -> Option<TextSpan> {
        struct Find<'a>(&'a str);
        impl Visitor for Find<'_> {
            type Break = Span;
            fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Span> {
                match expr {
                    Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case(self.0) => {
                        ControlFlow::Break(call.name.span())
                    }
                    _ => ControlFlow::Continue(()),
                }
            }
        }
        match planned.visit(&mut Find(name)) {
            ControlFlow::Break(span) => self.source.range(span),
            ControlFlow::Continue(()) => None,
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
        return diagnostic.with_nearest(table, tables);
    }
    let here = visible().filter(|column| field.relation.is_none() || column.relation == field.relation);
    diagnostic.message = format!("column '{}' not found", field.name);
    diagnostic.with_nearest(&field.name, here.map(|column| column.name.as_str()))
}

/// Returns the function that a message of the planner's is about.
fn function_name(message: &str) -> Option<&str> {
    let named = message.strip_prefix("function '").or_else(|| message.strip_prefix('\''))?;
    named.split_once('\'').map(|(name, _)| name)
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
    column.name.starts_with("_alluvium_")
        || column.relation.as_ref().is_some_and(|relation| relation.table() == STREAM_TABLE)
}

fn is_zero(expression: &Expr) -> bool {
    match expression {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => {
            digits.chars().all(|digit| matches!(digit, '0' | '.'))
        }
        _ => false,
    }
}

/// Returns what the innermost error says, without the planner's prefixes.
pub(super) fn root_message(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::Plan(message)
        | DataFusionError::NotImplemented(message)
        | DataFusionError::Execution(message)
        | DataFusionError::Internal(message) => first_part(message),
        DataFusionError::ArrowError(cause, _) => first_part(&cause.to_string()),
        other => first_part(&other.strip_backtrace()),
    }
}

fn first_part(message: &str) -> String {
    let message = message.split("\n\nbacktrace:").next().unwrap_or(message).trim().trim_end_matches('.');
    let mut chars = message.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// Splits the planner's `Did you mean 'x'?` off.
fn split_hint(message: &str) -> (String, Option<String>) {
    let said = first_part(message);
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
