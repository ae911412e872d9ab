//! Turns Arrow values into the text of cells.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use alluvium_catalog::{Error, Result};
use arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, make_encoder};
use arrow::util::display::FormatOptions;

use super::times::{Times, formatter};

/// For people: a space between date and time.
pub(super) const FOR_PEOPLE: FormatOptions<'static> = FormatOptions::new()
    .with_null("NULL")
    .with_formatter_factory(Some(&Times))
    .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
    .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"));

/// For programs: RFC 3339.
pub(super) const FOR_PROGRAMS: FormatOptions<'static> = FormatOptions::new();

/// The rows of a batch as text, cell by cell. Nested values are JSON.
pub(super) fn rows(batch: &RecordBatch, options: &FormatOptions<'static>) -> Result<Vec<Vec<Option<String>>>> {
    let columns = flat(batch)?;
    let formatters = columns.iter().map(|column| formatter(column.as_ref(), options));
    let formatters = formatters.collect::<Result<Vec<_>, ArrowError>>().map_err(unshowable)?;
    let cell = |i: usize, row: usize| -> Result<Option<String>> {
        if columns[i].is_null(row) {
            return Ok(None);
        }
        formatters[i].value(row).try_to_string().map(Some).map_err(unshowable)
    };
    (0..batch.num_rows()).map(|row| (0..columns.len()).map(|i| cell(i, row)).collect()).collect()
}

/// Tells whether values of the type line up at their right end.
pub(super) fn is_right_aligned(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

/// Returns the columns with nested ones replaced by JSON text.
fn flat(batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    columns
        .map(
            |(field, column)| {
                if field.data_type().is_nested() { json_text(field, column) } else { Ok(Arc::clone(column)) }
            },
        )
        .collect()
}

/// Returns `batch` with the columns that have no JSON form (maps whose keys are not text) replaced by text, and with
/// each name once: of members with the same name most readers of JSON keep one.
pub(super) fn jsonable(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let options = EncoderOptions::default();
    let names = names_once(schema.fields());
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for ((field, name), column) in schema.fields().iter().zip(names).zip(batch.columns()) {
        if make_encoder(field, column.as_ref(), &options).is_ok() {
            fields.push(Arc::new(field.as_ref().clone().with_name(name)));
            columns.push(Arc::clone(column));
        } else {
            fields.push(Arc::new(Field::new(name, DataType::Utf8, true)));
            columns.push(display_text(column)?);
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(unshowable)
}

/// Returns the names of `fields`, each once: the second `id` is `id_1`, the third `id_2`, but for names that are taken.
fn names_once(fields: &[FieldRef]) -> Vec<String> {
    let mut taken: HashSet<String> = fields.iter().map(|field| field.name().clone()).collect();
    let mut n_renamed: HashMap<&str, usize> = HashMap::new();
    let mut names = Vec::with_capacity(fields.len());
    for field in fields {
        let name = field.name();
        let Some(number) = n_renamed.get_mut(name.as_str()) else {
            n_renamed.insert(name, 0);
            names.push(name.clone());
            continue;
        };
        loop {
            *number += 1;
            let renamed = format!("{name}_{number}");
            if taken.insert(renamed.clone()) {
                names.push(renamed);
                break;
            }
        }
    }
    names
}

fn json_text(field: &FieldRef, column: &ArrayRef) -> Result<ArrayRef> {
    let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Times));
    let Ok(mut encoder) = make_encoder(field, column.as_ref(), &options) else { return display_text(column) };
    let mut texts = StringBuilder::new();
    let mut bytes = Vec::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            texts.append_null();
            continue;
        }
        bytes.clear();
        encoder.encode(row, &mut bytes);
        texts.append_value(String::from_utf8_lossy(&bytes));
    }
    Ok(Arc::new(texts.finish()))
}

fn display_text(column: &ArrayRef) -> Result<ArrayRef> {
    let formatter = formatter(column.as_ref(), &FOR_PEOPLE).map_err(unshowable)?;
    let mut texts = StringBuilder::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            texts.append_null();
        } else {
            texts.append_value(formatter.value(row).try_to_string().map_err(unshowable)?);
        }
    }
    Ok(Arc::new(texts.finish()))
}

/// Says that a value cannot be shown.
pub(super) fn unshowable(source: ArrowError) -> Error {
    Error::data("cannot show a value of the result").with_source(source)
}
