//! What comes out of a flow's query: the table's columns, the position, SEQUENCE BY and the delete mark.

use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use datafusion::common::{Column, DFSchema, plan_err};
use datafusion::error::Result as DfResult;
use datafusion::execution::SessionState;
use datafusion::functions::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use datafusion::sql::sqlparser::ast;

use super::Shaped;
use super::carry::Carried;
use crate::pipeline::{Change, Flow};

/// The layout of what a flow's plan delivers: columns of the table, partition, offset, fields of SEQUENCE BY, delete mark.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The table's columns, all nullable.
    pub(super) schema: SchemaRef,
    /// The fields of SEQUENCE BY; none for appends.
    n_sequence: usize,
    is_upsert: bool,
}

impl Outcome {
    /// Returns the layout for `flow`.
    pub(super) fn new(flow: &Flow) -> Self {
        let nullable = |field: &Arc<Field>| field.as_ref().clone().with_nullable(true);
        let schema = Arc::new(Schema::new(flow.table_schema.fields().iter().map(nullable).collect::<Vec<_>>()));
        let n_sequence = match &flow.change {
            Change::Append => 0,
            Change::Upsert { sequence, .. } => sequence.len(),
        };
        Self { schema, n_sequence, is_upsert: flow.is_upsert() }
    }

    /// Puts the layout on top of a flow's query. Columns of the table are found by name.
    ///
    /// # Errors
    /// What DataFusion says of SEQUENCE BY or the delete mark; `Plan` when the query lacks a column of the table.
    pub(super) fn project(&self, flow: &Flow, carried: Carried, state: &SessionState) -> DfResult<LogicalPlan> {
        let Carried { plan, position } = carried;
        let mut expressions = Vec::new();
        for field in self.schema.fields() {
            let column = output_column(plan.schema(), field.name())?;
            expressions.push(cast(Expr::Column(column), field.data_type().clone()).alias(field.name()));
        }
        expressions.extend(
            position
                .into_iter()
                .zip(["partition", "offset"])
                .map(|(column, name)| Expr::Column(column).alias(layout_name(name))),
        );
        if let Change::Upsert { sequence, delete_when, .. } = &flow.change {
            for (index, field) in sequence.iter().enumerate() {
                let value = expression(field, plan.schema(), state)?;
                expressions.push(value.alias(layout_name(&format!("sequence_{index}"))));
            }
            let delete = match delete_when {
                Some(condition) => coalesce(vec![expression(condition, plan.schema(), state)?, lit(false)]),
                None => lit(false),
            };
            expressions.push(delete.alias(layout_name("delete")));
        }
        LogicalPlanBuilder::from(plan).project(expressions)?.build()
    }

    /// Returns the types of the fields of SEQUENCE BY in what a plan delivers.
    pub(super) fn sequence_types(&self, delivered: &Schema) -> Vec<DataType> {
        let after_position = self.schema.fields().len() + 2;
        delivered
            .fields()
            .iter()
            .skip(after_position)
            .take(self.n_sequence)
            .map(|field| field.data_type().clone())
            .collect()
    }

    /// Takes what a plan delivered apart.
    ///
    /// # Errors
    /// `Internal` when it is not in this layout.
    pub(super) fn shape(&self, delivered: &RecordBatch) -> Result<Shaped> {
        let n_columns = self.schema.fields().len();
        let n_delivered = n_columns + 2 + self.n_sequence + usize::from(self.is_upsert);
        if delivered.num_columns() != n_delivered {
            return Err(misshapen(format!("it has {} columns, not {n_delivered}", delivered.num_columns())));
        }
        let columns = delivered.columns();
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns[..n_columns].to_vec())
            .map_err(|cause| misshapen("its columns are not the table's").with_source(cause))?;
        let partitions = columns[n_columns].as_primitive_opt::<Int32Type>();
        let offsets = columns[n_columns + 1].as_primitive_opt::<Int64Type>();
        let deletes = match columns.last() {
            Some(last) if self.is_upsert => {
                Some(last.as_boolean_opt().ok_or_else(|| misshapen("its delete mark is no truth"))?.clone())
            }
            _ => None,
        };
        Ok(Shaped {
            rows,
            partitions: partitions.ok_or_else(|| misshapen("its partition is no INT"))?.clone(),
            offsets: offsets.ok_or_else(|| misshapen("its offset is no BIGINT"))?.clone(),
            sequence: columns[n_columns + 2..n_columns + 2 + self.n_sequence].to_vec(),
            deletes,
        })
    }
}

/// Returns the name of a column of the layout that is not the table's.
pub(super) fn layout_name(name: &str) -> String {
    format!("__alluvium_{name}")
}

/// Returns the one column of a query's output that is called `name`.
pub(super) fn output_column(output: &DFSchema, name: &str) -> DfResult<Column> {
    let mut called = output.iter().filter(|(_, field)| field.name() == name);
    match (called.next(), called.next()) {
        (Some(found), None) => Ok(Column::from(found)),
        (None, _) => plan_err!("the query has no column '{name}', which the table has"),
        (Some(_), Some(_)) => plan_err!("the query has more than one column '{name}'"),
    }
}

/// Returns `written` as an expression over the columns of a query's output.
pub(super) fn expression(written: &ast::Expr, output: &DFSchema, state: &SessionState) -> DfResult<Expr> {
    let written = ast::ExprWithAlias { expr: written.clone(), alias: None };
    state.create_logical_expr_from_sql_expr(written, output)
}

fn misshapen(why: impl std::fmt::Display) -> Error {
    Error::internal(format!("a flow's plan delivered what it should not: {why}"))
}
