//! One order for several columns: rows that are near each other in all of them stand near each other.
//!
//! Each value is replaced by the range it falls into, of ranges that hold about as many rows each, so that neither the type
//! of a column nor how its values are spread matters. The ranges span a cube, and a row's place is that of its cell on
//! Hilbert's curve through it. The curve never jumps, which makes the bounds of a stretch of it tighter than those of a
//! stretch in the order of interleaved bits. Source: J. Skilling, "Programming the Hilbert curve", 2004.

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

/// Two to this many ranges a column: four columns take 48 of the 64 bits of a place.
const BITS: u32 = 12;

/// Rows that the ranges are found by: sixteen for each range.
const SAMPLE_ROWS: u64 = 16 << BITS;

/// What is kept of a value to compare it by: longer ones that begin alike fall into one range.
const PREFIX_BYTES: usize = 32;

/// Looks at some rows, to find the ranges of their columns.
#[derive(Debug)]
pub(super) struct Sample {
    by: Vec<String>,
    /// Every so many rows one is looked at.
    step: u64,
    n_seen: u64,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    converter: RowConverter,
    /// Values in a form whose bytes sort as they do.
    values: Vec<Box<[u8]>>,
}

/// The ranges of some columns, and the curve through them.
#[derive(Debug)]
pub(super) struct Curve {
    by: Vec<String>,
    /// Of each column, the least values of all ranges but the first.
    columns: Vec<Column>,
}

impl Sample {
    /// Returns a sample that will see about `n_rows` rows, to be ordered by the columns `by`.
    pub(super) fn new(by: &[String], n_rows: u64) -> Self {
        Self { by: by.to_vec(), step: n_rows.div_ceil(SAMPLE_ROWS).max(1), n_seen: 0, columns: Vec::new() }
    }

    /// Looks at rows.
    ///
    /// # Errors
    /// `Internal` when a column is missing or cannot be compared.
    pub(super) fn see(&mut self, rows: &RecordBatch) -> Result<()> {
        if self.columns.is_empty() {
            self.columns = self.by.iter().map(|name| Column::new(rows, name)).collect::<Result<_>>()?;
        }
        let first = (self.step - self.n_seen % self.step) % self.step;
        self.n_seen += rows.num_rows() as u64;
        let looked_at: UInt32Array = (first..rows.num_rows() as u64)
            .step_by(usize::try_from(self.step).unwrap_or(usize::MAX))
            .map(|row| row as u32)
            .collect();
        if looked_at.is_empty() {
            return Ok(());
        }
        for (name, column) in self.by.iter().zip(&mut self.columns) {
            let values = take(column_of(rows, name)?, &looked_at, None).map_err(failed)?;
            let encoded = column.converter.convert_columns(&[values]).map_err(failed)?;
            column.values.extend(encoded.iter().map(|row| prefix(row.data()).into()));
        }
        Ok(())
    }

    /// Returns the curve through the ranges that the rows seen fall into.
    pub(super) fn into_curve(self) -> Curve {
        let columns = self.columns.into_iter().map(Column::into_ranges).collect();
        Curve { by: self.by, columns }
    }
}

impl Curve {
    /// Returns the place of each row on the curve.
    ///
    /// # Errors
    /// `Internal` when a column is missing or cannot be compared.
    pub(super) fn places(&self, rows: &RecordBatch) -> Result<UInt64Array> {
        let n_columns = self.columns.len();
        let mut cells = vec![0_u32; rows.num_rows() * n_columns];
        for (place, (name, column)) in self.by.iter().zip(&self.columns).enumerate() {
            let values = column_of(rows, name)?;
            let encoded = column.converter.convert_columns(std::slice::from_ref(values)).map_err(failed)?;
            for (row, cell) in encoded.iter().zip(cells.iter_mut().skip(place).step_by(n_columns)) {
                *cell = column.range_of(row.data());
            }
        }
        Ok(cells.chunks_exact_mut(n_columns.max(1)).map(|cell| place_of(cell, BITS)).collect())
    }
}

impl Column {
    fn new(rows: &RecordBatch, name: &str) -> Result<Self> {
        let field = SortField::new(column_of(rows, name)?.data_type().clone());
        Ok(Self { converter: RowConverter::new(vec![field]).map_err(failed)?, values: Vec::new() })
    }

    /// A value that many rows have ends many ranges, so that a row's range tells how many rows come before it.
    fn into_ranges(mut self) -> Self {
        self.values.sort_unstable();
        let (n_values, n_ranges) = (self.values.len(), 1_usize << BITS);
        let ends = (1..n_ranges).filter_map(|range| self.values.get(range * n_values / n_ranges).cloned());
        let values = ends.collect();
        Self { values, ..self }
    }

    fn range_of(&self, value: &[u8]) -> u32 {
        self.values.partition_point(|least| **least <= *prefix(value)) as u32
    }
}

fn column_of<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::ArrayRef> {
    rows.column_by_name(name).ok_or_else(|| Error::internal(format!("rows lack the clustering column '{name}'")))
}

fn prefix(value: &[u8]) -> &[u8] {
    value.get(..PREFIX_BYTES).unwrap_or(value)
}

fn failed(cause: ArrowError) -> Error {
    Error::internal("cannot compare clustering columns").with_source(cause)
}

/// Returns the place on Hilbert's curve of a cell of a cube whose sides are two to `bits` cells long. `cell` is used up.
fn place_of(cell: &mut [u32], bits: u32) -> u64 {
    let top = 1_u32 << (bits - 1);
    let mut bit = top;
    while bit > 1 {
        let below = bit - 1;
        for axis in 0..cell.len() {
            if cell[axis] & bit == 0 {
                let swapped = (cell[0] ^ cell[axis]) & below;
                cell[0] ^= swapped;
                cell[axis] ^= swapped;
            } else {
                cell[0] ^= below;
            }
        }
        bit >>= 1;
    }
    for axis in 1..cell.len() {
        cell[axis] ^= cell[axis - 1];
    }
    let last = cell.last().copied().unwrap_or_default();
    let mut flipped = 0;
    let mut bit = top;
    while bit > 1 {
        if last & bit != 0 {
            flipped ^= bit - 1;
        }
        bit >>= 1;
    }
    let mut place = 0_u64;
    for bit in (0..bits).rev() {
        for axis in cell.iter() {
            place = place << 1 | u64::from((axis ^ flipped) >> bit & 1);
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    /// Walks the curve through a whole cube: every cell is on it once, and each step is one cell along one axis.
    fn check(n_axes: u32, bits: u32) {
        let side = 1_u32 << bits;
        let mut cells = BTreeMap::new();
        for number in 0..side.pow(n_axes) {
            let cell: Vec<u32> = (0..n_axes).map(|axis| number / side.pow(axis) % side).collect();
            cells.insert(place_of(&mut cell.clone(), bits), cell);
        }
        assert_eq!(cells.len(), side.pow(n_axes) as usize, "two cells have one place");
        assert!(cells.keys().copied().eq(0..u64::from(side.pow(n_axes))));
        let walk: Vec<&Vec<u32>> = cells.values().collect();
        for step in walk.windows(2) {
            let far: u32 = step[0].iter().zip(step[1]).map(|(one, other)| one.abs_diff(*other)).sum();
            assert_eq!(far, 1, "{step:?}");
        }
    }

    #[test]
    fn the_curve_goes_through_every_cell_without_a_jump() {
        check(1, 4);
        check(2, 4);
        check(3, 3);
        check(4, 2);
    }

    fn rows(numbers: Vec<Option<i64>>, words: Vec<Option<&str>>) -> Result<RecordBatch> {
        let columns: [(&str, ArrayRef); 2] =
            [("number", Arc::new(Int64Array::from(numbers))), ("word", Arc::new(StringArray::from(words)))];
        RecordBatch::try_from_iter(columns).map_err(failed)
    }

    #[test]
    fn ranges_hold_as_many_rows_each_however_values_are_spread() -> Result<()> {
        let n_rows = 3_i64 << BITS;
        let numbers = (0..n_rows).map(|row| Some(if row % 2 == 0 { row } else { i64::MAX - row })).collect();
        let rows = rows(numbers, vec![None; n_rows as usize])?;
        let mut sample = Sample::new(&["number".to_owned(), "word".to_owned()], n_rows as u64);
        sample.see(&rows)?;
        let curve = sample.into_curve();
        let numbers = &curve.columns[0];
        let encoded = numbers.converter.convert_columns(&[Arc::clone(rows.column(0))]).map_err(failed)?;
        let mut counts = vec![0; 1 << BITS];
        encoded.iter().for_each(|row| counts[numbers.range_of(row.data()) as usize] += 1);
        assert!(counts.iter().all(|count| *count == 3), "{counts:?}");
        let places = curve.places(&rows)?;
        assert_eq!(places.len(), n_rows as usize);
        Ok(())
    }

    #[test]
    fn null_comes_first_and_a_common_value_takes_its_share() -> Result<()> {
        let words = vec![None, Some("a"), Some("m"), Some("m"), Some("m"), Some("m"), Some("m"), Some("z")];
        let rows = rows(vec![Some(1); 8], words)?;
        let mut sample = Sample::new(&["word".to_owned()], 8);
        sample.see(&rows)?;
        let curve = sample.into_curve();
        let places: Vec<u64> = curve.places(&rows)?.values().to_vec();
        let eighth = 1_u64 << (BITS - 3);
        assert_eq!(
            places,
            [
                eighth - 1,
                2 * eighth - 1,
                7 * eighth - 1,
                7 * eighth - 1,
                7 * eighth - 1,
                7 * eighth - 1,
                7 * eighth - 1,
                8 * eighth - 1
            ]
        );
        Ok(())
    }

    #[test]
    fn no_rows_make_a_curve_without_ranges() -> Result<()> {
        let curve = Sample::new(&["number".to_owned()], 0).into_curve();
        assert_eq!(curve.places(&rows(Vec::new(), Vec::new())?)?.len(), 0);
        Ok(())
    }
}
