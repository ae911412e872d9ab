//! Plans a flow's query over a placeholder for its stream, for the compiler's checks and for the transform.
//!
//! ```text
//! SubqueryAlias: <source>              what STREAM(<source>) means to the query: no hidden columns
//!   Projection: columns, computed      one projection a computed column, as later ones may use earlier ones
//!     Projection: source_schema
//!       TableScan: STREAM_TABLE        source_schema, _alluvium_partition INT, _alluvium_offset BIGINT
//! ```
//! The plan is not analyzed and not optimized. Whoever executes it puts a provider in the scan's place and leads the
//! hidden columns up through the projections; nothing here reads a row.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::{Column, TableReference, plan_datafusion_err, plan_err};
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning, TypePlanner,
};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;

use crate::pipeline::{Flow, HIDDEN_OFFSET, HIDDEN_PARTITION};
use crate::types::{arrow_type, is_known};

/// The name of the scan that stands for the stream in a planned query.
pub(crate) const STREAM_TABLE: &str = "__alluvium_stream";

/// In what the reader keeps times that a parquet file has as INT96, as Spark writes them: in nanoseconds, its own choice,
/// those after the year 2262 would wrap around without a word.
pub(crate) const INT96_UNIT: &str = "us";

/// The catalog in which tables stand as `schema.table`.
pub(super) const CATALOG: &str = "alluvium";

/// What [`plan_query`] needs to know of a flow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamQuery<'a> {
    /// The source's name, by which the query may qualify columns.
    pub(crate) source: &'a str,
    /// The columns that decoding delivers.
    pub(crate) source_schema: &'a SchemaRef,
    /// The computed columns of the source, in order.
    pub(crate) computed: &'a [(String, ast::Expr)],
    /// The query, reading `STREAM(source)`.
    pub(crate) query: &'a ast::Query,
}

impl<'a> From<&'a Flow> for StreamQuery<'a> {
    fn from(flow: &'a Flow) -> Self {
        Self {
            source: flow.definition.source.name.as_str(),
            source_schema: &flow.source_schema,
            computed: &flow.computed,
            query: &flow.query,
        }
    }
}

/// Returns a session that plans this dialect: its types, case-sensitive names, positions in errors, and tables without
/// schema in `default`. It holds no tables.
pub(crate) fn dialect_session(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> SessionContext {
    let mut config = config
        .with_create_default_catalog_and_schema(true)
        .with_default_catalog_and_schema(CATALOG, alluvium_catalog::TableName::DEFAULT_SCHEMA);
    // DataFusion 55 forgets the least value that a partition has met when it comes to nothing but NULLs, and then skips rows
    // that are less. Without deletes the bounds of files answer most of what it would save.
    config.options_mut().optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    config.options_mut().execution.parquet.coerce_int96 = Some(INT96_UNIT.to_owned());
    let parsing = &mut config.options_mut().sql_parser;
    parsing.collect_spans = true;
    // JSON fields are case-sensitive and so are the columns that are named after them.
    parsing.enable_ident_normalization = false;
    // Tables hold Utf8; a view type in between would only be cast back.
    parsing.map_string_types_to_utf8view = false;
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_type_planner(Arc::new(DialectTypes))
        .build();
    SessionContext::new_with_state(state)
}

/// Returns the schema of the scan of [`STREAM_TABLE`]: the source's columns, then the hidden ones.
pub(crate) fn stream_schema(source_schema: &Schema) -> SchemaRef {
    let mut fields = source_schema.fields().to_vec();
    fields.push(Arc::new(Field::new(HIDDEN_PARTITION, DataType::Int32, false)));
    fields.push(Arc::new(Field::new(HIDDEN_OFFSET, DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

/// Returns the plan of `query`, in which every `STREAM(source)` is a scan of [`STREAM_TABLE`] and every other table one
/// of `session`'s.
///
/// # Errors
/// What DataFusion says, with positions where it knows them.
pub(crate) async fn plan_query(query: StreamQuery<'_>, session: &SessionContext) -> Result<LogicalPlan> {
    let mut state = session.state();
    let plan = stream_plan(query.source, query.source_schema, query.computed, &state)?;
    state.register_relation_planner(Arc::new(StreamRelation { source: query.source.to_owned(), plan }))?;
    let statement = ast::Statement::Query(Box::new(query.query.clone()));
    state.statement_to_plan(DfStatement::Statement(Box::new(statement))).await
}

/// Returns what `STREAM(source)` means: the source's columns and computed columns under the source's name.
///
/// # Errors
/// What DataFusion says of a computed column.
pub(crate) fn stream_plan(
    source: &str,
    source_schema: &SchemaRef,
    computed: &[(String, ast::Expr)],
    state: &SessionState,
) -> Result<LogicalPlan> {
    let provider = Arc::new(EmptyTable::new(stream_schema(source_schema)));
    let scan = LogicalPlanBuilder::scan(STREAM_TABLE, provider_as_source(provider), None)?;
    let visible = source_schema.fields().iter().map(|field| stream_column(field.name()));
    let mut builder = scan.project(visible)?.alias(source)?;
    for (name, expression) in computed {
        let parsed = ast::ExprWithAlias { expr: expression.clone(), alias: None };
        let computed = state.create_logical_expr_from_sql_expr(parsed, builder.schema())?.alias(name);
        let mut columns: Vec<Expr> = builder.schema().columns().into_iter().map(Expr::Column).collect();
        columns.push(computed);
        builder = builder.project(columns)?.alias(source)?;
    }
    builder.build()
}

fn stream_column(name: &str) -> Expr {
    Expr::Column(Column::new(Some(TableReference::bare(STREAM_TABLE)), name))
}

/// Puts the stream's plan in the place of `STREAM(source)`.
#[derive(Debug)]
struct StreamRelation {
    source: String,
    plan: LogicalPlan,
}

impl RelationPlanner for StreamRelation {
    fn plan_relation(
        &self,
        relation: ast::TableFactor,
        _context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Some(streamed) = stream_argument(&relation) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        if streamed.is_none_or(|streamed| streamed.value != self.source) {
            return plan_err!("cannot plan {relation}: the flow reads STREAM({})", self.source);
        }
        let ast::TableFactor::Table { alias, .. } = relation else {
            return plan_err!("cannot plan {relation}: STREAM(..) is a relation");
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(self.plan.clone(), alias))))
    }
}

/// Returns what stands within `STREAM(..)` if `relation` is that, and there `None` if it is not a name.
pub(crate) fn stream_argument(relation: &ast::TableFactor) -> Option<Option<&ast::Ident>> {
    let ast::TableFactor::Table { name, args: Some(arguments), .. } = relation else {
        return None;
    };
    let [ast::ObjectNamePart::Identifier(function)] = name.0.as_slice() else {
        return None;
    };
    if function.quote_style.is_some() || !function.value.eq_ignore_ascii_case("stream") {
        return None;
    }
    match arguments.args.as_slice() {
        [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ast::Expr::Identifier(source)))] => Some(Some(source)),
        _ => Some(None),
    }
}

/// Gives a type in an expression (`CAST(a AS TIMESTAMP)`) the meaning that it has in a column list. What no column can
/// have is left to DataFusion: a value may pass through it.
#[derive(Debug)]
struct DialectTypes;

impl TypePlanner for DialectTypes {
    fn plan_type_field(&self, written: &ast::DataType) -> Result<Option<FieldRef>> {
        if !is_known(written) {
            return Ok(None);
        }
        let data_type = arrow_type(written).map_err(|error| plan_datafusion_err!("{}", error.message()))?;
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}
