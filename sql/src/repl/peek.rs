//! Looking at a topic from SQL: which sources a query reads, how many records that needs, and the seam to the engine
//! that fetches them.
//!
//! A peek reads with a consumer that belongs to no group and commits nothing, so it never disturbs a running flow. It
//! is always bounded: a topic has no end.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use alluvium_catalog::{Connection, Result, Source, Topic, counted};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::sql::sqlparser::ast::{
    self, Expr, GroupByExpr, LimitClause, Query, SelectItem, SetExpr, TableFactor, Value, Visit, VisitMut, Visitor,
    VisitorMut,
};

use crate::compile::plan::stream_argument;

/// The bounds of a peek; the first that is reached ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeekLimit {
    /// Records.
    pub records_max: usize,
    /// Bytes of keys and values.
    pub bytes_max: usize,
    /// Time.
    pub timeout: Duration,
}

impl PeekLimit {
    /// What an implementation may take beyond its timeout to connect and to close.
    pub(super) const GRACE: Duration = Duration::from_secs(10);
}

impl Default for PeekLimit {
    /// A screenful or ten of records, at most what fits beside a laptop's other work, no longer than people wait.
    fn default() -> Self {
        Self { records_max: 1_000, bytes_max: 64 << 20, timeout: Duration::from_secs(5) }
    }
}

/// What a peek saw.
#[derive(Debug, Clone)]
pub struct Peeked {
    /// The source's declared columns in order, metadata and computed ones included; a row for each readable record.
    pub rows: RecordBatch,
    /// Records that were looked at.
    pub n_records: usize,
    /// How many of them are tombstones: they have no value that could be a row.
    pub n_tombstones: usize,
    /// How many of the others are no rows because they could not be read, or a computed column not be computed.
    pub n_unreadable: usize,
    /// Where the first of the unreadable ones is and what is wrong with it: `orders/0@7: not valid JSON`.
    pub first_fault: Option<String>,
}

impl Peeked {
    /// Returns what people should know about the rows, a line each.
    pub(super) fn notes(&self, topic: &Topic) -> Vec<String> {
        let n_records = counted(self.n_records as u64, "record");
        let mut notes = vec![format!("peeked at {n_records} of topic {topic}; nothing was committed")];
        match self.n_tombstones {
            0 => {}
            1 => notes.push("1 of them is a tombstone, which has no value to show".to_owned()),
            n_tombstones => notes.push(format!("{n_tombstones} of them are tombstones, which have no value to show")),
        }
        if self.n_unreadable > 0 {
            let first = self.first_fault.as_ref().map(|fault| format!("; the first is {fault}")).unwrap_or_default();
            let (n_unreadable, are) = (self.n_unreadable, if self.n_unreadable == 1 { "is" } else { "are" });
            notes.push(format!("{n_unreadable} of them could not be read and {are} left out{first}"));
        }
        notes
    }
}

/// Fetches some records of a source.
#[async_trait]
pub trait Peek: Send + Sync + fmt::Debug {
    /// Returns records of `source` within `limit`, decoded. Nothing is committed anywhere.
    ///
    /// # Errors
    /// `Unavailable` when the cluster does not answer, `Invalid` when the topic or a secret does not exist.
    async fn peek(&self, source: &Source, connection: &Connection, limit: PeekLimit) -> Result<Peeked>;
}

/// Returns the limit of a peek for `query`: its LIMIT where that bounds the records read, else the default.
pub(super) fn limit_of(query: &Query) -> PeekLimit {
    let default = PeekLimit::default();
    match plain_limit(query) {
        Some(records_max) => PeekLimit { records_max, ..default },
        None => default,
    }
}

/// The most records that a LIMIT may ask for; a larger answer is a job for a flow.
const RECORDS_MAX: usize = 100_000;

/// Returns n of `SELECT .. FROM one LIMIT n` where n records are all that the answer depends on.
fn plain_limit(query: &Query) -> Option<usize> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let is_one_relation = matches!(&select.from[..], [from]
        if from.joins.is_empty() && matches!(from.relation, TableFactor::Table { .. }));
    let is_grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    let reads_further = query.with.is_some()
        || query.order_by.is_some()
        || select.selection.is_some()
        || select.having.is_some()
        || select.qualify.is_some()
        || select.distinct.is_some()
        || is_grouped;
    if !is_one_relation || reads_further || select.projection.iter().any(is_computed) {
        return None;
    }
    let Some(LimitClause::LimitOffset { limit: Some(Expr::Value(limit)), offset: None, .. }) = &query.limit_clause
    else {
        return None;
    };
    let Value::Number(digits, _) = &limit.value else { return None };
    digits.to_string().parse().ok().map(|limit: usize| limit.min(RECORDS_MAX))
}

/// Tells whether an output column is more than a column: an aggregate would need every record.
fn is_computed(item: &SelectItem) -> bool {
    match item {
        SelectItem::UnnamedExpr(expression) | SelectItem::ExprWithAlias { expr: expression, .. } => {
            !matches!(expression, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
        }
        _ => false,
    }
}

/// Returns the unqualified names of relations that `statement` reads, `STREAM(name)` and `name` alike, each once.
pub(super) fn bare_relations(statement: &ast::Statement) -> Vec<String> {
    let mut relations = BareRelations::default();
    let _: ControlFlow<()> = statement.visit(&mut relations);
    relations.0
}

#[derive(Default)]
struct BareRelations(Vec<String>);

impl Visitor for BareRelations {
    type Break = ();

    fn pre_visit_table_factor(&mut self, relation: &TableFactor) -> ControlFlow<()> {
        let name = match (stream_argument(relation), relation) {
            (Some(argument), _) => argument.map(|name| name.value.clone()),
            (None, TableFactor::Table { name, args: None, .. }) => match name.0.as_slice() {
                [ast::ObjectNamePart::Identifier(name)] => Some(name.value.clone()),
                _ => None,
            },
            _ => None,
        };
        if let Some(name) = name.filter(|name| !self.0.contains(name)) {
            self.0.push(name);
        }
        ControlFlow::Continue(())
    }
}

/// Replaces every `STREAM(name)` by `name`: what was peeked at stands under the source's own name.
pub(super) fn unstream(statement: &mut ast::Statement) {
    struct Unstream;
    impl VisitorMut for Unstream {
        type Break = ();

        fn post_visit_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<()> {
            let Some(Some(source)) = stream_argument(relation).map(|argument| argument.cloned()) else {
                return ControlFlow::Continue(());
            };
            if let TableFactor::Table { name, args, .. } = relation {
                *name = ast::ObjectName::from(vec![source]);
                *args = None;
            }
            ControlFlow::Continue(())
        }
    }
    let _: ControlFlow<()> = statement.visit(&mut Unstream);
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::{Parser, ParserError};

    use super::*;

    fn parse(sql: &str) -> Result<ast::Statement, ParserError> {
        Parser::new(&GenericDialect {}).try_with_sql(sql)?.parse_statement()
    }

    fn check_limit(sql: &str, expected: usize) -> Result<(), ParserError> {
        let ast::Statement::Query(query) = parse(sql)? else { return Ok(()) };
        assert_eq!(limit_of(&query).records_max, expected, "{sql}");
        Ok(())
    }

    #[test]
    fn only_a_plain_limit_bounds_the_records() -> Result<(), ParserError> {
        check_limit("SELECT * FROM s LIMIT 5", 5)?;
        check_limit("SELECT a, s.b AS c FROM STREAM(s) s LIMIT 5", 5)?;
        check_limit("SELECT * FROM s LIMIT 1000000000", 100_000)?;
        for further in [
            "SELECT * FROM s",
            "SELECT * FROM s WHERE a = 1 LIMIT 5",
            "SELECT count(*) FROM s LIMIT 5",
            "SELECT a FROM s GROUP BY a LIMIT 5",
            "SELECT DISTINCT a FROM s LIMIT 5",
            "SELECT a FROM s QUALIFY row_number() OVER (PARTITION BY a ORDER BY b) = 1 LIMIT 5",
            "SELECT * FROM s ORDER BY a LIMIT 5",
            "SELECT * FROM s LIMIT 5 OFFSET 5",
            "SELECT * FROM (SELECT count(*) FROM s) LIMIT 5",
            "SELECT * FROM s JOIN t ON s.a = t.a LIMIT 5",
            "SELECT * FROM s UNION ALL SELECT * FROM t LIMIT 5",
        ] {
            check_limit(further, PeekLimit::default().records_max)?;
        }
        Ok(())
    }

    #[test]
    fn relations_are_found_wherever_they_are_read() -> Result<(), ParserError> {
        let sql = "WITH w AS (SELECT * FROM STREAM(a)) SELECT * FROM w JOIN b x ON true JOIN silver.c ON true \
                   WHERE d IN (SELECT d FROM a)";
        let mut statement = parse(sql)?;
        assert_eq!(bare_relations(&statement), ["a", "w", "b"]);
        unstream(&mut statement);
        assert!(statement.to_string().contains("FROM a) SELECT"), "{statement}");
        assert_eq!(bare_relations(&parse("EXPLAIN SELECT * FROM a")?), ["a"]);
        Ok(())
    }
}
