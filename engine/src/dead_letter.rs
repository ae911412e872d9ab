//! Rejects as rows of a dead-letter table: whole, with the reason and the SQL that met them.
//!
//! A dead-letter table is an ordinary Delta table that anyone can read; bytes are kept as they came.

mod land;
mod replay;

pub use land::{DeadLetterPlace, DeadLetters, location};

use std::sync::Arc;

use alluvium_catalog::{Error, Result, Topic};
use alluvium_sql::Flow;
use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
    StructBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use crate::calendar::micros;
use crate::hop::{Headers, Reject};

/// Returns the columns of every dead-letter table.
pub fn dead_letter_schema() -> SchemaRef {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    SchemaRef::new(Schema::new(vec![
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", timestamp, true),
        Field::new("key", DataType::Binary, true),
        Field::new("headers", DataType::List(Arc::new(header_field())), true),
        Field::new("value", DataType::Binary, true),
        Field::new("class", DataType::Utf8, false),
        Field::new("message", DataType::Utf8, false),
        Field::new("flow", DataType::Utf8, false),
        Field::new("sql_hash", DataType::Utf8, false),
    ]))
}

/// Returns `rejects` of `topic` as rows of [`dead_letter_schema`], in the order given.
///
/// # Errors
/// `Internal` when the rows do not fit the schema, which is a defect. The caller bounds the bytes: a batch of more than
/// 2 GiB of raw values has no Arrow form.
pub fn dead_letter_rows(flow: &Flow, topic: &Topic, rejects: &[Reject]) -> Result<RecordBatch> {
    let n_rows = rejects.len();
    let timestamps = rejects.iter().map(|reject| reject.timestamp_ms.and_then(micros));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::new_repeated(topic.as_str(), n_rows)),
        Arc::new(Int32Array::from_iter_values(rejects.iter().map(|reject| reject.partition.0))),
        Arc::new(Int64Array::from_iter_values(rejects.iter().map(|reject| reject.offset.0))),
        Arc::new(timestamps.collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(rejects.iter().map(|reject| reject.key.as_deref()).collect::<BinaryArray>()),
        headers_column(rejects.iter().map(|reject| &reject.headers)),
        Arc::new(rejects.iter().map(|reject| reject.value.as_deref()).collect::<BinaryArray>()),
        Arc::new(StringArray::from_iter_values(rejects.iter().map(|reject| reject.class.as_str()))),
        Arc::new(StringArray::from_iter_values(rejects.iter().map(|reject| &reject.message))),
        Arc::new(StringArray::new_repeated(flow.name().as_str(), n_rows)),
        Arc::new(StringArray::new_repeated(flow.definition.flow.sql_hash.as_str(), n_rows)),
    ];
    RecordBatch::try_new(dead_letter_schema(), columns)
        .map_err(|source| Error::internal("cannot build the rows of dead letters").with_source(source))
}

fn header_fields() -> Fields {
    Fields::from(vec![Field::new("name", DataType::Utf8, false), Field::new("value", DataType::Binary, true)])
}

fn header_field() -> Field {
    Field::new("element", DataType::Struct(header_fields()), true)
}

/// Returns the headers of each record as a list, empty where it has none.
fn headers_column<'a>(headers: impl ExactSizeIterator<Item = &'a Headers>) -> ArrayRef {
    let mut builder =
        ListBuilder::new(StructBuilder::from_fields(header_fields(), headers.len())).with_field(header_field());
    for own in headers {
        for (name, value) in own {
            let entry = builder.values();
            if let Some(names) = entry.field_builder::<StringBuilder>(0) {
                names.append_value(name);
            }
            if let Some(values) = entry.field_builder::<BinaryBuilder>(1) {
                values.append_option(value.as_deref());
            }
            entry.append(true);
        }
        builder.append(true);
    }
    Arc::new(builder.finish())
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::{Offset, Partition};
    use arrow::datatypes::DataType;
    use arrow::json::LineDelimitedWriter;
    use bytes::Bytes;

    use super::*;
    use crate::decode::sample::{append_flow, value};
    use crate::hop::RejectClass;

    #[test]
    fn rejects_are_kept_whole() -> Result<()> {
        let flow = append_flow(&[value("id", DataType::Int64)])?;
        let full = Reject {
            partition: Partition(3),
            offset: Offset(41),
            timestamp_ms: Some(1_767_225_600_123),
            key: Some(Bytes::from_static(b"k\xff")),
            value: Some(Bytes::from_static(b"{")),
            headers: vec![("a".to_owned(), Some(Bytes::from_static(b"\0"))), ("a".to_owned(), None)],
            class: RejectClass::Malformed,
            message: "not valid JSON".to_owned(),
        };
        let bare = Reject {
            timestamp_ms: Some(i64::MAX),
            key: None,
            value: None,
            headers: Vec::new(),
            class: RejectClass::Tombstone,
            ..full.clone()
        };
        // Its producer counts microseconds: as milliseconds they are of the year 57971, which no reader knows.
        let hasty = Reject { timestamp_ms: Some(1_767_225_600_123_000), ..bare.clone() };
        let rows = dead_letter_rows(&flow, &"shop.orders".parse()?, &[full, bare, hasty])?;
        assert_eq!(rows.schema(), dead_letter_schema());
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(&rows).map_err(|source| Error::internal("cannot show the rows").with_source(source))?;
        let shown = String::from_utf8_lossy(&writer.into_inner()).into_owned();
        let expected = [
            r#"{"topic":"shop.orders","partition":3,"offset":41,"timestamp":"2026-01-01T00:00:00.123Z","key":"6bff","#,
            r#""headers":[{"name":"a","value":"00"},{"name":"a"}],"value":"7b","class":"malformed","#,
            r#""message":"not valid JSON","flow":"orders_upsert","sql_hash":"cafe"}"#,
            "\n",
        ];
        let unstamped = [
            r#"{"topic":"shop.orders","partition":3,"offset":41,"headers":[],"class":"tombstone","#,
            r#""message":"not valid JSON","flow":"orders_upsert","sql_hash":"cafe"}"#,
            "\n",
        ];
        assert_eq!(shown, expected.concat() + &unstamped.concat().repeat(2));
        Ok(())
    }
}
