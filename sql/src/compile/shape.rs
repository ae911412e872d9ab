//! Proves on the plan that a flow's query turns each row of the stream into rows of its own.
//!
//! From the root down to the one scan of the stream only projections, filters, aliases, unnesting and joins may stand,
//! and a join must neither leave the stream's rows out of sight nor make up rows without one.

use datafusion::common::JoinType;
use datafusion::logical_expr::{Join, LogicalPlan};

use super::plan::STREAM_TABLE;
use crate::diagnostic::code;

/// What is wrong with a plan: a code, a message and a hint.
pub(super) type Fault = (&'static str, String, &'static str);

/// Checks the way from the root of `plan` to the stream.
///
/// # Errors
/// The first thing on the way that does not belong there.
pub(super) fn check(plan: &LogicalPlan) -> Result<(), Fault> {
    match streams(plan)? {
        1 => Ok(()),
        0 => Err((
            code::STREAM_COUNT,
            "the rows of STREAM do not reach the table".to_owned(),
            "read STREAM(source) in FROM, not in a subquery of an expression",
        )),
        _ => Err((
            code::STREAM_COUNT,
            "the query reads the stream more than once".to_owned(),
            "a row of the table comes from one record",
        )),
    }
}

/// Returns how many scans of the stream are below `plan`.
fn streams(plan: &LogicalPlan) -> Result<usize, Fault> {
    if let LogicalPlan::TableScan(scan) = plan {
        return Ok(usize::from(scan.table_name.table() == STREAM_TABLE));
    }
    if let LogicalPlan::Join(join) = plan {
        return join_streams(join);
    }
    let mut found = 0;
    for input in plan.inputs() {
        found += streams(input)?;
    }
    match plan {
        _ if found == 0 => Ok(0),
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::Unnest(_) => Ok(found),
        other => Err((
            code::PER_BATCH,
            format!("{} over STREAM would mean per batch", words(other)),
            "aggregate, order and limit when reading the table",
        )),
    }
}

fn join_streams(join: &Join) -> Result<usize, Fault> {
    let (left, right) = (streams(&join.left)?, streams(&join.right)?);
    let kept = match join.join_type {
        JoinType::Inner => true,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => right == 0,
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => left == 0,
        JoinType::Full => left + right == 0,
    };
    if kept {
        return Ok(left + right);
    }
    Err((
        code::STREAM_SIDE,
        format!("STREAM stands on the optional side of a {} JOIN", join.join_type.to_string().to_uppercase()),
        "the rows of a table that match nothing would come again with every batch; write FROM STREAM(source) LEFT JOIN table",
    ))
}

fn words(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Aggregate(_) => "an aggregate",
        LogicalPlan::Window(_) => "a window function",
        LogicalPlan::Sort(_) => "ORDER BY",
        LogicalPlan::Limit(_) => "LIMIT",
        LogicalPlan::Distinct(_) => "DISTINCT",
        LogicalPlan::Union(_) => "UNION",
        LogicalPlan::RecursiveQuery(_) => "a recursive query",
        _ => "this query",
    }
}
