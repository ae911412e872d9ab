//! What a query reads, and what in it would mean "per batch": answered from its text, so that each answer has a place.
//!
//! A batch is where the stream happened to be cut. An aggregate, an order, a limit or DISTINCT over it would give rows
//! that no other cut gives, without a word; `shape.rs` proves on the plan that nothing of the kind was missed here.

use std::ops::ControlFlow;

use datafusion::execution::context::SessionState;
use datafusion::logical_expr::Volatility;
use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Function, GroupByExpr, Ident, LimitClause, ObjectName, Query, Select, SetExpr, SetOperator,
    Spanned, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::plan::stream_argument;
use crate::diagnostic::code;
use crate::unread::{Unread, called, own_calls, unread};

/// Something in a query that a flow cannot do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offence {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<&'static str>,
    pub(super) span: Span,
}

/// What a query reads.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// The sources within `STREAM(..)`.
    pub(super) streams: Vec<Ident>,
    /// The tables.
    pub(super) lookups: Vec<ObjectName>,
    /// What it must not do.
    pub(super) offences: Vec<Offence>,
}

/// Returns what `query` reads and must not do.
pub(super) fn reads(query: &Query, state: &SessionState) -> Reads {
    let mut relations = Relations::default();
    let _ = query.visit(&mut relations);
    let Relations { streams, lookups, common, offences } = relations;
    let is_common = |name: &ObjectName| common.iter().any(|known| name.to_string() == known.to_string());
    let lookups = lookups.into_iter().filter(|name| !is_common(name)).collect();
    let mut batches = Batches { state, offences };
    batches.offences.extend(unread(query).iter().map(unread_offence));
    let _ = query.visit(&mut batches);
    Reads { streams, lookups, offences: batches.offences }
}

fn unread_offence(unread: &Unread) -> Offence {
    let Unread { clause, hint, span } = *unread;
    Offence { code: code::UNSUPPORTED, message: format!("{clause} is not supported yet"), hint: Some(hint), span }
}

/// Returns what `expression`, which stands outside a query, must not do.
pub(super) fn expression_offences(expression: &Expr, state: &SessionState) -> Vec<Offence> {
    let mut offences = fickle_offences(expression, state);
    offences.extend(call_offences(expression, state));
    offences.extend(unread(expression).iter().map(unread_offence));
    if has_subquery(expression) {
        let message = "a subquery cannot stand here".to_owned();
        let hint = Some("join the table in the flow's query");
        offences.push(Offence { code: code::PLAN, message, hint, span: expression.span() });
    }
    offences
}

#[derive(Default)]
struct Relations {
    streams: Vec<Ident>,
    lookups: Vec<ObjectName>,
    /// The names of common table expressions.
    common: Vec<Ident>,
    offences: Vec<Offence>,
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let Some(with) = &query.with {
            self.common.extend(with.cte_tables.iter().map(|common| common.alias.name.clone()));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, relation: &TableFactor) -> ControlFlow<()> {
        let mut offend = |code, message: &str, hint| {
            self.offences.push(Offence { code, message: message.to_owned(), hint, span: relation.span() });
        };
        match (stream_argument(relation), relation) {
            (Some(Some(source)), _) => self.streams.push(source.clone()),
            (Some(None), _) => {
                offend(code::STREAM_COUNT, "STREAM takes the name of a source", Some("write STREAM(source)"))
            }
            (None, TableFactor::Table { version: Some(_), .. }) => {
                offend(code::UNSUPPORTED, "a flow looks up the current version of a table", Some("leave AS OF out"));
            }
            (None, TableFactor::Table { args: Some(_), .. } | TableFactor::Function { .. }) => {
                let hint = Some("join a table; an array of the record becomes rows by unnest(column) in SELECT");
                offend(code::UNSUPPORTED, "table functions are not supported yet in a flow", hint);
            }
            (None, TableFactor::Table { name, .. }) => self.lookups.push(name.clone()),
            (None, _) => {}
        }
        ControlFlow::Continue(())
    }
}

/// Visits the queries that hold the stream.
struct Batches<'a> {
    state: &'a SessionState,
    offences: Vec<Offence>,
}

impl Visitor for Batches<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if !holds_stream(query) {
            return ControlFlow::Continue(());
        }
        if let Some(order) = &query.order_by {
            self.offend("ORDER BY", order.span(), Some("a table has no order; leave it out"));
        }
        if let Some(limit) = &query.limit_clause {
            let span = match limit {
                LimitClause::LimitOffset { limit: Some(limit), .. } => limit.span(),
                LimitClause::LimitOffset { offset: Some(offset), .. } => offset.value.span(),
                LimitClause::LimitOffset { .. } => query.span(),
                LimitClause::OffsetCommaLimit { limit, .. } => limit.span(),
            };
            self.offend("LIMIT", span, Some(BOUNDS));
        }
        if query.fetch.is_some() {
            self.offend("FETCH", query.span(), Some(BOUNDS));
        }
        self.body(&query.body);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expression {
            self.offences.extend(fickle_offence(function, self.state));
        }
        ControlFlow::Continue(())
    }
}

impl Batches<'_> {
    fn body(&mut self, body: &SetExpr) {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::SetOperation { op, left, right, .. } => {
                let (word, hint) = match op {
                    SetOperator::Union => {
                        ("UNION", Some("write a flow for each SELECT; flows can append to one table"))
                    }
                    SetOperator::Except | SetOperator::Minus => ("EXCEPT", Some("use WHERE NOT EXISTS on a table")),
                    SetOperator::Intersect => ("INTERSECT", Some("use WHERE EXISTS on a table")),
                };
                self.offend(word, body.span(), hint);
                self.body(left);
                self.body(right);
            }
            _ => {}
        }
    }

    fn select(&mut self, select: &Select) {
        if let Some(distinct) = &select.distinct
            && !matches!(distinct, Distinct::All)
        {
            let span = select.projection.first().map_or(select.span(), Spanned::span);
            self.offend("DISTINCT", span, Some(UPSERT));
        }
        let grouped = match &select.group_by {
            GroupByExpr::Expressions(keys, _) => !keys.is_empty(),
            GroupByExpr::All(_) => true,
        };
        if grouped {
            self.offend("GROUP BY", select.group_by.span(), Some(WINDOWS));
        }
        // One error for one question: the groups say it already.
        if !grouped {
            self.offences.extend(call_offences(&select.projection, self.state));
            self.offences.extend(call_offences(&select.having, self.state));
            self.offences.extend(call_offences(&select.qualify, self.state));
        }
    }

    fn offend(&mut self, what: &str, span: Span, hint: Option<&'static str>) {
        self.offences.push(per_batch(what, span, hint));
    }
}

const BOUNDS: &str = "leave it out, and limit rows when reading the table; 'commit.rows' of the flow bounds a batch";
const UPSERT: &str = "AUTO CDC INTO a table with PRIMARY KEY keeps one row a key";
const WINDOWS: &str = "windows over streams are not supported yet; aggregate when reading the table";

fn per_batch(what: &str, span: Span, hint: Option<&'static str>) -> Offence {
    let message = format!("{what} over STREAM would mean per batch");
    Offence { code: code::PER_BATCH, message, hint, span }
}

fn holds_stream(query: &Query) -> bool {
    let mut relations = Relations::default();
    let _ = query.visit(&mut relations);
    !relations.streams.is_empty()
}

fn has_subquery(expression: &Expr) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    expression.visit(&mut Find).is_break()
}

/// Returns what is wrong with the calls of aggregate and window functions in `part`, but for those in subqueries.
fn call_offences(part: &impl Visit, state: &SessionState) -> Vec<Offence> {
    let mut offences = Vec::new();
    let _ = own_calls(part, |function| {
        let name = function.name.to_string();
        let lower = name.to_lowercase();
        let is_aggregate =
            state.aggregate_functions().contains_key(&lower) && !state.scalar_functions().contains_key(&lower);
        if function.over.is_some() {
            let what = format!("the window function {name}");
            offences.push(per_batch(&what, function.name.span(), Some(UPSERT)));
        } else if is_aggregate {
            let what = format!("the aggregate {name}");
            offences.push(per_batch(&what, function.name.span(), Some(WINDOWS)));
        }
        ControlFlow::Continue(())
    });
    offences
}

fn fickle_offences(expression: &Expr, state: &SessionState) -> Vec<Offence> {
    struct Find<'a>(&'a SessionState, Vec<Offence>);
    impl Visitor for Find<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
            if let Expr::Function(function) = expression {
                self.1.extend(fickle_offence(function, self.0));
            }
            ControlFlow::Continue(())
        }
    }
    let mut find = Find(state, Vec::new());
    let _ = expression.visit(&mut find);
    find.1
}

/// Refuses a call that would give another value when its record is read again, as every record may be.
fn fickle_offence(function: &Function, state: &SessionState) -> Option<Offence> {
    let name = called(function);
    let (message, hint) = match state.scalar_functions().get(&name)?.signature().volatility {
        Volatility::Immutable => return None,
        // A clock is read once, when the query is planned: at the start of the flow, not at the row.
        Volatility::Stable => (
            format!("{name} would be the time at which the flow was started"),
            "use a source column METADATA FROM 'timestamp'",
        ),
        Volatility::Volatile => (
            format!("{name} gives another value when a record is read again"),
            "compute it from the record's own columns, or when reading the table",
        ),
    };
    Some(Offence { code: code::PER_BATCH, message, hint: Some(hint), span: function.name.span() })
}
