//! What a flow reads, before it is planned: its table, its query and its one stream.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, TableFactor, VisitMut, VisitorMut,
};

use crate::compile::places::Place;
use crate::compile::scope::{Scope, WrittenFlow};
use crate::diagnostic::{Diagnostic, TextSpan, code};
use crate::parser::parse_statements;
use crate::statement::{ChangeFeed, FlowAction, Statement};

/// Returns the table, the query and its place. `AUTO CDC FROM STREAM(s)` is `SELECT * FROM STREAM(s)`.
pub(super) fn feed(written: &WrittenFlow) -> Option<(&ObjectName, Query, TextSpan)> {
    let text = &written.source;
    match &written.statement.action {
        FlowAction::Append { into, query } => Some((into, (*query.value).clone(), query.span.clone())),
        FlowAction::AutoCdc(cdc) => match &cdc.from {
            ChangeFeed::Query(query) => Some((&cdc.into, (*query.value).clone(), query.span.clone())),
            ChangeFeed::Stream(source) => {
                let span = text.range(source.span).unwrap_or(written.span.clone());
                Some((&cdc.into, all_of(source)?, span))
            }
        },
    }
}

/// Returns `SELECT * FROM STREAM(source)`, in which `source` keeps its place.
fn all_of(source: &Ident) -> Option<Query> {
    struct Rename<'a>(&'a Ident);
    impl VisitorMut for Rename<'_> {
        type Break = ();
        fn pre_visit_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { args: Some(arguments), .. } = relation {
                arguments.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(self.0.clone())))];
            }
            ControlFlow::Continue(())
        }
    }
    let statement = parse_statements("SELECT * FROM STREAM(source)").ok()?.pop()?;
    let Statement::Sql(statement) = statement.value else { return None };
    let DfStatement::Statement(statement) = *statement else { return None };
    let ast::Statement::Query(mut query) = *statement else { return None };
    let _ = query.visit(&mut Rename(source));
    Some(*query)
}

/// Returns the one stream of a query.
pub(super) fn stream<'a>(streams: &'a [Ident], place: &Place<'_>) -> Result<&'a Ident, Diagnostic> {
    match streams {
        [stream] => Ok(stream),
        [] => Err(place.error(code::STREAM_COUNT, "the query reads no STREAM").with_hint("write FROM STREAM(source)")),
        [_, second, ..] => Err(place
            .error_at(code::STREAM_COUNT, second, "the query reads more than one STREAM")
            .with_hint("a flow has one source; what is joined to it is a table")),
    }
}

/// Names the source that the query reads without STREAM.
pub(super) fn add_stream_hint(diagnostic: Diagnostic, looked_up: &[ObjectName], scope: &Scope<'_>) -> Diagnostic {
    match looked_up.iter().map(ToString::to_string).find(|name| scope.has_source(name)) {
        Some(name) => diagnostic.with_hint(format!("{name} is a source: write STREAM({name})")),
        None => diagnostic,
    }
}
