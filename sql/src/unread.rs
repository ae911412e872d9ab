//! Finds the clauses that DataFusion's planner drops without a word: a query with one is answered as if it were not there.
//!
//! The parser takes them, as its generic dialect has what any engine has. The version of a table is dropped, too, but has a
//! meaning here: [`time_travel`](crate::time_travel) gives it one. Whoever plans a query, for a session or for a flow, asks
//! here before; nothing here plans. What calls of functions lose stands in [`calls`].

mod calls;

use std::ops::ControlFlow;

use alluvium_catalog::{Error, Result};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    ConnectByKind, Expr, ExprWithAliasAndOrderBy, GroupByExpr, GroupByWithModifier, PipeOperator, Query, Select,
    SelectItem, SetExpr, SetOperator, Spanned, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

pub(crate) use calls::{called, own_calls};

/// A clause that nothing would read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unread {
    /// Its words.
    pub(crate) clause: &'static str,
    /// What does instead of it.
    pub(crate) hint: &'static str,
    /// What it belongs to.
    pub(crate) span: Span,
}

/// Returns the clauses of `part`, a query or an expression, that nothing would read, those of its subqueries included.
pub(crate) fn unread(part: &impl Visit) -> Vec<Unread> {
    let mut clauses = Clauses::default();
    let _ = part.visit(&mut clauses);
    clauses.unread
}

/// Refuses a statement with a clause that nothing would read.
///
/// # Errors
/// `Invalid`, with what does instead of it.
pub(crate) fn check_all_is_read(statement: &DfStatement) -> Result<()> {
    let mut clauses = Clauses::default();
    match statement {
        DfStatement::Statement(statement) => {
            let _ = statement.visit(&mut clauses);
        }
        DfStatement::Explain(explain) => return check_all_is_read(&explain.statement),
        // A session refuses to copy, and the others hold no query.
        DfStatement::CopyTo(_) | DfStatement::CreateExternalTable(_) | DfStatement::Reset(_) => {}
    }
    match clauses.unread.first() {
        Some(Unread { clause, hint, .. }) => {
            Err(Error::invalid(format!("{clause} is not supported yet")).with_hint(*hint))
        }
        None => Ok(()),
    }
}

#[derive(Default)]
struct Clauses {
    unread: Vec<Unread>,
}

impl Visitor for Clauses {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        const ANSWER: &str = "leave it out; \\format sets the form of answers";
        let clauses = [
            (!query.locks.is_empty(), "FOR UPDATE", "leave it out: a query locks nothing"),
            (query.for_clause.is_some(), "FOR XML or JSON", ANSWER),
            (query.format_clause.is_some(), "FORMAT", ANSWER),
            (query.settings.is_some(), "SETTINGS", "leave it out; SET changes a setting of the session"),
        ];
        self.add(&clauses, query);
        if let Some(with) = query.with.as_ref().filter(|with| with.recursive) {
            with.cte_tables.iter().for_each(|common| self.recursive(&common.query));
        }
        query.pipe_operators.iter().for_each(|operator| self.piped(operator, query));
        if matches!(query.body.as_ref(), SetExpr::Select(_)) {
            self.add(&[calls::named_window(&query.order_by, "OVER window in ORDER BY")], query);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let walk = match select.connect_by.first() {
            Some(ConnectByKind::StartWith { .. }) => "START WITH",
            _ => "CONNECT BY",
        };
        let (GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers)) = &select.group_by;
        let modifier = match modifiers.first() {
            Some(GroupByWithModifier::Cube) => "GROUP BY .. WITH CUBE",
            Some(GroupByWithModifier::Totals) => "GROUP BY .. WITH TOTALS",
            Some(GroupByWithModifier::GroupingSets(_)) => "GROUP BY columns GROUPING SETS",
            Some(GroupByWithModifier::Rollup) | None => "GROUP BY .. WITH ROLLUP",
        };
        let clauses = [
            (select.prewhere.is_some(), "PREWHERE", "write WHERE"),
            (!select.connect_by.is_empty(), walk, "write WITH RECURSIVE"),
            (!modifiers.is_empty(), modifier, "write GROUP BY ROLLUP (..), CUBE (..) or GROUPING SETS (..)"),
            patterned(&select.projection),
            calls::named_window(&select.having, "OVER window in HAVING"),
            calls::named_window(&select.qualify, "OVER window in QUALIFY"),
            calls::window_of_another(&select.named_window),
        ];
        self.add(&clauses, select);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expression {
            self.add(&calls::clauses(function), function);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, relation: &TableFactor) -> ControlFlow<()> {
        const ROWS: &str = "leave it out; WHERE says which rows of the table are read";
        const NUMBERS: &str = "number the rows by row_number() OVER ()";
        match relation {
            TableFactor::Table { sample, partitions, with_ordinality, with_hints, index_hints, .. } => {
                let hinted = !with_hints.is_empty() || !index_hints.is_empty();
                let clauses = [
                    (sample.is_some(), "TABLESAMPLE", ROWS),
                    (!partitions.is_empty(), "PARTITION of a table", ROWS),
                    (*with_ordinality, "WITH ORDINALITY", NUMBERS),
                    (hinted, "a hint for a table", "leave it out"),
                ];
                self.add(&clauses, relation);
            }
            TableFactor::Derived { sample: Some(_), .. } => self.add(&[(true, "TABLESAMPLE", ROWS)], relation),
            TableFactor::Function { with_ordinality: true, .. } => {
                self.add(&[(true, "WITH ORDINALITY", NUMBERS)], relation);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Clauses {
    /// Adds what is lost of `query`, a CTE of WITH RECURSIVE: the planner takes the two sides of a UNION out of it, and nothing
    /// else. Without its LIMIT it might never end.
    fn recursive(&mut self, query: &Query) {
        const BEHIND: &str = "write it in the query that reads the CTE";
        if !matches!(query.body.as_ref(), SetExpr::SetOperation { op: SetOperator::Union, .. }) {
            return;
        }
        let clauses = [
            (query.with.is_some(), "WITH in a CTE of WITH RECURSIVE", "write its CTEs before this one"),
            (query.order_by.is_some(), "ORDER BY in a CTE of WITH RECURSIVE", BEHIND),
            (query.limit_clause.is_some(), "LIMIT in a CTE of WITH RECURSIVE", BEHIND),
            (query.fetch.is_some(), "FETCH in a CTE of WITH RECURSIVE", BEHIND),
            (!query.pipe_operators.is_empty(), "|> in a CTE of WITH RECURSIVE", BEHIND),
        ];
        self.add(&clauses, query);
    }

    /// Adds what is lost of an `operator` that stands behind `query`.
    fn piped(&mut self, operator: &PipeOperator, query: &Query) {
        let is_ordered = |item: &ExprWithAliasAndOrderBy| item.order_by.asc.is_some();
        let clause = match operator {
            PipeOperator::Aggregate { full_table_exprs, group_by_expr } => {
                let is_there = full_table_exprs.iter().chain(group_by_expr).any(is_ordered);
                (is_there, "ASC or DESC in |> AGGREGATE", "write |> ORDER BY behind it")
            }
            PipeOperator::Select { exprs } | PipeOperator::Extend { exprs } => patterned(exprs),
            _ => return,
        };
        self.add(&[clause], query);
    }

    /// Adds those of the `clauses` of `part` that are there, each with what does instead of it.
    fn add(&mut self, clauses: &[Clause], part: &impl Spanned) {
        let there = clauses.iter().filter(|(is_there, ..)| *is_there);
        self.unread.extend(there.map(|&(_, clause, hint)| Unread { clause, hint, span: part.span() }));
    }
}

/// Whether a clause is there, its words, and what does instead of it.
type Clause = (bool, &'static str, &'static str);

fn patterned(projection: &[SelectItem]) -> Clause {
    let is_patterned = |item: &SelectItem| {
        matches!(item, SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options)
            if options.opt_ilike.is_some())
    };
    (projection.iter().any(is_patterned), "* ILIKE", "list the columns, or leave some out by * EXCEPT (..)")
}
