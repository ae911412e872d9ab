//! Turns fetched records into rows of the flow's source.
//!
//! **Decode never drops a record and never fails on one:** every record becomes exactly one row, one tombstone or one
//! [`Reject`]. Rows stand in the order of their records. Before it: the source. After it: transform. It is CPU work
//! without waiting; the caller puts it on a blocking thread.
//!
//! ```text
//! record -value-> limits -> plain? -> row                    (decode/json.rs: what JSON becomes which type)
//!    |              |          +-no-> row, or Reject         (decode/judge.rs, decode/fault.rs: why)
//!    |              +------> Reject
//!    +-no value-> key -> tombstone, or Reject                (decode/tombstone.rs)
//! ```

mod exact;
mod fault;
mod json;
mod judge;
mod metadata;
mod plain;
mod raw;
mod scan;
mod tombstone;
mod watch;

use std::sync::Arc;

use alluvium_catalog::{Error, Origin, Result, Topic};
use alluvium_sql::{Flow, HIDDEN_OFFSET, HIDDEN_PARTITION};
use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

pub use fault::Fault;
pub use json::{JsonReader, JsonRows};

use crate::hop::{Decoded, Fetched, Record, Records, Reject, RejectClass, Spent};
use metadata::{MetadataColumn, offsets, partitions, place};
use tombstone::TombstoneKeys;

/// Decodes the batches of one flow.
#[derive(Debug)]
pub struct Decoder {
    topic: Topic,
    record_bytes_max: usize,
    columns: Vec<Column>,
    /// Whether some record's metadata may not fit its column.
    checks_metadata: bool,
    rows_schema: SchemaRef,
    tombstones_schema: SchemaRef,
    values: JsonReader,
    /// None for flows that have no use for tombstones.
    keys: Option<TombstoneKeys>,
}

/// Where a column of the source comes from.
#[derive(Debug)]
enum Column {
    /// The record's value: a column of that name among what is read from JSON.
    Value(FieldRef),
    Metadata(MetadataColumn),
}

impl Column {
    fn is_checked(&self) -> bool {
        matches!(self, Self::Metadata(metadata) if metadata.is_checked())
    }
}

/// The records of a batch by what is to be done with them, as indices.
#[derive(Debug, Default)]
struct Sorted<'a> {
    documents: Vec<&'a [u8]>,
    document_records: Vec<u32>,
    tombstones: Vec<u32>,
    faults: Vec<(u32, Fault)>,
}

impl Decoder {
    /// Returns a decoder for `flow`.
    ///
    /// # Errors
    /// `Invalid` when a column's type cannot hold what the column is to hold, `Internal` when the flow contradicts
    /// itself.
    pub fn new(flow: &Flow) -> Result<Self> {
        let columns =
            flow.source_schema.fields().iter().map(|field| column_of(flow, field)).collect::<Result<Vec<_>>>()?;
        let value_fields = columns.iter().filter_map(|column| match column {
            Column::Value(field) => Some(Arc::clone(field)),
            Column::Metadata(_) => None,
        });
        let value_schema = SchemaRef::new(Schema::new(value_fields.collect::<Vec<_>>()));
        let keys = match flow.is_upsert() {
            true => Some(TombstoneKeys::new(&flow.key_format, &value_schema, flow.limits)?),
            false => None,
        };
        let nullable = flow.source_schema.fields().iter().map(|field| Field::clone(field).with_nullable(true));
        Ok(Self {
            topic: flow.definition.source.topic.clone(),
            record_bytes_max: flow.limits.record_bytes_max,
            checks_metadata: columns.iter().any(Column::is_checked),
            columns,
            rows_schema: with_provenance(flow.source_schema.fields().iter().map(|field| Field::clone(field)), false),
            tombstones_schema: with_provenance(nullable, true),
            values: JsonReader::new(value_schema, flow.limits)?,
            keys,
        })
    }

    /// Returns the schema of [`Decoded::rows`]: the flow's source schema, then `_alluvium_partition` and
    /// `_alluvium_offset`.
    pub fn rows_schema(&self) -> &SchemaRef {
        &self.rows_schema
    }

    /// Decodes a batch. [`Spent::decode`] stays zero: the caller holds the clock.
    ///
    /// # Errors
    /// `Data` when the rows together pass what one Arrow batch can hold. No record, however bad, is an error.
    pub fn decode(&mut self, fetched: Fetched) -> Result<Decoded> {
        let Fetched { records, span, took } = fetched;
        let Sorted { documents, document_records, tombstones, mut faults } = self.sort(&records);
        let JsonRows { rows: values, kept, faults: value_faults } = self.values.read(&documents)?;
        let row_records = pick(&document_records, &kept);
        faults.extend(relocate(&document_records, value_faults));
        let JsonRows { rows: deleted, kept: tombstone_records, faults: key_faults } =
            self.read_tombstones(&records, &tombstones)?;
        faults.extend(key_faults);
        faults.sort_by_key(|(index, _)| *index);
        let reject = |(index, Fault { class, message })| Reject::new(&records, place(index), class, message);
        let rejects = faults.into_iter().filter_map(reject).collect();
        let rows = self.assemble(&self.rows_schema, &values, &records, &row_records)?;
        let tombstones = (deleted.num_rows() > 0).then_some(deleted);
        let spent = Spent { fetch: took, ..Spent::default() };
        Ok(Decoded { rows, row_records, tombstones, tombstone_records, rejects, span, spent, records })
    }

    /// Decides for each record what is to be done with it; values are not looked into.
    fn sort<'a>(&self, records: &'a Records) -> Sorted<'a> {
        let mut sorted = Sorted::default();
        sorted.documents.reserve(records.len());
        sorted.document_records.reserve(records.len());
        for (index, record) in (0_u32..).zip(records.iter()) {
            match (self.fault(records, index, record), record.value) {
                (Some(fault), _) => sorted.faults.push((index, fault)),
                (None, None) => sorted.tombstones.push(index),
                (None, Some(value)) => {
                    sorted.documents.push(value);
                    sorted.document_records.push(index);
                }
            }
        }
        sorted
    }

    /// Returns what keeps a record from being a row or tombstone, before its value or key is read.
    fn fault(&self, records: &Records, index: u32, record: Record<'_>) -> Option<Fault> {
        let Some(value) = record.value else {
            if self.keys.is_none() {
                let message = "a tombstone (a record without value), and the flow only adds rows";
                return Some(Fault::new(RejectClass::Tombstone, message));
            }
            return self.metadata_fault(|metadata| metadata.type_fault(records, place(index)));
        };
        if value.len() > self.record_bytes_max {
            let message = format!("{} bytes are more than record.max.bytes ({})", value.len(), self.record_bytes_max);
            return Some(Fault::new(RejectClass::TooLarge, message));
        }
        self.metadata_fault(|metadata| metadata.fault(records, place(index)))
    }

    /// Returns the first fault that `find` sees in a column of metadata.
    fn metadata_fault(&self, find: impl Fn(&MetadataColumn) -> Option<Fault>) -> Option<Fault> {
        if !self.checks_metadata {
            return None;
        }
        self.columns.iter().filter(|column| column.is_checked()).find_map(|column| match column {
            Column::Metadata(metadata) => find(metadata),
            Column::Value(_) => None,
        })
    }

    /// Reads the keys of the tombstones at `indices`. `kept` and `faults` of the answer are indices of records.
    fn read_tombstones(&mut self, records: &Records, indices: &[u32]) -> Result<JsonRows> {
        let Some(keys) = self.keys.as_mut().filter(|_| !indices.is_empty()) else {
            let rows = RecordBatch::new_empty(SchemaRef::clone(&self.tombstones_schema));
            return Ok(JsonRows { rows, kept: Vec::new(), faults: Vec::new() });
        };
        let JsonRows { rows: values, kept, faults } = keys.read(records, indices)?;
        let kept = pick(indices, &kept);
        let rows = self.assemble(&self.tombstones_schema, &values, records, &kept)?;
        Ok(JsonRows { rows, kept, faults: relocate(indices, faults).collect() })
    }

    /// Puts the columns together: those that `values` has, nulls for others from the value, metadata, provenance.
    fn assemble(
        &self,
        schema: &SchemaRef,
        values: &RecordBatch,
        records: &Records,
        indices: &[u32],
    ) -> Result<RecordBatch> {
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for column in &self.columns {
            arrays.push(match column {
                Column::Metadata(metadata) => metadata.build(&self.topic, records, indices)?,
                Column::Value(field) => match values.column_by_name(field.name()) {
                    Some(array) => Arc::clone(array),
                    None => new_null_array(field.data_type(), indices.len()),
                },
            });
        }
        arrays.push(Arc::new(partitions(records, indices)));
        arrays.push(Arc::new(offsets(records, indices)));
        RecordBatch::try_new(SchemaRef::clone(schema), arrays)
            .map_err(|source| Error::internal("cannot put the columns of a batch together").with_source(source))
    }
}

fn column_of(flow: &Flow, field: &FieldRef) -> Result<Column> {
    let declared = flow.definition.source.columns.iter().find(|declared| declared.column.name == *field.name());
    match declared.map(|declared| &declared.origin) {
        Some(Origin::Value) => Ok(Column::Value(Arc::clone(field))),
        Some(Origin::Metadata(key)) => Ok(Column::Metadata(MetadataColumn::new(key.clone(), Arc::clone(field))?)),
        Some(Origin::Computed(_)) | None => {
            Err(Error::internal(format!("the source declares no column '{}' to decode", field.name())))
        }
    }
}

fn with_provenance(fields: impl Iterator<Item = Field>, nullable: bool) -> SchemaRef {
    let hidden =
        [Field::new(HIDDEN_PARTITION, DataType::Int32, nullable), Field::new(HIDDEN_OFFSET, DataType::Int64, nullable)];
    SchemaRef::new(Schema::new(fields.chain(hidden).collect::<Vec<_>>()))
}

/// Returns the records of the documents at `places`.
fn pick(records: &[u32], places: &[u32]) -> Vec<u32> {
    places.iter().filter_map(|at| records.get(place(*at)).copied()).collect()
}

/// Turns faults of documents into faults of their records.
fn relocate(records: &[u32], faults: Vec<(u32, Fault)>) -> impl Iterator<Item = (u32, Fault)> {
    faults.into_iter().filter_map(|(at, fault)| Some((records.get(place(at)).copied()?, fault)))
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
