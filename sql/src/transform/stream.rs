//! The leaf of a flow's plan: the batch that an execution was started with.
//!
//! The batch travels in the execution's own context, not in the plan, so one plan serves all batches, also at once.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, internal_datafusion_err, project_schema};
use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableSource, TableType};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, reset_plan_states};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties, execute_stream,
};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;

use crate::compile::plan::stream_schema;

/// Returns what stands for the stream in a plan: the columns of `source_schema`, then the hidden ones. `n_rows` is the
/// size of the batch, where it is known.
pub(super) fn source(source_schema: &Schema, n_rows: Option<usize>) -> Arc<dyn TableSource> {
    provider_as_source(Arc::new(Stream { schema: stream_schema(source_schema), n_rows }))
}

/// Leads `batch` through `plan` and returns what comes out, in one batch.
///
/// # Errors
/// What an operator says of a row.
pub(super) async fn execute(
    plan: Arc<dyn ExecutionPlan>,
    batch: RecordBatch,
    session: &SessionContext,
) -> Result<RecordBatch> {
    // Operators keep their metrics for good, and joins their build side; a plan without them is cheap to make.
    let plan = reset_plan_states(plan)?;
    let schema = plan.schema();
    let config = session.copied_config().with_extension(Arc::new(Batch(batch)));
    let rows: Vec<RecordBatch> = execute_stream(plan, task(config, session.runtime_env()))?.try_collect().await?;
    match rows.as_slice() {
        [only] => Ok(only.clone()),
        several => Ok(concat_batches(&schema, several)?),
    }
}

/// A planned expression holds its functions itself, so the context needs none.
fn task(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> Arc<TaskContext> {
    let none = (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
    Arc::new(TaskContext::new(None, String::new(), config, none.0, none.1, none.2, none.3, runtime))
}

/// The batch of one execution.
struct Batch(RecordBatch);

/// The stream as a table, for planning.
#[derive(Debug)]
struct Stream {
    schema: SchemaRef,
    n_rows: Option<usize>,
}

#[async_trait]
impl TableProvider for Stream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = project_schema(&self.schema, projection)?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Arc::new(StreamExec {
            schema,
            projection: projection.cloned(),
            n_rows: self.n_rows,
            properties: Arc::new(properties),
        }))
    }
}

/// Hands out the batch that its execution was started with.
#[derive(Debug)]
struct StreamExec {
    schema: SchemaRef,
    projection: Option<Vec<usize>>,
    n_rows: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for StreamExec {
    fn fmt_as(&self, _format: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StreamExec")
    }
}

impl ExecutionPlan for StreamExec {
    fn name(&self) -> &'static str {
        "StreamExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batch = context
            .session_config()
            .get_extension::<Batch>()
            .ok_or_else(|| internal_datafusion_err!("a flow's plan was executed without a batch"))?;
        // The batch's own schema may say NOT NULL where the plan's does not, or the other way round for tombstones.
        let columns = match &self.projection {
            Some(projection) => batch.0.project(projection)?,
            None => batch.0.clone(),
        };
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(columns.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns.columns().to_vec(), &options)?;
        Ok(Box::pin(MemoryStream::try_new(vec![rows], Arc::clone(&self.schema), None)?))
    }

    fn statistics_from_inputs(&self, _inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        if let Some(n_rows) = self.n_rows {
            statistics.num_rows = Precision::Exact(n_rows);
        }
        Ok(Arc::new(statistics))
    }
}
