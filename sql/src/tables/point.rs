//! The plan that reads a few rows whose places are known, in the place of a scan.
//!
//! `EXPLAIN` shows it by its own name, so that one can see whether a running engine's index has served a query. It is a
//! leaf: nothing is pushed into it, since a row or a few need no pruning, and filters stand above it as they would above a
//! scan.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

/// Reads rows at known places.
#[derive(Debug)]
pub(super) struct KeyLookupExec {
    /// What reads them: a parquet scan of their files with these rows selected, or nothing at all.
    reading: Arc<dyn ExecutionPlan>,
    version: u64,
    n_keys: usize,
    n_rows: usize,
}

impl KeyLookupExec {
    /// Returns the plan that reads by `reading` the rows, `n_rows`, that `n_keys` keys have in `version`.
    pub(super) fn new(reading: Arc<dyn ExecutionPlan>, version: u64, n_keys: usize, n_rows: usize) -> Self {
        Self { reading, version, n_keys, n_rows }
    }
}

impl DisplayAs for KeyLookupExec {
    fn fmt_as(&self, form: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reading, version, n_keys, n_rows } = self;
        match form {
            DisplayFormatType::TreeRender => writeln!(formatter, "version={version}\nkeys={n_keys}\nrows={n_rows}"),
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(formatter, "KeyLookupExec: version={version}, keys={n_keys}, rows={n_rows}, reading=")?;
                reading.fmt_as(form, formatter)
            }
        }
    }
}

impl ExecutionPlan for KeyLookupExec {
    fn name(&self) -> &'static str {
        "KeyLookupExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.reading.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    /// A recursive query reads this anew in each iteration. The scan below is no child that anybody else would reset, and
    /// keeps count of the files that it has read.
    fn reset_state(self: Arc<Self>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let reading = Arc::clone(&self.reading).reset_state()?;
        Ok(Arc::new(Self::new(reading, self.version, self.n_keys, self.n_rows)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        self.reading.execute(partition, context)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.reading.metrics()
    }
}
