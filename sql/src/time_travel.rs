//! Gives `t VERSION AS OF n` and `t TIMESTAMP AS OF '..'` their meaning, before DataFusion plans the statement.
//!
//! DataFusion's planner drops the clause and reads the newest version without a word, so here each is turned into a name
//! that stands for the version ([`Pin`]), wherever in the statement it is: joins, subqueries, CTEs. What cannot be turned
//! is an error, and [`check_no_version_remains`] proves that nothing was left.

use std::ops::ControlFlow;

use alluvium_catalog::{Error, Result, TableName, Timestamp};
use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use datafusion::sql::parser::{CopyToSource, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Query, TableFactor, TableVersion, Value, VisitMut, VisitorMut,
};

use crate::session::{Pin, table_name};
use crate::tables::Version;

/// Arrow's name of UTC, which it knows without a time zone database.
const UTC: &str = "+00:00";

/// Puts the name that stands for its version in the place of every relation with a version.
///
/// # Errors
/// `Invalid` when the version is not a number or a time, or its relation is not a table.
pub(crate) fn pin_versions(statement: &mut DfStatement) -> Result<()> {
    visit(statement, &mut Pins { scopes: Scopes::default() })
}

/// Refuses a statement with a version in it that nothing will read.
///
/// # Errors
/// `Internal`: [`pin_versions`] should have turned it.
pub(crate) fn check_no_version_remains(statement: &DfStatement) -> Result<()> {
    visit(&mut statement.clone(), &mut Remains)
}

/// Leads `visitor` through all of `statement`, DataFusion's own statements included.
pub(crate) fn visit<V: VisitorMut<Break = Error>>(statement: &mut DfStatement, visitor: &mut V) -> Result<()> {
    let flow = match statement {
        DfStatement::Statement(statement) => statement.visit(visitor),
        DfStatement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(query) => query.visit(visitor),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        DfStatement::Explain(explain) => return visit(&mut explain.statement, visitor),
        DfStatement::CreateExternalTable(_) | DfStatement::Reset(_) => ControlFlow::Continue(()),
    };
    match flow {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Which names stand for CTEs rather than tables at the place of a traversal.
///
/// A CTE is known in those after it and in the query's body, but not in its own body unless it is recursive, so that
/// `WITH t AS (SELECT * FROM t)` reads the table. The order of sqlparser's traversal is relied on: the bodies of the CTEs
/// in the order written, then the rest of the query.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    frames: Vec<Frame>,
}

#[derive(Debug)]
struct Frame {
    names: Vec<String>,
    n_known: usize,
    n_bodies_left: usize,
}

impl Scopes {
    /// Enters `query`.
    pub(crate) fn enter(&mut self, query: &Query) {
        let names: Vec<String> = match &query.with {
            Some(with) => with.cte_tables.iter().map(|cte| cte.alias.name.value.clone()).collect(),
            None => Vec::new(),
        };
        let is_recursive = query.with.as_ref().is_some_and(|with| with.recursive);
        let n_known = if is_recursive { names.len() } else { 0 };
        self.frames.push(Frame { n_known, n_bodies_left: names.len(), names });
    }

    /// Leaves the query that was entered last.
    pub(crate) fn leave(&mut self) {
        self.frames.pop();
        if let Some(outer) = self.frames.last_mut()
            && outer.n_bodies_left > 0
        {
            outer.n_bodies_left -= 1;
            outer.n_known = outer.n_known.max(outer.names.len() - outer.n_bodies_left);
        }
    }

    /// Tells whether `name` stands for a CTE here.
    pub(crate) fn holds(&self, name: &ObjectName) -> bool {
        let [part] = name.0.as_slice() else {
            return false;
        };
        let Some(ident) = part.as_ident() else {
            return false;
        };
        self.frames.iter().any(|frame| frame.names[..frame.n_known].contains(&ident.value))
    }
}

struct Pins {
    scopes: Scopes,
}

impl VisitorMut for Pins {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.scopes.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.scopes.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        match self.pin(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Pins {
    fn pin(&self, factor: &mut TableFactor) -> Result<()> {
        let TableFactor::Table { name, args, version, .. } = factor else {
            return Ok(());
        };
        let Some(written) = version.take() else {
            return Ok(());
        };
        if args.is_some() || self.scopes.holds(name) {
            return Err(Error::invalid(format!("{name} has no versions: it is not a table")));
        }
        if is_made_up(&table_name(name)?) {
            return Err(Error::invalid(format!("{name} has no versions: it shows what there is now")));
        }
        *name = pinned(name, Pin { version: read(&written)?, hidden: false })?;
        Ok(())
    }
}

/// Tells whether every session makes up the rows of a table itself.
fn is_made_up(name: &TableName) -> bool {
    TableName::RESERVED_SCHEMAS.iter().any(|schema| schema.eq_ignore_ascii_case(name.schema()))
}

/// Returns the name that stands for the table `name` under `pin`.
///
/// # Errors
/// `Invalid` when `name` is not a table's.
pub(crate) fn pinned(name: &ObjectName, pin: Pin) -> Result<ObjectName> {
    let table = table_name(name)?;
    let span = name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.span);
    let parts = [pin.catalog(), table.schema().to_owned(), table.table().to_owned()];
    let parts = parts.map(|part| Ident { span: span.unwrap_or(Ident::new("").span), ..Ident::with_quote('"', part) });
    Ok(ObjectName::from(parts.to_vec()))
}

fn read(version: &TableVersion) -> Result<Version> {
    match version {
        TableVersion::VersionAsOf(expression) => match literal(expression) {
            Some(text) => match text.parse() {
                Ok(number) => Ok(Version::At(number)),
                Err(_) => Err(refused(version)),
            },
            None => Err(refused(version)),
        },
        TableVersion::TimestampAsOf(expression) => {
            let text = literal(expression).ok_or_else(|| refused(version))?;
            time(text).map(Version::AsOf)
        }
        _ => Err(refused(version)),
    }
}

fn refused(version: &TableVersion) -> Error {
    Error::invalid(format!("cannot read a table {version}"))
        .with_hint("write VERSION AS OF 41 or TIMESTAMP AS OF '2026-03-01T12:00:00Z'")
}

fn literal(expression: &Expr) -> Option<&str> {
    let value = match expression {
        Expr::Value(value) => &value.value,
        Expr::TypedString(typed) => &typed.value.value,
        _ => return None,
    };
    match value {
        Value::Number(text, _) => Some(text),
        Value::SingleQuotedString(text) => Some(text),
        _ => None,
    }
}

/// Reads a time as DataFusion reads it elsewhere; without a zone it is in UTC.
fn time(text: &str) -> Result<Timestamp> {
    let read = || string_to_datetime(&UTC.parse::<Tz>()?, text);
    let time = read().map_err(|cause| {
        Error::invalid(format!("'{text}' is not a time"))
            .with_hint("write TIMESTAMP AS OF '2026-03-01T12:00:00Z'; without a zone it is UTC")
            .with_source(cause)
    })?;
    Ok(Timestamp(time.timestamp_millis()))
}

struct Remains;

impl VisitorMut for Remains {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        match factor {
            TableFactor::Table { version: Some(version), .. } => {
                ControlFlow::Break(Error::internal(format!("{version} would not be read")))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests;
