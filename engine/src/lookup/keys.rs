//! Keys as JSON objects, one spelling a key, and back.
//!
//! | type | form |
//! |---|---|
//! | integers | a number |
//! | BOOLEAN | `true`, `false` |
//! | STRING | a text, every byte of it |
//! | BINARY | a text of hexadecimal digits, lower case |
//! | DECIMAL, DATE, TIMESTAMP | a text as Arrow writes it; TIMESTAMP ends in `Z`, TIMESTAMP_NTZ does not |
//!
//! A value in another spelling is refused with the one that is meant, never rounded or cut to fit: 1.005 is no key of a
//! DECIMAL(18,2).

use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use alluvium_sql::sql_type;
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, StringArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use serde_json::{Map, Value};

/// The longest text of a key.
pub(super) const KEY_BYTES_MAX: usize = 4_096;

/// Returns each row of `keys` as the text of an object.
///
/// # Errors
/// `Internal` when a column has a type that no key has.
pub(super) fn to_texts(keys: &RecordBatch) -> Result<Vec<String>> {
    let mut columns = Vec::with_capacity(keys.num_columns());
    for (field, column) in keys.schema().fields().iter().zip(keys.columns()) {
        columns.push((field.name().clone(), to_values(column)?));
    }
    let text = |row: usize| {
        let members = columns.iter().map(|(name, values)| (name.clone(), values[row].clone()));
        Value::Object(members.collect()).to_string()
    };
    Ok((0..keys.num_rows()).map(text).collect())
}

/// Returns the columns `keys` of the objects that `texts` are.
///
/// # Errors
/// `Invalid` when a text is too long or not an object of exactly these members, with values of their types.
pub(super) fn from_texts<'a>(
    texts: &[String],
    keys: impl Iterator<Item = (&'a str, &'a DataType)>,
) -> Result<Vec<ArrayRef>> {
    let objects: Vec<Map<String, Value>> = texts.iter().map(|text| object(text)).collect::<Result<_>>()?;
    let keys: Vec<(&str, &DataType)> = keys.collect();
    let known = || keys.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    for name in objects.iter().flat_map(Map::keys) {
        if keys.iter().all(|(key, _)| key != name) {
            return Err(Error::invalid(format!("'{name}' is no key column; they are {}", known())));
        }
    }
    let column = |(name, data_type): &(&str, &DataType)| {
        let missing = || Error::invalid(format!("a key lacks column '{name}'; key columns are {}", known()));
        let values: Vec<&Value> =
            objects.iter().map(|key| key.get(*name).ok_or_else(missing)).collect::<Result<_>>()?;
        from_values(&values, data_type).map_err(|expected| {
            let place = format!("key column '{name}' is {}", sql_type(data_type));
            Error::invalid(format!("{place}, and its values are written {expected}"))
        })
    };
    keys.iter().map(column).collect()
}

fn object(text: &str) -> Result<Map<String, Value>> {
    if text.len() > KEY_BYTES_MAX {
        return Err(Error::invalid(format!("a key has {} bytes, {KEY_BYTES_MAX} are allowed", text.len())));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Error::invalid(r#"a key is not a JSON object such as {"order_id": 7}"#)),
        Err(cause) => Err(Error::invalid("a key is not JSON").with_source(cause)),
    }
}

/// Returns the one spelling of each value.
fn to_values(column: &ArrayRef) -> Result<Vec<Value>> {
    let failed = |cause| Error::internal("a key cannot be written").with_source(cause);
    let texts = |column: &dyn Array| -> Result<Vec<String>> {
        let texts = cast(column, &DataType::Utf8).map_err(failed)?;
        Ok(texts.as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect())
    };
    Ok(match column.data_type() {
        DataType::Boolean => column.as_boolean().iter().map(|value| Value::from(value.unwrap_or_default())).collect(),
        DataType::Binary => {
            column.as_binary::<i32>().iter().map(|bytes| hexadecimal(bytes.unwrap_or_default())).collect()
        }
        data_type if data_type.is_integer() => {
            let numbers = cast(column, &DataType::Int64).map_err(failed)?;
            let numbers = numbers.as_primitive::<arrow::datatypes::Int64Type>();
            numbers.values().iter().map(|number| Value::from(*number)).collect()
        }
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
            // In UTC, whatever the zone is called.
            let times = column.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(None::<Arc<str>>);
            texts(&times)?.into_iter().map(|text| Value::from(format!("{text}Z"))).collect()
        }
        _ => texts(column)?.into_iter().map(Value::from).collect(),
    })
}

/// Returns the values as a column, or an example of how they are written.
fn from_values(values: &[&Value], data_type: &DataType) -> std::result::Result<ArrayRef, String> {
    let column = read(values, data_type).ok_or_else(|| example(data_type).to_owned())?;
    let spelled = to_values(&column).map_err(|error| error.message().to_owned())?;
    match values.iter().zip(&spelled).find(|(written, spelled)| ***written != **spelled) {
        Some((_, spelled)) if column.null_count() == 0 => Err(format!("as {spelled}")),
        Some(_) => Err(example(data_type).to_owned()),
        None => Ok(column),
    }
}

fn read(values: &[&Value], data_type: &DataType) -> Option<ArrayRef> {
    let texts = || values.iter().map(|value| value.as_str()).collect::<Option<Vec<_>>>();
    let as_type = |column: &dyn Array| {
        cast_with_options(column, data_type, &CastOptions { safe: false, ..CastOptions::default() }).ok()
    };
    match data_type {
        DataType::Boolean => {
            let values = values.iter().map(|value| value.as_bool()).collect::<Option<Vec<_>>>()?;
            Some(Arc::new(BooleanArray::from(values)))
        }
        DataType::Binary => {
            let values = texts()?.into_iter().map(bytes).collect::<Option<Vec<_>>>()?;
            Some(Arc::new(BinaryArray::from_iter_values(values)))
        }
        DataType::Utf8 => Some(Arc::new(StringArray::from(texts()?))),
        data_type if data_type.is_integer() => {
            let values = values.iter().map(|value| value.as_i64()).collect::<Option<Vec<_>>>()?;
            as_type(&arrow::array::Int64Array::from(values))
        }
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) => {
            let texts = texts()?.into_iter().map(|text| text.strip_suffix('Z')).collect::<Option<Vec<_>>>()?;
            let local = DataType::Timestamp(TimeUnit::Microsecond, None);
            let options = CastOptions { safe: false, ..CastOptions::default() };
            let times = cast_with_options(&StringArray::from(texts), &local, &options).ok()?;
            let times = times.as_primitive::<TimestampMicrosecondType>().clone();
            Some(Arc::new(times.with_timezone(Arc::clone(zone))))
        }
        _ => as_type(&StringArray::from(texts()?)),
    }
}

fn example(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "true or false",
        DataType::Binary => r#"in hexadecimal digits, as "00ff""#,
        DataType::Date32 => r#"as "2026-03-01""#,
        DataType::Timestamp(_, Some(_)) => r#"as "2026-03-01T12:00:00Z""#,
        DataType::Timestamp(_, None) => r#"as "2026-03-01T12:00:00""#,
        DataType::Decimal128(..) => r#"as texts with all digits of their scale, as "12.30""#,
        data_type if data_type.is_integer() => "as numbers within its range, as 7",
        _ => "as texts",
    }
}

fn hexadecimal(bytes: &[u8]) -> Value {
    Value::from(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests;
