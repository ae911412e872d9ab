//! The keys of tombstones: a record without value deletes the row that its key names.
//!
//! A key is brought into the form of a JSON object and read like a value, so keys and values mean the same: the `"7"`
//! of a raw key and the `7` of a value are one BIGINT. All key columns must be there and not null.

use std::ops::Range;

use alluvium_catalog::{Error, Result};
use alluvium_sql::{KeyFormat, RecordLimits};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::fault::{Fault, shown};
use super::json::{JsonReader, JsonRows};
use super::metadata::place;
use crate::hop::{Records, RejectClass};

/// Reads the keys of tombstones into key columns.
#[derive(Debug)]
pub(super) struct TombstoneKeys {
    /// How a key that is no object becomes one with this single column; none where every key is an object.
    single: Option<Single>,
    reader: JsonReader,
    key_bytes_max: usize,
}

#[derive(Debug)]
struct Single {
    /// `{"column":`
    opening: String,
    data_type: DataType,
    raw: bool,
}

impl TombstoneKeys {
    /// Returns a reader of keys in `format` for those of its columns that `values` has.
    ///
    /// # Errors
    /// `Internal` when `format` names a column that is not among `values`; the compiler refuses that.
    pub(super) fn new(format: &KeyFormat, values: &Schema, limits: RecordLimits) -> Result<Self> {
        let (names, raw) = match format {
            KeyFormat::Json { fields } => (fields.as_slice(), false),
            KeyFormat::Raw { field } => (std::slice::from_ref(field), true),
        };
        let find = |name: &String| {
            let field = values.field_with_name(name).map_err(|source| {
                Error::internal(format!("key field '{name}' is not a value column of the source")).with_source(source)
            })?;
            Ok(Field::clone(field).with_nullable(false))
        };
        let fields = names.iter().map(find).collect::<Result<Vec<_>>>()?;
        let single = match fields.as_slice() {
            [field] => Some(Single {
                opening: format!("{{{}:", quoted(field.name())),
                data_type: field.data_type().clone(),
                raw,
            }),
            _ => None,
        };
        let reader = JsonReader::new(SchemaRef::new(Schema::new(fields)), limits)?;
        Ok(Self { single, reader, key_bytes_max: limits.record_bytes_max })
    }

    /// Reads the keys of the records at `indices`. `kept` and `faults` of the answer are places in `indices`.
    pub(super) fn read(&mut self, records: &Records, indices: &[u32]) -> Result<JsonRows> {
        let mut arena = Vec::new();
        let mut ranges = Vec::with_capacity(indices.len());
        let mut places = Vec::with_capacity(indices.len());
        let mut faults = Vec::new();
        for (at, index) in (0_u32..).zip(indices) {
            match self.object_of(records.get(place(*index)).and_then(|record| record.key), &mut arena) {
                Ok(range) => {
                    ranges.push(range);
                    places.push(at);
                }
                Err(message) => faults.push((at, unreadable(&message))),
            }
        }
        let documents: Vec<&[u8]> = ranges.into_iter().filter_map(|range| arena.get(range)).collect();
        let read = self.reader.read(&documents)?;
        let own = |at: u32| places.get(place(at)).copied();
        let kept = read.kept.into_iter().filter_map(own).collect();
        faults.extend(read.faults.into_iter().filter_map(|(at, fault)| Some((own(at)?, unreadable(&fault.message)))));
        Ok(JsonRows { rows: read.rows, kept, faults })
    }

    /// Appends the object that `key` stands for to `arena`.
    fn object_of(&self, key: Option<&[u8]>, arena: &mut Vec<u8>) -> Result<Range<usize>, String> {
        let key = key.ok_or("it is null")?;
        if key.len() > self.key_bytes_max {
            return Err(format!("{} bytes are more than record.max.bytes ({})", key.len(), self.key_bytes_max));
        }
        let start = arena.len();
        match &self.single {
            Some(single) if single.raw => {
                let value = raw_value(key, &single.data_type)?;
                arena.extend_from_slice(single.opening.as_bytes());
                arena.extend_from_slice(value.as_bytes());
                arena.push(b'}');
            }
            Some(single) if !key.trim_ascii_start().starts_with(b"{") => {
                // Checked before it is wrapped: `1,"column":2` must not become an object.
                serde_json::from_slice::<serde::de::IgnoredAny>(key)
                    .map_err(|error| format!("not valid JSON: {error}: {}", shown(key)))?;
                arena.extend_from_slice(single.opening.as_bytes());
                arena.extend_from_slice(key);
                arena.push(b'}');
            }
            _ => arena.extend_from_slice(key),
        }
        Ok(start..arena.len())
    }
}

/// Returns the JSON that says what the bytes of a raw key say in a column of `data_type`.
fn raw_value(key: &[u8], data_type: &DataType) -> Result<String, String> {
    if matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView) {
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        return Ok(quoted(&hex));
    }
    let text = std::str::from_utf8(key).map_err(|_| format!("not UTF-8: \"{}\"", shown(key)))?;
    let bare = *data_type == DataType::Boolean && matches!(text, "true" | "false");
    Ok(if bare { text.to_owned() } else { quoted(text) })
}

fn unreadable(message: &str) -> Fault {
    Fault::new(RejectClass::Tombstone, format!("cannot read the key of the tombstone: {message}"))
}

/// Returns `text` as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
