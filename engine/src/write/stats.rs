//! The statistics that the Delta log keeps of a data file, read out of the parquet footer.
//!
//! Bounds are written for top-level columns whose order every reader agrees on: numbers, dates, timestamps, decimals and
//! strings. A column that holds a NaN has none, as it has none in the footer; nor has one with a bound beyond the years
//! 1 to 9999, which files of other engines may hold and readers of the log do not understand. Numbers keep all their
//! digits, since a rounded bound would prune rows that match. Source: Delta transaction log protocol, section "Per-file
//! Statistics".

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::ParquetMetaData;

use crate::calendar::is_of_calendar;
use crate::delta::action::INDEXED_COLUMNS;

/// Returns the statistics of a file that holds `rows` and whose footer is `footer`, as JSON text.
///
/// # Errors
/// `Internal` when the footer does not belong to the rows.
pub fn stats_json(rows: &RecordBatch, footer: &ParquetMetaData) -> Result<String> {
    let nulls: Vec<usize> = rows.columns().iter().map(Array::null_count).collect();
    file_stats(&rows.schema(), rows.num_rows() as u64, &nulls, footer)
}

/// Returns the statistics of a file of `n_rows` rows, of which each column has so many NULLs, as JSON text.
///
/// # Errors
/// `Internal` when the footer does not belong to the schema.
pub fn file_stats(schema: &Schema, n_rows: u64, null_counts: &[usize], footer: &ParquetMetaData) -> Result<String> {
    let mut low = Members::default();
    let mut high = Members::default();
    let mut nulls = Members::default();
    for (field, null_count) in schema.fields().iter().zip(null_counts).take(INDEXED_COLUMNS) {
        if matches!(field.data_type(), DataType::Struct(_) | DataType::List(_) | DataType::Map(..)) {
            continue;
        }
        nulls.push(field.name(), &null_count.to_string())?;
        if !has_bounds(field.data_type()) || *null_count as u64 == n_rows {
            continue;
        }
        if let Some((least, greatest)) = bounds(schema, field.name(), footer)? {
            low.push(field.name(), &least)?;
            high.push(field.name(), &greatest)?;
        }
    }
    Ok(format!(
        r#"{{"numRecords":{},"minValues":{},"maxValues":{},"nullCount":{},"tightBounds":true}}"#,
        n_rows,
        low.close(),
        high.close(),
        nulls.close()
    ))
}

/// Returns the statistics of a file of `n_rows` rows once a deletion vector hides some of them: `stats` with the bounds marked
/// as loose, and with the number of rows, which such a file must have in the log and another writer may have left out.
/// Source: Delta transaction log protocol, section "Writer Requirement for Deletion Vectors".
pub fn marked(stats: Option<&str>, n_rows: u64) -> String {
    let stats = stats.unwrap_or("{}").trim();
    let told = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(stats).unwrap_or_default();
    let counted = match (told.get("numRecords"), stats.strip_prefix('{')) {
        (Some(number), _) if number.is_u64() => stats.to_owned(),
        // Put in as text: bounds keep all their digits.
        (None, Some(rest)) if !told.is_empty() => format!(r#"{{"numRecords":{n_rows},{rest}"#),
        _ => format!(r#"{{"numRecords":{n_rows},"tightBounds":false}}"#),
    };
    loosen(&counted)
}

/// Returns `stats`, which tell the number of rows, with the bounds marked as loose: readers take those for tight of which
/// another writer has said nothing.
pub fn loosen(stats: &str) -> String {
    match stats.trim_end().strip_suffix('}') {
        Some(told) if !told.contains(r#""tightBounds":"#) => format!(r#"{told},"tightBounds":false}}"#),
        _ => stats.replace(r#""tightBounds":true"#, r#""tightBounds":false"#),
    }
}

fn has_bounds(data_type: &DataType) -> bool {
    data_type.is_numeric()
        || matches!(data_type, DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Utf8)
}

/// Returns the least and the greatest value of a column as JSON text, if the footer tells both.
fn bounds(schema: &Schema, name: &str, footer: &ParquetMetaData) -> Result<Option<(String, String)>> {
    let failed = |cause| Error::internal(format!("cannot read the statistics of column '{name}'")).with_source(cause);
    let converter =
        StatisticsConverter::try_new(name, schema, footer.file_metadata().schema_descr()).map_err(failed)?;
    let lows = converter.row_group_mins(footer.row_groups()).map_err(failed)?;
    let highs = converter.row_group_maxes(footer.row_groups()).map_err(failed)?;
    if lows.null_count() > 0 || highs.null_count() > 0 || lows.is_empty() {
        return Ok(None);
    }
    let failed =
        |cause| Error::internal(format!("cannot compare the statistics of column '{name}'")).with_source(cause);
    let order = arrow::compute::sort_to_indices(&lows, None, None).map_err(failed)?;
    let least = order.values().first().copied().unwrap_or_default() as usize;
    let order = arrow::compute::sort_to_indices(&highs, None, None).map_err(failed)?;
    let greatest = order.values().last().copied().unwrap_or_default() as usize;
    Ok(json_text(&lows, least)?.zip(json_text(&highs, greatest)?))
}

/// Returns a value as JSON text; `None` for those that JSON cannot hold (NaN, infinities) or readers do not understand.
fn json_text(array: &ArrayRef, index: usize) -> Result<Option<String>> {
    let failed = |cause| Error::internal("cannot write a statistic").with_source(cause);
    let options = FormatOptions::default()
        .with_timestamp_format(Some("%Y-%m-%dT%H:%M:%S%.6f"))
        .with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.6fZ"));
    let formatter = ArrayFormatter::try_new(array, &options).map_err(failed)?;
    // Displayed, a date beyond the calendar would be the words of an error. Files of other engines may hold one.
    let Ok(text) = formatter.value(index).try_to_string() else { return Ok(None) };
    if array.data_type().is_temporal() && !is_of_calendar(&text) {
        return Ok(None);
    }
    if !array.data_type().is_numeric() {
        return serde_json::to_string(&text)
            .map(Some)
            .map_err(|cause| Error::internal("cannot write a statistic").with_source(cause));
    }
    let finite = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E'));
    Ok(finite.then_some(text))
}

/// The members of a JSON object in the making.
#[derive(Debug, Default)]
struct Members(String);

impl Members {
    fn push(&mut self, name: &str, json: &str) -> Result<()> {
        let name =
            serde_json::to_string(name).map_err(|cause| Error::internal("cannot write a name").with_source(cause))?;
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&format!("{name}:{json}"));
        Ok(())
    }

    fn close(mut self) -> String {
        if self.0.is_empty() {
            self.0.push('{');
        }
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Int32Array, StringArray, TimestampMicrosecondArray};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn failed(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::internal("test").with_source(cause)
    }

    /// Returns the statistics of a file of `columns`.
    fn stats_of<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<String> {
        let rows = RecordBatch::try_from_iter(columns).map_err(failed)?;
        let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), None).map_err(failed)?;
        writer.write(&rows).map_err(failed)?;
        let footer = writer.close().map_err(failed)?;
        stats_json(&rows, &footer)
    }

    #[test]
    fn a_column_with_a_date_that_no_reader_understands_has_no_bounds() -> Result<()> {
        // 0000-01-01, then 10000-01-01, which arrow still writes, then what it does not.
        for (days, micros) in [
            ([-719_528, 0], [-62_167_219_200_000_000, 0]),
            ([0, 2_932_897], [0, 253_402_300_800_000_000]),
            ([0, i32::MAX], [0, i64::MAX]),
            ([i32::MIN, 0], [i64::MIN, 0]),
        ] {
            let times = TimestampMicrosecondArray::from(micros.to_vec());
            let columns: [(&str, ArrayRef); 5] = [
                ("n", Arc::new(Int32Array::from(vec![-1, 1]))),
                ("s", Arc::new(StringArray::from(vec!["-1", "0000-01-01"]))),
                ("d", Arc::new(Date32Array::from(days.to_vec()))),
                ("t", Arc::new(times.clone().with_timezone("UTC"))),
                ("l", Arc::new(times)),
            ];
            let bounds = r#""minValues":{"n":-1,"s":"-1"},"maxValues":{"n":1,"s":"0000-01-01"}"#;
            let nulls = r#""nullCount":{"n":0,"s":0,"d":0,"t":0,"l":0}"#;
            let expected = format!(r#"{{"numRecords":2,{bounds},{nulls},"tightBounds":true}}"#);
            assert_eq!(stats_of(columns)?, expected, "{days:?}");
        }
        Ok(())
    }

    #[test]
    fn the_first_and_the_last_day_of_the_calendar_are_bounds() -> Result<()> {
        let times = TimestampMicrosecondArray::from(vec![-62_135_596_800_000_000, 253_402_300_799_999_999]);
        let columns: [(&str, ArrayRef); 2] = [
            ("d", Arc::new(Date32Array::from(vec![-719_162, 2_932_896]))),
            ("t", Arc::new(times.with_timezone("UTC"))),
        ];
        let stats = stats_of(columns)?;
        assert!(stats.contains(r#""minValues":{"d":"0001-01-01","t":"0001-01-01T00:00:00.000000Z"}"#), "{stats}");
        assert!(stats.contains(r#""maxValues":{"d":"9999-12-31","t":"9999-12-31T23:59:59.999999Z"}"#), "{stats}");
        Ok(())
    }

    #[test]
    fn a_file_with_deleted_rows_has_its_number_of_rows_and_loose_bounds() {
        for (stats, expected) in [
            (None, r#"{"numRecords":7,"tightBounds":false}"#),
            (Some("{ }"), r#"{"numRecords":7,"tightBounds":false}"#),
            (Some("none"), r#"{"numRecords":7,"tightBounds":false}"#),
            (Some(r#"{"numRecords":null,"maxValues":{"a":1}}"#), r#"{"numRecords":7,"tightBounds":false}"#),
            (
                Some(r#"{"maxValues":{"a":1.00000000000000000001},"tightBounds":true}"#),
                r#"{"numRecords":7,"maxValues":{"a":1.00000000000000000001},"tightBounds":false}"#,
            ),
            (Some(r#"{"numRecords":7,"tightBounds":true}"#), r#"{"numRecords":7,"tightBounds":false}"#),
            (Some(r#"{"numRecords":7}"#), r#"{"numRecords":7,"tightBounds":false}"#),
            (
                Some(r#"{"numRecords":7,"maxValues":{"a":1}} "#),
                r#"{"numRecords":7,"maxValues":{"a":1},"tightBounds":false}"#,
            ),
            (Some(r#"{"numRecords":7,"tightBounds":false}"#), r#"{"numRecords":7,"tightBounds":false}"#),
        ] {
            assert_eq!(marked(stats, 7), expected, "{stats:?}");
        }
    }
}
