//! Copies the rows of a batch that live, where few do not.
//!
//! What comes out is what arrow's filter makes of the same mask, which is asked for columns of other types, and where few rows
//! live. It copies every run of rows by a call and adds up the offsets of text one after the other; where one row in twenty
//! is gone, that is half of what deletion vectors cost a query. Here a run is copied in steps of a fixed length, which
//! are a few moves each. The last step copies rows behind the run, too, and the next run is copied over them.

#![expect(unsafe_code, reason = "arrow checks all of a text again, else; the argument stands at the one place")]

use std::cell::LazyCell;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, GenericByteArray, PrimitiveArray, RecordBatch,
    RecordBatchOptions, downcast_primitive,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::FilterBuilder;
use arrow::datatypes::{
    ArrowNativeType, BinaryType, ByteArrayType, DataType, LargeBinaryType, LargeUtf8Type, SchemaRef, Utf8Type,
};
use arrow::error::ArrowError;

/// Values that are copied at once.
const STEP: usize = 8;

/// Runs of fewer rows on average are left to arrow: half of each step would be copied in vain.
const RUN_ROWS_MIN: usize = STEP / 2;

/// Runs of rows that live, in their order.
struct Runs {
    runs: Vec<Range<usize>>,
    n_rows: usize,
}

/// Returns the rows of `columns` that `is_live` names, as a batch of `schema`. The mask is as long as the columns, and says no
/// NULL.
///
/// # Errors
/// When `schema` is not that of the columns.
pub(super) fn copy_live(
    columns: &[ArrayRef],
    schema: SchemaRef,
    is_live: &BooleanArray,
) -> Result<RecordBatch, ArrowError> {
    let runs: Vec<Range<usize>> = is_live.values().set_slices().map(|(start, end)| start..end).collect();
    let runs = Runs { n_rows: runs.iter().map(Range::len).sum(), runs };
    let by_arrow = LazyCell::new(|| FilterBuilder::new(is_live).optimize().build());
    let is_for_arrow = runs.n_rows < runs.runs.len() * RUN_ROWS_MIN;
    let copied = |column: &ArrayRef| match is_for_arrow {
        true => by_arrow.filter(column),
        false => {
            runs.copy(column, || by_arrow.filter_nulls(column.nulls())).map_or_else(|| by_arrow.filter(column), Ok)
        }
    };
    let columns = columns.iter().map(copied).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(runs.n_rows));
    RecordBatch::try_new_with_options(schema, columns, &options)
}

impl Runs {
    /// Returns the runs of `column`, whose NULLs there `nulls` tells; `None` for types that arrow is asked for.
    fn copy(&self, column: &ArrayRef, nulls: impl FnOnce() -> Option<NullBuffer>) -> Option<ArrayRef> {
        macro_rules! primitive {
            ($type:ty) => {
                Some(Arc::new(self.copy_values::<$type>(column.as_primitive(), nulls())))
            };
        }
        downcast_primitive! {
            column.data_type() => (primitive),
            DataType::Utf8 => Some(Arc::new(self.copy_bytes::<Utf8Type>(column.as_bytes(), nulls()))),
            DataType::LargeUtf8 => Some(Arc::new(self.copy_bytes::<LargeUtf8Type>(column.as_bytes(), nulls()))),
            DataType::Binary => Some(Arc::new(self.copy_bytes::<BinaryType>(column.as_bytes(), nulls()))),
            DataType::LargeBinary => Some(Arc::new(self.copy_bytes::<LargeBinaryType>(column.as_bytes(), nulls()))),
            _ => None,
        }
    }

    fn copy_values<T: ArrowPrimitiveType>(
        &self,
        column: &PrimitiveArray<T>,
        nulls: Option<NullBuffer>,
    ) -> PrimitiveArray<T> {
        let values = column.values();
        let mut copied = Vec::with_capacity(self.n_rows + STEP);
        for run in &self.runs {
            copy_run(&values[run.start..], run.len(), &mut copied, |value| value);
        }
        PrimitiveArray::new(copied.into(), nulls).with_data_type(column.data_type().clone())
    }

    fn copy_bytes<T: ByteArrayType>(
        &self,
        column: &GenericByteArray<T>,
        nulls: Option<NullBuffer>,
    ) -> GenericByteArray<T> {
        let (offsets, values) = (column.value_offsets(), column.value_data());
        let bytes = |run: &Range<usize>| offsets[run.start].as_usize()..offsets[run.end].as_usize();
        let mut copied = Vec::with_capacity(self.runs.iter().map(|run| bytes(run).len()).sum());
        let mut moved = Vec::with_capacity(1 + self.n_rows + STEP);
        let mut end = T::Offset::default();
        moved.push(end);
        for run in &self.runs {
            copied.extend_from_slice(&values[bytes(run)]);
            // Never less than zero: all that was copied stood before the run.
            let by = offsets[run.start] - end;
            copy_run(&offsets[run.start + 1..], run.len(), &mut moved, |offset| offset - by);
            end = offsets[run.end] - by;
        }
        // SAFETY: Offsets ascend from zero to the number of bytes copied, since those of each run do, and each run begins
        // where the one before ends. Values are copied whole, so that texts are UTF-8 as they were. There are as many
        // NULL bits as rows, both counted by one mask.
        unsafe { GenericByteArray::new_unchecked(OffsetBuffer::new_unchecked(moved.into()), copied.into(), nulls) }
    }
}

/// Appends the first `n` of `from` to `to`, each as `change` makes it.
#[inline]
fn copy_run<T: Copy>(from: &[T], n: usize, to: &mut Vec<T>, change: impl Fn(T) -> T) {
    let end = to.len() + n;
    match from.as_chunks::<STEP>().0.get(..n.div_ceil(STEP)) {
        Some(steps) => {
            for step in steps {
                to.extend_from_slice(&step.map(&change));
            }
            to.truncate(end);
        }
        None => to.extend(from.iter().take(n).map(|value| change(*value))),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryArray, Decimal128Array, Float32Array, Int8Array, Int64Array, LargeBinaryArray, LargeStringArray,
        ListArray, StringArray, StructArray, TimestampMicrosecondArray,
    };
    use arrow::compute::filter_record_batch;
    use arrow::datatypes::Int64Type;

    use super::*;

    type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

    /// Tells of a row, by its number and how many there are, whether it lives.
    type IsLive = fn(usize, usize) -> bool;

    /// Returns a number without a pattern, the same in each run: by the multiplier of Knuth's generator.
    fn chance(row: usize) -> u64 {
        (row as u64 + 1).wrapping_mul(6_364_136_223_846_793_005) >> 33
    }

    /// Rows with a column of each kind, with NULLs and without, that begin anywhere in their buffers.
    fn rows(n_rows: usize) -> TestResult<RecordBatch> {
        /// What stands before the first row and behind the last.
        const AROUND: usize = 11;
        let all = || 0..(AROUND + n_rows + AROUND) as i64;
        let some = || all().map(|row| (row % 7 > 0).then_some(row));
        let texts = || some().map(|row| row.map(|row| "ä".repeat(row as usize % 5)));
        let decimals = all().map(i128::from).collect::<Decimal128Array>().with_precision_and_scale(18, 2)?;
        let instants = all().map(Some).collect::<TimestampMicrosecondArray>().with_timezone("UTC");
        let lists = all().map(|row| (row % 5 > 0).then(|| (0..row % 4).map(Some).collect::<Vec<_>>()));
        let pair: Vec<(&str, ArrayRef)> = vec![
            ("number", Arc::new(some().collect::<Int64Array>())),
            ("text", Arc::new(texts().collect::<StringArray>())),
        ];
        let columns: [(&str, ArrayRef); 14] = [
            ("byte", Arc::new(all().map(|row| Some(row as i8)).collect::<Int8Array>())),
            ("number", Arc::new(Int64Array::from_iter_values(all()))),
            ("or_null", Arc::new(some().collect::<Int64Array>())),
            ("float", Arc::new(all().map(|row| Some(row as f32)).collect::<Float32Array>())),
            ("decimal", Arc::new(decimals)),
            ("instant", Arc::new(instants)),
            ("text", Arc::new(StringArray::from_iter_values(all().map(|row| format!("row {row}"))))),
            ("text_or_null", Arc::new(texts().collect::<StringArray>())),
            ("large_text", Arc::new(texts().collect::<LargeStringArray>())),
            ("bytes", Arc::new(texts().map(|text| text.map(String::into_bytes)).collect::<BinaryArray>())),
            ("large_bytes", Arc::new(texts().map(|text| text.map(String::into_bytes)).collect::<LargeBinaryArray>())),
            ("flag", Arc::new(some().map(|row| row.map(|row| row % 2 > 0)).collect::<BooleanArray>())),
            ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
            ("pair", Arc::new(StructArray::try_from(pair)?)),
        ];
        let nullable = columns.map(|(name, column)| (name, column.slice(AROUND, n_rows), true));
        Ok(RecordBatch::try_from_iter_with_nullable(nullable)?)
    }

    #[test]
    fn what_is_copied_is_what_arrow_filters() -> TestResult {
        let masks: [(&str, IsLive); 9] = [
            ("all", |_, _| true),
            ("none", |_, _| false),
            ("but the first", |row, _| row > 0),
            ("but the last", |row, n_rows| row + 1 < n_rows),
            ("but one in 20", |row, _| !chance(row).is_multiple_of(20)),
            ("but one in 5", |row, _| !chance(row).is_multiple_of(5)),
            ("half", |row, _| chance(row).is_multiple_of(2)),
            ("every other", |row, _| row.is_multiple_of(2)),
            ("the last", |row, n_rows| row + 1 == n_rows),
        ];
        for n_rows in [0, 1, 2, STEP - 1, STEP, STEP + 1, 3 * STEP, 64, 65, 1_000] {
            let rows = rows(n_rows)?;
            for (told, is_live) in masks {
                let mask = BooleanArray::from_iter((0..n_rows).map(|row| Some(is_live(row, n_rows))));
                let copied = copy_live(rows.columns(), rows.schema(), &mask)?;
                assert_eq!(copied, filter_record_batch(&rows, &mask)?, "{told} of {n_rows} rows");
                for (field, column) in rows.schema().fields().iter().zip(copied.columns()) {
                    column.to_data().validate_full().map_err(|cause| format!("{told}, {}: {cause}", field.name()))?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn rows_without_columns_are_counted() -> TestResult {
        let mask = BooleanArray::from_iter((0..100).map(|row| Some(row % 20 > 0)));
        assert_eq!(copy_live(&[], Arc::new(arrow::datatypes::Schema::empty()), &mask)?.num_rows(), 95);
        Ok(())
    }
}
