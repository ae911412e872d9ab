//! Splits rows by their partition values, writes those values as Delta's log wants them, and names the folders of files.
//!
//! Source: Delta transaction log protocol, section "Partition Value Serialization". The protocol gives folders no
//! meaning, and nothing here reads one; but Polars takes partition values from nowhere else.

use std::collections::HashMap;
use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};

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
/// `Internal` when a column is missing or cannot be compared: the compiler has checked both.
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
    let texts = keys.iter().map(partition_text).collect::<Result<Vec<_>>>()?;
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

fn text_at(text: &ArrayRef, index: usize) -> Option<String> {
    let text = text.as_string::<i32>();
    // An empty string cannot be told from NULL in a partition value; the protocol makes it NULL.
    text.is_valid(index).then(|| text.value(index).to_owned()).filter(|value| !value.is_empty())
}

fn partition_text(key: &ArrayRef) -> Result<ArrayRef> {
    let failed = |cause| {
        Error::internal(format!("cannot write a partition value of type {}", key.data_type())).with_source(cause)
    };
    match key.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let layout = if zone.is_some() { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%d %H:%M:%S%.6f" };
            let micros = key.as_primitive::<TimestampMicrosecondType>();
            let texts = micros.iter().map(|value| {
                value.and_then(chrono::DateTime::from_timestamp_micros).map(|moment| moment.format(layout).to_string())
            });
            Ok(Arc::new(texts.collect::<arrow::array::StringArray>()))
        }
        _ => cast(key, &DataType::Utf8).map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Int64Array, StringArray, TimestampMicrosecondArray};
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
        assert_eq!(partition_text(&key)?.as_string::<i32>().value(0), "1970-01-01T00:00:01.500000Z");
        Ok(())
    }
}
