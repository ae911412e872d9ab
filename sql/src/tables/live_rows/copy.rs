//! Copies the rows of a batch that live, where few do not.
//!
//! What comes out is what arrow's filter makes of the same mask, and it makes all columns but texts. Of these it adds up the
//! offsets one after the other, each from the last, which takes longer than to copy their bytes; here those of a run of rows are
//! moved by one number, several at once.

#![expect(unsafe_code, reason = "arrow checks all of a text again, else; the argument stands at the one place")]

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, GenericByteArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{FilterBuilder, FilterPredicate, filter_record_batch};
use arrow::datatypes::{ArrowNativeType, ByteArrayType, DataType, SchemaRef, Utf8Type};
use arrow::error::ArrowError;

/// Runs of fewer rows on average are left to arrow: each takes a call.
const RUN_ROWS_MIN: usize = 12;

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
    let is_text = |column: &ArrayRef| *column.data_type() == DataType::Utf8;
    let n_texts = columns.iter().filter(|column| is_text(column)).count();
    let runs: Vec<(usize, usize)> = match n_texts {
        0 => Vec::new(),
        _ => is_live.values().set_slices().collect(),
    };
    let options = |n_rows| RecordBatchOptions::new().with_row_count(Some(n_rows));
    if is_live.true_count() < runs.len() * RUN_ROWS_MIN || runs.is_empty() {
        let rows = RecordBatch::try_new_with_options(schema, columns.to_vec(), &options(is_live.len()))?;
        return filter_record_batch(&rows, is_live);
    }
    let live = FilterBuilder::new(is_live);
    // To lay the runs out pays where more than one column asks for them.
    let live = if columns.len() - n_texts > 1 { live.optimize().build() } else { live.build() };
    let copied = |column: &ArrayRef| match is_text(column) {
        true => Ok(Arc::new(copy_runs::<Utf8Type>(column.as_bytes(), &runs, &live)) as ArrayRef),
        false => live.filter(column),
    };
    let columns = columns.iter().map(copied).collect::<Result<_, _>>()?;
    RecordBatch::try_new_with_options(schema, columns, &options(live.count()))
}

/// Returns the `runs` of a column, each from its first row to before its end, which are the rows that `live` leaves.
fn copy_runs<T: ByteArrayType>(
    column: &GenericByteArray<T>,
    runs: &[(usize, usize)],
    live: &FilterPredicate,
) -> GenericByteArray<T> {
    let (offsets, values) = (column.value_offsets(), column.value_data());
    let bytes = |(first, end): (usize, usize)| offsets[first].as_usize()..offsets[end].as_usize();
    let mut copied = Vec::with_capacity(runs.iter().map(|run| bytes(*run).len()).sum());
    let mut moved = Vec::with_capacity(1 + live.count());
    let mut n_bytes = T::Offset::default();
    moved.push(n_bytes);
    for &(first, end) in runs {
        copied.extend_from_slice(&values[bytes((first, end))]);
        // Never less than zero: all that was copied stood before the run.
        let by = offsets[first] - n_bytes;
        moved.extend(offsets[first + 1..=end].iter().map(|offset| *offset - by));
        n_bytes = offsets[end] - by;
    }
    let nulls = live.filter_nulls(column.nulls());
    // SAFETY: Offsets ascend from zero to the number of bytes copied, since those of each run do, and each run begins where
    // the one before ends. Values are copied whole, so that texts are UTF-8 as they were. There are as many NULL bits as
    // rows, both those of one mask.
    unsafe { GenericByteArray::new_unchecked(OffsetBuffer::new_unchecked(moved.into()), copied.into(), nulls) }
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
        for n_rows in [0, 1, 2, 7, 64, 65, 1_000] {
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
