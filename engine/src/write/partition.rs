//! Splits rows by their partition values, writes those values as Delta's log wants them, and names the folders of files.
//!
//! Source: Delta transaction log protocol, section "Partition Value Serialization". The protocol gives folders no
//! meaning, and nothing here reads one; but Polars takes partition values from nowhere else.

use std::collections::HashMap;

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};

use crate::calendar::is_of_calendar;

/// The value of each partition column as the log has it, `None` for NULL.
pub type PartitionValues = HashMap<String, Option<String>>;

/// How a folder says NULL; Hive's word.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// The longest a part's folders may be together: names in a file system have at most 255 bytes, keys in S3 1024 with the
/// table's own.
const FOLDER_BYTES_MAX: usize = 255;

/// The rows of one partition, without the partition columns.
#[derive(Debug)]
pub struct Part {
    /// The partition.
    pub values: PartitionValues,
    /// The rows.
    pub rows: RecordBatch,
    /// The index of each row in the batch that was split.
    pub indices: Vec<u32>,
}

/// Splits `rows` by `columns`; without columns there is one part. Rows keep their order within a part.
///
/// # Errors
/// `Internal` when a column is missing or cannot be compared: the compiler has checked both. `Data` for a value that no
/// partition value stands for, such as a date after the year 9999; [`transform`](crate::transform) refuses those.
pub fn split(rows: &RecordBatch, columns: &[String]) -> Result<Vec<Part>> {
    let failed = |cause| Error::internal("cannot split rows by partition").with_source(cause);
    let n_rows = u32::try_from(rows.num_rows()).map_err(|_| Error::internal("a batch has more than 4 billion rows"))?;
    if columns.is_empty() {
        return Ok(vec![Part { values: HashMap::new(), rows: rows.clone(), indices: (0..n_rows).collect() }]);
    }
    let keys = columns
        .iter()
        .map(|name| rows.column_by_name(name).cloned())
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Error::internal(format!("rows lack one of the partition columns {columns:?}")))?;
    let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
    let encoded = RowConverter::new(fields).and_then(|converter| converter.convert_columns(&keys)).map_err(failed)?;
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    let mut groups: Vec<Vec<u32>> = Vec::new();
    for (index, key) in (0..n_rows).zip(encoded.iter()) {
        let place = *places.entry(key.data()).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(place) {
            group.push(index);
        }
    }
    let texts = columns.iter().zip(&keys).map(|(name, key)| partition_text(name, key));
    let texts = texts.collect::<Result<Vec<StringArray>>>()?;
    let kept: Vec<usize> =
        (0..rows.num_columns()).filter(|place| !columns.contains(rows.schema_ref().field(*place).name())).collect();
    let stored = rows.project(&kept).map_err(failed)?;
    groups
        .into_iter()
        .map(|indices| {
            let first = indices.first().copied().unwrap_or_default() as usize;
            let values = columns.iter().cloned().zip(texts.iter().map(|text| text_at(text, first))).collect();
            let taken = take_record_batch(&stored, &UInt32Array::from(indices.clone())).map_err(failed)?;
            Ok(Part { values, rows: taken, indices })
        })
        .collect()
}

/// Returns the folder of a part with `values`, as in `place=a%2Fb/day=2026-03-01/`; nothing for a table without
/// partitions, and for values that are too long to be a name.
pub fn folder(columns: &[String], values: &HashMap<String, Option<String>>) -> String {
    let mut folder = String::new();
    for column in columns {
        escape_into(column, &mut folder);
        folder.push('=');
        match values.get(column).and_then(Option::as_deref) {
            Some(value) => escape_into(value, &mut folder),
            None => folder.push_str(NULL_FOLDER),
        }
        folder.push('/');
    }
    if folder.len() > FOLDER_BYTES_MAX { String::new() } else { folder }
}

/// Escapes all that a store, a file system or a URL could take for something else.
fn escape_into(text: &str, folder: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') {
            folder.push(char::from(byte));
        } else {
            folder.push_str(&format!("%{byte:02X}"));
        }
    }
}

fn text_at(text: &StringArray, index: usize) -> Option<String> {
    // An empty string cannot be told from NULL in a partition value; the protocol makes it NULL.
    text.is_valid(index).then(|| text.value(index).to_owned()).filter(|value| !value.is_empty())
}

/// Returns the values of partition column `name` as texts. Only a NULL has none: a value that was lost on the way would
/// put its row under another key.
///
/// # Errors
/// `Data` for a value that has no text, or one that readers do not know.
fn partition_text(name: &str, key: &ArrayRef) -> Result<StringArray> {
    let texts: StringArray = match key.data_type() {
        DataType::Date32 => {
            let days = key.as_primitive::<Date32Type>().iter();
            days.map(|value| value.and_then(Date32Type::to_naive_date_opt).map(|day| day.to_string())).collect()
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let layout = if zone.is_some() { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%d %H:%M:%S%.6f" };
            let micros = key.as_primitive::<TimestampMicrosecondType>().iter();
            let moments = micros.map(|value| value.and_then(chrono::DateTime::from_timestamp_micros));
            moments.map(|moment| moment.map(|moment| moment.format(layout).to_string())).collect()
        }
        other => {
            let written = cast(key, &DataType::Utf8).map_err(|cause| {
                Error::internal(format!("cannot write partition column '{name}', which is {other}")).with_source(cause)
            })?;
            written.as_string::<i32>().clone()
        }
    };
    // Others are read back by nobody.
    let has_year = matches!(key.data_type(), DataType::Date32 | DataType::Timestamp(..));
    let is_written = |index: usize| texts.is_valid(index) && (!has_year || is_of_calendar(texts.value(index)));
    match (0..key.len()).find(|index| key.is_valid(*index) && !is_written(*index)) {
        Some(index) => Err(unwritable(name, key, index)),
        None => Ok(texts),
    }
}

fn unwritable(name: &str, key: &ArrayRef, index: usize) -> Error {
    let value = match key.data_type() {
        DataType::Date32 => {
            let days = key.as_primitive::<Date32Type>().value(index);
            format!("the date {days} days from 1970-01-01 is outside of the years 1 to 9999")
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros = key.as_primitive::<TimestampMicrosecondType>().value(index);
            format!("the time {micros} microseconds from 1970-01-01 is outside of the years 1 to 9999")
        }
        other => format!("a value of type {other} has no text"),
    };
    Error::data(format!("cannot write partition column '{name}': {value}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use alluvium_catalog::ErrorKind;
    use arrow::array::{Date32Array, Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn parts_keep_order_and_lose_their_columns() -> Result<()> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("day", DataType::Date32, true),
            Field::new("city", DataType::Utf8, true),
        ]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1, 2, 3, 4])),
            Arc::new(Date32Array::from(vec![Some(0), None, Some(0), Some(0)])),
            Arc::new(StringArray::from(vec![
                Some("K\u{f6}ln am Rhein"),
                Some("a"),
                Some("K\u{f6}ln am Rhein"),
                Some(""),
            ])),
        ];
        let rows = RecordBatch::try_new(schema, columns).map_err(|cause| Error::internal("rows").with_source(cause))?;
        let parts = split(&rows, &["day".to_owned(), "city".to_owned()])?;
        let seen: Vec<_> = parts
            .iter()
            .map(|part| (part.indices.clone(), part.values["day"].clone(), part.values["city"].clone()))
            .collect();
        assert_eq!(
            seen,
            [
                (vec![0, 2], Some("1970-01-01".to_owned()), Some("K\u{f6}ln am Rhein".to_owned())),
                (vec![1], None, Some("a".to_owned())),
                (vec![3], Some("1970-01-01".to_owned()), None),
            ]
        );
        assert_eq!(parts[0].rows.num_columns(), 1);
        Ok(())
    }

    fn folder_of(values: &[(&str, Option<&str>)]) -> String {
        let columns: Vec<String> = values.iter().map(|(column, _)| (*column).to_owned()).collect();
        let values = values.iter().map(|(column, value)| ((*column).to_owned(), value.map(str::to_owned)));
        folder(&columns, &values.collect())
    }

    #[test]
    fn folders_escape_what_is_not_a_plain_word() {
        assert_eq!(folder_of(&[]), "");
        assert_eq!(
            folder_of(&[("day", Some("2026-03-01")), ("place", Some("a/b %\u{e9}=.."))]),
            "day=2026-03-01/place=a%2Fb%20%25%C3%A9%3D../"
        );
        assert_eq!(folder_of(&[("a b", None)]), "a%20b=__HIVE_DEFAULT_PARTITION__/");
    }

    #[test]
    fn values_that_are_too_long_for_a_name_have_no_folder() {
        let value = "x".repeat(FOLDER_BYTES_MAX - "a=/".len());
        assert_eq!(folder_of(&[("a", Some(&value))]).len(), FOLDER_BYTES_MAX);
        assert_eq!(folder_of(&[("a", Some(&format!("{value}x")))]), "");
    }

    #[test]
    fn instants_are_written_in_utc() -> Result<()> {
        let key: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1_500_000]).with_timezone("UTC"));
        assert_eq!(partition_text("at", &key)?.value(0), "1970-01-01T00:00:01.500000Z");
        Ok(())
    }

    /// The microseconds of 0001-01-01 and of the last moment of 9999-12-31.
    const MICROS: [i64; 2] = [-62_135_596_800_000_000, 253_402_300_799_999_999];

    #[test]
    fn the_years_1_to_9999_are_written_and_null_has_no_text() -> Result<()> {
        let check = |key: ArrayRef, expected: [&str; 2]| -> Result<()> {
            let texts = partition_text("at", &key)?;
            assert_eq!(texts.iter().collect::<Vec<_>>(), [Some(expected[0]), Some(expected[1]), None]);
            Ok(())
        };
        let micros = || TimestampMicrosecondArray::from(vec![Some(MICROS[0]), Some(MICROS[1]), None]);
        let days = Date32Array::from(vec![Some(-719_162), Some(2_932_896), None]);
        check(Arc::new(days), ["0001-01-01", "9999-12-31"])?;
        check(Arc::new(micros()), ["0001-01-01 00:00:00.000000", "9999-12-31 23:59:59.999999"])?;
        let instants = Arc::new(micros().with_timezone("UTC"));
        check(instants, ["0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"])
    }

    #[test]
    fn a_value_that_has_no_text_is_an_error_and_never_null() -> Result<()> {
        let schema = |data_type| {
            let fields = [Field::new("id", DataType::Int64, false), Field::new("at", data_type, true)];
            Arc::new(Schema::new(fields.to_vec()))
        };
        let check = |key: ArrayRef| -> Result<()> {
            let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
            let rows = RecordBatch::try_new(schema(key.data_type().clone()), vec![ids, key])
                .map_err(|cause| Error::internal("rows").with_source(cause))?;
            let Err(error) = split(&rows, &["at".to_owned()]) else {
                return Err(Error::internal(format!("{rows:?} was split")));
            };
            assert_eq!(error.kind(), ErrorKind::Data, "{error:?}");
            assert!(error.message().contains("partition column 'at'"), "{error:?}");
            Ok(())
        };
        for days in [i32::MAX, i32::MIN, 2_932_897, -719_163] {
            check(Arc::new(Date32Array::from(vec![Some(0), Some(days)])))?;
        }
        // The third is in the year 57971: nanoseconds where microseconds are meant.
        for micros in [i64::MAX, i64::MIN, 1_767_225_600_123_000_000, MICROS[1] + 1, MICROS[0] - 1] {
            let moments = TimestampMicrosecondArray::from(vec![Some(0), Some(micros)]);
            check(Arc::new(moments.clone()))?;
            check(Arc::new(moments.with_timezone("UTC")))?;
        }
        Ok(())
    }
}
