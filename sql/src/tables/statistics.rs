//! Reads the statistics that the Delta log keeps of a data file.
//!
//! A bound is taken as exact, so that it may answer MIN or MAX without reading, only where writers cannot have rounded it
//! and no deleted row can be behind it; all others serve to skip files and to estimate. Statistics that cannot be
//! understood are unknown, never an error: rows do not depend on them.
//! Source: Delta transaction log protocol, section "Per-file Statistics".

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue};
use serde_json::{Map, Value};

/// What is added to the greatest timestamp, in microseconds: writers may cut off what is below a millisecond.
const MILLISECOND_REST: i64 = 999;

/// The greatest unscaled decimal that is believed: some writers keep decimals as binary floats, which hold 15 digits.
const DECIMAL_MAX: i128 = 10_i128.pow(15);

/// What the log tells of a data file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FileStatistics {
    /// How many rows the file has, deleted ones included.
    pub(super) n_rows: Option<u64>,
    /// One for each column of the file.
    pub(super) columns: Vec<ColumnStatistics>,
}

impl FileStatistics {
    /// Returns what is known without statistics: nothing.
    pub(super) fn unknown(columns: &Schema) -> Self {
        Self { n_rows: None, columns: vec![ColumnStatistics::new_unknown(); columns.fields().len()] }
    }

    /// Reads the JSON `text` of a file with these `columns`; `has_vector` says that some of its rows may be deleted.
    pub(super) fn read(text: &str, columns: &Schema, has_vector: bool) -> Self {
        let Ok(Value::Object(stats)) = serde_json::from_str(text) else {
            return Self::unknown(columns);
        };
        let is_tight = stats.get("tightBounds").and_then(Value::as_bool).unwrap_or(true);
        let members = |key: &str| stats.get(key).and_then(Value::as_object);
        let bounds = Bounds {
            least: members("minValues"),
            greatest: members("maxValues"),
            nulls: members("nullCount"),
            is_exact: is_tight && !has_vector,
        };
        let columns = columns.fields().iter().map(|field| bounds.of(field)).collect();
        Self { n_rows: stats.get("numRecords").and_then(Value::as_u64), columns }
    }
}

struct Bounds<'a> {
    least: Option<&'a Map<String, Value>>,
    greatest: Option<&'a Map<String, Value>>,
    nulls: Option<&'a Map<String, Value>>,
    is_exact: bool,
}

impl Bounds<'_> {
    fn of(&self, field: &Field) -> ColumnStatistics {
        let (name, data_type) = (field.name(), field.data_type());
        let mut column = ColumnStatistics::new_unknown();
        let member = |members: Option<&Map<String, Value>>| members.and_then(|members| members.get(name)).cloned();
        // deltalake wrote for a list and a map how many of their elements are none, empty lists included.
        let nulls = member(self.nulls).filter(|_| !data_type.is_nested());
        if let Some(nulls) = nulls.and_then(|nulls| usize::try_from(nulls.as_u64()?).ok()) {
            column.null_count = if self.is_exact { Precision::Exact(nulls) } else { Precision::Inexact(nulls) };
        }
        let precise = |bound: Option<ScalarValue>| match bound {
            Some(bound) if self.is_exact && is_kept_whole(data_type) => Precision::Exact(bound),
            Some(bound) => Precision::Inexact(bound),
            None => Precision::Absent,
        };
        column.min_value = precise(member(self.least).and_then(|bound| scalar(&bound, data_type)));
        column.max_value = precise(member(self.greatest).and_then(|bound| widened(scalar(&bound, data_type)?)));
        column
    }
}

/// Tells whether every writer keeps values of this type as they are: text may be cut, timestamps rounded, and NaN is in
/// no bound.
fn is_kept_whole(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Date32 | DataType::Decimal128(..))
}

fn scalar(bound: &Value, data_type: &DataType) -> Option<ScalarValue> {
    let text = |text: &str| ScalarValue::from(text).cast_to(data_type).ok().filter(|scalar| !scalar.is_null());
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            ScalarValue::from(bound.as_i64()?).cast_to(data_type).ok()
        }
        DataType::Float32 | DataType::Float64 => ScalarValue::from(bound.as_f64()?).cast_to(data_type).ok(),
        DataType::Utf8 | DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, _) => text(bound.as_str()?),
        DataType::Decimal128(..) => {
            let scalar = match bound {
                Value::String(digits) => text(digits),
                number => text(&number.as_number()?.to_string()),
            }?;
            let is_whole = matches!(scalar, ScalarValue::Decimal128(Some(value), ..) if value.abs() < DECIMAL_MAX);
            is_whole.then_some(scalar)
        }
        _ => None,
    }
}

fn widened(bound: ScalarValue) -> Option<ScalarValue> {
    match bound {
        ScalarValue::TimestampMicrosecond(Some(micros), zone) => {
            Some(ScalarValue::TimestampMicrosecond(Some(micros.checked_add(MILLISECOND_REST)?), zone))
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn column(data_type: DataType, low: &str, high: &str, rest: &str) -> ColumnStatistics {
        let text = format!(
            r#"{{"numRecords":9,"minValues":{{"a":{low}}},"maxValues":{{"a":{high}}},"nullCount":{{"a":2}}{rest}}}"#
        );
        let mut read = FileStatistics::read(&text, &Schema::new(vec![Field::new("a", data_type, true)]), false);
        assert_eq!(read.n_rows, Some(9));
        read.columns.remove(0)
    }

    #[test]
    fn whole_numbers_and_dates_are_exact_unless_bounds_are_loose() {
        let tight = column(DataType::Int64, "-3", "9007199254740993", "");
        assert_eq!(tight.min_value, Precision::Exact(ScalarValue::Int64(Some(-3))));
        assert_eq!(tight.max_value, Precision::Exact(ScalarValue::Int64(Some(9_007_199_254_740_993))));
        assert_eq!(tight.null_count, Precision::Exact(2));
        let loose = column(DataType::Int64, "-3", "4", r#","tightBounds":false"#);
        assert_eq!(loose.min_value, Precision::Inexact(ScalarValue::Int64(Some(-3))));
        assert_eq!(loose.null_count, Precision::Inexact(2));
        let date = column(DataType::Date32, r#""1970-01-02""#, r#""1970-01-03""#, "");
        assert_eq!(date.max_value, Precision::Exact(ScalarValue::Date32(Some(2))));
    }

    #[test]
    fn a_vector_makes_every_bound_inexact() {
        let schema = Schema::new(vec![Field::new("a", DataType::Int32, true)]);
        let text = r#"{"numRecords":2,"minValues":{"a":1},"maxValues":{"a":2},"nullCount":{"a":0},"tightBounds":true}"#;
        let read = FileStatistics::read(text, &schema, true);
        assert_eq!(read.columns[0].max_value, Precision::Inexact(ScalarValue::Int32(Some(2))));
        assert_eq!(read.columns[0].null_count, Precision::Inexact(0));
    }

    #[test]
    fn what_writers_round_is_never_exact() {
        let text = column(DataType::Utf8, r#""a""#, r#""b""#, "");
        assert_eq!(text.min_value, Precision::Inexact(ScalarValue::from("a")));
        let float = column(DataType::Float64, "1", "2.5", "");
        assert_eq!(float.max_value, Precision::Inexact(ScalarValue::from(2.5)));
        let zone = Some("UTC".into());
        let time = column(
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
            r#""1970-01-01T00:00:00.001Z""#,
            r#""1970-01-01T00:00:00.002Z""#,
            "",
        );
        assert_eq!(time.min_value, Precision::Inexact(ScalarValue::TimestampMicrosecond(Some(1_000), zone.clone())));
        assert_eq!(time.max_value, Precision::Inexact(ScalarValue::TimestampMicrosecond(Some(2_999), zone)));
    }

    #[test]
    fn decimals_are_believed_as_far_as_a_float_holds_them() {
        let small = column(DataType::Decimal128(18, 2), "1.05", r#""12.30""#, "");
        assert_eq!(small.min_value, Precision::Exact(ScalarValue::Decimal128(Some(105), 18, 2)));
        assert_eq!(small.max_value, Precision::Exact(ScalarValue::Decimal128(Some(1_230), 18, 2)));
        let large = column(DataType::Decimal128(20, 2), "1.05", "12345678901234568.0", "");
        assert_eq!(large.max_value, Precision::Absent);
    }

    /// Two empty lists have two elements that are none in the footer of their file.
    #[test]
    fn nulls_of_nested_columns_are_not_believed() {
        let list = DataType::new_list(DataType::Int64, true);
        let pair = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int64, true)];
        let entries = Field::new("entries", DataType::Struct(pair.into()), false);
        let schema = Schema::new(vec![
            Field::new("l", list, true),
            Field::new("m", DataType::Map(Arc::new(entries), false), true),
            Field::new("a", DataType::Int64, true),
        ]);
        let read = FileStatistics::read(r#"{"numRecords":2,"nullCount":{"l":2,"m":2,"a":2}}"#, &schema, false);
        let nulls: Vec<_> = read.columns.iter().map(|column| column.null_count).collect();
        assert_eq!(nulls, [Precision::Absent, Precision::Absent, Precision::Exact(2)]);
    }

    #[test]
    fn statistics_that_make_no_sense_are_unknown() {
        let schema = Schema::new(vec![Field::new("a", DataType::Int8, true)]);
        for text in ["", "[]", r#"{"minValues":{"a":"x"},"maxValues":{"a":300},"nullCount":{"a":{"b":1}}}"#] {
            assert_eq!(FileStatistics::read(text, &schema, false), FileStatistics::unknown(&schema), "{text}");
        }
    }
}
