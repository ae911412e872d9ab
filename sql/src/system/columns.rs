//! Lays values out as the columns of a record batch.

use std::sync::Arc;

use alluvium_catalog::{Error, Result, Timestamp};
use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use serde::Serialize;

/// Columns in the making. Every column has the same number of rows.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    columns: Vec<(&'static str, ArrayRef)>,
}

impl Columns {
    /// Returns no columns.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a column of text.
    #[must_use]
    pub(crate) fn text(self, name: &'static str, values: impl Iterator<Item = Option<String>>) -> Self {
        self.add(name, Arc::new(values.collect::<StringArray>()))
    }

    /// Adds a column of numbers, as `BIGINT`: no count of ours is larger, and other types spoil arithmetic in SQL.
    #[must_use]
    pub(crate) fn count(self, name: &'static str, values: impl Iterator<Item = Option<u64>>) -> Self {
        let values = values.map(|value| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX)));
        self.add(name, Arc::new(values.collect::<Int64Array>()))
    }

    /// Adds a column of signed numbers.
    #[must_use]
    pub(crate) fn number(self, name: &'static str, values: impl Iterator<Item = Option<i64>>) -> Self {
        self.add(name, Arc::new(values.collect::<Int64Array>()))
    }

    /// Adds a column of ratios.
    #[must_use]
    pub(crate) fn ratio(self, name: &'static str, values: impl Iterator<Item = Option<f64>>) -> Self {
        self.add(name, Arc::new(values.collect::<Float64Array>()))
    }

    /// Adds a column of times in UTC.
    #[must_use]
    pub(crate) fn time(self, name: &'static str, values: impl Iterator<Item = Option<Timestamp>>) -> Self {
        let millis: TimestampMillisecondArray = values.map(|value| value.map(|time| time.0)).collect();
        self.add(name, Arc::new(millis.with_timezone("UTC")))
    }

    /// Adds a column of truths.
    #[must_use]
    pub(crate) fn truth(self, name: &'static str, values: impl Iterator<Item = Option<bool>>) -> Self {
        self.add(name, Arc::new(values.collect::<BooleanArray>()))
    }

    /// Returns the columns as one batch.
    ///
    /// # Errors
    /// `Internal` when the columns differ in length.
    pub(crate) fn finish(self) -> Result<RecordBatch> {
        let columns = self.columns.into_iter().map(|(name, values)| (name, values, true));
        RecordBatch::try_from_iter_with_nullable(columns)
            .map_err(|cause| Error::internal("columns of the catalog differ in length").with_source(cause))
    }

    fn add(mut self, name: &'static str, values: ArrayRef) -> Self {
        self.columns.push((name, values));
        self
    }
}

/// Returns `value` as JSON text, or nothing where it has no such form.
pub(crate) fn json<T: Serialize>(value: &T) -> Option<String> {
    serde_json::to_string(value).ok()
}
