//! The plan that leaves out the rows which deletion vectors mark.
//!
//! Below it a parquet scan gives with each row the number of its file and its own number in it. The bits of the file's vector
//! at these places then say which rows to copy. A selection in the reader (`ParquetRowSelection`) does the same and costs more where
//! deletes are scattered: for each file it is turned from bits into runs, dealt out to row groups and turned into bits
//! again, once for the filter and once for the rest. What is left of small or thinned batches is gathered into larger ones,
//! in the order of the rows.

mod copy;

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{Int64Type, SchemaRef, UInt32Type};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DfResult;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, DynamicFilterPhysicalExpr, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NotExpr,
};
use datafusion::physical_expr::utils::collect_columns;
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
use futures::{TryStreamExt, stream};

use self::copy::copy_live;
use super::prune::holds_floats;

/// A bit for each row of each file, by the file's number in the scan, set where the row lives; `None` where all do.
type LiveBits = Arc<[Option<BooleanBuffer>]>;

/// The bits of a scan, and the memory that the session granted for them: it is given back when the last plan and the last
/// reader are gone.
#[derive(Debug, Clone)]
pub(super) struct HeldBits {
    bits: LiveBits,
    _granted: Arc<MemoryReservation>,
}

impl HeldBits {
    /// Returns `bits`, for which `granted` stands.
    pub(super) fn new(bits: LiveBits, granted: MemoryReservation) -> Self {
        Self { bits, _granted: Arc::new(granted) }
    }
}

/// How many columns stand behind those that were asked for: the file and the row.
const PLACE_COLUMNS: usize = 2;

/// Reads rows with their places, and hands on those that live, without them.
#[derive(Debug)]
pub(super) struct LiveRowsExec {
    /// Its last two columns are the number of the file and that of the row.
    input: Arc<dyn ExecutionPlan>,
    live: HeldBits,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LiveRowsExec {
    /// Returns the plan that hands on those rows of `input` that `live` says of that they live.
    ///
    /// # Errors
    /// `Internal` when `input` has no places.
    pub(super) fn try_new(input: Arc<dyn ExecutionPlan>, live: HeldBits) -> DfResult<Self> {
        let schema = input.schema();
        let asked: Vec<usize> = (0..n_asked(&schema)?).collect();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::new(schema.project(&asked)?)),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Ok(Self { input, live, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }
}

fn n_asked(schema: &SchemaRef) -> DfResult<usize> {
    let no_places = || DataFusionError::Internal("a scan gives no places of its rows".to_owned());
    schema.fields().len().checked_sub(PLACE_COLUMNS).ok_or_else(no_places)
}

impl DisplayAs for LiveRowsExec {
    fn fmt_as(&self, form: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n_vectors = self.live.bits.iter().flatten().count();
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
        Ok(Arc::new(Self::try_new(input, self.live.clone())?))
    }

    /// The scan splits its files over more partitions.
    fn repartitioned(
        &self,
        target_partitions: usize,
        config: &ConfigOptions,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let Some(input) = self.input.repartitioned(target_partitions, config)? else { return Ok(None) };
        Ok(Some(Arc::new(Self::try_new(input, self.live.clone())?)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let batch_size = context.session_config().batch_size();
        let rows = LiveRows {
            input: self.input.execute(partition, context)?,
            is_over: false,
            live: self.live.clone(),
            gathered: Gathered::new(self.schema(), batch_size),
            metrics: BaselineMetrics::new(&self.metrics, partition),
        };
        let batches = stream::try_unfold(rows, |mut rows| async move {
            let batch = rows.next().await;
            batch.map(|batch| batch.map(|batch| (batch, rows)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
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
        // Bounds of other writers leave NaN out, and by them the reader may leave a filter out: it is asked above, too.
        let schema = self.schema();
        let is_asked_of_all = |filter: &Arc<dyn PhysicalExpr>| {
            let mut fields = collect_columns(filter).into_iter().map(|column| schema.field(column.index()));
            !fields.any(|field| holds_floats(field.data_type()))
        };
        let answer = |parent: &ChildFilterPushdownResult| match cannot_fail(&parent.filter) {
            true => match taken.next() {
                Some(taken) if is_asked_of_all(&parent.filter) => taken,
                _ => PushedDown::No,
            },
            false => PushedDown::No,
        };
        let answers = result.parent_filters.iter().map(answer).collect();
        Ok(FilterPushdownPropagation::with_parent_pushdown_result(answers))
    }
}

/// The rows of one partition that live, as they are read.
struct LiveRows {
    input: SendableRecordBatchStream,
    is_over: bool,
    live: HeldBits,
    gathered: Gathered,
    metrics: BaselineMetrics,
}

impl LiveRows {
    /// Returns the next rows, at least one; `None` after the last.
    async fn next(&mut self) -> DfResult<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.gathered.batches.next_completed_batch() {
                return Ok(Some(batch.record_output(&self.metrics)));
            }
            if self.is_over {
                return Ok(None);
            }
            let read = self.input.try_next().await?;
            self.gather(read)?;
        }
    }

    /// Takes in what was read; `None` is the end.
    fn gather(&mut self, read: Option<RecordBatch>) -> DfResult<()> {
        let _timer = self.metrics.elapsed_compute().timer();
        let Some(batch) = read else {
            self.is_over = true;
            return Ok(self.gathered.batches.finish_buffered_batch()?);
        };
        self.gathered.push(live_rows(&batch, &self.gathered.batches.schema(), &self.live.bits)?)
    }
}

/// Makes batches of about the session's size out of small ones.
struct Gathered {
    batches: BatchCoalescer,
    /// A batch of more rows is handed on as it is.
    n_rows_small: usize,
    /// How many rows were pushed.
    n_rows: usize,
}

impl Gathered {
    fn new(schema: SchemaRef, batch_size: usize) -> Self {
        // What DataFusion's own filter takes for a large batch.
        let n_rows_small = batch_size / 2;
        let batches = BatchCoalescer::new(schema, batch_size).with_biggest_coalesce_batch_size(Some(n_rows_small));
        Self { batches, n_rows_small, n_rows: 0 }
    }

    fn push(&mut self, batch: RecordBatch) -> DfResult<()> {
        let n_rows = batch.num_rows();
        if n_rows > self.n_rows_small {
            // Else the large batch is cut up to fill the small one before it, and so is each that follows.
            self.batches.finish_buffered_batch()?;
        }
        self.batches.push_batch(batch)?;
        self.n_rows += n_rows;
        // As many rows as went before are enough at first: a limit above ends the scan once it has its rows, and no more
        // than about twice as many are read for it.
        if self.batches.get_buffered_rows() >= self.n_rows.div_ceil(2) {
            self.batches.finish_buffered_batch()?;
        }
        Ok(())
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
fn live_rows(batch: &RecordBatch, schema: &SchemaRef, live: &LiveBits) -> DfResult<RecordBatch> {
    let n_asked = n_asked(batch.schema_ref())?;
    let asked = &batch.columns()[..n_asked];
    let no_places = || DataFusionError::Internal("the places of rows have another type".to_owned());
    let files = batch.column(n_asked).as_primitive_opt::<UInt32Type>().ok_or_else(no_places)?;
    let rows = batch.column(n_asked + 1).as_primitive_opt::<Int64Type>().ok_or_else(no_places)?;
    match live_mask(files.values(), rows.values(), live)? {
        Some(mask) => Ok(copy_live(asked, Arc::clone(schema), &mask)?),
        None => {
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            Ok(RecordBatch::try_new_with_options(Arc::clone(schema), asked.to_vec(), &options)?)
        }
    }
}

/// Returns which rows live; `None` where all do.
fn live_mask(files: &[u32], rows: &[i64], live: &LiveBits) -> DfResult<Option<BooleanArray>> {
    let bits_of = |file: u32| {
        let number = usize::try_from(file).ok();
        let bits = number.and_then(|number| live.get(number));
        bits.ok_or_else(|| DataFusionError::Internal(format!("there is no file {file}")))
    };
    let (Some(&file), Some(&first)) = (files.first(), rows.first()) else { return Ok(None) };
    let is_one_run =
        all(files.iter().map(|other| *other == file)) && all((first..).zip(rows).map(|(run, row)| run == *row));
    let mask = if is_one_run {
        // As a rule: the mask stands in the bits of the file.
        let Some(bits) = bits_of(file)? else { return Ok(None) };
        let (start, end) = (place(first, bits)?, place(rows[rows.len() - 1], bits)?);
        bits.slice(start, end + 1 - start)
    } else {
        let mut mask = BooleanBufferBuilder::new(rows.len());
        for (file, &row) in files.iter().zip(rows) {
            mask.append(match bits_of(*file)? {
                Some(bits) => bits.value(place(row, bits)?),
                None => true,
            });
        }
        mask.finish()
    };
    Ok((mask.count_set_bits() < rows.len()).then(|| BooleanArray::new(mask, None)))
}

/// Returns where the bit of `row` is.
fn place(row: i64, bits: &BooleanBuffer) -> DfResult<usize> {
    let place = usize::try_from(row).ok().filter(|place| *place < bits.len());
    place.ok_or_else(|| DataFusionError::Internal(format!("a file of {} rows has no row {row}", bits.len())))
}

/// Tells whether all hold, and asks every one of them: several at a time, where an early end would need them one by one.
fn all(hold: impl Iterator<Item = bool>) -> bool {
    hold.fold(true, |all, holds| all & holds)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray, UInt32Array};
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::execution::memory_pool::MemoryConsumer;
    use datafusion::prelude::SessionConfig;

    use roaring::RoaringTreemap;

    use super::super::vectors::live_bits;
    use super::*;

    type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

    /// How many rows the batches of the session of these tests have.
    const BATCH_SIZE: usize = 100;

    /// Rows of file 0, by number, with two columns that say which they are.
    fn numbered(rows: std::ops::Range<i64>) -> TestResult<RecordBatch> {
        let n_rows = rows.clone().count();
        let columns: [(&str, ArrayRef); 4] = [
            ("id", Arc::new(Int64Array::from_iter_values(rows.clone()))),
            ("name", Arc::new(StringArray::from_iter_values(rows.clone().map(|row| row.to_string())))),
            ("file", Arc::new(UInt32Array::from(vec![0; n_rows]))),
            ("row", Arc::new(Int64Array::from_iter_values(rows))),
        ];
        Ok(RecordBatch::try_from_iter(columns)?)
    }

    /// Returns what is handed on of `batches` of file 0 without those of its rows that are `deleted`.
    async fn live(batches: Vec<RecordBatch>, deleted: RoaringTreemap) -> TestResult<Vec<RecordBatch>> {
        let schema = batches.first().ok_or("no batches")?.schema();
        let input = MemorySourceConfig::try_new_exec(&[batches], schema, None)?;
        let granted = MemoryConsumer::new("test").register(TaskContext::default().memory_pool());
        let held = HeldBits::new(Arc::new([Some(live_bits(&deleted, 20_000))]), granted);
        let plan = LiveRowsExec::try_new(input, held)?;
        let config = SessionConfig::new().with_batch_size(BATCH_SIZE);
        let context = Arc::new(TaskContext::default().with_session_config(config));
        Ok(plan.execute(0, context)?.try_collect().await?)
    }

    fn sizes(batches: &[RecordBatch]) -> Vec<usize> {
        batches.iter().map(RecordBatch::num_rows).collect()
    }

    fn ids(batches: &[RecordBatch]) -> Vec<i64> {
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    fn names(batches: &[RecordBatch]) -> Vec<&str> {
        batches.iter().flat_map(|batch| batch.column(1).as_string::<i32>().iter().flatten()).collect()
    }

    #[tokio::test]
    async fn the_few_rows_left_of_many_batches_come_in_few_batches_and_in_order() -> TestResult {
        let read = (0..1_000).map(|number| numbered(number * 20..number * 20 + 20)).collect::<TestResult<Vec<_>>>()?;
        let deleted = RoaringTreemap::from_iter((0..20_000).filter(|row| row % 20 != 7));
        let given = live(read, deleted).await?;
        let expected: Vec<i64> = (0..1_000).map(|number| number * 20 + 7).collect();
        assert_eq!(ids(&given), expected);
        assert_eq!(names(&given), expected.iter().map(i64::to_string).collect::<Vec<String>>());
        // The first batches are as large as all before them, the others full but for the last.
        let first = [1, 1, 2, 4, 8, 16, 32, 64];
        let full = [BATCH_SIZE; 8];
        assert_eq!(sizes(&given), [first.as_slice(), &full, &[72]].concat());
        Ok(())
    }

    #[tokio::test]
    async fn a_large_batch_is_handed_on_without_a_copy_behind_small_ones() -> TestResult {
        let large = numbered(20..100)?;
        let place = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().as_ptr();
        let of_large = place(&large);
        let read = vec![numbered(0..10)?, numbered(10..20)?, large, numbered(100..110)?];
        let given = live(read, RoaringTreemap::from_iter([4, 12, 13])).await?;
        assert_eq!(sizes(&given), [9, 8, 80, 10]);
        assert_eq!(ids(&given), (0..110).filter(|row| ![4, 12, 13].contains(row)).collect::<Vec<_>>());
        assert_eq!(place(&given[2]), of_large, "the large batch was copied");
        Ok(())
    }

    #[tokio::test]
    async fn rows_of_which_no_column_is_asked_are_counted() -> TestResult {
        let places = vec![numbered(0..50)?.project(&[2, 3])?, numbered(50..100)?.project(&[2, 3])?];
        let given = live(places, RoaringTreemap::from_iter(10..60)).await?;
        assert_eq!(sizes(&given).iter().sum::<usize>(), 50);
        Ok(())
    }

    #[tokio::test]
    async fn no_batch_comes_of_a_file_whose_rows_are_all_deleted() -> TestResult {
        let read = vec![numbered(0..50)?, numbered(50..100)?];
        assert!(live(read, RoaringTreemap::from_iter(0..100)).await?.is_empty());
        Ok(())
    }

    #[test]
    fn rows_in_vectors_are_taken_out_whatever_was_read_of_their_files() -> TestResult {
        let deleted = [None, Some(RoaringTreemap::from_iter([0, 5, 6, 90_000])), Some(RoaringTreemap::from_iter([2]))];
        let bits = deleted.iter().map(|deleted| deleted.as_ref().map(|deleted| live_bits(deleted, 100_000)));
        let live: LiveBits = bits.collect();
        let check = |places: &[(u32, i64)]| -> TestResult {
            let (files, rows): (Vec<u32>, Vec<i64>) = places.iter().copied().unzip();
            let mask = live_mask(&files, &rows, &live)?;
            let is_live = |&(file, row): &(u32, i64)| {
                !deleted[file as usize].as_ref().is_some_and(|deleted| deleted.contains(row as u64))
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
        check(&[(1, 1), (1, 5), (1, 7), (1, 90_000), (1, 99_999)])?;
        check(&[(1, 90_000), (1, 5), (1, 4)])?;
        // More than one file.
        check(&[(1, 5), (1, 6), (2, 1), (2, 2), (0, 5), (1, 0)])?;
        assert!(live_mask(&[3], &[0], &live).is_err(), "a file without number was taken");
        for row in [100_000, -1] {
            assert!(live_mask(&[1], &[row], &live).is_err(), "row {row} was taken");
            assert!(live_mask(&[0, 1], &[0, row], &live).is_err(), "row {row} was taken");
        }
        Ok(())
    }
}
