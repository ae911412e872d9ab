//! The plan that leaves out the rows which deletion vectors mark.
//!
//! Below it a parquet scan gives with each row the number of its file and its own number in it. One look at the vector a
//! batch then says which rows to copy. A selection in the reader (`ParquetRowSelection`) does the same and costs more where
//! deletes are scattered: for each file it is turned from bits into runs, dealt out to row groups and turned into bits
//! again, once for the filter and once for the rest.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, SchemaRef, UInt32Type};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, DynamicFilterPhysicalExpr, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NotExpr,
};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{
    ChildFilterDescription, ChildFilterPushdownResult, ChildPushdownResult, FilterDescription, FilterPushdownPhase,
    FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringTreemap;

/// The deleted rows of each file, by the file's number in the scan.
pub(super) type DeletedRows = Arc<[Option<Arc<RoaringTreemap>>]>;

/// How many columns stand behind those that were asked for: the file and the row.
const PLACE_COLUMNS: usize = 2;

/// Reads rows with their places, and hands on those that live, without them.
#[derive(Debug)]
pub(super) struct LiveRowsExec {
    /// Its last two columns are the number of the file and that of the row.
    input: Arc<dyn ExecutionPlan>,
    deleted: DeletedRows,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LiveRowsExec {
    /// Returns the plan that hands on those rows of `input` that are not in `deleted`.
    ///
    /// # Errors
    /// `Internal` when `input` has no places.
    pub(super) fn try_new(input: Arc<dyn ExecutionPlan>, deleted: DeletedRows) -> DfResult<Self> {
        let schema = input.schema();
        let asked: Vec<usize> = (0..n_asked(&schema)?).collect();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::new(schema.project(&asked)?)),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Ok(Self { input, deleted, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }
}

fn n_asked(schema: &SchemaRef) -> DfResult<usize> {
    let no_places = || DataFusionError::Internal("a scan gives no places of its rows".to_owned());
    schema.fields().len().checked_sub(PLACE_COLUMNS).ok_or_else(no_places)
}

impl DisplayAs for LiveRowsExec {
    fn fmt_as(&self, form: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n_vectors = self.deleted.iter().flatten().count();
        match form {
            DisplayFormatType::TreeRender => writeln!(formatter, "vectors={n_vectors}"),
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(formatter, "LiveRowsExec: vectors={n_vectors}")
            }
        }
    }
}

impl ExecutionPlan for LiveRowsExec {
    fn name(&self) -> &'static str {
        "LiveRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| DataFusionError::Internal("no scan to read from".to_owned()))?;
        Ok(Arc::new(Self::try_new(input, Arc::clone(&self.deleted))?))
    }

    /// The scan splits its files over more partitions.
    fn repartitioned(
        &self,
        target_partitions: usize,
        config: &ConfigOptions,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let Some(input) = self.input.repartitioned(target_partitions, config)? else { return Ok(None) };
        Ok(Some(Arc::new(Self::try_new(input, Arc::clone(&self.deleted))?)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (schema, deleted) = (self.schema(), Arc::clone(&self.deleted));
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let out = Arc::clone(&schema);
        let live = input.map(move |batch| {
            let batch = batch?;
            let _timer = metrics.elapsed_compute().timer();
            Ok(live_rows(&batch, &schema, &deleted)?.record_output(&metrics))
        });
        // A scan gives no batch without rows either.
        let live = live.try_filter(|batch| std::future::ready(batch.num_rows() > 0));
        Ok(Box::pin(RecordBatchStreamAdapter::new(out, live)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    /// What the scan says is of its live rows already.
    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> DfResult<Arc<Statistics>> {
        let asked: Vec<usize> = (0..self.schema().fields().len()).collect();
        match inputs {
            [of_scan] => Ok(Arc::new(of_scan.as_ref().clone().project(Some(&asked)))),
            _ => Ok(Arc::new(Statistics::new_unknown(&self.schema()))),
        }
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::LowerEqual
    }

    /// Filters that cannot fail reach the reader, where they are asked of deleted rows, too; the others stay above. The
    /// columns of this plan are the first ones of the scan, so nothing has to be renumbered.
    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> DfResult<FilterDescription> {
        let safe = filters.iter().filter(|filter| cannot_fail(filter)).map(Arc::clone).collect();
        let of_scan = ChildFilterDescription::all_unsupported(&filters).with_self_filters(safe);
        Ok(FilterDescription::new().with_child(of_scan))
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> DfResult<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let mut taken = result.self_filters.into_iter().flatten().map(|filter| filter.discriminant);
        let answer = |parent: &ChildFilterPushdownResult| match cannot_fail(&parent.filter) {
            true => taken.next().unwrap_or(PushedDown::No),
            false => PushedDown::No,
        };
        let answers = result.parent_filters.iter().map(answer).collect();
        Ok(FilterPushdownPropagation::with_parent_pushdown_result(answers))
    }
}

/// Tells whether `expr` has a value for whatever row it is asked of: columns and literals, compared and combined. Casts,
/// arithmetic and functions may fail for a row that is deleted, perhaps for that very reason.
fn cannot_fail(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let is_comparison = |op: &Operator| {
        matches!(
            op,
            Operator::Eq
                | Operator::NotEq
                | Operator::Lt
                | Operator::LtEq
                | Operator::Gt
                | Operator::GtEq
                | Operator::IsDistinctFrom
                | Operator::IsNotDistinctFrom
                | Operator::And
                | Operator::Or
        )
    };
    let is_safe = expr.is::<Column>()
        || expr.is::<Literal>()
        || expr.is::<NotExpr>()
        || expr.is::<IsNullExpr>()
        || expr.is::<IsNotNullExpr>()
        || expr.is::<InListExpr>()
        || expr.is::<LikeExpr>()
        || expr.is::<DynamicFilterPhysicalExpr>()
        || expr.downcast_ref::<BinaryExpr>().is_some_and(|binary| is_comparison(binary.op()));
    is_safe && expr.children().into_iter().all(cannot_fail)
}

/// Returns the rows of `batch` that live, without their places.
fn live_rows(batch: &RecordBatch, schema: &SchemaRef, deleted: &DeletedRows) -> DfResult<RecordBatch> {
    let n_asked = n_asked(batch.schema_ref())?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let asked = RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns()[..n_asked].to_vec(), &options)?;
    let no_places = || DataFusionError::Internal("the places of rows have another type".to_owned());
    let files = batch.column(n_asked).as_primitive_opt::<UInt32Type>().ok_or_else(no_places)?;
    let rows = batch.column(n_asked + 1).as_primitive_opt::<Int64Type>().ok_or_else(no_places)?;
    match live_mask(files.values(), rows.values(), deleted)? {
        Some(mask) => Ok(filter_record_batch(&asked, &mask)?),
        None => Ok(asked),
    }
}

/// Returns which rows live; `None` where all do.
fn live_mask(files: &[u32], rows: &[i64], deleted: &DeletedRows) -> DfResult<Option<BooleanArray>> {
    let mut mask = BooleanBufferBuilder::new(rows.len());
    mask.append_n(rows.len(), true);
    let (mut start, mut n_gone) = (0, 0);
    // A batch is of one file as a rule.
    for file in files.chunk_by(|one, other| one == other) {
        let rows = &rows[start..start + file.len()];
        let number = usize::try_from(file[0]).ok();
        let vector = number.and_then(|number| deleted.get(number));
        let vector = vector.ok_or_else(|| DataFusionError::Internal(format!("there is no file {}", file[0])))?;
        if let Some(vector) = vector {
            n_gone += take_out(vector, rows, |place| mask.set_bit(start + place, false));
        }
        start += file.len();
    }
    Ok((n_gone > 0).then(|| BooleanArray::new(mask.finish(), None)))
}

/// Calls `gone` with the place among `rows`, which are distinct, of each that is in `vector`; returns how many there are.
fn take_out(vector: &RoaringTreemap, rows: &[i64], mut gone: impl FnMut(usize)) -> usize {
    let (Some(&first), Some(&last)) = (rows.first(), rows.last()) else { return 0 };
    let mut n_gone = 0;
    if !rows.is_sorted() {
        for place in (0..rows.len()).filter(|&place| vector.contains(rows[place].cast_unsigned())) {
            gone(place);
            n_gone += 1;
        }
        return n_gone;
    }
    let is_run = last.abs_diff(first) + 1 == rows.len() as u64;
    let mut marked = vector.iter();
    marked.advance_to(first.cast_unsigned());
    for row in marked.map(u64::cast_signed).take_while(|&row| row <= last) {
        let place = if is_run { usize::try_from(row - first).ok() } else { rows.binary_search(&row).ok() };
        if let Some(place) = place {
            gone(place);
            n_gone += 1;
        }
    }
    n_gone
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn rows_in_vectors_are_taken_out_whatever_was_read_of_their_files() -> TestResult {
        let deleted: DeletedRows = Arc::new([
            None,
            Some(Arc::new(RoaringTreemap::from_iter([0, 5, 6, 90_000, 1 << 33]))),
            Some(Arc::new(RoaringTreemap::from_iter([2]))),
        ]);
        let check = |places: &[(u32, i64)]| -> TestResult {
            let (files, rows): (Vec<u32>, Vec<i64>) = places.iter().copied().unzip();
            let mask = live_mask(&files, &rows, &deleted)?;
            let is_live = |&(file, row): &(u32, i64)| {
                !deleted[file as usize].as_ref().is_some_and(|vector| vector.contains(row as u64))
            };
            let expected: Vec<bool> = places.iter().map(is_live).collect();
            match mask {
                Some(mask) => assert_eq!(mask.values().iter().collect::<Vec<_>>(), expected, "{places:?}"),
                None => assert!(expected.iter().all(|is_live| *is_live), "{places:?}"),
            }
            Ok(())
        };
        check(&[])?;
        // A run, from the start and from within, and the whole of a file that has lost nothing.
        check(&(0..10).map(|row| (1, row)).collect::<Vec<_>>())?;
        check(&(5..7).map(|row| (1, row)).collect::<Vec<_>>())?;
        check(&(0..10).map(|row| (0, row)).collect::<Vec<_>>())?;
        check(&(7..90).map(|row| (1, row)).collect::<Vec<_>>())?;
        // What filters and skipped pages leave, and rows in another order.
        check(&[(1, 1), (1, 5), (1, 7), (1, 90_000), (1, 1 << 33), (1, (1 << 33) + 1)])?;
        check(&[(1, 90_000), (1, 5), (1, 4)])?;
        // More than one file.
        check(&[(1, 5), (1, 6), (2, 1), (2, 2), (0, 5), (1, 0)])?;
        assert!(live_mask(&[3], &[0], &deleted).is_err(), "a file without number was taken");
        Ok(())
    }
}
