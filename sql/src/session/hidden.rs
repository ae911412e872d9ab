//! Lets a query name hidden columns (`_alluvium_offset`), while no `*` shows them.
//!
//! Tables are planned without their hidden columns, so `*`, `t.*`, `NATURAL` and `USING` never meet them. Only where a
//! statement names a hidden column are its tables planned with them, and each `*` over such a table gets an `EXCEPT`. There
//! `NATURAL` between two of them is refused: it would ask their hidden columns to be equal, too.
//! On the way `orders.*` finds `silver.orders`, which DataFusion does not see as the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use alluvium_catalog::{DatasetKind, Error, Result};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    ExceptSelectItem, ExcludeSelectItem, Expr, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select,
    SelectItem, SelectItemQualifiedWildcardKind, TableFactor, TableWithJoins, VisitorMut, WildcardAdditionalOptions,
};

use super::catalogs::QueryCatalogs;
use super::pin::Pin;
use super::table_name;
use crate::tables::HIDDEN_PREFIX;
use crate::time_travel::{Scopes, pinned, visit};

/// Rewrites `statement` so that the hidden columns that it names are found and its wildcards leave them out.
///
/// # Errors
/// `Invalid` when a `*` over several tables with hidden columns cannot be told apart; what opening tables says.
pub(super) async fn reveal(statement: &mut DfStatement, catalogs: &QueryCatalogs) -> Result<()> {
    let mut named = Named::default();
    visit(statement, &mut named)?;
    let mut tables = BTreeMap::new();
    if named.hidden {
        for name in named.tables {
            if let Some(hidden) = hidden_columns(&name, catalogs).await? {
                tables.insert(name.to_string(), hidden);
            }
        }
    }
    visit(statement, &mut Reveal { tables, scopes: Scopes::default() })
}

/// Returns the hidden columns of the table that `name` means; nothing where there are none or it is no Delta table.
async fn hidden_columns(name: &ObjectName, catalogs: &QueryCatalogs) -> Result<Option<Vec<String>>> {
    let Ok(table) = table_name(name) else {
        return Ok(None);
    };
    let Some(dataset) = catalogs.dataset(&table) else {
        return Ok(None);
    };
    if !matches!(dataset.kind, DatasetKind::Delta | DatasetKind::DeadLetter) {
        return Ok(None);
    }
    let schema = catalogs.open(dataset, pin_of(name).version).await?.schema();
    let hidden: Vec<String> =
        schema.fields().iter().map(|field| field.name()).filter(|name| is_hidden(name)).cloned().collect();
    Ok((!hidden.is_empty()).then_some(hidden))
}

pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with(HIDDEN_PREFIX)
}

/// Returns the version that `name` means.
fn pin_of(name: &ObjectName) -> Pin {
    let catalog = match name.0.as_slice() {
        [catalog, _, _] => catalog.as_ident(),
        _ => None,
    };
    catalog.and_then(|catalog| Pin::read(&catalog.value)).unwrap_or(Pin::NEWEST)
}

/// Finds whether a statement names hidden columns, and all names that may be tables.
#[derive(Default)]
struct Named {
    hidden: bool,
    tables: BTreeSet<ObjectName>,
}

impl VisitorMut for Named {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        if let TableFactor::Table { name, args: None, .. } = factor {
            self.tables.insert(name.clone());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<Error> {
        self.hidden |= match expression {
            Expr::Identifier(name) => is_hidden(&name.value),
            Expr::CompoundIdentifier(parts) => parts.iter().any(|part| is_hidden(&part.value)),
            _ => false,
        };
        ControlFlow::Continue(())
    }
}

/// What stands in the FROM of one SELECT.
struct Relation {
    /// The names that a wildcard may call it by.
    names: Vec<String>,
    /// The name that DataFusion qualifies its columns with; none for a subquery without alias.
    qualifier: Option<ObjectName>,
    /// The hidden columns that it shows.
    hidden: Vec<String>,
    /// How it is joined to those before it.
    joined: Joined,
}

/// What a join says of columns, as far as `*` and hidden columns are concerned.
enum Joined {
    /// They stay apart: the first relation, `ON`, and no condition.
    Apart,
    /// `*` shows these once, from the left.
    Using(Vec<String>),
    /// `*` shows the columns of `USING` once, but the left may lack them: `RIGHT` and `FULL`.
    UsingEither,
    /// By all columns of one name.
    Natural,
}

impl Relation {
    fn named(name: ObjectName) -> Self {
        Self { names: vec![dotted(&name)], qualifier: Some(name), hidden: Vec::new(), joined: Joined::Apart }
    }
}

struct Reveal {
    /// The hidden columns of tables, by the name as written.
    tables: BTreeMap<String, Vec<String>>,
    scopes: Scopes,
}

impl VisitorMut for Reveal {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.scopes.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.scopes.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        match self.rewrite(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Reveal {
    fn rewrite(&self, select: &mut Select) -> Result<()> {
        let mut relations = Vec::new();
        for from in &mut select.from {
            self.add_relations(from, &mut relations)?;
        }
        let n_showing = relations.iter().filter(|relation| !relation.hidden.is_empty()).count();
        let is_natural = relations.iter().any(|relation| matches!(relation.joined, Joined::Natural));
        if n_showing > 1 && is_natural {
            return Err(Error::invalid(
                "NATURAL JOIN would join by hidden columns, too, where the statement names one",
            )
            .with_hint("write JOIN .. USING with the columns that are meant"));
        }
        if n_showing > 0 && select.projection.is_empty() {
            // FROM t alone means SELECT *, which DataFusion puts in later than could be seen here.
            select.projection.push(SelectItem::Wildcard(WildcardAdditionalOptions::default()));
        }
        let mut projection = Vec::with_capacity(select.projection.len());
        for mut item in std::mem::take(&mut select.projection) {
            forget_hidden(&mut item);
            expand(item, &relations, &mut projection)?;
        }
        select.projection = projection;
        Ok(())
    }

    fn add_relations(&self, from: &mut TableWithJoins, relations: &mut Vec<Relation>) -> Result<()> {
        let joins = from.joins.iter_mut().map(|join| (joined(&join.join_operator), &mut join.relation));
        for (joined, factor) in std::iter::once((Joined::Apart, &mut from.relation)).chain(joins) {
            let first = relations.len();
            match factor {
                TableFactor::NestedJoin { table_with_joins, alias: None } => {
                    self.add_relations(table_with_joins, relations)?;
                }
                TableFactor::Table { args: None, .. } => relations.push(self.table(factor)?),
                _ => relations.push(match alias(factor) {
                    Some(name) => Relation::named(name),
                    None => Relation { names: Vec::new(), qualifier: None, hidden: Vec::new(), joined: Joined::Apart },
                }),
            }
            if let Some(relation) = relations.get_mut(first) {
                relation.joined = joined;
            }
        }
        Ok(())
    }

    /// Lets a table show its hidden columns, if the statement names any.
    fn table(&self, factor: &mut TableFactor) -> Result<Relation> {
        let given = alias(factor);
        let TableFactor::Table { name, .. } = factor else {
            return Err(Error::internal("a relation changed its kind"));
        };
        let Ok(table) = table_name(name) else {
            return Ok(Relation::named(given.unwrap_or_else(|| name.clone())));
        };
        if self.scopes.holds(name) {
            return Ok(Relation::named(given.unwrap_or_else(|| name.clone())));
        }
        let written = dotted(name);
        let hidden = self.tables.get(&name.to_string()).cloned().unwrap_or_default();
        if !hidden.is_empty() {
            *name = pinned(name, Pin { hidden: true, ..pin_of(name) })?;
        }
        Ok(match given {
            Some(given) => Relation { hidden, ..Relation::named(given) },
            None => {
                let names = vec![table.table().to_owned(), table.to_string(), written];
                Relation { names, qualifier: Some(name.clone()), hidden, joined: Joined::Apart }
            }
        })
    }
}

/// Adds what stands for `item` to `projection`: a wildcard leaves hidden columns out.
fn expand(item: SelectItem, relations: &[Relation], projection: &mut Vec<SelectItem>) -> Result<()> {
    match item {
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
            let written = dotted(&name);
            let mut called = relations.iter().filter(|relation| relation.names.contains(&written));
            projection.push(match (called.next(), called.next()) {
                (Some(only), None) => columns_of(only.qualifier.clone().unwrap_or(name), &only.hidden, options),
                _ => columns_of(name, &[], options),
            });
        }
        SelectItem::Wildcard(mut options) => {
            let mut showing = relations.iter().filter(|relation| !relation.hidden.is_empty());
            match (showing.next(), showing.next()) {
                (None, _) => projection.push(SelectItem::Wildcard(options)),
                (Some(only), None) => {
                    leave_out(&mut options, &only.hidden);
                    projection.push(SelectItem::Wildcard(options));
                }
                // EXCEPT cannot tell columns of several tables apart, so `*` becomes `a.*, b.*`.
                (Some(_), Some(_)) => {
                    for relation in relations {
                        let qualifier = relation.qualifier.clone().ok_or_else(ambiguous)?;
                        let shown_before: &[String] = match &relation.joined {
                            Joined::Apart => &[],
                            Joined::Using(columns) => columns.as_slice(),
                            Joined::UsingEither | Joined::Natural => return Err(ambiguous()),
                        };
                        let left_out = [relation.hidden.as_slice(), shown_before].concat();
                        projection.push(columns_of(qualifier, &left_out, options.clone()));
                    }
                }
            }
        }
        other => projection.push(other),
    }
    Ok(())
}

fn columns_of(qualifier: ObjectName, left_out: &[String], mut options: WildcardAdditionalOptions) -> SelectItem {
    leave_out(&mut options, left_out);
    SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(qualifier), options)
}

fn ambiguous() -> Error {
    Error::invalid("cannot tell which columns '*' means beside the hidden ones that are named")
        .with_hint("give every subquery in FROM an alias, or list the columns")
}

/// Returns what a join of this kind says of columns.
fn joined(operator: &JoinOperator) -> Joined {
    let (constraint, is_left_whole) = match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint) => (constraint, true),
        JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::Semi(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::Anti(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::RightAnti(constraint) => (constraint, false),
        // DataFusion joins by no others that have a condition.
        _ => return Joined::Apart,
    };
    match constraint {
        JoinConstraint::Natural => Joined::Natural,
        JoinConstraint::Using(columns) if is_left_whole => Joined::Using(columns.iter().map(dotted).collect()),
        JoinConstraint::Using(_) => Joined::UsingEither,
        JoinConstraint::On(_) | JoinConstraint::None => Joined::Apart,
    }
}

fn alias(factor: &TableFactor) -> Option<ObjectName> {
    let alias = match factor {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. }
        | TableFactor::NestedJoin { alias, .. } => alias.as_ref()?,
        _ => return None,
    };
    Some(ObjectName::from(vec![alias.name.clone()]))
}

fn dotted(name: &ObjectName) -> String {
    let parts: Vec<&str> = name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.as_str()).collect();
    parts.join(".")
}

/// Takes hidden columns out of an `EXCEPT` or `EXCLUDE` that was written: they are left out anyway, and DataFusion
/// refuses to leave out what is not there.
fn forget_hidden(item: &mut SelectItem) {
    let (SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options)) = item else {
        return;
    };
    if let Some(except) = options.opt_except.take() {
        let kept = std::iter::once(except.first_element).chain(except.additional_elements);
        options.opt_except = except_of(kept.filter(|ident| !is_hidden(&ident.value)).collect());
    }
    if let Some(exclude) = options.opt_exclude.take() {
        let names = match exclude {
            ExcludeSelectItem::Single(name) => vec![name],
            ExcludeSelectItem::Multiple(names) => names,
        };
        let kept: Vec<ObjectName> = names.into_iter().filter(|name| !is_hidden(&dotted(name))).collect();
        options.opt_exclude = (!kept.is_empty()).then_some(ExcludeSelectItem::Multiple(kept));
    }
}

fn leave_out(options: &mut WildcardAdditionalOptions, names: &[String]) {
    let mut columns: Vec<Ident> = match options.opt_except.take() {
        Some(except) => std::iter::once(except.first_element).chain(except.additional_elements).collect(),
        None => Vec::new(),
    };
    for name in names {
        if columns.iter().all(|column| column.value != *name) {
            columns.push(Ident::with_quote('"', name));
        }
    }
    options.opt_except = except_of(columns);
}

fn except_of(columns: Vec<Ident>) -> Option<ExceptSelectItem> {
    let mut columns = columns.into_iter();
    let first_element = columns.next()?;
    Some(ExceptSelectItem { first_element, additional_elements: columns.collect() })
}
