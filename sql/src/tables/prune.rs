//! Decides, from the log alone, which data files a query need not open.
//!
//! A filter on partition columns only is decided for good: a file has one value of each. Any other filter leaves a file
//! out where its bounds show that no row can match; rows are then filtered by who reads them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::DFSchema;
use datafusion::common::stats::Precision;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;

use super::columns::Columns;
use super::live::LiveFiles;

/// Tells whether `filter` is decided by partition values alone.
pub(super) fn is_on_partitions(filter: &Expr, columns: &Columns) -> bool {
    let named = filter.column_refs();
    let is_partition = |name: &str| columns.scanned.table_partition_cols().iter().any(|field| field.name() == name);
    !named.is_empty() && named.iter().all(|column| is_partition(&column.name)) && !filter.is_volatile()
}

/// Tells whether a filter names a column with floating numbers, on its own or among its members.
pub(super) fn name_floats(filters: &[Expr], columns: &Columns) -> bool {
    let schema = columns.scanned.table_schema();
    let is_floating = |name: &str| schema.field_with_name(name).is_ok_and(|field| holds_floats(field.data_type()));
    filters.iter().any(|filter| filter.column_refs().iter().any(|column| is_floating(&column.name)))
}

pub(super) fn holds_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(members) => members.iter().any(|member| holds_floats(member.data_type())),
        DataType::List(element) | DataType::Map(element, _) => holds_floats(element.data_type()),
        other => other.is_floating(),
    }
}

/// Returns the files of `live`, by index, that may have rows that match `filters`.
///
/// # Errors
/// What evaluating a filter on partition values says.
pub(super) fn choose(
    live: &LiveFiles,
    columns: &Columns,
    filters: &[Expr],
    session: &dyn Session,
) -> DfResult<Vec<usize>> {
    let mut chosen: Vec<usize> = (0..live.files.len()).filter(|&index| !live.files[index].is_empty()).collect();
    let (on_partitions, others): (Vec<_>, Vec<_>) =
        filters.iter().cloned().partition(|filter| is_on_partitions(filter, columns));
    if let Some(matched) = match_partitions(conjunction(on_partitions), live.partitions(), session)? {
        chosen.retain(|&index| matched[index]);
    }
    if let Some(filter) = conjunction(others) {
        let may_match = bounds_allow(live, columns.scanned.table_schema(), filter, session);
        match may_match {
            Ok(Some(may_match)) => chosen.retain(|&index| may_match[index]),
            Ok(None) => {}
            Err(cause) => tracing::debug!(%cause, "cannot skip files by their statistics"),
        }
    }
    Ok(chosen)
}

/// Returns which rows of partition values match the filters that they alone decide; nothing where there are none.
///
/// # Errors
/// What evaluating a filter says.
pub(super) fn matching(
    partitions: &RecordBatch,
    columns: &Columns,
    filters: &[Expr],
    session: &dyn Session,
) -> DfResult<Option<Vec<bool>>> {
    let decided = filters.iter().filter(|filter| is_on_partitions(filter, columns)).cloned();
    match_partitions(conjunction(decided), partitions, session)
}

fn match_partitions(
    filter: Option<Expr>,
    partitions: &RecordBatch,
    session: &dyn Session,
) -> DfResult<Option<Vec<bool>>> {
    let Some(filter) = filter else { return Ok(None) };
    let matched = physical(filter, partitions.schema(), session)?.evaluate(partitions)?;
    let matched = matched.into_array(partitions.num_rows())?;
    let matched = matched.as_boolean();
    Ok(Some((0..matched.len()).map(|index| matched.is_valid(index) && matched.value(index)).collect()))
}

/// Returns the first of the files `chosen` that are sure to have `limit` rows between them.
pub(super) fn first_rows(live: &LiveFiles, chosen: &mut Vec<usize>, limit: usize) {
    let mut n_rows = 0;
    let mut n_files = 0;
    for &index in chosen.iter() {
        if n_rows >= limit {
            break;
        }
        n_files += 1;
        if let Precision::Exact(live_rows) = live.files[index].statistics.num_rows {
            n_rows += live_rows;
        }
    }
    chosen.truncate(n_files);
}

/// Returns, for each file, whether its bounds let rows match `filter`; nothing where the filter says nothing of bounds.
fn bounds_allow(
    live: &LiveFiles,
    schema: &SchemaRef,
    filter: Expr,
    session: &dyn Session,
) -> DfResult<Option<Vec<bool>>> {
    let filter = physical(filter, Arc::clone(schema), session)?;
    let predicate = PruningPredicateBuilder::new()
        .with_file_schema(Arc::clone(schema))
        .with_max_in_list_size(session.config_options().execution.parquet.max_in_list_size)
        .build(filter);
    predicate.map(|predicate| predicate.prune(live)).transpose()
}

fn physical(filter: Expr, schema: SchemaRef, session: &dyn Session) -> DfResult<Arc<dyn PhysicalExpr>> {
    session.create_physical_expr(filter, &DFSchema::try_from(schema)?)
}
