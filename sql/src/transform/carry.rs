//! Leads a record's position beside its row from the scan of the stream up to the top of a plan.
//!
//! Only operators that work on rows one by one can be passed: projection, filter, alias, unnest, and joins that keep the
//! stream's side. Anything else between the stream and the top would mean "per batch" and is refused; below a joined
//! table everything is allowed.

use std::sync::Arc;

use datafusion::common::{Column, JoinType, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::logical_plan::TableScanBuilder;
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, Projection, SubqueryAlias, TableSource, Unnest};

use crate::compile::plan::STREAM_TABLE;
use crate::pipeline::{HIDDEN_OFFSET, HIDDEN_PARTITION};

/// A plan with the position among its columns.
#[derive(Debug)]
pub(super) struct Carried {
    /// The plan.
    pub(super) plan: LogicalPlan,
    /// The columns of the position: partition and offset.
    pub(super) position: [Column; 2],
}

/// Returns `plan` with the position among its columns and `source` in the place of the stream.
///
/// # Errors
/// `Plan` when the plan does not read the stream once, or an operator does not work on single rows.
pub(super) fn carry(plan: LogicalPlan, source: &Arc<dyn TableSource>) -> Result<Carried> {
    match lead(plan, source)? {
        Led::Stream(carried) => Ok(*carried),
        Led::Table(_) => plan_err!("the query reads no stream"),
    }
}

/// A plan on the way up.
enum Led {
    /// It reads the stream.
    Stream(Box<Carried>),
    /// It does not.
    Table(Arc<LogicalPlan>),
}

fn lead(plan: LogicalPlan, source: &Arc<dyn TableSource>) -> Result<Led> {
    if !reads_stream(&plan) {
        return Ok(Led::Table(Arc::new(plan)));
    }
    let carried = match plan {
        LogicalPlan::TableScan(_) => scan(source)?,
        LogicalPlan::Projection(projection) => project(projection, source)?,
        LogicalPlan::Filter(filter) => {
            let Carried { plan, position } = carry(Arc::unwrap_or_clone(filter.input), source)?;
            let filter = Filter::try_new(filter.predicate, Arc::new(plan))?;
            Carried { plan: LogicalPlan::Filter(filter), position }
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Carried { plan, position } = carry(Arc::unwrap_or_clone(alias.input), source)?;
            let position = position.map(|column| Column::new(Some(alias.alias.clone()), column.name));
            let alias = SubqueryAlias::try_new(Arc::new(plan), alias.alias)?;
            Carried { plan: LogicalPlan::SubqueryAlias(alias), position }
        }
        LogicalPlan::Unnest(unnest) => {
            let Carried { plan, position } = carry(Arc::unwrap_or_clone(unnest.input), source)?;
            let unnest = Unnest::try_new(Arc::new(plan), unnest.exec_columns, unnest.options)?;
            Carried { plan: LogicalPlan::Unnest(unnest), position }
        }
        LogicalPlan::Join(join) => join_lookup(join, source)?,
        other => return plan_err!("{} of a stream would mean: of one batch", other.display()),
    };
    Ok(Led::Stream(Box::new(carried)))
}

fn scan(source: &Arc<dyn TableSource>) -> Result<Carried> {
    let scan = TableScanBuilder::new(STREAM_TABLE, Arc::clone(source)).build()?;
    let position = [HIDDEN_PARTITION, HIDDEN_OFFSET].map(|name| Column::new(Some(STREAM_TABLE), name));
    Ok(Carried { plan: LogicalPlan::TableScan(scan), position })
}

fn project(projection: Projection, source: &Arc<dyn TableSource>) -> Result<Carried> {
    let Carried { plan, position } = carry(Arc::unwrap_or_clone(projection.input), source)?;
    let mut expressions = projection.expr;
    expressions.extend(position.iter().cloned().map(Expr::Column));
    let projection = Projection::try_new(expressions, Arc::new(plan))?;
    Ok(Carried { plan: LogicalPlan::Projection(projection), position })
}

fn join_lookup(join: Join, source: &Arc<dyn TableSource>) -> Result<Carried> {
    let left = lead(Arc::unwrap_or_clone(join.left), source)?;
    let right = lead(Arc::unwrap_or_clone(join.right), source)?;
    let (left, right, position, is_left) = match (left, right) {
        (Led::Stream(left), Led::Table(right)) => (Arc::new(left.plan), right, left.position, true),
        (Led::Table(left), Led::Stream(right)) => (left, Arc::new(right.plan), right.position, false),
        _ => return plan_err!("the query reads its stream more than once"),
    };
    if !keeps_stream(join.join_type, is_left) {
        return plan_err!("a {} join makes up rows that no record of the stream stands for", join.join_type);
    }
    let join = Join::try_new(
        left,
        right,
        join.on,
        join.filter,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    Ok(Carried { plan: LogicalPlan::Join(join), position })
}

/// Tells whether every row of the join has the stream's columns.
fn keeps_stream(join_type: JoinType, stream_is_left: bool) -> bool {
    match join_type {
        JoinType::Inner => true,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => stream_is_left,
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => !stream_is_left,
        JoinType::Full => false,
    }
}

/// Tells whether `plan` scans the stream. Subqueries in expressions cannot: the compiler lets the stream stand in FROM only.
pub(super) fn reads_stream(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => scan.table_name.table() == STREAM_TABLE,
        other => other.inputs().into_iter().any(reads_stream),
    }
}
