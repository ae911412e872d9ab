//! Which columns are worth a dictionary: those whose values repeat.
//!
//! A dictionary of a column in which nearly every value occurs once, such as the key of a table, is larger than the column
//! itself, and making it is the most expensive part of encoding it. So a look at some of its values comes first. It may
//! err, most likely where it sees only the first rows of a file and values come round in turn after more than these: then
//! the file is somewhat larger, or takes somewhat longer, than it could.

use std::collections::HashSet;

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use parquet::schema::types::ColumnPath;

use super::encode::{GROUP_ROWS_MAX, is_offsets};

/// Values looked at.
const SAMPLE: usize = 4096;

/// Fewer rows are not worth the look.
pub(in crate::write) const ROWS_SAMPLED: u64 = 4 * SAMPLE as u64;

/// Returns the columns whose values hardly repeat, by the first `rows` of the `n_rows` of their file, and offsets. Members of
/// nested columns are not looked at.
///
/// # Errors
/// `Internal` when a type cannot be hashed.
pub(in crate::write) fn columns_without_dictionary(rows: &RecordBatch, n_rows: u64) -> Result<HashSet<ColumnPath>> {
    if (rows.num_rows() as u64) < ROWS_SAMPLED {
        return Ok(HashSet::new());
    }
    let scattered = scattered(rows.num_rows());
    // Each row group has dictionaries of its own.
    let n_rows = usize::try_from(n_rows).unwrap_or(usize::MAX).min(GROUP_ROWS_MAX);
    let mut found = HashSet::new();
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let path = ColumnPath::new(vec![field.name().clone()]);
        if is_offsets(&path) || !field.data_type().is_nested() && hardly_repeats(column, &scattered, n_rows)? {
            found.insert(path);
        }
    }
    Ok(found)
}

/// Returns one row of each of [`SAMPLE`] stretches of equal length, at a place of it that differs from stretch to stretch:
/// values that come round in turn are met again as often as if they came by chance.
fn scattered(n_rows: usize) -> UInt32Array {
    /// The fraction of the golden ratio as 64 bits: its multiples spread evenly and follow no short cycle.
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let width = n_rows / SAMPLE;
    let place = |stretch: usize| {
        let spread = (stretch as u64).wrapping_mul(GOLDEN) >> 32;
        stretch * width + ((spread as usize * width) >> 32)
    };
    (0..SAMPLE).map(|stretch| u32::try_from(place(stretch)).ok()).collect()
}

/// Tells whether a dictionary of the column would be larger than the column: whether more than about three of four of its
/// values occur once among the `n_rows` that share one.
fn hardly_repeats(column: &ArrayRef, scattered: &UInt32Array, n_rows: usize) -> Result<bool> {
    let failed = |cause| Error::internal("the values of a column cannot be sampled").with_source(cause);
    let neighbours = column.slice((column.len() - SAMPLE) / 2, SAMPLE);
    // Values that stand together repeat unseen by the other look.
    if repeats(&neighbours)? > SAMPLE / 16 {
        return Ok(false);
    }
    let sample = take(column, scattered, None).map_err(failed)?;
    let n_valid = SAMPLE - sample.null_count();
    // Of `n` values drawn from `p` equally likely ones, `n * n / 2p` come a second time. Three of four values of a column
    // of `n` rows occur once if it draws from one and a half times as many.
    let n_rows_valid = (n_rows * n_valid / SAMPLE).max(1);
    Ok(n_valid > SAMPLE / 2 && repeats(&sample)? <= n_valid * n_valid / (3 * n_rows_valid))
}

/// Counts the values that came before; NULLs do not count.
fn repeats(values: &ArrayRef) -> Result<usize> {
    let mut hashes = vec![0; values.len()];
    create_hashes([values], &RandomState::default(), &mut hashes)
        .map_err(|cause| Error::internal("the values of a column cannot be hashed").with_source(cause))?;
    let mut seen: Vec<u64> =
        hashes.into_iter().enumerate().filter(|(row, _)| values.is_valid(*row)).map(|(_, hash)| hash).collect();
    let n_values = seen.len();
    seen.sort_unstable();
    seen.dedup();
    Ok(n_values - seen.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    const N_ROWS: i64 = 125_000;

    /// Values in no order, the same in each run.
    fn chance(row: i64) -> i64 {
        let mut word = (row as u64).wrapping_add(0x9E37_79B9_7F4A_7C15);
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word >> 1) as i64 ^ (word >> 32) as i64
    }

    fn without(n_rows: i64, value: impl Fn(i64) -> Option<i64>) -> Result<bool> {
        let column: ArrayRef = Arc::new((0..n_rows).map(value).collect::<Int64Array>());
        let texts: ArrayRef = Arc::new(
            column
                .as_any()
                .downcast_ref::<Int64Array>()
                .into_iter()
                .flatten()
                .map(|value| value.map(|value| format!("t{value}")))
                .collect::<StringArray>(),
        );
        let rows = RecordBatch::try_from_iter_with_nullable([("value", column, true), ("text", texts, true)])
            .map_err(|cause| Error::internal("test").with_source(cause))?;
        let found = columns_without_dictionary(&rows, n_rows as u64)?;
        assert!(found.is_empty() || found.len() == 2, "numbers and texts differ: {found:?}");
        Ok(!found.is_empty())
    }

    #[test]
    fn values_that_occur_once_get_no_dictionary() -> Result<()> {
        assert!(without(N_ROWS, Some)?, "rising");
        assert!(without(N_ROWS, |row| Some(chance(row)))?, "by chance");
        assert!(without(N_ROWS, |row| Some(chance(row) % (4 * N_ROWS)))?, "drawn from many");
        assert!(without(N_ROWS, |row| (chance(row) % 4 > 0).then_some(row))?, "with NULLs");
        Ok(())
    }

    #[test]
    fn values_that_repeat_get_one_in_whatever_order_they_come() -> Result<()> {
        assert!(!without(N_ROWS, |_| Some(7))?, "one value");
        assert!(!without(N_ROWS, |row| Some(chance(row) % (N_ROWS / 2)))?, "drawn from few");
        assert!(!without(N_ROWS, |row| Some(row % 10_000))?, "in turn");
        assert!(!without(N_ROWS, |row| Some(row % 8_192))?, "in turn, of a power of two");
        assert!(!without(N_ROWS, |row| Some(row / 3))?, "three together");
        assert!(!without(N_ROWS, |row| Some(row / 10_000))?, "many together");
        assert!(!without(N_ROWS, |_| None)?, "NULLs alone");
        assert!(!without(N_ROWS, |row| (row % 50 == 0).then_some(row))?, "nearly NULLs alone");
        Ok(())
    }

    #[test]
    fn few_rows_are_not_looked_at() -> Result<()> {
        assert!(!without(SAMPLE as i64, Some)?);
        assert!(without(4 * SAMPLE as i64, Some)?);
        Ok(())
    }
}
