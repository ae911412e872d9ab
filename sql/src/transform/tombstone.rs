//! Computes the keys of Kafka tombstones through a flow's SELECT, though a tombstone has no value to select from.
//!
//! Each key column and each field of SEQUENCE BY is followed down the query to an expression over the stream's own
//! columns. Filters do not count: a delete of a row that was never let in does no harm, while one that is missed would
//! leave the row for ever. What comes from a joined table, an unnested list or a subquery is NULL.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, cast, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;

use super::carry::reads_stream;
use super::outcome::{Outcome, expression, layout_name, output_column};
use super::stream;
use crate::compile::plan::STREAM_TABLE;
use crate::pipeline::{Change, Flow, HIDDEN_OFFSET, HIDDEN_PARTITION};

/// The plan for tombstones: in the same layout as the flow's own.
#[derive(Debug)]
pub(super) struct Tombstones {
    plan: Arc<dyn ExecutionPlan>,
}

impl Tombstones {
    /// Plans the tombstones of `flow`, whose SELECT is planned as `query`.
    ///
    /// # Errors
    /// What DataFusion says.
    pub(super) async fn plan(
        flow: &Flow,
        outcome: &Outcome,
        query: &LogicalPlan,
        session: &SessionContext,
    ) -> Result<Self> {
        let state = session.state();
        let (keys, sequence) = match &flow.change {
            Change::Upsert { keys, sequence, .. } => (keys.as_slice(), sequence.as_slice()),
            Change::Append => (&[][..], &[][..]),
        };
        let mut expressions = Vec::new();
        for field in outcome.schema.fields() {
            let value = if keys.contains(field.name()) {
                follow(Expr::Column(output_column(query.schema(), field.name())?), query)?
            } else {
                null(field.data_type())?
            };
            expressions.push(cast(value, field.data_type().clone()).alias(field.name()));
        }
        for (column, name) in [(HIDDEN_PARTITION, "partition"), (HIDDEN_OFFSET, "offset")] {
            expressions.push(Expr::Column(Column::new(Some(STREAM_TABLE), column)).alias(layout_name(name)));
        }
        for (index, field) in sequence.iter().enumerate() {
            let over_output = expression(field, query.schema(), &state)?;
            // What is NULL in every tombstone must still have the type that it has in rows.
            let data_type = over_output.get_type(query.schema())?;
            let value = cast(follow(over_output, query)?, data_type);
            expressions.push(value.alias(layout_name(&format!("sequence_{index}"))));
        }
        expressions.push(lit(true).alias(layout_name("delete")));
        let source = stream::source(&nullable(&flow.source_schema), None);
        let plan = LogicalPlanBuilder::scan(STREAM_TABLE, source, None)?.project(expressions)?.build()?;
        Ok(Self { plan: state.create_physical_plan(&plan).await? })
    }

    /// Returns the plan, which makes of tombstones the rows that they stand for, in the outcome's layout.
    pub(super) fn planned(&self) -> Arc<dyn ExecutionPlan> {
        Arc::clone(&self.plan)
    }
}

/// A tombstone has no value, so its columns may be NULL even where the source says NOT NULL.
fn nullable(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| Field::clone(field).with_nullable(true));
    Schema::new(fields.collect::<Vec<_>>())
}

/// A NULL without type would break what is computed from it, such as a field of a struct.
fn null(data_type: &DataType) -> Result<Expr> {
    Ok(lit(ScalarValue::try_new_null(data_type)?))
}

/// Returns `value`, an expression over the output of `plan`, as one over the stream's columns.
fn follow(value: Expr, plan: &LogicalPlan) -> Result<Expr> {
    let followed = value.transform_down(|expression| {
        let replaced = match &expression {
            Expr::Column(column) => origin(plan.schema().index_of_column(column)?, plan)?,
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::OuterReferenceColumn(..) => {
                null(&expression.get_type(plan.schema())?)?
            }
            _ => return Ok(Transformed::no(expression)),
        };
        // What was put in is over the stream already; its columns must not be looked up here again.
        Ok(Transformed::new(replaced, true, TreeNodeRecursion::Jump))
    })?;
    Ok(followed.data)
}

/// Returns what column `index` of `plan` is made from, over the stream's columns.
fn origin(index: usize, plan: &LogicalPlan) -> Result<Expr> {
    if reads_stream(plan) {
        match plan {
            LogicalPlan::TableScan(_) => {
                return Ok(Expr::Column(Column::from(plan.schema().qualified_field(index))));
            }
            LogicalPlan::Projection(projection) => {
                return follow(projection.expr[index].clone().unalias_nested().data, &projection.input);
            }
            LogicalPlan::SubqueryAlias(alias) => return origin(index, &alias.input),
            LogicalPlan::Filter(filter) => return origin(index, &filter.input),
            LogicalPlan::Join(join) => return joined_origin(index, join),
            LogicalPlan::Unnest(unnest) => {
                let below = unnest.dependency_indices[index];
                let is_made = unnest.list_type_columns.iter().any(|(list, _)| *list == below)
                    || unnest.struct_type_columns.contains(&below);
                if !is_made {
                    return origin(below, &unnest.input);
                }
            }
            _ => {}
        }
    }
    null(plan.schema().field(index).data_type())
}

fn joined_origin(index: usize, join: &Join) -> Result<Expr> {
    let column = Column::from(join.schema.qualified_field(index));
    for side in [&join.left, &join.right] {
        if reads_stream(side)
            && let Some(index) = side.schema().maybe_index_of_column(&column)
        {
            return origin(index, side);
        }
    }
    null(join.schema.field(index).data_type())
}
