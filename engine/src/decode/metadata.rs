//! Columns that Kafka tells beside the value: key, topic, partition, offset, timestamp, headers.
//!
//! A record whose metadata does not fit (a STRING key that is no UTF-8, a NOT NULL header that is absent) is found
//! before its value is decoded, so that building a column cannot fail on a record.

use std::sync::Arc;

use alluvium_catalog::{Error, MetadataKey, Result, Topic};
use alluvium_sql::sql_type;
use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};

use super::fault::{Fault, OUTSIDE_YEARS, shown};
use crate::calendar::micros;
use crate::hop::{Records, RejectClass};

/// One `METADATA FROM` column.
#[derive(Debug)]
pub(super) struct MetadataColumn {
    key: MetadataKey,
    field: FieldRef,
    /// Whether some record may not fit, and each has to be looked at.
    checked: bool,
}

impl MetadataColumn {
    /// Returns the column `field` that holds `key`.
    ///
    /// # Errors
    /// `Invalid` when the type of `field` cannot hold `key`.
    pub(super) fn new(key: MetadataKey, field: FieldRef) -> Result<Self> {
        let data_type = field.data_type();
        let (fits, choices) = match key {
            MetadataKey::Key | MetadataKey::Header(_) => {
                (is_binary(data_type) || is_text(data_type), "BINARY or STRING")
            }
            MetadataKey::Topic => (is_text(data_type), "STRING"),
            MetadataKey::Partition => (matches!(data_type, DataType::Int32 | DataType::Int64), "INT or BIGINT"),
            MetadataKey::Offset => (*data_type == DataType::Int64, "BIGINT"),
            MetadataKey::Timestamp => {
                (matches!(data_type, DataType::Timestamp(..) | DataType::Int64), "TIMESTAMP or BIGINT")
            }
        };
        if !fits {
            let (name, got) = (field.name(), sql_type(data_type));
            return Err(Error::invalid(format!("metadata column '{name}' cannot be {got}"))
                .with_hint(format!("declare it {choices}")));
        }
        let checked = match key {
            MetadataKey::Key | MetadataKey::Header(_) => is_text(data_type) || !field.is_nullable(),
            MetadataKey::Timestamp => true,
            MetadataKey::Topic | MetadataKey::Partition | MetadataKey::Offset => false,
        };
        Ok(Self { key, field, checked })
    }

    /// Tells whether [`fault`](Self::fault) has to be asked.
    pub(super) fn is_checked(&self) -> bool {
        self.checked
    }

    /// Returns what keeps the record at `index` out of the column.
    pub(super) fn fault(&self, records: &Records, index: usize) -> Option<Fault> {
        self.null_fault(records, index).or_else(|| self.type_fault(records, index))
    }

    fn null_fault(&self, records: &Records, index: usize) -> Option<Fault> {
        let record = records.get(index)?;
        let (absent, what) = match &self.key {
            MetadataKey::Key => (record.key.is_none(), "the record has no key".to_owned()),
            MetadataKey::Timestamp => (record.timestamp_ms.is_none(), "the record has no timestamp".to_owned()),
            MetadataKey::Header(name) => {
                (header(records, index, name).is_none(), format!("the record has no header '{name}'"))
            }
            MetadataKey::Topic | MetadataKey::Partition | MetadataKey::Offset => return None,
        };
        let message = || format!("column '{}': declared NOT NULL, but {what}", self.field.name());
        (absent && !self.field.is_nullable()).then(|| Fault::new(RejectClass::NullViolation, message()))
    }

    /// Returns what keeps the record at `index` out of the column where that may be null.
    pub(super) fn type_fault(&self, records: &Records, index: usize) -> Option<Fault> {
        let record = records.get(index)?;
        let data_type = self.field.data_type();
        let bytes = match &self.key {
            MetadataKey::Key => record.key,
            MetadataKey::Header(name) => header(records, index, name),
            MetadataKey::Timestamp => {
                let millis = record.timestamp_ms?;
                let unfit = matches!(data_type, DataType::Timestamp(..)) && micros(millis).is_none();
                return unfit.then(|| self.mismatch(&format!("{millis} epoch milliseconds: {OUTSIDE_YEARS}")));
            }
            MetadataKey::Topic | MetadataKey::Partition | MetadataKey::Offset => return None,
        };
        let bytes = bytes.filter(|bytes| is_text(data_type) && std::str::from_utf8(bytes).is_err())?;
        Some(self.mismatch(&format!("bytes that are not UTF-8: \"{}\"", shown(bytes))))
    }

    fn mismatch(&self, got: &str) -> Fault {
        let (name, expected) = (self.field.name(), sql_type(self.field.data_type()));
        Fault::new(RejectClass::TypeMismatch, format!("column '{name}': expected {expected}, got {got}"))
    }

    /// Returns the column for the records at `indices`, none of which has a fault.
    ///
    /// # Errors
    /// `Data` when the bytes pass what one Arrow array can hold (2 GiB).
    pub(super) fn build(&self, topic: &Topic, records: &Records, indices: &[u32]) -> Result<ArrayRef> {
        let picked = || indices.iter().filter_map(|index| records.get(place(*index)));
        let built: ArrayRef = match &self.key {
            MetadataKey::Topic => Arc::new(StringArray::new_repeated(topic.as_str(), indices.len())),
            MetadataKey::Partition => Arc::new(partitions(records, indices)),
            MetadataKey::Offset => Arc::new(offsets(records, indices)),
            MetadataKey::Timestamp if *self.field.data_type() == DataType::Int64 => {
                Arc::new(picked().map(|record| record.timestamp_ms).collect::<Int64Array>())
            }
            MetadataKey::Timestamp => {
                let times = picked().map(|record| record.timestamp_ms.and_then(micros));
                Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
            }
            MetadataKey::Key => self.bytes(picked().map(|record| record.key)),
            MetadataKey::Header(name) => self.bytes(indices.iter().map(|index| header(records, place(*index), name))),
        };
        if built.data_type() == self.field.data_type() {
            return Ok(built);
        }
        cast(&built, self.field.data_type()).map_err(|source| {
            Error::data(format!("cannot build metadata column '{}'", self.field.name())).with_source(source)
        })
    }

    fn bytes<'a>(&self, values: impl Iterator<Item = Option<&'a [u8]>>) -> ArrayRef {
        if is_binary(self.field.data_type()) {
            let mut builder = BinaryBuilder::new();
            values.for_each(|value| builder.append_option(value));
            return Arc::new(builder.finish());
        }
        let mut builder = StringBuilder::new();
        values.for_each(|value| builder.append_option(value.and_then(|bytes| std::str::from_utf8(bytes).ok())));
        Arc::new(builder.finish())
    }
}

/// Returns the partitions of the records at `indices`.
pub(super) fn partitions(records: &Records, indices: &[u32]) -> Int32Array {
    let mut partitions = Vec::with_capacity(indices.len());
    partitions.extend(indices.iter().filter_map(|index| Some(records.get(place(*index))?.partition.0)));
    Int32Array::from(partitions)
}

/// Returns the offsets of the records at `indices`.
pub(super) fn offsets(records: &Records, indices: &[u32]) -> Int64Array {
    let mut offsets = Vec::with_capacity(indices.len());
    offsets.extend(indices.iter().filter_map(|index| Some(records.get(place(*index))?.offset.0)));
    Int64Array::from(offsets)
}

/// Returns the value of the last header called `name`; none where it is absent or null.
fn header<'a>(records: &'a Records, index: usize, name: &str) -> Option<&'a [u8]> {
    let last = records.headers(index).iter().rev().find(|(own, _)| own == name)?;
    last.1.as_deref()
}

/// Returns a record's index as `usize`, which holds every `u32` on the machines that this runs on.
pub(super) fn place(index: u32) -> usize {
    index as usize
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}
